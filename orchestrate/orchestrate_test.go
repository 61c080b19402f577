package orchestrate

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeEngine is an engine whose containers a test sets.
type fakeEngine struct {
	mu         sync.Mutex
	info       EngineInfo
	infoErr    error
	upErr      error
	project    Project
	containers func() []Container
	logged     []string
}

func (f *fakeEngine) Info(context.Context) (EngineInfo, error) { return f.info, f.infoErr }

func (f *fakeEngine) Up(_ context.Context, p Project, _ Progress) error {
	f.project = p
	return f.upErr
}

func (f *fakeEngine) Down(context.Context, string, bool, Progress) error { return nil }

func (f *fakeEngine) Containers(context.Context, string) ([]Container, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.containers == nil {
		return nil, nil
	}
	return f.containers(), nil
}

func (f *fakeEngine) Logs(_ context.Context, req LogRequest) error {
	for _, line := range f.logged {
		req.Line(req.Service, line)
	}
	return nil
}

func (f *fakeEngine) Exec(context.Context, string, []string, io.Writer, io.Writer) (int, error) {
	return 0, nil
}

// answering returns the containers of a stack whose every service answers at
// the given HTTP server.
func answering(t *testing.T, at netip.AddrPort) []Container {
	t.Helper()
	var list []Container
	for _, s := range Services() {
		c := Container{ID: s.Name, Name: "zeekdemo-" + s.Name + "-1", Service: s.Name, State: "running", StartedAt: time.Now().Add(-time.Minute)}
		if s.IsSensor() {
			c.Health = "healthy"
			c.Addresses = map[string]netip.Addr{MonitoringNetwork: netip.MustParseAddr("172.18.0.2")}
			c.Ports = []PublishedPort{{HostIP: at.Addr(), HostPort: s.Port, ContainerPort: s.Port, Protocol: "udp"}}
		} else {
			for _, behind := range Services() {
				if behind.Door == s.Name || behind.Name == s.Name && s.Door == "" {
					c.Ports = append(c.Ports, PublishedPort{HostIP: at.Addr(), HostPort: at.Port(), ContainerPort: behind.Port, Protocol: "tcp"})
				}
			}
		}
		list = append(list, c)
	}
	return list
}

func serve(t *testing.T, handler http.HandlerFunc) netip.AddrPort {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return netip.MustParseAddrPort(server.Listener.Addr().String())
}

func defaults() Settings {
	return Settings{Bind: netip.MustParseAddr("127.0.0.1"), Pull: PullMissing}
}

func TestSettingsAreRefusedBeforeAnythingIsTouched(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Settings)
		want   string
	}{
		"an image that the stack has not":     {func(s *Settings) { s.Images = map[string]string{"zeke": "x"} }, `no image "zeke"`},
		"an empty reference":                  {func(s *Settings) { s.Images = map[string]string{"zeek": ""} }, "reference is empty"},
		"a pull policy that there is not":     {func(s *Settings) { s.Pull = "sometimes" }, "want missing, always or never"},
		"a mode that there is not":            {func(s *Settings) { s.Geneve = "raw" }, "want ethernet, ip or gwlb"},
		"a mode that there is":                {func(s *Settings) { s.Geneve = GeneveGWLB }, ""},
		"an open address, default password":   {func(s *Settings) { s.Bind = netip.IPv4Unspecified() }, "open to the network"},
		"the default password, spelled out":   {func(s *Settings) { s.Bind, s.GrafanaPassword = netip.MustParseAddr("::"), "zeek" }, "open to the network"},
		"an open address and a real password": {func(s *Settings) { s.Bind, s.GrafanaPassword = netip.IPv4Unspecified(), "s3cret" }, ""},
		"another loopback address":            {func(s *Settings) { s.Bind = netip.MustParseAddr("127.0.0.2") }, ""},
		"exposed to nobody":                   {func(s *Settings) { s.Expose = true }, "reached from this machine only"},
		"exposed, default password":           {func(s *Settings) { s.Bind, s.Expose = netip.IPv4Unspecified(), true }, "open to the network"},
		"exposed":                             {func(s *Settings) { s.Bind, s.Expose, s.GrafanaPassword = netip.IPv4Unspecified(), true, "s3cret" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := defaults()
			tc.change(&s)
			err := s.Validate()
			switch {
			case tc.want == "" && err != nil:
				t.Fatalf("refused: %v", err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Fatalf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestEnvironmentCompletesTheComposeFile(t *testing.T) {
	s := Settings{Bind: netip.MustParseAddr("::1"), GrafanaPassword: "p", Images: map[string]string{"zeek": "my/zeek:1"}}
	env := s.Environment()
	for name, want := range map[string]string{"ZEEKDEMO_BIND": "[::1]", "ZEEKDEMO_GRAFANA_PASSWORD": "p", "ZEEKDEMO_IMAGE_ZEEK": "my/zeek:1"} {
		if env[name] != want {
			t.Errorf("%s = %q, want %q", name, env[name], want)
		}
	}
	if _, set := env["ZEEKDEMO_GRAFANA_USER"]; set {
		t.Error("a user that was not set overrides the Compose file's default")
	}
}

// Who opens the stack to a network opens what asks for a password; Loki and
// Prometheus ask for none, and have to be named.
func TestLokiAndPrometheusStayAtHome(t *testing.T) {
	for _, tt := range []struct {
		bind   string
		expose bool
		want   string // where they are published; empty for the Compose file's default, 127.0.0.1
	}{
		{"127.0.0.1", false, "127.0.0.1"}, {"127.0.0.2", false, "127.0.0.2"}, {"::1", false, "[::1]"},
		{"0.0.0.0", false, ""}, {"::", false, ""}, {"192.0.2.7", false, ""}, {"2001:db8::7", false, ""},
		{"0.0.0.0", true, "0.0.0.0"}, {"2001:db8::7", true, "[2001:db8::7]"},
	} {
		s := Settings{Bind: netip.MustParseAddr(tt.bind), Expose: tt.expose, GrafanaPassword: "s3cret"}
		if got := s.Environment()["ZEEKDEMO_BIND_UNAUTHENTICATED"]; got != tt.want {
			t.Errorf("bound to %s, exposed %t: they are on %q, want %q", tt.bind, tt.expose, got, tt.want)
		}
	}
}

func TestUpWaitsUntilEveryServiceAnswers(t *testing.T) {
	var asked sync.Map
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if _, again := asked.LoadOrStore(r.URL.Path, true); !again {
			http.Error(w, "Ingester not ready: waiting for 15s", http.StatusServiceUnavailable)
		}
	})
	list := answering(t, at)
	engine := &fakeEngine{containers: func() []Container { return list }}
	var mu sync.Mutex
	var events []Event
	services, err := Up(t.Context(), engine, []byte("services: {}"), defaults(), time.Minute, func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	})
	if err != nil {
		t.Fatal(err)
	}
	if !AllHealthy(services) || len(services) != len(Services()) {
		t.Fatalf("up returned although not every service is healthy: %+v", services)
	}
	if engine.project.Name != ProjectName || string(engine.project.Compose) != "services: {}" {
		t.Errorf("the engine was given %+v", engine.project)
	}
	waited := false
	for _, e := range events {
		waited = waited || e.ID == "Service loki" && e.State == Working && strings.Contains(e.Detail, "Ingester not ready")
	}
	if !waited {
		t.Errorf("nobody was told that loki is waited for, and why: %+v", events)
	}
}

func TestUpNamesTheServiceThatDoesNotAnswer(t *testing.T) {
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ready" {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
	list := answering(t, at)
	engine := &fakeEngine{containers: func() []Container { return list }, logged: []string{"level=error no disk"}}
	_, err := Up(t.Context(), engine, nil, defaults(), 50*time.Millisecond, nil)
	var late *NotReadyError
	if !errors.As(err, &late) {
		t.Fatalf("error %v, want a NotReadyError", err)
	}
	if late.Service != "loki" || !strings.Contains(late.Error(), "answers 503 not ready") || len(late.Tail) != 1 {
		t.Errorf("got %v with the lines %q", late, late.Tail)
	}
	if !strings.Contains(late.Hint(), "zeekdemo logs loki") {
		t.Errorf("hint %q", late.Hint())
	}
}

func TestUpStopsWaitingWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	engine := &fakeEngine{containers: func() []Container { cancel(); return nil }}
	if _, err := Up(ctx, engine, nil, defaults(), time.Minute, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want context.Canceled", err)
	}
}

func TestUpNamesWhoHasAPort(t *testing.T) {
	taken := &PortTakenError{Address: "127.0.0.1:13000", Protocol: "tcp", Err: errors.New("address already in use")}
	engine := &fakeEngine{upErr: taken, containers: func() []Container {
		return []Container{{Name: "other-web-1", Ports: []PublishedPort{{HostPort: 13000, Protocol: "tcp"}}}}
	}}
	_, err := Up(t.Context(), engine, nil, defaults(), time.Second, nil)
	if err == nil || !strings.Contains(err.Error(), "taken by container other-web-1") {
		t.Fatalf("error %v", err)
	}
}

func TestProcessOwnerFindsTheListener(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	owner := processOwner(t.Context(), l.Addr().String(), "tcp")
	if !strings.Contains(owner, strconv.Itoa(os.Getpid())) {
		t.Errorf("owner %q, want this process, PID %d", owner, os.Getpid())
	}
	u, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	port := u.LocalAddr().(*net.UDPAddr).Port
	if owner := processOwner(t.Context(), "127.0.0.1:"+strconv.Itoa(port), "udp"); !strings.Contains(owner, "PID") {
		t.Errorf("a socket on every address was not found: %q", owner)
	}
}

// The table as Linux prints it, with a socket on 0.0.0.0:4789 (hexadecimal
// 12B5).
const procNetUDP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1437: 00000000:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 31337 2 0000000000000000 0
`

func TestListensUDP(t *testing.T) {
	for port, want := range map[uint16]int{4789: 1, 6081: 0, 0: 0} {
		if got := socketState(procNetUDP, port).Listening; got != want {
			t.Errorf("port %d: %d, want %d", port, got, want)
		}
	}
}

func TestASensorIsReadyWhenItsSocketListens(t *testing.T) {
	proc := t.TempDir()
	dir := filepath.Join(proc, "77", "net")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "udp"), []byte(procNetUDP), 0o644); err != nil {
		t.Fatal(err)
	}
	vxlan, _ := SensorFor("vxlan")
	geneve, _ := SensorFor("geneve")
	for name, tc := range map[string]struct {
		service Service
		c       Container
		remote  bool
		ready   bool
	}{
		"the kernel lists its socket":             {vxlan, Container{State: "running", PID: 77, Health: "starting"}, false, true},
		"the kernel lists another port":           {geneve, Container{State: "running", PID: 77, Health: "starting"}, false, false},
		"far away, its health check says so":      {vxlan, Container{State: "running", PID: 77, Health: "healthy"}, true, true},
		"far away, its health check says not yet": {vxlan, Container{State: "running", PID: 77, Health: "starting"}, true, false},
		"its process is not visible from here":    {vxlan, Container{State: "running", PID: 78, Health: "starting"}, false, false},
		"it died":                                 {vxlan, Container{State: "exited", ExitCode: 1}, false, false},
		"no health check and no view into it":     {vxlan, Container{State: "running", PID: 78}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProber(EngineInfo{Remote: tc.remote})
			p.proc = proc
			err := p.ready(t.Context(), tc.service, map[string]Container{tc.service.Name: tc.c})
			if (err == nil) != tc.ready {
				t.Errorf("answer %v, want ready %t", err, tc.ready)
			}
		})
	}
}

func TestTheCollectorIsAskedThroughPrometheusWhereItCannotBeReached(t *testing.T) {
	for scraped, want := range map[string]bool{"1": true, "0": false} {
		at := serve(t, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"status":"success","data":{"result":[{"metric":{},"value":[1,"`+scraped+`"]}]}}`)
		})
		collector, _ := ServiceByName("collector")
		containers := map[string]Container{
			"collector":  {State: "running"},
			"prometheus": {State: "running"},
			"gateway":    {State: "running", Ports: []PublishedPort{{HostIP: at.Addr(), HostPort: at.Port(), ContainerPort: 9090}}},
		}
		err := newProber(EngineInfo{}).ready(t.Context(), collector, containers)
		if (err == nil) != want {
			t.Errorf("scrape says %s: answer %v", scraped, err)
		}
	}
}

// What reads the counters of a sensor's network namespace has no address but
// the sensor's, and is of no use once the sensor has got another one.
func TestAnExporterIsReadyBesideItsSensor(t *testing.T) {
	at := serve(t, func(http.ResponseWriter, *http.Request) {})
	service, err := ServiceByName("exporter-zeek")
	if err != nil {
		t.Fatal(err)
	}
	service.Port = at.Port()
	now := time.Now()
	addresses := map[string]netip.Addr{"scrape": at.Addr()}
	for want, sensor := range map[string]Container{
		"": {State: "running", StartedAt: now.Add(-time.Second), Addresses: addresses},
		"zeek was started again without it: it is in the network namespace of before": {State: "running", StartedAt: now.Add(time.Second), Addresses: addresses},
		"zeek does not run, whose network namespace it shares":                        {State: "exited", StartedAt: now.Add(-time.Second)},
		"has no address": {State: "running", StartedAt: now.Add(-time.Second)},
	} {
		got := ""
		err := newProber(EngineInfo{}).ready(t.Context(), service, map[string]Container{"zeek": sensor, "exporter-zeek": {State: "running", StartedAt: now}})
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%+v: %q, want %q", sensor, got, want)
		}
	}
}

func TestWhatOnlyTheEnginesMachineReachesIsTakenForReady(t *testing.T) {
	collector, _ := ServiceByName("collector")
	containers := map[string]Container{
		"collector":  {State: "running"},
		"prometheus": {State: "running"},
		"gateway":    {State: "running", Ports: []PublishedPort{{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 1, ContainerPort: 9090}}},
	}
	if err := newProber(EngineInfo{Remote: true}).ready(t.Context(), collector, containers); err != nil {
		t.Error(err)
	}
}

func TestStatusOfAHalfStartedStack(t *testing.T) {
	at := serve(t, func(http.ResponseWriter, *http.Request) {})
	list := answering(t, at)[:3] // both sensors and the collector
	list[1].State, list[1].ExitCode, list[1].OOMKilled = "exited", 137, true
	services, err := Status(t.Context(), &fakeEngine{containers: func() []Container { return list }})
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]ServiceStatus{}
	for _, s := range services {
		byName[s.Service] = s
	}
	if s := byName["zeek"]; !s.Healthy || s.UptimeSec < 59 || s.Ports[0] != "127.0.0.1:4789/udp" {
		t.Errorf("zeek: %+v", s)
	}
	if s := byName["zeek-geneve"]; s.Healthy || s.Health != "container is exited, out of memory" {
		t.Errorf("zeek-geneve: %+v", s)
	}
	if s := byName["grafana"]; s.Healthy || s.State != "missing" {
		t.Errorf("grafana: %+v", s)
	}
	if AllHealthy(services) {
		t.Error("a stack without Grafana counts as healthy")
	}
}

func TestStatusWithoutAStack(t *testing.T) {
	if _, err := Status(t.Context(), &fakeEngine{}); !errors.Is(err, ErrNoStack) {
		t.Fatalf("error %v, want ErrNoStack", err)
	}
}

func TestFindSensor(t *testing.T) {
	at := netip.MustParseAddrPort("127.0.0.1:1")
	engine := &fakeEngine{containers: func() []Container { return answering(t, at) }}
	s, err := FindSensor(t.Context(), engine, "geneve")
	if err != nil {
		t.Fatal(err)
	}
	if s.Service.Name != "zeek-geneve" || s.Published.String() != "127.0.0.1:6081" || s.Direct.String() != "172.18.0.2:6081" {
		t.Errorf("found %+v", s)
	}
	engine.containers = func() []Container { return answering(t, at)[1:] }
	if _, err := FindSensor(t.Context(), engine, "vxlan"); err == nil || !strings.Contains(err.Error(), "no container") {
		t.Errorf("a missing sensor: %v", err)
	}
}

func TestTheDeepestHintStays(t *testing.T) {
	err := WithHint(WithHint(errors.New("x"), "deep"), "shallow")
	var h interface{ Hint() string }
	if !errors.As(err, &h) || h.Hint() != "deep" {
		t.Errorf("got %v", err)
	}
}
