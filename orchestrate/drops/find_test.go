package drops

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// anEngine knows containers, and can do nothing.
type anEngine struct {
	orchestrate.Engine
	info       orchestrate.EngineInfo
	containers []orchestrate.Container
	err        error
}

func (e *anEngine) Info(context.Context) (orchestrate.EngineInfo, error) { return e.info, e.err }

func (e *anEngine) Containers(context.Context, string) ([]orchestrate.Container, error) {
	return e.containers, nil
}

func (e *anEngine) Exec(context.Context, string, []string, io.Writer, io.Writer) (int, error) {
	return 0, errors.ErrUnsupported
}

// published is a port on the engine's machine.
func published(ip string, host, container uint16, protocol string) []orchestrate.PublishedPort {
	return []orchestrate.PublishedPort{{HostIP: netip.MustParseAddr(ip), HostPort: host, ContainerPort: container, Protocol: protocol}}
}

func someStack() []orchestrate.Container {
	at := func(monitoring, scrape string) map[string]netip.Addr {
		m := map[string]netip.Addr{"scrape": netip.MustParseAddr(scrape)}
		if monitoring != "" {
			m[orchestrate.MonitoringNetwork] = netip.MustParseAddr(monitoring)
		}
		return m
	}
	return []orchestrate.Container{
		{Service: "zeek", ID: "z", State: "running", PID: 70, Addresses: at("172.18.0.2", "172.19.0.2"), Ports: published("127.0.0.1", 4789, 4789, "udp")},
		{Service: "zeek-geneve", State: "exited"},
		{Service: "collector", State: "running", Addresses: at("", "172.19.0.3")},
		{Service: "loki", State: "running"},
		{Service: "prometheus", State: "running"},
		{Service: "gateway", State: "running", Ports: append(published("127.0.0.1", 13100, 3100, "tcp"), published("0.0.0.0", 19090, 9090, "tcp")...)},
	}
}

func TestFindsWhoIsWhere(t *testing.T) {
	e := &anEngine{containers: someStack()}
	p, err := findPath(t.Context(), e, true)
	if err != nil || len(p.Sensors) != 2 || p.Bridge != "br-zeekmon0" {
		t.Fatalf("%+v, %v", p, err)
	}
	zeek, geneve := p.Sensors[0], p.Sensors[1]
	if zeek.PID != 70 || zeek.Port != 4789 || zeek.Missing != nil || zeek.Address.String() != "172.18.0.2" || zeek.Published.String() != "127.0.0.1:4789" {
		t.Errorf("zeek: %+v", zeek)
	}
	if geneve.Missing == nil || geneve.Missing.Error() != "the sensor's container is exited" || geneve.Published.IsValid() {
		t.Errorf("zeek-geneve: %+v", geneve)
	}
	want := Services{Zeek: map[string][]string{"zeek": {"http://172.19.0.2:9991"}, "zeek-geneve": nil}, Collector: "http://172.19.0.3:8888",
		Loki: "http://127.0.0.1:13100", Prometheus: "http://127.0.0.1:19090"}
	if got := p.Services; !maps.EqualFunc(got.Zeek, want.Zeek, slices.Equal) || got.Collector != want.Collector || got.Loki != want.Loki || got.Prometheus != want.Prometheus {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

// What cannot be reached from here is not asked.
func TestFindsNothingOfAnotherMachine(t *testing.T) {
	e := &anEngine{containers: someStack(), info: orchestrate.EngineInfo{Remote: true}}
	p, err := findPath(t.Context(), e, false)
	if s := p.Services; err != nil || len(s.Zeek["zeek"]) > 0 || s.Collector+s.Loki+s.Prometheus != "" {
		t.Errorf("%+v, %v", s, err)
	}
	e.containers = e.containers[1:]
	if p, err = findPath(t.Context(), e, false); err != nil || p.Sensors[0].Missing == nil || p.Sensors[0].Missing.Error() != "the sensor has no container" {
		t.Errorf("%+v, %v", p.Sensors, err)
	}
}

func TestAPausedSensorIsThere(t *testing.T) {
	service, _ := orchestrate.SensorFor("vxlan")
	if at := sensorAt(service, orchestrate.Container{State: "paused", PID: 70}, true); !at.Paused || at.Missing != nil || at.PID != 70 {
		t.Errorf("%+v", at)
	}
}

// Without something to read, reading does not begin, and says what to do.
func TestOpenIsRefused(t *testing.T) {
	away := errors.New("the engine does not answer")
	elsewhere := someStack()
	elsewhere[0].PID = os.Getpid() // which is no process of that container
	for name, tt := range map[string]struct {
		engine     *anEngine
		via        nsenter.Way
		want, hint string
	}{
		"no engine":          {&anEngine{err: away}, nsenter.Auto, away.Error(), ""},
		"no stack":           {&anEngine{}, nsenter.Auto, orchestrate.ErrNoStack.Error(), "`zeekdemo up`"},
		"no sensor runs":     {&anEngine{containers: someStack()[1:]}, nsenter.Auto, "no sensor is running", "`zeekdemo up`"},
		"on another machine": {&anEngine{containers: elsewhere}, nsenter.Direct, "the sensors run on another one", "--reach helper"},
		"and no helper":      {&anEngine{containers: elsewhere}, nsenter.Auto, "read the counters of the engine's machine: ", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(t.Context(), tt.engine, tt.via)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			var advice interface{ Hint() string }
			if has := errors.As(err, &advice); tt.hint != "" && (!has || !strings.Contains(advice.Hint(), tt.hint)) {
				t.Errorf("no hint %q", tt.hint)
			}
		})
	}
}
