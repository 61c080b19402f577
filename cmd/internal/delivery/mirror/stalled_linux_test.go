package mirror

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/orchestrate/sockets"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// A sensor that is there and takes nothing is announced; after the time for which
// it is to be waited for the mirror ends with a loss, and does not wait for another
// sensor. When the mirror is to end meanwhile, it ends at once.
func TestAMirrorIntoASensorThatStops(t *testing.T) {
	b := testenv.NewContainer(t, 1500)
	b.Inside(t, func() error { testenv.ListenUDP(t, "0.0.0.0:4789", 0); return nil }) // nobody reads
	w, err := watch.Route{Sensor: sockets.Place{Path: b.Path()}, Port: 4789}.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	heard := &listener{}
	w.Wait(watch.Waiting{Run: 4 * time.Second}, heard.Say)
	to := way.Target{Choice: way.Choice{Kind: way.Direct}, Address: netip.AddrPortFrom(b.Addr, 4789)}
	follow := newFollowing(&stretch{to: to, lossless: watch.Auto, watch: w}, true)
	m, _ := toMonitor(to.Address)
	capturing, end := context.WithCancel(t.Context())
	r := &liveRun{mirror: m, capture: newLive(t, 0, nil), capturing: capturing, where: follow}
	r.sending, r.giveUp = context.WithCancelCause(t.Context())
	workers, err := r.hire(follow)
	if err != nil {
		t.Fatal(err)
	}
	o := workers[0].out
	defer o.Close()
	batch := &forward.Batch{Buf: make([]byte, 100)}
	for range 64 {
		batch.Datagrams = append(batch.Datagrams, forward.Datagram{Len: 100, Port: 50000})
	}
	for err == nil {
		_, err = o.Send(batch)
	}
	var loss *watch.LossError
	if !errors.As(err, &loss) || !strings.Contains(err.Error(), "0.0.0.0:4789 of the sensor took nothing for 4") {
		t.Fatal(err)
	}
	if !strings.Contains(heard.all(), "waiting up to 4s") || !w.Stalled() {
		t.Errorf("said %q", heard.all())
	}

	end()
	r.endInTime(make(chan struct{})) // it returns, or the test does not end
	if cause := context.Cause(r.sending); !errors.Is(cause, errStalled) {
		t.Errorf("it ended with %v", cause)
	}
}
