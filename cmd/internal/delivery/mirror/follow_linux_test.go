package mirror

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// life is one of a sensor's: a process and a socket of which all is read.
type life struct {
	container orchestrate.Container
	conn      *net.UDPConn
	took      atomic.Uint64
	over      chan struct{}
}

// begin begins one in a container.
func begin(t *testing.T, in testenv.Container, id string) *life {
	t.Helper()
	s := &life{container: newStack().containers[0], over: make(chan struct{})}
	s.container.ID, s.container.PID = id, process(t, in.Name).Process.Pid
	s.container.Addresses = map[string]netip.Addr{orchestrate.MonitoringNetwork: in.Addr}
	in.Inside(t, func() error { s.conn = testenv.ListenUDP(t, "0.0.0.0:4789", 4<<20); return nil })
	go func() {
		defer close(s.over)
		for buf := make([]byte, 1<<16); ; s.took.Add(1) {
			if _, err := s.conn.Read(buf); err != nil {
				return
			}
		}
	}()
	return s
}

func (s *life) awaits(t *testing.T, n uint64) {
	t.Helper()
	eventually(t, "the sensor takes all", func() bool { return s.took.Load() >= n })
}

func (s *life) end() {
	s.conn.Close()
	<-s.over
}

// governed is a run to a sensor's first life, governed by what is seen of it, that
// has sent it some frames.
func governed(t *testing.T) (e *stack, first *life, frames *live, in testenv.Container, heard *listener, over func() (*Document, error)) {
	t.Helper()
	in = testenv.NewContainer(t, 1500)
	first = begin(t, in, "first")
	e = newStack()
	e.set(func(c *orchestrate.Container) { *c = first.container })
	m, heard := toSensor(t, e)
	frames = newLive(t, 100, nil)
	ctx, interrupt := context.WithCancel(t.Context())
	t.Cleanup(interrupt)
	var doc *Document
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		doc, err = (&liveRun{mirror: m}).from(ctx, frames)
	}()
	first.awaits(t, 100)
	return e, first, frames, in, heard, func() (*Document, error) {
		interrupt()
		<-done
		return doc, err
	}
}

// A sensor that goes away and comes back is followed: what it took is in the books
// of its lives, and all else is in them as lost.
func TestTheForwarderFollowsItsSensor(t *testing.T) {
	e, first, frames, in, heard, over := governed(t)
	e.set(func(c *orchestrate.Container) { c.State = "exited" })
	first.end()
	const n = 20_000 // more than fits into what was granted
	frames.more(n)
	heard.awaits(t, "The sensor has gone; packets wait in the ring until it is back")
	next := begin(t, in, "next")
	e.set(func(c *orchestrate.Container) { *c = next.container })
	heard.awaits(t, "Following the sensor to "+in.Addr.String()+":4789")
	eventually(t, "all are handed over", func() bool { return frames.left.Load() < 0 })
	doc, err := over()
	var loss *delivery.LossError
	if err != nil && !errors.As(err, &loss) { // what was on its way when the first had gone
		t.Fatal(err)
	}
	ledger := doc.Lossless.Ledger
	if doc.Report.DatagramsSent != 100+n || ledger.Sent != 100+n || ledger.Taken < next.took.Load() || next.took.Load() == 0 {
		t.Errorf("%d and %d were taken: %v: %+v", first.took.Load(), next.took.Load(), err, ledger)
	}
	if ledger.Taken > ledger.Sent || !strings.Contains(ledger.Verdict, "in 2 stretches") || !doc.Lossless.Governed {
		t.Errorf("%+v", doc.Lossless)
	}
}

// What waited for a sensor that did not come back had nowhere to go: it is counted,
// and the run is not complete.
func TestAMirrorThatEndsWithoutASensorIsIncomplete(t *testing.T) {
	e, first, frames, _, heard, over := governed(t)
	e.set(func(c *orchestrate.Container) { c.State = "exited" })
	first.end()
	frames.more(20_000)
	heard.awaits(t, "The sensor has gone; packets wait in the ring until it is back")
	doc, err := over()
	var loss *delivery.LossError
	if !errors.As(err, &loss) || doc.Verdict != delivery.Incomplete || !strings.Contains(err.Error(), "packets had nowhere to go: the sensor had gone") ||
		strings.HasPrefix(err.Error(), "0 packets") || doc.Report.DatagramsUnsent == 0 {
		t.Errorf("%v: %+v", err, doc)
	}
}
