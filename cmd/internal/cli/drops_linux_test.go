package cli

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

// At the rate of the packet transmitter, and nothing lost, every hop is clean,
// in each of several intervals of the run.
func TestDropsAreNoneAtFullRate(t *testing.T) {
	c := testenv.NewContainer(t, 9000)
	resident := exec.Command("sleep", "600")
	c.Inside(t, resident.Start)
	t.Cleanup(func() { resident.Process.Kill(); resident.Wait() })
	list := readers(t, c, 1, 0, func(uint64) {})
	host, done := drops.Local()
	defer done()
	reader := drops.NewReader(drops.Dir("/"), host, func(context.Context) (drops.Path, error) {
		return drops.Path{Bridge: c.Bridge, Sensors: []drops.SensorAt{{Name: "zeek", PID: resident.Process.Pid, Started: time.Now(), Address: c.Addr, Port: 4789}}}, nil
	})
	ledger := &dropsLedger{reader: reader}
	if err := ledger.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	const frames = 300_000
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		report, doc, err := replayInto(t, netip.AddrPortFrom(c.Addr, 4789), transmit.Packet, routeInto(c), losslessAuto, frames)
		if err != nil || doc.Ledger.Lost > 0 {
			t.Errorf("%v, %+v", err, doc.Ledger)
		}
		t.Logf("%.0f pps", report.DatagramsPerSecond)
	}()
	busy := 0
	for running := true; running; {
		select {
		case <-finished:
			running = false
		case <-time.After(100 * time.Millisecond):
		}
		interval, _, err := ledger.next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if interval.Verdict == drops.VerdictClean {
			busy++
		}
	}
	whole := ledger.whole()
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
	if got := list[0].count.Load(); got != frames || busy < 2 || ledger.result() != nil {
		t.Errorf("%d of %d arrived, %d intervals were clean: %s", got, frames, busy, whole.Sentence)
	}
}
