package orchestrate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// Alert is one that Prometheus has found to fire, see the rules in
// assets/stack/prometheus/rules.yml.
type Alert struct {
	Name     string    `json:"name"`
	Severity string    `json:"severity"` // warning or critical
	Summary  string    `json:"summary"`  // what is wrong
	Action   string    `json:"action"`   // what to do
	Since    time.Time `json:"since"`
}

// Alerts asks the stack's Prometheus for the alerts that fire, the critical ones
// first. There are none where it cannot be asked from here: that it is down, or
// far away, Status tells.
func Alerts(ctx context.Context, engine Engine) ([]Alert, error) {
	info, err := engine.Info(ctx)
	if err != nil {
		return nil, err
	}
	prometheus, err := ServiceByName("prometheus")
	if err != nil {
		return nil, err
	}
	containers, err := byService(ctx, engine)
	if err != nil {
		return nil, err
	}
	at, ok := prometheus.published(containers)
	if !ok || !containers[prometheus.Name].Running() || info.Remote && at.Addr().IsLoopback() {
		return nil, nil
	}
	var answer firing
	if err := NewQueryClient(probeTimeout).JSON(ctx, "http://"+at.String()+"/api/v1/alerts", &answer); err != nil {
		return nil, fmt.Errorf("ask Prometheus for alerts: %w", err)
	}
	return answer.alerts(), nil
}

// firing is an answer of /api/v1/alerts
// (https://prometheus.io/docs/prometheus/latest/querying/api/#alerts).
type firing struct {
	Data struct {
		Alerts []struct {
			Labels, Annotations map[string]string
			State               string
			ActiveAt            time.Time
		}
	}
}

// alerts are those that fire, the critical ones first.
func (f firing) alerts() []Alert {
	var list []Alert
	for _, a := range f.Data.Alerts {
		if a.State == "firing" {
			list = append(list, Alert{Name: a.Labels["alertname"], Severity: a.Labels["severity"],
				Summary: a.Annotations["summary"], Action: a.Annotations["action"], Since: a.ActiveAt})
		}
	}
	slices.SortFunc(list, func(a, b Alert) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), a.Since.Compare(b.Since), cmp.Compare(a.Name+a.Summary, b.Name+b.Summary))
	})
	return list
}
