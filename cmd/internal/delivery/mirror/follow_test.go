package mirror

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// errRefused is what a receiver that has gone is to its transmission.
var errRefused = errors.New("no route to host")

// wire is a transmission that takes some datagrams, and then fails.
type wire struct {
	takes  int
	got    []byte // the first byte of each
	closed bool
}

func (w *wire) Send(b *forward.Batch) (int, error) {
	for i, d := range b.Datagrams {
		if len(w.got) == w.takes {
			return i, errRefused
		}
		w.got = append(w.got, b.Buf[d.Off])
	}
	return len(b.Datagrams), nil
}

func (w *wire) Close() error                          { w.closed = true; return nil }
func (w *wire) Describe() transmit.Description        { return transmit.Description{Mode: transmit.UDP} }
func (w *wire) Settle(context.Context) transmit.Stats { return w.Stats() }

func (w *wire) Stats() transmit.Stats { return transmit.Stats{Datagrams: uint64(len(w.got))} }

// sensorAt is a stretch of which nothing is known but where it is.
func sensorAt(to string) *stretch {
	return &stretch{to: way.Target{Address: netip.MustParseAddrPort(to)}, lossless: watch.Off}
}

// wired is a way out over transmissions by where they go.
func wired(t *testing.T, follow *following, wires map[string]*wire) *outlet {
	t.Helper()
	return &outlet{sending: t.Context(), capturing: t.Context(), follow: follow,
		connect: func(_ context.Context, o transmit.Options) (transmit.Transmitter, error) {
			w := wires[o.Destination.String()]
			if w == nil {
				return nil, errRefused
			}
			return w, nil
		}}
}

// numbered is a batch of n datagrams, each of which is its number.
func numbered(n int) *forward.Batch {
	b := &forward.Batch{}
	for i := range n {
		b.Buf = append(b.Buf, byte(i))
		b.Datagrams = append(b.Datagrams, forward.Datagram{Off: i, Len: 1})
	}
	return b
}

const (
	here  = "192.0.2.1:4789"
	there = "192.0.2.2:4789"
)

// Wherever in a batch the sensor is replaced, the first takes the beginning and the
// next the rest.
func TestATurnInMidBatchNeitherDoublesNorDropsNorSwaps(t *testing.T) {
	const n = 10
	want := numbered(n).Buf
	for took := range n {
		first, next := sensorAt(here), sensorAt(there)
		follow := newFollowing(first, true)
		wires := map[string]*wire{here: {takes: took}, there: {takes: n}}
		out := wired(t, follow, wires)
		turned := make(chan *stretch, 1)
		go func() {
			<-follow.trouble
			turned <- follow.turn(next)
		}()
		sent, err := out.Send(numbered(n))
		if err != nil || sent != n || <-turned != first {
			t.Fatalf("after %d: %d sent, %v", took, sent, err)
		}
		if got := slices.Concat(wires[here].got, wires[there].got); !slices.Equal(got, want) || len(wires[here].got) != took || !wires[here].closed {
			t.Errorf("after %d: %v, and then %v", took, wires[here].got, wires[there].got)
		}
		if a, b := first.sent.Load(), next.sent.Load(); a != uint64(took) || b != uint64(n-took) {
			t.Errorf("after %d: the books say %d and %d", took, a, b)
		}
		if err := out.Close(); err != nil || out.counted.Datagrams != n {
			t.Errorf("%v; counted %d", err, out.counted.Datagrams)
		}
	}
}

// A sensor that is replaced before it fails is left at the next batch.
func TestTheNextBatchGoesToTheNextSensor(t *testing.T) {
	follow := newFollowing(sensorAt(here), true)
	wires := map[string]*wire{here: {takes: 100}, there: {takes: 100}}
	out := wired(t, follow, wires)
	for range 2 {
		if _, err := out.Send(numbered(3)); err != nil {
			t.Fatal(err)
		}
		follow.turn(sensorAt(there))
	}
	if len(wires[here].got) != 3 || len(wires[there].got) != 3 {
		t.Errorf("%d and %d", len(wires[here].got), len(wires[there].got))
	}
}

// One that cannot even be opened is waited for as well.
func TestASensorThatIsNotThereYetIsWaitedFor(t *testing.T) {
	follow := newFollowing(sensorAt(here), true)
	wires := map[string]*wire{there: {takes: 100}}
	go func() { <-follow.trouble; follow.turn(sensorAt(there)) }()
	if n, err := wired(t, follow, wires).Send(numbered(3)); err != nil || n != 3 || len(wires[there].got) != 3 {
		t.Errorf("%d sent, %v", n, err)
	}
}

// Any other monitor comes back nowhere: what it did not take is an error at once.
func TestAnyOtherMonitorIsNotWaitedFor(t *testing.T) {
	follow := newFollowing(sensorAt(here), false)
	n, err := wired(t, follow, map[string]*wire{here: {takes: 3}}).Send(numbered(10))
	if n != 3 || !errors.Is(err, errRefused) || errors.Is(err, errNoSensor) {
		t.Errorf("%d sent, %v", n, err)
	}
}

// The end of the mirror ends the wait for a sensor, and says that there was none.
func TestTheEndOfTheMirrorEndsTheWaitForASensor(t *testing.T) {
	follow := newFollowing(sensorAt(here), true)
	out := wired(t, follow, map[string]*wire{here: {takes: 3}})
	ctx, end := context.WithCancel(t.Context())
	out.capturing = ctx
	go func() { <-follow.trouble; end() }()
	n, err := out.Send(numbered(10))
	if n != 3 || !errors.Is(err, errNoSensor) || !errors.Is(err, errRefused) {
		t.Errorf("%d sent, %v", n, err)
	}
}

// The end of all sending says why.
func TestTheEndOfAllSendingIsNoWait(t *testing.T) {
	follow := newFollowing(sensorAt(here), true)
	out := wired(t, follow, map[string]*wire{here: {takes: 3}})
	ctx, giveUp := context.WithCancelCause(t.Context())
	out.sending = ctx
	giveUp(errPatience)
	if n, err := out.Send(numbered(10)); n != 3 || !errors.Is(err, errPatience) {
		t.Errorf("%d sent, %v", n, err)
	}
}

// A batch of the pipeline is as large as the transmission takes, if it says so.
func TestTheTransmissionSizesBatches(t *testing.T) {
	out := &outlet{}
	if n, bytes := out.BatchSize(); n != 0 || bytes != 0 {
		t.Errorf("before there is one: %d, %d", n, bytes)
	}
	tx, err := transmit.Open(t.Context(), transmit.Options{Destination: testenv.NewReceiver(t).At, Mode: transmit.UDP})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	out.tx = tx
	wantN, wantBytes := tx.(forward.BatchSizer).BatchSize()
	if n, bytes := out.BatchSize(); n != wantN || bytes != wantBytes || n == 0 {
		t.Errorf("%d, %d", n, bytes)
	}
}

// A new sensor begins a new stretch: where nothing can be seen of it, and that is
// not required, once the engine calls it healthy.
func TestASensorElsewhereArrivesOnceItIsHealthy(t *testing.T) {
	e := newStack()
	m, _ := toSensor(t, e)
	target := m.target
	e.set(func(c *orchestrate.Container) { c.Health = "starting" })
	arrived := make(chan *stretch, 1)
	go func() {
		s, err := (&liveRun{mirror: m}).arrive(t.Context(), target)
		if err != nil {
			t.Error(err)
		}
		arrived <- s
	}()
	e.awaits(t, 2)
	select {
	case <-arrived:
		t.Error("it arrived before it was healthy")
	default:
	}
	e.set(func(c *orchestrate.Container) { c.Health = "healthy" })
	select {
	case s := <-arrived:
		if s == nil || s.watch != nil || s.reason == "" || s.to.Address != target.Address {
			t.Errorf("%+v", s)
		}
	case <-time.After(bound):
		t.Fatal("it does not arrive")
	}
	m.Lossless = watch.Require
	ctx, end := context.WithCancel(t.Context())
	end()
	if _, err := (&liveRun{mirror: m}).arrive(ctx, target); !errors.Is(err, context.Canceled) {
		t.Errorf("one that must be seen arrived unseen: %v", err)
	}
}
