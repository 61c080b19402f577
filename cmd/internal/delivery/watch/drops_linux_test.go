package watch

import (
	"context"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// pictures takes pictures of the way into a container while something runs.
type pictures struct {
	reader      *drops.Reader
	first, last drops.Picture
	clean       int  // intervals in which something came and nothing was lost
	lost        bool // in any interval
}

// ofWay takes the first picture.
func ofWay(t *testing.T, c testenv.Container) *pictures {
	t.Helper()
	resident := exec.Command("sleep", "600")
	c.Inside(t, resident.Start)
	t.Cleanup(func() { resident.Process.Kill(); resident.Wait() })
	host, done := drops.Local()
	t.Cleanup(func() { done() })
	p := &pictures{reader: drops.NewReader(drops.Dir("/"), host, func(context.Context) (drops.Path, error) {
		return drops.Path{Bridge: c.Bridge, Sensors: []drops.SensorAt{{Name: "zeek", PID: resident.Process.Pid, Started: time.Now(), Address: c.Addr, Port: 4789}}}, nil
	})}
	var err error
	if p.first, err = p.reader.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.last = p.first
	return p
}

// next compares a new picture with the one before.
func (p *pictures) next(t *testing.T) {
	t.Helper()
	now, err := p.reader.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	interval := drops.Compare(p.last, now)
	if interval.Verdict == drops.VerdictClean {
		p.clean++
	}
	p.lost = p.lost || interval.Lost > 0 || interval.LostLines > 0
	p.last = now
}

// At the rate of the packet transmitter, and nothing lost, every hop is clean,
// in each of several intervals of the run.
func TestDropsAreNoneAtFullRate(t *testing.T) {
	heavy(t)
	c := testenv.NewContainer(t, 9000)
	list := readers(t, c, 1, 0, func(uint64) {})
	seen := ofWay(t, c)
	const frames = 300_000
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		report, doc, err := replayInto(t, netip.AddrPortFrom(c.Addr, 4789), transmit.Packet, routeInto(c), Auto, frames)
		if err != nil || doc.Ledger.Lost > 0 {
			t.Errorf("%v, %+v", err, doc.Ledger)
		}
		t.Logf("%.0f pps", report.DatagramsPerSecond)
	}()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for running := true; running; seen.next(t) {
		select {
		case <-finished:
			running = false
		case <-tick.C:
		}
	}
	whole := drops.Compare(seen.first, seen.last)
	for _, h := range whole.Hops {
		if h.Verdict == drops.VerdictLost {
			t.Errorf("%s lost %d: %+v", h.Name, *h.Lost, h.Counters)
		}
		if h.Hop == drops.HopUDP || h.Hop == drops.HopSocket {
			if h.In == nil || *h.In != frames || h.Verdict != drops.VerdictClean {
				t.Errorf("%s: %s, %+v", h.Name, h.Verdict, h.Counters)
			}
		}
	}
	if got := list[0].count.Load(); got != frames || seen.clean < 2 || seen.lost {
		t.Errorf("%d of %d arrived, %d intervals were clean: %s", got, frames, seen.clean, whole.Sentence)
	}
}
