package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
)

// bound is how long anything may take here.
const bound = 40 * time.Second

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(bound); !so(); {
		select {
		case <-limit:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// awaits waits until something is said.
func (l *listener) awaits(t *testing.T, text string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("it said %q", l.all())
		}
	}()
	eventually(t, "it says "+text, func() bool { return strings.Contains(l.all(), text) })
}

// stack is an engine with a sensor, and with what else a test puts there.
type stack struct {
	orchestrate.Engine
	mu         sync.Mutex
	info       orchestrate.EngineInfo
	containers []orchestrate.Container
	failure    error  // of every question
	udp        string // what the sensor's /proc/net/udp has; empty: it cannot be asked
	asked      int
}

// newStack is one whose sensor is on another machine.
func newStack() *stack {
	return &stack{containers: []orchestrate.Container{{ID: "first", Name: "zeekdemo-zeek-1", Project: orchestrate.ProjectName, Service: "zeek", State: "running",
		Addresses: map[string]netip.Addr{orchestrate.MonitoringNetwork: netip.MustParseAddr("192.0.2.1")},
		Ports:     []orchestrate.PublishedPort{{HostPort: 14789, ContainerPort: 4789, Protocol: "udp"}}}}}
}

// set changes the sensor's container.
func (s *stack) set(change func(*orchestrate.Container)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[0] // others hold what it was
	change(&c)
	s.containers = []orchestrate.Container{c}
}

// awaits waits until it has been asked for the containers n times more.
func (s *stack) awaits(t *testing.T, n int) {
	t.Helper()
	count := func() int { s.mu.Lock(); defer s.mu.Unlock(); return s.asked }
	from := count()
	eventually(t, "the engine is asked", func() bool { return count() >= from+n })
}

func (s *stack) Info(context.Context) (orchestrate.EngineInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info, s.failure
}

func (s *stack) Containers(context.Context, string) ([]orchestrate.Container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.containers, s.failure
}

func (s *stack) Exec(_ context.Context, _ string, _ []string, out, _ io.Writer) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.udp == "" {
		return 0, errors.New("there is no cat")
	}
	_, err := io.WriteString(out, s.udp)
	return 0, err
}

// socketOn is a table in the form of /proc/net/udp with a socket on a port.
func socketOn(port uint16) string {
	return fmt.Sprintf("   1: 00000000:%04X 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 5 2 0000000000000000 0\n", port)
}

// toSensor is a mirror to the stack's sensor, direct.
func toSensor(t *testing.T, e *stack) (*mirror, *listener) {
	t.Helper()
	m, heard := toMonitor(netip.AddrPort{})
	sensor, err := orchestrate.FindSensor(t.Context(), e, "vxlan")
	if err != nil {
		t.Fatal(err)
	}
	m.engine, m.way = e, way.Straight()
	m.target = way.Target{Choice: m.way.Choice, Address: sensor.Direct, Sensor: sensor}
	return m, heard
}

// A mirror of the kernel sends Ethernet: it does not follow a sensor to another mode.
func TestADetachedMirrorDoesNotFollowIntoAnotherMode(t *testing.T) {
	services := []orchestrate.ServiceStatus{{Service: "zeek-geneve", Mode: orchestrate.GeneveIP,
		Addresses: map[string]netip.Addr{orchestrate.MonitoringNetwork: netip.MustParseAddr("192.0.2.1")}}}
	running := []tcmirror.Mirror{{Interface: "eth7", Service: "zeek-geneve", Detached: true, Alive: true}}
	var said []string
	FollowDetached(running, services, func(line string) { said = append(said, line) })
	if len(said) != 1 || !strings.Contains(said[0], "the mirror of eth7 sends Ethernet, and zeek-geneve takes bare IP packets now") || !strings.Contains(said[0], "mirror --stop eth7") {
		t.Errorf("said %q", said)
	}
}
