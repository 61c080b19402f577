package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"time"
)

// Sizes of a batch where neither the Pipeline nor its Sink says otherwise.
const (
	DefaultBatchDatagrams = 64        // what one sendmmsg commonly takes
	DefaultBatchBytes     = 256 << 10 // stays within a second-level cache
)

// AtOnce as a due time stands for "no due time: send it as soon as you can".
const AtOnce int64 = -1

// Pacer says when datagrams are due. It is package pace's job. A Pacer holds
// the state of one run and is used by one goroutine.
type Pacer interface {
	// Due is called once for every datagram, in sending order, with the frame
	// it carries (or a segment of it), the bytes of inner Ethernet frame in it
	// and the time now. All times are nanoseconds since the start of the run,
	// which is when the first frame was read; now may be some microseconds
	// old.
	//
	// It returns the time at which the datagram is due by the schedule, from
	// which the timing error is measured, and the earliest time at which it
	// may leave. The second is later than the first only where a pacer spreads
	// a backlog out instead of sending it as one burst. Neither ever decreases
	// from one call to the next. [AtOnce] for both means no schedule.
	Due(f *Frame, inner int, now int64) (due, earliest int64)
}

// Clock is a monotonic clock that can wait. Package pace has the real one.
type Clock interface {
	// Now returns nanoseconds since an arbitrary, fixed origin. Unlike
	// SleepUntil it may be called from any goroutine.
	Now() int64
	// SleepUntil returns at t or as little later as the system can, never
	// before. When ctx ends it returns ctx.Err() within 100 milliseconds.
	SleepUntil(ctx context.Context, t int64) error
}

// Gate may hold sending back, on top of every pace: a governor that knows how
// much the receiver can still take. The Pipeline asks it before each hand-over
// to the Sink and tells it afterwards what has really been handed over:
//
//	grant, err := gate.Reserve(ctx, b)   // waits, and cuts b at the budget
//	n, err := sink.Send(b[:grant.Datagrams])
//	gate.Sent(b, n)
//
// A budget may be in any unit (datagrams, payload bytes, bytes of kernel
// memory): the Gate sees every datagram's length and decides alone how many
// fit. What does not fit is offered again by the next Reserve, at the head of
// a batch that was filled up meanwhile, so nothing is lost and the order is
// kept.
type Gate interface {
	// Reserve waits until at least the first datagram of b may be sent and
	// says how many of the leading ones may go now: 1 to len(b.Datagrams). It
	// must not keep b. When ctx ends, or has ended, it does not wait: it grants
	// what fits at this moment, or returns ctx.Err(). Any error ends the run.
	Reserve(ctx context.Context, b *Batch) (Grant, error)
	// Sent says that the first n datagrams of b, which holds exactly what was
	// granted last, were handed over. n is smaller than the grant only when
	// the Sink failed.
	Sent(b *Batch, n int)
}

// Grant is a Gate's answer.
type Grant struct {
	Datagrams int           // how many of the leading datagrams may be sent now
	Stalled   time.Duration // how long the receiver was waited for; 0 if not at all
}

// BatchSizer is implemented by a Sink that knows the batch size at which it is
// fastest. A batch that it gets never holds more datagrams than it said. It
// may hold up to one frame (64 KiB) more than the bytes it said.
type BatchSizer interface {
	BatchSize() (datagrams, bytes int)
}

// Readier is implemented by a Source whose Next may have to wait for its input
// (a live interface, a pipe). Ready reports whether Next would return at once;
// before a call that would wait, the batch under way is sent. What Next lent last may
// be invalid afterwards.
type Readier interface {
	Ready() bool
}

// Stopper is implemented by a Source whose Next may wait for long. Stop ends that
// wait, and those to come: Next then fails with an error that unwraps to
// context.Canceled, at the latest when it would wait. It may be called from any
// goroutine, and more than once.
type Stopper interface {
	Stop()
}

// Filterer is implemented by a Source that leaves frames out. Filtered returns
// how many so far; it is called from the goroutine that calls Next.
type Filterer interface {
	Filtered() uint64
}

// Pipeline takes frames from a Source through an Encapsulator to a Sink, each
// no earlier than it is due. Fill it in and call Run once. It does not close
// the Source or the Sink.
//
// A batch is sent when it is full, when the next datagram is not yet due, when
// the Source would have to wait, and at the end. So with sparse traffic each
// frame leaves on its own and on time, and bursts leave as batches. No datagram
// is handed to the Sink before its earliest time: the slack is zero. One that
// is late is sent as soon as it can be.
type Pipeline struct {
	Source       Source
	Encapsulator Encapsulator
	Sink         Sink
	Clock        Clock
	Pacer        Pacer // nil: as fast as the Sink takes it
	Gate         Gate  // nil: nothing holds sending back

	Waiting Waiting // whether to wait until datagrams are due

	Limit    uint64        // frames to take from the Source; 0: all
	Duration time.Duration // send nothing that is due later than this after the start; 0: no end

	BatchDatagrams int // datagrams per batch; 0: what the Sink says, else DefaultBatchDatagrams
	BatchBytes     int // payload bytes at which a batch is sent; 0: likewise, DefaultBatchBytes

	Stats *Stats // counts of the run, readable while it runs; nil: not wanted
}

// errEnd ends the loop without being an error: the limit or the duration is
// reached.
var errEnd = errors.New("end of run")

// Run forwards until the Source is at its end, the limit or the duration is
// reached, something fails, or ctx ends. It returns nil in the first three
// cases. Otherwise the error wraps the cause: the Source's (every frame before
// it has been sent), the Sink's, the Gate's, or context.Cause(ctx), for which
// the batch under way is finished first. The counts are right in every case.
//
// A call of Source.Next that waits is ended, by ctx and by the Duration, if the
// Source is a [Stopper]; another one has to end its wait itself. Until the first
// frame is there, the Duration counts from the call of Run.
func (p *Pipeline) Run(ctx context.Context) error {
	r, err := p.newRun()
	if err != nil {
		return err
	}
	defer r.stopInTime(ctx)()
	err = r.loop(ctx)
	r.finish()
	if errors.Is(err, errEnd) {
		return nil
	}
	return err
}

// newRun checks the parts and allocates everything the loop needs.
func (p *Pipeline) newRun() (*run, error) {
	for _, part := range []struct {
		name    string
		missing bool
	}{{"source", p.Source == nil}, {"encapsulator", p.Encapsulator == nil}, {"sink", p.Sink == nil}, {"clock", p.Clock == nil}} {
		if part.missing {
			return nil, fmt.Errorf("run pipeline: it has no %s", part.name)
		}
	}
	r := &run{
		source: p.Source, encap: p.Encapsulator, sink: p.Sink,
		pacer: p.Pacer, clock: p.Clock, gate: p.Gate, stats: p.Stats,
		limit: p.Limit, deadline: math.MaxInt64, waiting: p.Waiting,
	}
	r.ready, _ = p.Source.(Readier)
	r.filter, _ = p.Source.(Filterer)
	if p.Duration > 0 {
		r.deadline = int64(p.Duration)
	}
	if r.stats == nil {
		r.stats = new(Stats)
	}
	r.maxDatagrams, r.maxBytes = p.batchSize()
	r.batch.Datagrams = make([]Datagram, 0, 2*r.maxDatagrams)
	r.slots = make([]slot, 0, 2*r.maxDatagrams)
	r.batch.Buf = make([]byte, 0, r.maxBytes+1<<16)
	return r, nil
}

func (p *Pipeline) batchSize() (datagrams, bytes int) {
	if s, ok := p.Sink.(BatchSizer); ok {
		datagrams, bytes = s.BatchSize()
	}
	if p.BatchDatagrams > 0 && (datagrams <= 0 || p.BatchDatagrams < datagrams) {
		datagrams = p.BatchDatagrams
	}
	if p.BatchBytes > 0 && (bytes <= 0 || p.BatchBytes < bytes) {
		bytes = p.BatchBytes
	}
	if datagrams <= 0 {
		datagrams = DefaultBatchDatagrams
	}
	if bytes <= 0 {
		bytes = DefaultBatchBytes
	}
	return datagrams, bytes
}

// lookInterval is how many frames may pass without any being sent before the
// run looks at ctx and publishes its counts: all may be refused.
const lookInterval = 4096

// run is the state of one Run: everything the loop touches, allocated once.
type run struct {
	source Source
	encap  Encapsulator
	sink   Sink
	pacer  Pacer // nil: no pace
	clock  Clock
	gate   Gate // nil: no gate
	stats  *Stats

	waiting   Waiting
	virtual   int64 // where nothing is waited for: the time of the schedule, since the start
	stamped   bool  // with NoWaitStamp: stampZero is known
	stampZero int64 // the capture time that the schedule starts at

	ready        Readier  // nil if the source never waits
	filter       Filterer // nil if the source filters nothing
	limit        uint64
	deadline     int64       // since the start; math.MaxInt64 without a duration
	alarm        *time.Timer // stops the source at the deadline; nil where it need not be
	over         atomic.Bool // it has
	maxDatagrams int
	maxBytes     int

	frame  Frame
	batch  Batch  // encapsulated and not yet sent
	slots  []slot // parallel to batch.Datagrams
	view   Batch  // the part of batch that is being handed over
	tally  tally  // counted since the last publication
	taken  uint64 // frames taken from the source
	idle   int    // frames since the last look at ctx
	origin int64  // the clock's time at the start
	now    int64  // since the start, as last looked at
}

// slot is what the run keeps of a pending datagram beside its place in the
// batch.
type slot struct {
	due   int64 // since the start, or AtOnce
	inner int   // bytes of inner Ethernet frame
}

// loop takes frames until something ends it, then sends what is pending. What
// is pending is always due: whoever finds a datagram that cannot be sent any
// more drops it.
func (r *run) loop(ctx context.Context) error {
	var err error
	if ctx.Err() != nil {
		return r.interruption(ctx, ctx.Err())
	}
	for err == nil {
		err = r.step(ctx)
	}
	flushErr := r.flush(ctx, len(r.slots))
	if flushErr == nil || interrupted(ctx, flushErr) && interrupted(ctx, err) {
		return err
	}
	if errors.Is(err, errEnd) {
		return flushErr
	}
	return errors.Join(err, flushErr)
}

// step takes one frame as far as it can go.
func (r *run) step(ctx context.Context) error {
	if r.taken == r.limit && r.limit != 0 {
		return errEnd
	}
	if r.ready != nil && len(r.slots) > 0 && !r.ready.Ready() {
		if err := r.flushAndLook(ctx); err != nil {
			return err
		}
	}
	if err := r.source.Next(&r.frame); err != nil {
		return r.sourceError(ctx, err)
	}
	if r.taken == 0 {
		r.start()
	}
	r.taken++
	first := len(r.slots)
	out := r.encap.Encapsulate(&r.batch, &r.frame)
	r.tally.frame(&r.frame, out, len(r.batch.Datagrams)-first)
	if r.frame.Retimed && r.tally.firstRetimed == 0 {
		r.tally.firstRetimed = r.number()
	}
	if err := r.schedule(ctx, first, out.Inner); err != nil {
		return err
	}
	if r.full() {
		if err := r.relieve(ctx); err != nil {
			return err
		}
		return r.lookAround(ctx)
	}
	if r.idle++; r.idle >= lookInterval {
		return r.flushAndLook(ctx)
	}
	return nil
}

// number is that of the frame at hand in the source's input, from 1: those that it
// left out count.
func (r *run) number() uint64 {
	if r.filter != nil {
		return r.taken + r.filter.Filtered()
	}
	return r.taken
}

// full reports whether the batch is as large as the sink wants it.
func (r *run) full() bool { return len(r.slots) >= r.maxDatagrams || len(r.batch.Buf) >= r.maxBytes }

// relieve sends until the batch is not full any more. Where the gate grants
// only a part, the rest stays: it leaves with what fills the batch up again, for
// a small batch costs the gate and the sink as much as a full one.
func (r *run) relieve(ctx context.Context) error {
	for r.full() {
		sent, err := r.handOver(ctx, 0, min(len(r.slots), r.maxDatagrams))
		r.remove(sent)
		if err != nil {
			r.drop()
			return err
		}
	}
	return nil
}

// stopInTime makes the source end a wait when ctx ends or the duration is over. The
// function that it returns gives that up.
func (r *run) stopInTime(ctx context.Context) (end func()) {
	source, ok := r.source.(Stopper)
	if !ok {
		return func() {}
	}
	release := context.AfterFunc(ctx, source.Stop)
	if r.deadline != math.MaxInt64 {
		r.alarm = time.AfterFunc(time.Duration(r.deadline), func() {
			r.over.Store(true)
			source.Stop()
		})
	}
	return func() {
		release()
		if r.alarm != nil {
			r.alarm.Stop()
		}
	}
}

func (r *run) sourceError(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return errEnd
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return r.interruption(ctx, err)
	case errors.Is(err, context.Canceled) && r.over.Load():
		return errEnd
	}
	return fmt.Errorf("read frame: %w", err)
}

// start sets the origin of all times when the first frame is there, so that a
// source that is slow to open makes no frame late.
func (r *run) start() {
	if r.alarm != nil {
		r.alarm.Reset(time.Duration(r.deadline))
	}
	r.origin = r.clock.Now()
	r.stats.begin(r.clock, r.origin)
}

// finish publishes what has been counted since the last hand-over.
func (r *run) finish() {
	r.look()
	r.publish(nil, nil)
	r.stats.finish(r.now)
}

// schedule asks when each of the datagrams from first on is due, and waits for
// those that are not due yet.
func (r *run) schedule(ctx context.Context, first, inner int) error {
	n := len(r.batch.Datagrams) - first
	if n == 0 {
		return nil
	}
	overhead := (len(r.batch.Buf) - r.batch.Datagrams[first].Off - inner) / n
	for i := first; i < len(r.batch.Datagrams); i++ {
		s, earliest := slot{due: AtOnce, inner: r.batch.Datagrams[i].Len - overhead}, AtOnce
		if r.pacer != nil && r.waiting != Wait {
			if err := r.pass(i, s.inner); err != nil {
				return err
			}
		} else if r.pacer != nil {
			s.due, earliest = r.pacer.Due(&r.frame, s.inner, r.now)
		}
		r.slots = append(r.slots, s)
		if earliest <= r.now {
			continue
		}
		if err := r.await(ctx, i, earliest); err != nil {
			return err
		}
		i = len(r.slots) - 1 // await has moved datagram i to the front
	}
	return nil
}

// await returns when datagram i may leave. The datagrams before it are sent
// first, unless the clock says that there is nothing to wait for.
func (r *run) await(ctx context.Context, i int, earliest int64) error {
	if r.look(); earliest <= r.now {
		return nil
	}
	if err := r.flush(ctx, i); err != nil {
		return err
	}
	if earliest > r.deadline {
		r.discard() // not a loss: as what follows it, it lies beyond the end
		return errEnd
	}
	if err := r.clock.SleepUntil(ctx, r.origin+earliest); err != nil {
		r.drop()
		return r.interruption(ctx, err)
	}
	r.look()
	return nil
}

// look reads the clock.
func (r *run) look() { r.now = r.clock.Now() - r.origin }

// flushAndLook sends everything pending, then looks whether the run is to end.
func (r *run) flushAndLook(ctx context.Context) error {
	if err := r.flush(ctx, len(r.slots)); err != nil {
		return err
	}
	return r.lookAround(ctx)
}

// lookAround looks whether the run is to end.
func (r *run) lookAround(ctx context.Context) error {
	if r.idle >= lookInterval {
		r.look()
		r.publish(nil, nil)
	}
	r.idle = 0
	if err := ctx.Err(); err != nil {
		return r.interruption(ctx, err)
	}
	if r.now >= r.deadline && r.virtual == 0 {
		return errEnd
	}
	return nil
}

// flush hands the first n pending datagrams to the sink, in pieces that
// neither it nor the gate finds too large, and moves the others to the front.
// Where it fails, everything pending is dropped.
func (r *run) flush(ctx context.Context, n int) error {
	for sent := 0; sent < n; {
		piece, err := r.handOver(ctx, sent, min(n, sent+r.maxDatagrams))
		sent += piece
		if err != nil {
			r.remove(sent)
			r.drop()
			return err
		}
	}
	r.remove(n)
	return nil
}

// handOver sends the datagrams from to until, or as many of them as the gate
// grants, and returns how many were sent.
func (r *run) handOver(ctx context.Context, from, until int) (int, error) {
	r.view = Batch{Buf: r.batch.Buf, Datagrams: r.batch.Datagrams[from:until]}
	if r.gate != nil {
		if err := r.reserve(ctx); err != nil {
			return 0, err
		}
	}
	r.look()
	n, err := r.sink.Send(&r.view)
	if r.gate != nil {
		r.gate.Sent(&r.view, n)
	}
	r.publish(r.view.Datagrams[:n], r.slots[from:from+n])
	r.look()
	if err == nil && n < len(r.view.Datagrams) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return n, fmt.Errorf("send datagram %d: %w", r.stats.sent()+1, err)
	}
	return n, nil
}

// reserve cuts the view down to what the gate grants.
func (r *run) reserve(ctx context.Context) error {
	grant, err := r.gate.Reserve(ctx, &r.view)
	if grant.Stalled > 0 {
		r.tally.stalls++
		r.tally.stalled += grant.Stalled
	}
	switch {
	case err != nil && interrupted(ctx, err):
		return r.interruption(ctx, err)
	case err != nil:
		return fmt.Errorf("wait for the receiver: %w", err)
	case grant.Datagrams < 1 || grant.Datagrams > len(r.view.Datagrams):
		return fmt.Errorf("wait for the receiver: granted %d of %d datagrams", grant.Datagrams, len(r.view.Datagrams))
	}
	r.view.Datagrams = r.view.Datagrams[:grant.Datagrams]
	return nil
}

// interrupted reports whether err is only the end of ctx.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx)))
}

// interruption is the error of a run that ctx, or the clock, has ended.
func (r *run) interruption(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("interrupted after %d datagrams: %w", r.stats.sent(), err)
}

// remove takes the first n datagrams out of the batch. Those that stay, if any,
// are few: one frame that is not yet due, or what a gate did not grant.
func (r *run) remove(n int) {
	if n == len(r.slots) && n == len(r.batch.Datagrams) {
		r.batch.Reset()
		r.slots = r.slots[:0]
		return
	}
	if n == 0 {
		return
	}
	base := r.batch.Datagrams[n].Off
	r.batch.Buf = r.batch.Buf[:copy(r.batch.Buf, r.batch.Buf[base:])]
	r.batch.Datagrams = r.batch.Datagrams[:copy(r.batch.Datagrams, r.batch.Datagrams[n:])]
	r.slots = r.slots[:copy(r.slots, r.slots[n:])]
	for i := range r.batch.Datagrams {
		r.batch.Datagrams[i].Off -= base
	}
}

// drop gives up what is pending and counts it.
func (r *run) drop() {
	r.tally.unsent += uint64(len(r.batch.Datagrams))
	r.discard()
}

func (r *run) discard() {
	r.batch.Reset()
	r.slots = r.slots[:0]
}

// publish makes the counts visible to Snapshot, with the datagrams that have
// just been sent; they left at r.now.
func (r *run) publish(sent []Datagram, slots []slot) {
	if r.filter != nil {
		r.tally.filtered = r.filter.Filtered()
	}
	r.tally.send(sent, slots)
	r.stats.add(&r.tally, slots, r.now)
}
