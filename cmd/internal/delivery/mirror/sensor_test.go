package mirror

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// watched watches over the sensor until it is another one.
func watched(t *testing.T, m *mirror, trouble <-chan struct{}) (<-chan orchestrate.Sensor, <-chan struct{}) {
	t.Helper()
	found, gone := make(chan orchestrate.Sensor, 1), make(chan struct{}, 10)
	go func() {
		next, err := m.watchSensor(t.Context(), m.target.Sensor, trouble, func() { gone <- struct{}{} })
		if err == nil {
			found <- next
		}
	}()
	return found, gone
}

// A sensor that is replaced is first not there, which is said once, and then
// another one, which is one when it listens.
func TestTheNextSensorIsFoundWhenItListens(t *testing.T) {
	e := newStack()
	m, _ := toSensor(t, e)
	trouble := make(chan struct{})
	look := func() { trouble <- struct{}{}; trouble <- struct{}{} } // the second is taken when the first look is over
	found, gone := watched(t, m, trouble)
	look()
	e.set(func(c *orchestrate.Container) { c.State = "exited" })
	look()
	look()
	e.mu.Lock()
	e.udp = socketOn(9) // of somebody else
	e.mu.Unlock()
	e.set(func(c *orchestrate.Container) { c.State, c.ID = "running", "next" })
	look()
	select {
	case <-found:
		t.Fatal("it was found before it listened")
	default:
	}
	e.mu.Lock()
	e.udp += socketOn(4789)
	e.mu.Unlock()
	var next orchestrate.Sensor
	for limit := time.After(bound); next.Container.ID == ""; {
		select {
		case trouble <- struct{}{}:
		case next = <-found:
		case <-limit:
			t.Fatal("it is not found")
		}
	}
	if next.Container.ID != "next" || identityOf(next) == identityOf(m.target.Sensor) {
		t.Errorf("%+v", next)
	}
	if len(gone) != 1 {
		t.Errorf("that it had gone was said %d times", len(gone))
	}
}

// A sensor that comes back in another mode would misread what is mirrored: it is
// waited for, and why is said once.
func TestASensorInAnotherModeIsNotFollowed(t *testing.T) {
	e := newStack()
	m, said := toSensor(t, e)
	trouble := make(chan struct{})
	look := func() { trouble <- struct{}{}; trouble <- struct{}{} }
	found, _ := watched(t, m, trouble)
	e.mu.Lock()
	e.udp = socketOn(4789)
	e.mu.Unlock()
	e.set(func(c *orchestrate.Container) {
		c.ID, c.Command = "raw", []string{"zeek", "-i", "udp::0.0.0.0:6081:geneve:dlt=raw"}
	})
	look()
	look()
	select {
	case s := <-found:
		t.Fatalf("it follows to %+v", s)
	default:
	}
	e.set(func(c *orchestrate.Container) { c.ID, c.Command = "next", nil })
	var next orchestrate.Sensor
	for limit := time.After(bound); next.Container.ID == ""; {
		select {
		case trouble <- struct{}{}:
		case next = <-found:
		case <-limit:
			t.Fatal("the right one is not found")
		}
	}
	if n := strings.Count(said.all(), "warning: send Ethernet to sensor zeek: it takes bare IP packets"); next.Container.ID != "next" || n != 1 {
		t.Errorf("%+v, said %q", next, said.all())
	}
}

// Whatever is different makes it another one.
func TestOneLifeOfASensorIsToldFromTheNext(t *testing.T) {
	was := orchestrate.Sensor{Container: orchestrate.Container{ID: "a", PID: 5}, Direct: netip.MustParseAddrPort(here), Published: netip.MustParseAddrPort("127.0.0.1:4789")}
	for name, change := range map[string]func(*orchestrate.Sensor){
		"made anew":      func(s *orchestrate.Sensor) { s.Container.ID = "b" },
		"another PID":    func(s *orchestrate.Sensor) { s.Container.PID++ },
		"started again":  func(s *orchestrate.Sensor) { s.Container.StartedAt = time.Unix(1, 0) },
		"moved":          func(s *orchestrate.Sensor) { s.Direct = netip.MustParseAddrPort(there) },
		"port published": func(s *orchestrate.Sensor) { s.Published = netip.AddrPort{} },
	} {
		now := was
		change(&now)
		if identityOf(now) == identityOf(was) {
			t.Errorf("%s: it is taken for the same", name)
		}
	}
	if was.Container.Health = "starting"; identityOf(was) != identityOf(orchestrate.Sensor{Container: orchestrate.Container{ID: "a", PID: 5}, Direct: was.Direct, Published: was.Published}) {
		t.Error("its health makes it another one")
	}
}

// The end of the mirror is the end of the watch.
func TestTheWatchEndsWithTheMirror(t *testing.T) {
	e := newStack()
	m, _ := toSensor(t, e)
	ctx, end := context.WithCancel(t.Context())
	end()
	if s, err := m.watchSensor(ctx, m.target.Sensor, nil, func() {}); !errors.Is(err, context.Canceled) || s.Container.ID != "first" {
		t.Errorf("%v: %+v", err, s)
	}
}

// Only the engine can tell of a sensor elsewhere.
func TestAProcessElsewhereDoesNotLiveHere(t *testing.T) {
	for name, c := range map[string]orchestrate.Container{"without a process": {}, "with another machine's address": {PID: 1, Addresses: newStack().containers[0].Addresses}} {
		if livesHere(c) {
			t.Errorf("%s: it lives here", name)
		}
	}
}

func TestTheTargetIsTheStacksSensor(t *testing.T) {
	m, _ := toMonitor(netip.AddrPort{})
	m.engine, m.Way = newStack(), way.Request{Kind: way.Published}
	defer m.clean()
	if err := m.findTarget(t.Context()); err != nil || m.target.Kind != way.Published || m.target.Address.String() != "127.0.0.1:14789" || len(m.others) != 1 {
		t.Errorf("%v: %+v, others %+v", err, m.target, m.others)
	}
}

// A target that is not to be had says what would be.
func TestATargetThatIsNotToBeHad(t *testing.T) {
	for name, tt := range map[string]struct {
		set   func(*mirror, *stack)
		want  string
		hint  string
		usage bool
	}{
		"no sensor": {func(_ *mirror, e *stack) { e.containers = nil }, "no stack is here", "zeekdemo up", false},
		"no engine": {func(_ *mirror, e *stack) { e.failure = errors.New("is it running?") }, "is it running?", "--to HOST mirrors to any monitor without an engine", false},
		"a port":    {func(m *mirror, _ *stack) { m.Config.Port = 6081 }, "--port 6081: the stack's sensor listens on 4789", "", true},
		"for the kernel": {func(m *mirror, e *stack) { m.How = Kernel; e.set(func(c *orchestrate.Container) { c.Addresses = nil }) },
			"mirror in the kernel: its container has no address on the monitoring network", "--how forwarder reaches the sensor by a sidecar", false},
		"direct": {func(m *mirror, e *stack) {
			m.Way.Kind = way.Direct
			e.set(func(c *orchestrate.Container) { c.Addresses = nil })
		}, "reach sensor zeek: not direct", "", false},
		"published": {func(_ *mirror, e *stack) { e.set(func(c *orchestrate.Container) { c.Ports = nil }) }, "its port is not published", "--direct", false},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := toMonitor(netip.AddrPort{})
			e := newStack()
			m.engine, m.Way = e, way.Request{Kind: way.Published}
			defer m.clean()
			tt.set(m, e)
			err := m.findTarget(t.Context())
			var usage *way.UsageError
			var hinted interface{ Hint() string }
			if err == nil || !strings.Contains(err.Error(), tt.want) || errors.As(err, &usage) != tt.usage {
				t.Fatalf("got %v", err)
			}
			if tt.hint != "" && (!errors.As(err, &hinted) || !strings.Contains(hinted.Hint(), tt.hint)) {
				t.Errorf("%v helps nobody", err)
			}
		})
	}
}

// Where the engine is elsewhere its connection carries the frames: they are not
// mirrored again.
func TestTheEnginesConnectionIsLeftOut(t *testing.T) {
	for _, tt := range []struct {
		kind    way.Kind
		address string
		remote  bool
		want    string
	}{
		{way.Sidecar, "tcp://192.0.2.9:2376", true, "192.0.2.9:2376"},
		{way.Sidecar, "tcp://192.0.2.9", true, "192.0.2.9:2375"},
		{way.Sidecar, "https://[2001:db8::9]", true, "[2001:db8::9]:443"},
		{way.Sidecar, "ssh://me@192.0.2.9", true, "192.0.2.9:22"},
		{way.Sidecar, "ssh://me@192.0.2.9:99999", true, ""},
		{way.Sidecar, "://", true, ""},
		{way.Sidecar, "unix:///run/docker.sock", false, ""},
		{way.Direct, "tcp://192.0.2.9:2376", true, ""},
	} {
		e := newStack()
		e.info = orchestrate.EngineInfo{Address: tt.address, Remote: tt.remote}
		m, heard := toSensor(t, e)
		m.target.Kind = tt.kind
		got := ""
		for _, at := range m.streams(t.Context()) {
			got += at.String()
		}
		if got != tt.want || heard.all() != "" {
			t.Errorf("%s %s: %s, said %q", tt.kind, tt.address, got, heard.all())
		}
	}
	m, heard := toSensor(t, newStack())
	m.engine.(*stack).info = orchestrate.EngineInfo{Address: "ssh://me@engine.invalid", Remote: true}
	m.target.Kind = way.Sidecar
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody is asked
	if list := m.streams(ctx); list != nil || !strings.Contains(heard.all(), "leave its connection out with --filter") {
		t.Errorf("%v, said %q", list, heard.all())
	}
}
