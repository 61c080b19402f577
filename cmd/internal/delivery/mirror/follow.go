package mirror

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// stretch is the time during which the sensor is what and where it is.
type stretch struct {
	to       way.Target
	reason   string // why nothing is known of the receiver
	lossless watch.Mode
	watch    *watch.Watch // nil if nothing is known of the receiver

	mu      sync.Mutex // of the watch, which all workers share
	sent    atomic.Uint64
	stalled atomic.Int64 // time waited for the receiver, nanoseconds
	stalls  atomic.Uint64
}

// governed reports whether the receiver holds the run back.
func (s *stretch) governed() bool { return s.watch != nil && s.lossless != watch.Off }

// settle closes the books. A receiver that is being left is not waited for.
func (s *stretch) settle(ctx context.Context, runErr error) (watch.Account, error) {
	account := s.watch.Begin(s.lossless, s.reason)
	if s.watch == nil {
		return account, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.watch.Settle(ctx, &account, s.sent.Load(), runErr)
	return account, errors.Join(err, s.watch.Close())
}

// stretchTo makes a stretch to the target: with what is known of the receiver, or
// why nothing is.
func (m *mirror) stretchTo(t way.Target) (*stretch, error) {
	s := &stretch{to: t, lossless: m.Lossless}
	w, err := delivery.Feedback(t)
	if err == nil {
		w.Wait(watch.Waiting{Run: m.Waiting.Run}, m.say)
		s.watch = w
		return s, nil
	}
	if s.reason, err = m.Lossless.Without(err); err != nil {
		return nil, orchestrate.WithHint(err, "feedback needs a sensor of the stack, on an engine of this machine; --lossless auto sends without")
	}
	return s, nil
}

// following is where the run goes now, for all outlets.
type following struct {
	mu      sync.Mutex
	now     *stretch
	changed chan struct{} // closed when now is replaced, and made anew
	trouble chan struct{} // has an element when an outlet cannot go on
	follows bool          // a sensor of the stack may come back elsewhere
}

func newFollowing(first *stretch, follows bool) *following {
	return &following{now: first, changed: make(chan struct{}), trouble: make(chan struct{}, 1), follows: follows}
}

// current returns the stretch, and what is closed when it is over.
func (f *following) current() (*stretch, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now, f.changed
}

// turn begins another stretch and returns the one before.
func (f *following) turn(next *stretch) *stretch {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.now
	f.now = next
	close(f.changed)
	f.changed = make(chan struct{})
	return before
}

// errNoSensor says that the mirror ended while there was no sensor.
var errNoSensor = errors.New("the sensor had gone")

// await waits until s is over because of err, as long as ctx lasts and it may
// come to be.
func (f *following) await(ctx context.Context, s *stretch, err error) error {
	now, changed := f.current()
	if now != s {
		return nil
	}
	if !f.follows {
		return err
	}
	select {
	case f.trouble <- struct{}{}:
	default:
	}
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errNoSensor, err)
	}
}

// connect opens a transmission: [transmit.Open].
type connect func(context.Context, transmit.Options) (transmit.Transmitter, error)

// outlet is a worker's way out. It implements forward.Sink.
type outlet struct {
	sending   context.Context // ends all sending
	capturing context.Context // ends the waiting for a sensor to come back
	follow    *following
	options   transmit.Options
	connect   connect

	at      *stretch
	tx      transmit.Transmitter // to at; nil before the first datagram
	counted transmit.Stats       // of transmissions that were closed
	about   transmit.Description // of the last one
}

var (
	_ forward.Sink       = (*outlet)(nil)
	_ forward.BatchSizer = (*outlet)(nil)
)

// Send implements forward.Sink.
func (o *outlet) Send(b *forward.Batch) (int, error) {
	for sent := 0; ; {
		n, err := o.piece(&forward.Batch{Buf: b.Buf, Datagrams: b.Datagrams[sent:]})
		sent += n
		switch {
		case err == nil && sent == len(b.Datagrams):
			return sent, nil
		case err == nil:
			continue
		case o.sending.Err() != nil:
			return sent, context.Cause(o.sending)
		case errors.As(err, new(*pace.StuckError)):
			return sent, watch.GaveUp(err) // it is there: there is no other to wait for
		}
		if err := o.follow.await(o.capturing, o.at, err); err != nil {
			return sent, err
		}
	}
}

// piece sends as many of the leading datagrams as the receiver takes now.
func (o *outlet) piece(b *forward.Batch) (int, error) {
	if now, _ := o.follow.current(); now != o.at || o.tx == nil {
		if err := o.open(now); err != nil {
			return 0, err
		}
	}
	s := o.at
	if !s.governed() {
		n, err := o.tx.Send(b)
		s.sent.Add(uint64(n))
		return n, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	governor := s.watch.Governor()
	grant, err := governor.Reserve(o.sending, b)
	if err != nil {
		return 0, err
	}
	if grant.Stalled > 0 {
		s.stalls.Add(1)
		s.stalled.Add(int64(grant.Stalled))
	}
	b.Datagrams = b.Datagrams[:grant.Datagrams]
	n, err := o.tx.Send(b)
	governor.Sent(b, n)
	s.sent.Add(uint64(n))
	return n, err
}

// open opens the transmission of another stretch.
func (o *outlet) open(s *stretch) error {
	o.Close()
	o.at = s
	options := o.options
	options.Destination = s.to.Address
	tx, err := o.connect(o.sending, options)
	if err != nil {
		return err
	}
	o.tx, o.about = tx, tx.Describe()
	if s.watch != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watch.By(tx)
	}
	return nil
}

// Close implements forward.Sink.
func (o *outlet) Close() error {
	if o.tx == nil {
		return nil
	}
	if o.at.watch == nil { // else the receiver's own counters tell
		o.tx.Settle(o.sending)
	}
	o.counted, o.about = o.counted.Add(o.tx.Stats()), o.tx.Describe()
	err := o.tx.Close()
	o.tx = nil
	return err
}

// BatchSize implements forward.BatchSizer: transmissions do not differ.
func (o *outlet) BatchSize() (datagrams, bytes int) {
	if sizer, ok := o.tx.(forward.BatchSizer); ok {
		return sizer.BatchSize()
	}
	return 0, 0
}

// followSensor makes a new stretch whenever the sensor is another one.
func (r *liveRun) followSensor(ctx context.Context, follow *following) {
	for {
		next, err := r.watchSensor(ctx, r.target.Sensor, follow.trouble, func() {
			r.say("The sensor has gone; packets wait in the ring until it is back")
		})
		if err != nil {
			return
		}
		t := r.target
		t.Sensor, t.Address = next, r.way.Address(next)
		s, err := r.arrive(ctx, t)
		if err != nil {
			return
		}
		was := r.target
		r.mu.Lock()
		r.target = t
		r.mu.Unlock()
		r.warn(r.capture.Exclude(r.tunnels(was.Sensor)))
		before := follow.turn(s)
		r.say(fmt.Sprintf("Following the sensor to %s", t.Address))
		r.warn(r.settle(before, left(was)))
	}
}

// arriveLimit is how long a new sensor's socket is waited for.
const arriveLimit = time.Minute

// arrive waits until a sensor that has just been started listens, as far as that
// can be seen.
func (r *liveRun) arrive(ctx context.Context, t way.Target) (*stretch, error) {
	limit := time.Now().Add(arriveLimit)
	for {
		s, err := r.stretchTo(t)
		if err == nil && (s.watch != nil || time.Now().After(limit) || !t.Sensor.Container.RunsHere() && r.healthy(ctx, t)) {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
