package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv/fakehelper"
)

// fakeEngine is a container engine for the scripts. Its state is a file, so
// that one script's commands see what the one before did; its services answer
// from inside the command's own process.
//
//	ZEEKDEMO_FAKE        the state file
//	ZEEKDEMO_FAKE_FAULT  unreachable, taken, noimage, unready, login (to Grafana), alert, locked (by another container's process)
type fakeEngine struct {
	path  string
	fault string
	http  *httptest.Server

	helper *fakehelper.Engine // see fake_tune_test.go
}

// fakeState is the state file.
type fakeState struct {
	Up  bool
	Env map[string]string // what the last `up` was told
	Ups int
}

func connectFake(getenv func(string) string) (orchestrate.Engine, error) {
	e := &fakeEngine{path: getenv("ZEEKDEMO_FAKE"), fault: getenv("ZEEKDEMO_FAKE_FAULT")}
	e.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if e.fault == "unready" {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		e.answer(w, r)
	}))
	return e, nil
}

// answer is what the services say over HTTP. Annotations go into a file beside
// the state, one request a line.
func (e *fakeEngine) answer(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/api/annotations") && e.fault == "login":
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"message":"Invalid username or password"}`)
	case strings.HasPrefix(r.URL.Path, "/api/annotations"):
		body, _ := io.ReadAll(r.Body)
		if f, err := os.OpenFile(e.path+".annotations", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			fmt.Fprintf(f, "%s %s %s\n", r.Method, r.URL.Path, body)
			f.Close()
		}
		io.WriteString(w, `{"id":41}`)
	case r.URL.Path == "/api/v1/alerts" && e.fault == "alert":
		io.WriteString(w, `{"data":{"alerts":[{"labels":{"alertname":"SensorDown","severity":"critical"},"annotations":{"summary":"Sensor zeek does not answer.","action":"`+"`zeekdemo up`"+` starts it."},"state":"firing","activeAt":"2026-01-01T00:00:00Z"}]}}`)
	case r.URL.Path == "/api/v1/alerts":
		io.WriteString(w, `{"data":{"alerts":[]}}`)
	}
}

func (e *fakeEngine) Close() error {
	e.http.Close()
	return nil
}

func (e *fakeEngine) load() (s fakeState) {
	if data, err := os.ReadFile(e.path); err == nil {
		_ = json.Unmarshal(data, &s)
	}
	return s
}

func (e *fakeEngine) save(s fakeState) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(e.path, data, 0o600)
}

func (e *fakeEngine) Info(context.Context) (orchestrate.EngineInfo, error) {
	if e.fault == "unreachable" {
		return orchestrate.EngineInfo{}, orchestrate.WithHint(errors.New("reach the Docker engine at unix:///nowhere: no such file"), "start the engine")
	}
	return orchestrate.EngineInfo{Version: "0", OS: "linux", Address: "fake", Remote: false}, nil
}

// TakeLock lets another one have the lock where that is the fault.
func (e *fakeEngine) TakeLock(context.Context, string, orchestrate.Holder) (string, *orchestrate.Holder, error) {
	if e.fault == "locked" {
		return "", &orchestrate.Holder{ID: "0123456789abcdef", Client: orchestrate.ParseClient("box/7/1/2/b/hans"), Command: "up", Since: time.Now()}, nil
	}
	return "lock", nil, nil
}

func (e *fakeEngine) ReleaseLock(_ context.Context, id string) error {
	if id != "lock" {
		return errors.New("it is another one's lock")
	}
	return nil
}

// Capacity is that of a machine with four processors.
func (e *fakeEngine) Capacity(context.Context) (orchestrate.Capacity, error) {
	return orchestrate.Capacity{CPUs: 4, Memory: 8 << 30}, nil
}

func (e *fakeEngine) Up(_ context.Context, p orchestrate.Project, progress orchestrate.Progress) error {
	switch e.fault {
	case "taken":
		return &orchestrate.PortTakenError{Address: "192.0.2.1:13000", Protocol: "tcp", Err: errors.New("address already in use")}
	case "noimage":
		return orchestrate.WithHint(errors.New("bring the stack up: no such image: zeek/zeek:9.0"), "choose another with --image")
	}
	s := e.load()
	for _, service := range orchestrate.Services() {
		event := orchestrate.Event{ID: "Container zeekdemo-" + service.Name + "-1", Text: "Running", State: orchestrate.Done}
		if !s.Up {
			event.Text = "Started"
		}
		progress(event)
	}
	return e.save(fakeState{Up: true, Env: p.Env, Ups: s.Ups + 1})
}

func (e *fakeEngine) Down(_ context.Context, _ string, _ bool, progress orchestrate.Progress) error {
	if s := e.load(); s.Up {
		progress(orchestrate.Event{ID: "Container zeekdemo-zeek-1", Text: "Removed", State: orchestrate.Done})
	}
	return os.RemoveAll(e.path)
}

func (e *fakeEngine) Containers(context.Context, string) ([]orchestrate.Container, error) {
	if !e.load().Up {
		return nil, nil
	}
	at := netip.MustParseAddrPort(e.http.Listener.Addr().String())
	var list []orchestrate.Container
	for _, s := range orchestrate.Services() {
		c := orchestrate.Container{ID: s.Name, Name: "zeekdemo-" + s.Name + "-1", Service: s.Name, State: "running",
			Image: s.Name + ":1", StartedAt: time.Now().Add(-time.Hour), Addresses: map[string]netip.Addr{}}
		port := orchestrate.PublishedPort{HostIP: at.Addr(), HostPort: at.Port(), ContainerPort: s.Port, Protocol: "tcp"}
		for _, behind := range orchestrate.Services() {
			if behind.Door == s.Name {
				c.Ports = append(c.Ports, orchestrate.PublishedPort{HostIP: at.Addr(), HostPort: at.Port(), ContainerPort: behind.Port, Protocol: "tcp"})
			}
		}
		if s.IsSensor() {
			c.Health = "healthy"
			c.Addresses[orchestrate.MonitoringNetwork] = netip.MustParseAddr("127.0.0.1")
			port.HostPort, port.Protocol = s.Port, "udp"
			source := e.load().Env["ZEEKDEMO_GENEVE_SOURCE"]
			if source == "" || s.Encap != "geneve" {
				source = s.Encap
			}
			workers := e.load().Env[map[string]string{"vxlan": "ZEEKDEMO_WORKERS", "geneve": "ZEEKDEMO_GENEVE_WORKERS"}[s.Encap]]
			c.Env = []string{"SENSOR_WORKERS=" + workers}
			c.Command = []string{"zeek", "-i", fmt.Sprintf("udp::0.0.0.0:%d:%s", s.Port, source), "local"}
		}
		if s.Door == "" {
			c.Ports = append(c.Ports, port)
		}
		list = append(list, c)
	}
	return e.dress(list), nil
}

func (e *fakeEngine) Logs(_ context.Context, req orchestrate.LogRequest) error {
	for _, s := range orchestrate.Services() {
		if req.Service == "" || req.Service == s.Name {
			req.Line(s.Name, "a line of "+s.Name)
		}
	}
	return nil
}

func (e *fakeEngine) Exec(ctx context.Context, id string, cmd []string, stdout, stderr io.Writer) (int, error) {
	if e.look(ctx, id, cmd, stdout) {
		return 0, nil
	}
	if cmd[len(cmd)-1] == "/tmp/stores" {
		fmt.Fprintf(stdout, "loki 1024 11718750 %d 604800\nprometheus 2048 1953125 - 604800\nzeek 10 2441406 %d 86400 refuses\n", time.Now().Add(-2*time.Hour).Unix(), time.Now().Unix())
		return 0, nil
	}
	if cmd[len(cmd)-1] != "conn" {
		fmt.Fprintln(stderr, "tail: no such file")
		return 1, nil
	}
	fmt.Fprintf(stdout, "%s in %s\n", strings.Join(cmd[3:], " "), id)
	return 0, nil
}
