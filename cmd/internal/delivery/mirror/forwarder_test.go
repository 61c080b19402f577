package mirror

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/sidecar"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/afpacket"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/selftest"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// listener is an observer that remembers what it is told.
type listener struct {
	mu   sync.Mutex
	said []string
}

func (l *listener) Say(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, line)
}

func (l *listener) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.said, "\n")
}

func (*listener) Meter(func() delivery.Reading) func() { return func() {} }
func (*listener) Step(delivery.Step)                   {}

// Flows reads once, as a screen that is drawn once.
func (*listener) Flows(read func() []delivery.Flow) func() {
	read()
	return func() {}
}

// live is a capture whose frames are made: some, and then silence until it is
// stopped, or failure.
type live struct {
	frames  forward.Source
	left    atomic.Int64
	count   atomic.Uint64
	failure error // what comes after the frames; nil for silence
	counts  afpacket.Counts

	stopped, woken chan struct{}
	interrupted    atomic.Bool
	stop           sync.Once
}

func newLive(t *testing.T, frames int64, failure error) *live {
	t.Helper()
	source, err := selftest.NewSynthetic(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	l := &live{frames: source, failure: failure, stopped: make(chan struct{}), woken: make(chan struct{}, 1)}
	l.left.Store(frames)
	l.counts.Interface = "eth0"
	return l
}

// Next implements forward.Source.
func (l *live) Next(f *forward.Frame) error {
	for {
		switch {
		case l.interrupted.Load():
			return context.Canceled
		case l.left.Add(-1) >= 0:
			l.count.Add(1)
			return l.frames.Next(f)
		case l.failure != nil:
			return l.failure
		}
		select {
		case <-l.stopped:
			return io.EOF
		case <-l.woken:
		}
	}
}

// more lets so many frames more come.
func (l *live) more(n int64) { l.left.Store(n); l.wake() }

func (l *live) wake() {
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

func (l *live) Ready() bool                     { return l.left.Load() > 0 }
func (l *live) Sources() []forward.Source       { return []forward.Source{l} }
func (l *live) Exclude([]afpacket.Tunnel) error { return nil }
func (l *live) Stop() error                     { l.stop.Do(func() { close(l.stopped) }); return nil }
func (l *live) Close() error                    { return l.Stop() }

func (l *live) Interrupt(on bool) {
	l.interrupted.Store(on)
	l.wake()
}

func (l *live) Counts() ([]afpacket.Counts, error) {
	c := l.counts
	c.Interface = "eth0"
	c.Packets = l.count.Load()
	return []afpacket.Counts{c}, nil
}

var _ capture = (*live)(nil)

// toMonitor is a mirror to a receiver of which nothing is known.
func toMonitor(to netip.AddrPort) (*mirror, *listener) {
	heard := &listener{}
	return &mirror{Options: Options{Interfaces: []string{"eth0"}, Config: encap.Config{Kind: encap.VXLAN, VNI: 7, MTU: 1500}, Tx: transmit.UDP, CPU: transmit.CPUOff,
		Workers: 1, Lossless: watch.Auto, Observer: heard}, interfaces: []string{"eth0"}, how: Forwarder,
		target: way.Target{Choice: way.Choice{Kind: way.To}, Address: to}}, heard
}

// What is captured arrives, and an interrupt is how a mirror ends.
func TestTheForwarderForwards(t *testing.T) {
	to := testenv.NewReceiver(t)
	m, heard := toMonitor(to.At)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	const n = 500
	go func() { to.Awaits(t, n); interrupt() }()
	doc, err := (&liveRun{mirror: m}).from(ctx, newLive(t, n, nil))
	if err != nil || doc.Verdict != delivery.Complete {
		t.Fatalf("%v: %+v", err, doc)
	}
	if doc.Report.DatagramsSent != n || doc.Interfaces[0].Packets != n || doc.Kernel.Datagrams != n || doc.How != Forwarder || doc.Via != way.To || doc.Lossless == nil || doc.Lossless.Governed {
		t.Errorf("%+v", doc)
	}
	if said := heard.all(); !strings.Contains(said, "Run 7: eth0 to vxlan 127.0.0.1") || !strings.Contains(said, "Ctrl-C ends it") {
		t.Errorf("said %q", said)
	}
}

// A duration ends it as well.
func TestADurationEndsAMirror(t *testing.T) {
	m, _ := toMonitor(testenv.NewReceiver(t).At)
	m.Duration = 50 * time.Millisecond
	if doc, err := (&liveRun{mirror: m}).from(t.Context(), newLive(t, 10, nil)); err != nil || doc.Report.DatagramsSent != 10 {
		t.Errorf("%v: %+v", err, doc)
	}
}

// Each kind of loss is said, with what helps, and is no success.
func TestWhatWasLostIsSaid(t *testing.T) {
	gone := errors.New("eth0 has gone")
	for name, tt := range map[string]struct {
		failure error
		counts  afpacket.Counts
		verdict delivery.Verdict
		want    string
	}{
		"in the ring":  {io.EOF, afpacket.Counts{Dropped: 3}, delivery.Incomplete, "3 packets were lost before they could be sent"},
		"an interface": {gone, afpacket.Counts{}, delivery.Failed, "mirror eth0: read frame: eth0 has gone"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := toMonitor(testenv.NewReceiver(t).At)
			l := newLive(t, 10, tt.failure)
			l.counts = tt.counts
			doc, err := (&liveRun{mirror: m}).from(t.Context(), l)
			if err == nil || doc.Verdict != tt.verdict || !strings.Contains(err.Error(), tt.want) || doc.Error != err.Error() {
				t.Errorf("%v: %+v", err, doc)
			}
		})
	}
}

// sidecarHere runs the sidecar's end in this process, until it is killed. A nil
// channel never kills.
func sidecarHere(kill <-chan struct{}) *orchestrate.SidecarStreams {
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	done, ended, code := make(chan struct{}), make(chan struct{}), 0
	go func() {
		defer close(done)
		_ = sidecar.Server{In: inR, Out: outW}.Serve(context.Background()) // the client sees how it ends
	}()
	go func() {
		select {
		case <-done:
		case <-kill:
			code = 137
		}
		outW.Close()
		errW.Close()
		inR.Close()
		close(ended)
	}()
	return &orchestrate.SidecarStreams{ID: "inside", Stdin: inW, Stdout: outR, Stderr: errR, Close: inW.Close,
		Wait: func(ctx context.Context) (int, error) {
			select {
			case <-ended:
				return code, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}}
}

// By sidecar frames go as they are captured, and the capture's end, or its failure,
// is the mirror's.
func TestTheForwarderFeedsASidecar(t *testing.T) {
	gone := errors.New("tcpdump has ended")
	for name, failure := range map[string]error{"interrupted": nil, "failed": gone} {
		t.Run(name, func(t *testing.T) {
			to := testenv.NewReceiver(t)
			m, heard := toMonitor(to.At)
			// The sidecar's address is that of its namespace's loopback.
			sensor := orchestrate.Sensor{Service: orchestrate.Service{Name: "zeek", Port: to.At.Port()}}
			m.target = way.Target{Choice: way.Choice{Kind: way.Sidecar}, Address: to.At, Sensor: sensor}
			m.way = way.Opened{Choice: way.Choice{Kind: way.Sidecar}, Streams: sidecarHere(nil)}
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			const n = 300
			go func() {
				to.Awaits(t, n)
				if failure == nil {
					interrupt()
				}
			}()
			doc, err := (&liveRun{mirror: m}).from(ctx, newLive(t, n, failure))
			var loss *delivery.LossError
			if errors.As(err, &loss) { // the machine's other traffic: this is no namespace of a sensor's own
				err = nil
			}
			if failure == nil && err != nil || failure != nil && (err == nil || !strings.Contains(err.Error(), failure.Error())) {
				t.Errorf("it ended with %v", err)
			}
			if doc.Report.DatagramsSent != n || doc.Via != way.Sidecar || !strings.Contains(heard.all(), "Run 7: eth0 to vxlan") {
				t.Errorf("%+v; said %q", doc, heard.all())
			}
		})
	}
}
