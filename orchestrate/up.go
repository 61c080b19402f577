package orchestrate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// pollInterval is the pause between two looks at services that are not ready.
const pollInterval = 200 * time.Millisecond

// tailLines is how much of a failed service's log is shown.
const tailLines = 10

// Up makes the stack what the settings say and waits until every service
// answers. It can be repeated: what is right is left alone, and a half-started
// stack is completed. On failure nothing is torn down, so that it can be
// looked at; the error is a [NotReadyError] where a service does not answer
// within the time limit, which starts when all containers were started.
func Up(ctx context.Context, engine Engine, compose []byte, s Settings, limit time.Duration, progress Progress) ([]ServiceStatus, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	info, err := engine.Info(ctx)
	if err != nil {
		return nil, err
	}
	project := Project{Name: ProjectName, Compose: compose, Env: s.Environment(), Pull: s.Pull}
	if err := engine.Up(ctx, project, progress); err != nil {
		return nil, explainUp(ctx, engine, err)
	}
	w := waiter{engine: engine, prober: newProber(info), progress: progress, reported: map[string]string{}}
	if err := w.wait(ctx, limit); err != nil {
		return nil, err
	}
	return statusOf(ctx, w.prober, w.containers), nil
}

// NotReadyError says which service does not answer, why, and what it printed.
type NotReadyError struct {
	Service string
	Limit   time.Duration
	Reason  error
	Tail    []string // its last log lines
}

func (e *NotReadyError) Error() string {
	return fmt.Sprintf("wait for %s: not ready after %s: %v", e.Service, e.Limit, e.Reason)
}

func (e *NotReadyError) Unwrap() error { return e.Reason }

// Hint tells how to look further.
func (e *NotReadyError) Hint() string {
	return fmt.Sprintf("`zeekdemo logs %s` shows all it printed; `zeekdemo up` again goes on waiting, `zeekdemo down` removes the stack", e.Service)
}

// waiter watches the services until all are ready.
type waiter struct {
	engine     Engine
	prober     *prober
	progress   Progress
	containers map[string]Container
	reported   map[string]string // what was last said of each service
}

func (w *waiter) wait(ctx context.Context, limit time.Duration) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		late, reason, err := w.look(ctx)
		if err != nil || late == "" {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-deadline.C:
			return &NotReadyError{Service: late, Limit: limit, Reason: reason, Tail: w.tail(ctx, late)}
		case <-time.After(pollInterval):
		}
	}
}

// look asks every service once, reports what changed, and names the first that
// is not ready.
func (w *waiter) look(ctx context.Context) (late string, reason, err error) {
	if w.containers, err = byService(ctx, w.engine); err != nil {
		return "", nil, err
	}
	for i, err := range w.prober.all(ctx, w.containers) {
		name := Services()[i].Name
		w.report(name, err)
		if err != nil && late == "" {
			late, reason = name, err
		}
	}
	return late, reason, nil
}

func (w *waiter) report(name string, err error) {
	e := Event{ID: "Service " + name, Text: "Ready", State: Done}
	if err != nil {
		e.Text, e.Detail, e.State = "Waiting", err.Error(), Working
	}
	if said := e.Text + e.Detail; w.reported[name] != said {
		w.reported[name] = said
		w.progress.send(e)
	}
}

func (w *waiter) tail(ctx context.Context, service string) []string {
	var lines []string
	req := LogRequest{Project: ProjectName, Service: service, Tail: fmt.Sprint(tailLines),
		Line: func(_, line string) { lines = append(lines, line) }}
	if err := w.engine.Logs(ctx, req); err != nil {
		return []string{fmt.Sprintf("(its log cannot be read: %v)", err)}
	}
	return lines
}

func byService(ctx context.Context, engine Engine) (map[string]Container, error) {
	list, err := engine.Containers(ctx, ProjectName)
	if err != nil {
		return nil, err
	}
	m := make(map[string]Container, len(list))
	for _, c := range list {
		m[c.Service] = c
	}
	return m, nil
}

// PortTakenError is what an engine returns when a port that the stack
// publishes belongs to someone else.
type PortTakenError struct {
	Address  string // host:port
	Protocol string // tcp or udp
	Owner    string // who has it, where that could be found out
	Err      error
}

func (e *PortTakenError) Error() string {
	owner := ""
	if e.Owner != "" {
		owner = " by " + e.Owner
	}
	return fmt.Sprintf("publish %s/%s: the port is taken%s", e.Address, e.Protocol, owner)
}

func (e *PortTakenError) Unwrap() error { return e.Err }

// Hint tells how to get on.
func (e *PortTakenError) Hint() string {
	return "stop what has the port and run `zeekdemo up` again, or publish on another address with --bind 127.0.0.2"
}

// explainUp adds what the engine does not know: who has a port that is taken.
func explainUp(ctx context.Context, engine Engine, err error) error {
	var taken *PortTakenError
	if errors.As(err, &taken) && taken.Owner == "" {
		taken.Owner = portOwner(ctx, engine, taken)
		return taken
	}
	return err
}

// portOwner finds the container or the process that has a port; empty if
// neither can be named.
func portOwner(ctx context.Context, engine Engine, taken *PortTakenError) string {
	list, err := engine.Containers(ctx, "")
	if err == nil {
		for _, c := range list {
			for _, p := range c.Ports {
				if p.Protocol == taken.Protocol && strings.HasSuffix(taken.Address, fmt.Sprintf(":%d", p.HostPort)) {
					return "container " + c.Name
				}
			}
		}
	}
	return processOwner(ctx, taken.Address, taken.Protocol)
}
