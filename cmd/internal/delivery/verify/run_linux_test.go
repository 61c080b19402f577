package verify

import (
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// inNamespace lets the engine's sensors listen in what looks like a container:
// its address answers from here, and its sockets can be watched.
func inNamespace(t *testing.T, e *fakeEngine) {
	t.Helper()
	c := testenv.NewContainer(t, 9000)
	resident := exec.Command("sleep", "600")
	c.Inside(t, resident.Start)
	t.Cleanup(func() { _ = resident.Process.Kill(); _ = resident.Wait() })
	var metrics net.Listener
	c.Inside(t, func() (err error) {
		metrics, err = net.Listen("tcp4", netip.AddrPortFrom(c.Addr, orchestrate.MetricsPort).String())
		return err
	})
	var open sync.WaitGroup
	open.Go(func() { hold(metrics) })
	t.Cleanup(func() { metrics.Close(); open.Wait() })
	e.namespace = func(shot *oneShot) orchestrate.Container {
		c.Inside(t, func() error { shot.sensor = listen(testenv.ListenUDP(t, ":4789", 16<<20)); return nil })
		return orchestrate.Container{PID: resident.Process.Pid, Addresses: map[string]netip.Addr{"monitoring": c.Addr}}
	}
}

// hold accepts connections, which stay until it ends.
func hold(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
	}
}

// Where a sensor's own address answers it is reached directly, and the run is
// governed by its socket, by either transmission.
func TestASensorIsReachedDirectlyAndGoverned(t *testing.T) {
	temporary(t)
	for _, tx := range []transmit.Mode{transmit.UDP, transmit.Packet} {
		t.Run(string(tx), func(t *testing.T) {
			e, o := newFake(t), options()
			inNamespace(t, e)
			o.Tx, o.Way.Tx, o.Lossless = tx, tx, watch.Require
			row := verified(t, t.Context(), e, e, sample(t), o)
			equal(t, row, way.Direct, sampleFrames)
			if row.Lossless == nil || !row.Lossless.Governed || !row.Path.TakenKnown || row.Path.Taken != sampleFrames {
				t.Errorf("%+v, %+v", row.Lossless, row.Path)
			}
		})
	}
}

// On the direct way the kernel's count and the sensor's own agree on what did not
// arrive.
func TestALossOnTheDirectWay(t *testing.T) {
	temporary(t)
	e, o := newFake(t), options()
	inNamespace(t, e)
	o.Interpose = faulty{fault: "drop", at: 7}.before
	row := verified(t, t.Context(), e, e, sample(t), o)
	if row.Verdict != Differs || row.Path.Taken != sampleFrames-1 || row.Path.Received != sampleFrames-1 || len(row.Findings) != 1 {
		t.Errorf("%s: %s, %+v, %v", row.Verdict, row.Error, row.Path, row.Findings)
	}
}
