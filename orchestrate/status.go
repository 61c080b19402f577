package orchestrate

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// ErrNoStack says that nothing of the stack exists.
var ErrNoStack = WithHint(errors.New("no stack is here"), "start one with `zeekdemo up`")

// ServiceStatus is one service as `status` shows it.
type ServiceStatus struct {
	Service   string                `json:"service"`
	State     string                `json:"state"`           // of its container; "missing" without one
	Health    string                `json:"health"`          // "healthy", or why it is not
	Healthy   bool                  `json:"healthy"`         // it runs and answers
	Image     string                `json:"image,omitempty"` // as in the Compose file
	Container string                `json:"container,omitempty"`
	Takes     string                `json:"takes,omitempty"`     // of a sensor: "vxlan", or "geneve:" and its [GeneveMode]
	Workers   int                   `json:"workers,omitempty"`   // of a sensor: the processes that share its port
	Mode      GeneveMode            `json:"-"`                   // of a sensor: what its datagrams hold
	Addresses map[string]netip.Addr `json:"addresses,omitempty"` // by network
	Ports     []string              `json:"ports,omitempty"`     // e.g. "127.0.0.1:4789/udp"
	URL       string                `json:"url,omitempty"`
	StartedAt *time.Time            `json:"started_at,omitempty"`
	UptimeSec float64               `json:"uptime_seconds,omitempty"`
}

// Status asks the engine and every service once. Without any container of the
// stack it returns [ErrNoStack].
func Status(ctx context.Context, engine Engine) ([]ServiceStatus, error) {
	info, err := engine.Info(ctx)
	if err != nil {
		return nil, err
	}
	containers, err := byService(ctx, engine)
	if err != nil {
		return nil, err
	}
	if len(containers) == 0 {
		return nil, ErrNoStack
	}
	return statusOf(ctx, newProber(info), containers), nil
}

// all asks every service at the same time; the answers are in the order of
// [Services].
func (p *prober) all(ctx context.Context, containers map[string]Container) []error {
	answers := make([]error, len(Services()))
	var wg sync.WaitGroup
	for i, s := range Services() {
		wg.Go(func() { answers[i] = p.ready(ctx, s, containers) })
	}
	wg.Wait()
	return answers
}

func statusOf(ctx context.Context, p *prober, containers map[string]Container) []ServiceStatus {
	answers := p.all(ctx, containers)
	list := make([]ServiceStatus, 0, len(answers))
	for i, s := range Services() {
		list = append(list, describe(s, containers, answers[i]))
	}
	return list
}

func describe(s Service, containers map[string]Container, answer error) ServiceStatus {
	c, ok := containers[s.Name]
	st := ServiceStatus{Service: s.Name, State: "missing", Health: "healthy", Healthy: answer == nil}
	if answer != nil {
		st.Health = answer.Error()
	}
	if !ok {
		return st
	}
	st.State, st.Image, st.Container, st.Addresses, st.URL = c.State, c.Image, c.Name, c.Addresses, s.URL(containers)
	st.Takes, st.Mode = s.takes(c), s.mode(c)
	if s.IsSensor() {
		st.Workers = workersOf(c)
	}
	for _, p := range c.Ports {
		if p.HostPort != 0 {
			st.Ports = append(st.Ports, netip.AddrPortFrom(p.HostIP, p.HostPort).String()+"/"+p.Protocol)
		}
	}
	slices.SortFunc(st.Ports, cmp.Compare[string])
	if c.Running() && !c.StartedAt.IsZero() {
		started := c.StartedAt
		st.StartedAt, st.UptimeSec = &started, time.Since(started).Seconds()
	}
	return st
}

// AllHealthy reports whether every service runs and answers.
func AllHealthy(list []ServiceStatus) bool {
	return !slices.ContainsFunc(list, func(s ServiceStatus) bool { return !s.Healthy })
}
