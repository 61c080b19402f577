package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// Path health: everything that the stack watches goes wrong at once. Each alert
// fires, `status` says what to do, and when that is done each is at rest again.
// (The one that cannot be provoked without harm to the machine, and the one for
// which Loki must refuse lines, are in assets.)
func TestPathHealth(t *testing.T) {
	p := stackTest(t)
	p.must(t, "up", "--pull", "never")
	eventually(t, 30*time.Second, "everything was scraped", func() error {
		if list, err := askPrometheus(`up{job!="prometheus"} == 1`); err != nil || len(list) < 8 {
			return fmt.Errorf("%d of 8 targets, error %v", len(list), err)
		}
		return nil
	})
	if got := firing(t); len(got) > 0 {
		t.Errorf("on a stack that was just started: %q", got)
	}

	docker(t, "restart", "zeekdemo-zeek-geneve-1") // its exporter stays in the network namespace of before
	docker(t, "stop", "zeekdemo-loki-1")
	logged := replaySample(t, p, "vxlan", true)
	docker(t, "kill", "--signal", "STOP", "zeekdemo-zeek-1") // it runs, and does nothing
	var floods []run
	for _, via := range []string{"direct", "published"} {
		floods = append(floods, flood(t, p, via))
	}
	broken := []string{"CollectorCannotDeliver", "HostSocketDrops host", "PathNotWatched zeek-geneve", "SensorDown zeek",
		"SensorRestarted zeek-geneve", "SensorQueueFull zeek", "SensorReadsNothing zeek", "SensorSocketDrops zeek", "ServiceDown loki"}
	eventually(t, 45*time.Second, "alerts fire", func() error {
		got := firing(t) // a flood may overflow a CPU's backlog as well
		for _, name := range broken {
			if !slices.Contains(got, name) {
				return fmt.Errorf("%q without %s", got, name)
			}
		}
		return nil
	})
	checkStatus(t, p, broken)
	annotated(t, logged, "complete: 432 packets")
	annotated(t, floods[0], "incomplete: ")

	docker(t, "kill", "--signal", "CONT", "zeekdemo-zeek-1")
	p.must(t, "up", "--pull", "never")
	states := []string{"CollectorCannotDeliver", "PathNotWatched zeek-geneve", "SensorDown zeek", "SensorQueueFull zeek", "SensorReadsNothing zeek", "ServiceDown loki"}
	eventually(t, 45*time.Second, "alerts rest", func() error {
		for _, name := range firing(t) {
			if slices.Contains(states, name) { // what was lost is remembered for a minute
				return fmt.Errorf("%s fires", name)
			}
		}
		return nil
	})
	eventually(t, 30*time.Second, "the run is in the list that dashboards choose from, for Loki has its lines", func() error {
		list, err := askPrometheus(fmt.Sprintf(`zeekdemo_run_connections_total{sensor="zeek", vni="%d"}`, logged.Run))
		if err != nil || len(list) != 1 {
			return fmt.Errorf("%d series, error %v", len(list), err)
		}
		return nil
	})
	p.must(t, "status")
	eventually(t, 30*time.Second, "every panel of Path health has data", pathHealthHasData)
}

// flood sends far more than a paused sensor's queue holds, without waiting.
func flood(t *testing.T, p program, via string) run {
	t.Helper()
	r := p.run(t, "replay", "--json", "--via", via, "--lossless", "off", "--pace", "max", "--loop", "400")
	var sent run
	if err := json.Unmarshal([]byte(r.stdout), &sent); err != nil || r.code != 3 {
		t.Fatalf("exit code %d, %v\n%s%s", r.code, err, r.stdout, r.stderr)
	}
	return sent
}

// series is one of a query's answer.
type series struct {
	Metric map[string]string
	Value  [2]any
}

func askPrometheus(expr string) ([]series, error) {
	var answer struct {
		Data struct{ Result []series }
	}
	err := fetch("http://127.0.0.1:19090/api/v1/query?"+url.Values{"query": {expr}}.Encode(), &answer)
	return answer.Data.Result, err
}

// firing names the alerts and what each is about, sorted.
func firing(t *testing.T) []string {
	t.Helper()
	list, err := askPrometheus(`ALERTS{alertstate="firing"}`)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, s := range list {
		about := s.Metric["namespace"]
		switch s.Metric["alertname"] {
		case "SensorDown", "SensorRestarted":
			about = s.Metric["sensor"]
		case "ServiceDown":
			about = s.Metric["job"]
		}
		names[strings.TrimSpace(s.Metric["alertname"]+" "+about)] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// checkStatus wants the alerts in the status, each with what to do.
func checkStatus(t *testing.T, p program, want []string) {
	t.Helper()
	var document struct {
		Alerts []struct{ Name, Summary, Action string }
	}
	if err := json.Unmarshal([]byte(p.run(t, "status", "--json").stdout), &document); err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, a := range document.Alerts {
		told[a.Name] = true
		if a.Summary == "" || !strings.Contains(a.Action, "`zeekdemo ") {
			t.Errorf("status says %+v", a)
		}
	}
	for _, name := range want {
		name, _, _ = strings.Cut(name, " ")
		if !told[name] {
			t.Errorf("status --json does not tell %s: %+v", name, document.Alerts)
		}
	}
	table := p.run(t, "status").stdout
	if !strings.Contains(table, "Sensor zeek does not answer.") || !strings.Contains(table, "`zeekdemo up` starts it") {
		t.Errorf("status does not tell the alerts:\n%s", table)
	}
}

// annotated wants one region in Grafana for a run, which says what became of it.
func annotated(t *testing.T, r run, want string) {
	t.Helper()
	var list []struct {
		Time, TimeEnd int64
		Text          string
		Tags          []string
		Data          struct {
			Kind, Verdict string
			Run           int
			Packets       uint64
		}
	}
	if err := fetch(fmt.Sprintf("http://zeek:zeek@127.0.0.1:13000/api/annotations?tags=zeekdemo&tags=run:%d", r.Run), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].TimeEnd <= list[0].Time || !strings.Contains(list[0].Text, fmt.Sprintf("Run %d: ", r.Run)) || !strings.Contains(list[0].Text, want) {
		t.Fatalf("run %d: annotations %+v, want one region with %q", r.Run, list, want)
	}
	verdict, _, _ := strings.Cut(want, ":")
	if d := list[0].Data; d.Kind != "replay" || d.Verdict != verdict || d.Run != int(r.Run) || d.Packets == 0 {
		t.Errorf("run %d: data %+v", r.Run, d)
	}
}

// pathHealthHasData executes what the provisioned dashboard asks Prometheus.
// Zeek's own metrics, of which a stand-in has few, are left to assets, where a
// real Zeek's are recorded.
func pathHealthHasData() error {
	var found struct {
		Dashboard struct {
			Panels []struct {
				Title   string
				Targets []struct {
					Expr       string
					Datasource struct{ Type string }
				}
			}
		}
	}
	if err := fetch("http://zeek:zeek@127.0.0.1:13000/api/dashboards/uid/zeekdemo-path", &found); err != nil {
		return err
	}
	values := strings.NewReplacer("$__rate_interval", "20s", "$__range", "15m", "$sensor", ".+")
	asked := 0
	for _, panel := range found.Dashboard.Panels {
		for _, target := range panel.Targets {
			if target.Datasource.Type != "prometheus" || strings.Contains(target.Expr, "zeek_") {
				continue
			}
			asked++
			list, err := askPrometheus(values.Replace(target.Expr))
			if err == nil && len(list) == 0 {
				err = errors.New("no data")
			}
			if err != nil {
				return fmt.Errorf("panel %s: %s: %w", panel.Title, target.Expr, err)
			}
		}
	}
	if asked < 30 {
		return fmt.Errorf("only %d queries", asked)
	}
	return nil
}
