package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// A live mirror outlives its sensor's container. The time during which the sensor
// stays what and where it is, is a stretch: it has its own transmission, governor
// and ledger. A courier is what a worker's pipeline sends to: it carries datagrams
// to where the sensor is now, and waits while there is none; meanwhile the ring
// fills. Nothing of a batch is dropped or sent twice on a turn.

// stretch is one of a run.
type stretch struct {
	address  target
	reason   string // why there is no feedback
	mode     losslessMode
	feedback *feedback // nil if nothing is known of the receiver

	mu   sync.Mutex // of the governor, which all workers share
	sent atomic.Uint64
	took atomic.Int64 // time waited for the receiver, nanoseconds
	held atomic.Uint64
}

// governed reports whether the receiver holds the run back.
func (s *stretch) governed() bool { return s.feedback != nil && s.mode != losslessOff }

// settle closes the books. A receiver that is being left is not waited for.
func (s *stretch) settle(ctx context.Context, runErr error) (losslessDocument, error) {
	doc := losslessDocument{Governed: s.governed(), Reason: s.reason}
	if s.feedback == nil {
		return doc, nil
	}
	if !doc.Governed {
		doc.Reason = "--lossless off"
	}
	doc.Feedback = "proc"
	if s.feedback.probe.exact() {
		doc.Feedback = "sock_diag"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.feedback.settle(ctx, &doc, s.sent.Load(), runErr)
	return doc, errors.Join(err, s.feedback.close())
}

// following is where the run goes now, for all couriers.
type following struct {
	mu      sync.Mutex
	now     *stretch
	changed chan struct{} // closed when now is replaced, and made anew
	trouble chan struct{} // has an element when a courier cannot go on
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

// await waits until s is over because of err, if that can be hoped for.
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

// courier is a worker's way out. It implements forward.Sink.
type courier struct {
	run     context.Context // ends all sending
	hope    context.Context // ends the waiting for a sensor to come back
	follow  *following
	options transmit.Options

	at      *stretch
	tx      transmit.Transmitter // to at; nil before the first datagram
	counted transmit.Stats       // of transmissions that were closed
	about   transmit.Description // of the last one
}

var (
	_ forward.Sink       = (*courier)(nil)
	_ forward.BatchSizer = (*courier)(nil)
)

// Send implements forward.Sink.
func (c *courier) Send(b *forward.Batch) (int, error) {
	for sent := 0; ; {
		n, err := c.piece(&forward.Batch{Buf: b.Buf, Datagrams: b.Datagrams[sent:]})
		sent += n
		if err == nil && sent == len(b.Datagrams) {
			return sent, nil
		}
		if err != nil && c.run.Err() != nil {
			return sent, context.Cause(c.run)
		}
		if err != nil {
			if err := c.follow.await(c.hope, c.at, err); err != nil {
				return sent, err
			}
		}
	}
}

// piece sends as many of the leading datagrams as the receiver takes now.
func (c *courier) piece(b *forward.Batch) (int, error) {
	if now, _ := c.follow.current(); now != c.at || c.tx == nil {
		if err := c.open(now); err != nil {
			return 0, err
		}
	}
	s := c.at
	if !s.governed() {
		n, err := c.tx.Send(b)
		s.sent.Add(uint64(n))
		return n, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	grant, err := s.feedback.governor.Reserve(c.run, b)
	if err != nil {
		return 0, err
	}
	if grant.Stalled > 0 {
		s.held.Add(1)
		s.took.Add(int64(grant.Stalled))
	}
	b.Datagrams = b.Datagrams[:grant.Datagrams]
	n, err := c.tx.Send(b)
	s.feedback.governor.Sent(b, n)
	s.sent.Add(uint64(n))
	return n, err
}

// open opens the transmission of another stretch.
func (c *courier) open(s *stretch) error {
	c.Close()
	c.at = s
	o := c.options
	o.Destination = s.address.Address
	tx, err := transmit.Open(c.run, o)
	if err != nil {
		return err
	}
	c.tx, c.about = tx, tx.Describe()
	if s.feedback != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.feedback.by(tx)
	}
	return nil
}

// Close implements forward.Sink.
func (c *courier) Close() error {
	if c.tx == nil {
		return nil
	}
	c.counted, c.about = addStats(c.counted, c.tx.Stats()), c.tx.Describe()
	err := c.tx.Close()
	c.tx = nil
	return err
}

// BatchSize implements forward.BatchSizer: transmissions do not differ.
func (c *courier) BatchSize() (datagrams, bytes int) {
	if sizer, ok := c.tx.(forward.BatchSizer); ok {
		return sizer.BatchSize()
	}
	return 0, 0
}

// addStats adds what two transmissions counted.
func addStats(a, b transmit.Stats) transmit.Stats {
	a.Syscalls += b.Syscalls
	a.Datagrams += b.Datagrams
	a.Bytes += b.Bytes
	a.SuperPackets += b.SuperPackets
	a.Segments += b.Segments
	a.Fragmented += b.Fragmented
	a.Retries += b.Retries
	a.Waits += b.Waits
	a.Refused += b.Refused
	for _, f := range b.Fallbacks {
		if !slices.Contains(a.Fallbacks, f) {
			a.Fallbacks = append(a.Fallbacks, f)
		}
	}
	return a
}

// Times of the watch over the sensor.
const (
	glance  = time.Second     // between two looks at its process
	inquiry = 5 * time.Second // between two questions to the engine, if all seems well
)

// identity tells one life of a sensor from the next.
type identity struct {
	id      string
	pid     int
	started time.Time
	direct  string
	public  string
}

func identityOf(s orchestrate.Sensor) identity {
	return identity{s.Container.ID, s.Container.PID, s.Container.StartedAt, s.Direct.String(), s.Published.String()}
}

// watchSensor waits until the sensor is another one than was, or elsewhere, and
// runs. An element of trouble makes it look at once. Gone is called once if it
// is not there for a while.
func (m *mirror) watchSensor(ctx context.Context, was orchestrate.Sensor, trouble <-chan struct{}, gone func()) (orchestrate.Sensor, error) {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	asked, here, said := time.Now(), was.Container.PID > 0 && was.Container.RunsHere(), false
	var appeared time.Time
	for {
		suspicion := false
		select {
		case <-ctx.Done():
			return was, ctx.Err()
		case <-trouble:
			suspicion = true
		case <-tick.C:
			suspicion = !here || !processLives(was.Container.PID)
		}
		if !suspicion && time.Since(asked) < inquiry {
			continue
		}
		asked = time.Now()
		now, err := orchestrate.FindSensor(ctx, m.engine, m.config.Kind.String())
		if err == nil && identityOf(now) != identityOf(was) && m.way.address(now).IsValid() {
			if appeared.IsZero() {
				appeared = asked
			}
			if m.listens(ctx, now) || asked.Sub(appeared) > startLimit {
				return now, nil
			}
		}
		if err != nil && !said && ctx.Err() == nil {
			said = true
			gone()
		}
	}
}

// listens reports whether the sensor has opened its socket, as far as it can be
// seen: its container runs before that, and what came meanwhile would be lost.
func (m *mirror) listens(ctx context.Context, s orchestrate.Sensor) bool {
	state, err := orchestrate.SensorSockets(ctx, m.engine, s.Container, s.Service.Port)
	return err != nil || state.Listening
}

func processLives(pid int) bool {
	_, err := os.Stat("/proc/" + strconv.Itoa(pid))
	return err == nil
}

// stretchTo makes a stretch to the target: with what is known of the receiver, or
// why nothing is.
func (m *mirror) stretchTo(t target) (*stretch, error) {
	s := &stretch{address: t, mode: m.lossless}
	f, err := m.feedbackOf(t)
	switch {
	case err == nil:
		s.feedback = f
	case m.lossless == losslessRequire:
		return nil, orchestrate.WithHint(fmt.Errorf("require a lossless run: %w", err),
			"feedback needs a sensor of the stack, on an engine of this machine; --lossless auto sends without")
	default:
		s.reason = err.Error()
	}
	return s, nil
}

// feedbackOf opens what can be seen of the receiver.
func (m *mirror) feedbackOf(t target) (*feedback, error) {
	if t.Via == viaTo {
		return nil, errors.New("nothing is known of the receiver that --to names")
	}
	proxy := t.Address
	if t.Via != viaPublished {
		proxy = netip.AddrPort{}
	}
	rt, err := containerRoute(t.Sensor.Container, t.Sensor.Service.Port, proxy)
	if err != nil {
		return nil, err
	}
	return rt.watch()
}

// joinAccounts makes one account of those of several stretches, as far as
// something is known of them.
func joinAccounts(list []losslessDocument) losslessDocument {
	at := len(list) - 1
	for at > 0 && list[at].Ledger == nil {
		at--
	}
	last := list[at]
	if len(list) == 1 || last.Ledger == nil {
		return list[len(list)-1]
	}
	blind := 0
	for i, d := range list {
		switch {
		case i == at:
		case d.Ledger == nil:
			blind++
		default:
			last.add(d)
		}
	}
	l := last.Ledger
	l.Verdict = fmt.Sprintf("all %d packets were taken, in %d stretches between which a container was replaced", l.Sent, len(list))
	if l.Lost > 0 {
		l.Verdict = fmt.Sprintf("%d of %d packets lost, in %d stretches between which a container was replaced", l.Lost, l.Sent, len(list))
	}
	if blind > 0 {
		l.Verdict += fmt.Sprintf("; nothing is known of %d of these", blind)
	}
	return last
}

// add puts the account of an earlier stretch to this one.
func (l *losslessDocument) add(d losslessDocument) {
	to, from := l.Ledger, d.Ledger
	to.Sent, to.Taken, to.Lost = to.Sent+from.Sent, to.Taken+from.Taken, to.Lost+from.Lost+unaccounted(*from)
	to.Counters = append(to.Counters, from.Counters...)
	if l.Seen != nil && d.Seen != nil {
		l.Seen.Taken, l.Seen.Dropped = l.Seen.Taken+d.Seen.Taken, l.Seen.Dropped+d.Seen.Dropped
		l.Seen.WrittenOff, l.Seen.Looks = l.Seen.WrittenOff+d.Seen.WrittenOff, l.Seen.Looks+d.Seen.Looks
	}
}

// unaccounted are packets that still waited in the queue of a sensor that has
// gone: it did not take them.
func unaccounted(l ledger) uint64 {
	if l.QueuedBytes == 0 {
		return 0
	}
	return l.Sent - min(l.Sent, l.Taken+l.Lost)
}
