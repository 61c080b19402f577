package pace

import (
	"context"
	"fmt"
	"math/bits"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Socket is the state of one receive queue on the way to the receiver's
// application. Memory is in bytes as the receiving kernel accounts it: the true
// size of its buffers, not of what they carry.
type Socket struct {
	ID uint64 // of this socket and no other, ever
	// Stage tells queues in series apart: 0 is the receiver's own socket, 1 one
	// whose reader sends on to stage 0, and so on. Sockets of one stage share
	// the load; which of them a datagram goes to is not known.
	Stage     int
	Name      string // for errors and reports
	Queued    int    // memory of the datagrams that wait
	Allocated int    // what counts against Buffer: Queued, and what is not given back yet
	Buffer    int    // a datagram that comes when Allocated is larger is dropped
	Drops     uint64 // datagrams dropped at this socket, since any origin
}

// Probe looks at the receiver's queues. It must not allocate in the long run:
// it is called thousands of times a second.
type Probe interface {
	// Taken returns how many datagrams the receiver's application has taken
	// out of stage 0, since any origin.
	Taken() (uint64, error)
	// Sockets appends the sockets that are there now, read stage by stage from
	// 0 on: so a datagram that moves meanwhile is seen nowhere rather than
	// twice.
	Sockets(buf []Socket) ([]Socket, error)
}

// What the governor is built on.
const (
	// onWayLimit bounds what may be between sender and sockets, in packets.
	// There lies the queue of a processor for received packets, which takes
	// 1000 (net.core.netdev_max_backlog) and drops the rest without a word to
	// the sender.
	onWayLimit = 800
	// leastCost is less than any datagram costs, in bytes.
	leastCost = 1024
	// headers is more than an IP packet, or a fragment of one, has beside its
	// payload, and by what rounding makes fragments smaller, in bytes.
	headers = 100
	// fewest is how many datagrams are worth a call of the sink.
	fewest = 16
	// lookInterval is how old a look may become while there is room: then the
	// receiver may have died.
	lookInterval = 100 * time.Millisecond
	// writeOff is how long all queues must be empty and nothing taken until
	// what is still missing counts as lost on the way.
	writeOff = 200 * time.Millisecond
	// The shortest and longest pause between two looks while waiting. The
	// second is less than it takes any receiver to empty a queue, so that it
	// never has to wait for the sender.
	shortestPause, longestPause = 20 * time.Microsecond, 500 * time.Microsecond
	// ringSize is how many datagrams may be under way and queued together.
	ringSize = 1 << 16
	// leastBelief is what a socket can always hold, in bytes: the default of
	// net.ipv4.udp_rmem_min, which the kernel grants whatever other limits say.
	leastBelief = 4096
	// A queue that is believed to hold less than its buffer is tried with more
	// after some time, little by little. The time doubles with each loss, so
	// that the losses of a long run are few.
	beliefHolds, beliefGrows = 30 * time.Second, time.Second
	// announceAfter is how long a receiver may take nothing without a word.
	announceAfter = 3 * time.Second
)

// Cost is an upper bound of what a datagram with n bytes of payload takes of a
// receive buffer, in bytes, where IP packets longer than mtu are fragmented; an
// mtu of 0 stands for one that is not known. It covers the ways in which a
// datagram may come:
//
//   - whole: the structure itself, and its data with headers, headroom and
//     struct skb_shared_info in an allocation of a power of two (SKB_TRUESIZE in
//     the kernel's include/linux/skbuff.h);
//   - from a packet socket, if longer than a page: a small head beside whole
//     pages (packet_alloc_skb in net/packet/af_packet.c);
//   - as a segment of a super-packet: a small head beside its share of the pages
//     (skb_segment in net/core/skbuff.c);
//   - in fragments: each is a whole one.
func Cost(n, mtu int) int {
	const (
		smallHead = 256 + 704 // SKB_SMALL_HEAD_SIZE
		page      = 4096
	)
	if mtu == 0 {
		return max(Cost(n, 1500), Cost(n, 9000))
	}
	cost := max(whole(n), smallHead+n, leastCost)
	if n > page-headers {
		cost = max(cost, smallHead+(n+headers+page-1)&^(page-1))
	}
	if piece := mtu - headers; n > piece {
		cost = max(cost, n/piece*whole(mtu)+whole(n%piece))
	}
	return cost
}

// pieces is in how many packets a datagram of n bytes may travel.
func pieces(n, mtu int) int {
	if mtu == 0 {
		mtu = 1500
	}
	return 1 + n/(mtu-headers)
}

// whole is what a packet takes that lies in one allocation.
func whole(n int) int {
	const (
		structure = 256
		beside    = 320 + 160 // skb_shared_info; headers and headroom
	)
	return structure + 1<<bits.Len(uint(max(n+beside, 1024)-1))
}

// Governor is a [forward.Gate] that lets no more be sent than the receiver's
// queues can hold, whatever the receiver does: it may be slow, pause, or have a
// tiny buffer. [NewGovernor] makes it.
//
// The rule. Every datagram that was granted and not yet taken by the
// application is somewhere: on the way, or in one of the queues that the
// [Probe] shows. Their number is known exactly (granted less taken), their
// memory by an upper bound; what the queues do not show of it must be on the
// way. A datagram is granted if it, and all that is on the way, fits into the
// fullest socket of each stage. So what is on the way may arrive as late as it
// likes. What is taken is counted for the receiver's whole system: another
// sender to it makes the rule an estimate, for then others' datagrams count as
// taken as well.
//
// A datagram that is larger than a whole queue is granted when all is empty: the
// kernel takes it then.
//
// The kernel may drop before a buffer is full: a memory limit of the receiver's
// cgroup, or net.ipv4.udp_mem. Then the socket is believed to hold no more than
// what it held when it dropped, with a margin; see [Queue.Believed].
//
// Where one of several sockets of a stage goes, the others go on. What was in its
// queue is not known, so nothing is granted until all else has been taken: what is
// missing then was there.
//
// It allocates nothing after its start, and looks only if what it knows does
// not suffice: once per some hundred datagrams. A Governor belongs to one
// goroutine.
type Governor struct {
	probe Probe
	clock forward.Clock
	mtu   int // of the way; 0 if not known

	sockets []Socket // as last seen, their Buffer what is believed
	spare   []Socket // memory for the next look
	known   []Queue  // every socket there has been

	patience  time.Duration // for a receiver that takes nothing; 0: for ever
	say       func(Stall)   // told of it; nil: nobody
	announced bool          // it has been told
	since     int64         // when what it was told of began

	costs    []uint32 // ring of what is outstanding, in sending order
	first    int      // index of the oldest
	count    int      // of outstanding datagrams
	inFlight int      // their cost
	budget   int      // cost that may still be granted before the next look
	room     int      // budget that is worth sending for: a part of the least buffer
	packets  int      // that may be put on the way before the next look

	looked  int64  // time of the last look
	taken   uint64 // as last read
	moved   int64  // when something was last taken or queued
	took    int64  // when something was last taken
	broken  bool   // a socket has gone, and what was in its queue is not known yet
	rate    float64
	excess  float64 // by what Cost exceeds true sizes, at least 1: see learn
	pause   time.Duration
	granted uint64
	result  Feedback
}

var _ forward.Gate = (*Governor)(nil)

// Feedback is what a [Governor] has seen.
type Feedback struct {
	Taken      uint64 `json:"taken"`       // datagrams taken by the receiver's application
	Dropped    uint64 `json:"dropped"`     // datagrams dropped at the sockets that were watched
	WrittenOff uint64 `json:"written_off"` // datagrams that neither arrived nor were seen dropped
	InGone     uint64 `json:"in_gone"`     // datagrams that were missing after one of several sockets had gone
	Looks      uint64 `json:"looks"`       // how often the queues were read
}

// Queue is a socket that there is or was during a run, as last seen.
type Queue struct {
	Socket
	// Believed is what it is believed to hold, in bytes. It is less than Buffer
	// where it dropped datagrams while it held no more than Held.
	Believed int
	Held     int
	Gone     bool
	// Waited is how long sending waited while this was the one with the least room.
	Waited time.Duration

	hold  time.Duration // how long the belief stays as it is
	grows int64         // when it is to grow
}

// Stall is the news that the receiver takes nothing.
type Stall struct {
	Socket string        // the name of one whose queue is full
	For    time.Duration // how long so far
	Limit  time.Duration // how long it is waited for; 0: for ever
	Over   bool          // it takes again
}

// StuckError says that the receiver took nothing for longer than it was to be
// waited for.
type StuckError struct {
	Stall
	Taken   uint64 // datagrams that the receiver had taken until then
	Granted uint64 // datagrams that had been sent
}

// Error implements error.
func (e *StuckError) Error() string {
	return fmt.Sprintf("%s took nothing for %s, and its queue is full: of %d packets that were sent %d had been taken",
		e.Socket, e.For.Round(time.Second/10), e.Granted, e.Taken)
}

// GoneError says that a socket that was being sent to is no longer there, nor any
// that shared its load.
type GoneError struct {
	Socket  string // its name
	Taken   uint64 // datagrams that the receiver had taken until then
	Granted uint64 // datagrams that had been sent
}

// Error implements error.
func (e *GoneError) Error() string {
	return fmt.Sprintf("the socket %s has gone (its process was restarted, killed or ran out of memory): %d of %d packets had been taken",
		e.Socket, e.Taken, e.Granted)
}

// NewGovernor starts to watch. It fails if the probe does, or shows no socket.
func NewGovernor(probe Probe, clock forward.Clock) (*Governor, error) {
	g := &Governor{probe: probe, clock: clock, costs: make([]uint32, ringSize),
		sockets: make([]Socket, 0, 64), spare: make([]Socket, 0, 64), excess: 1}
	var err error
	if g.taken, err = probe.Taken(); err != nil {
		return nil, fmt.Errorf("watch the receiver: %w", err)
	}
	if g.sockets, err = probe.Sockets(g.sockets); err != nil {
		return nil, fmt.Errorf("watch the receiver: %w", err)
	}
	if len(g.sockets) == 0 {
		return nil, fmt.Errorf("watch the receiver: it has no socket")
	}
	g.known = make([]Queue, 0, 64)
	g.meet()
	g.looked, g.moved, g.took = clock.Now(), clock.Now(), clock.Now()
	g.reckon()
	return g, nil
}

// Patience sets how long a receiver that takes nothing is waited for while there
// is something to send; 0 is for ever. Say is told when that has lasted for some
// seconds, and when it is over: from Reserve and Drain, so it must not take long.
// Nil is for nobody. It is to be called before anything is granted.
func (g *Governor) Patience(limit time.Duration, say func(Stall)) { g.patience, g.say = limit, say }

// leastMTU is what any way takes whole (RFC 791, section 3.1).
const leastMTU = 576

// PathMTU says how long an IP packet may be that reaches the receiver whole, in
// bytes. Without it the governor has to reckon with fragments, which take much
// more memory. It is to be called before anything is granted.
func (g *Governor) PathMTU(mtu int) { g.mtu = max(mtu, leastMTU) }

// Reserve implements [forward.Gate]. What it grants counts as on the way at
// once. It looks as late as it can, for a look costs as much as sending several
// packets: while what is known lets enough go, it lets that go.
func (g *Governor) Reserve(ctx context.Context, b *forward.Batch) (forward.Grant, error) {
	n := g.fitting(b)
	if n < min(len(b.Datagrams), fewest) || g.clock.Now()-g.looked > int64(lookInterval) {
		if err := g.look(); err != nil {
			return forward.Grant{}, err
		}
		n = g.fitting(b)
	}
	var stalled time.Duration
	if n < min(len(b.Datagrams), fewest) {
		start := g.clock.Now()
		var err error
		if n, err = g.wait(ctx, b); err != nil {
			return forward.Grant{}, err
		}
		stalled = time.Duration(g.clock.Now() - start)
	}
	g.charge(b.Datagrams[:n])
	return forward.Grant{Datagrams: n, Stalled: stalled}, nil
}

// Sent implements [forward.Gate]: what was not sent is not on the way.
func (g *Governor) Sent(b *forward.Batch, n int) {
	for i := range len(b.Datagrams) - n {
		g.count--
		c := int(g.costs[(g.first+g.count)%ringSize])
		g.inFlight -= c
		g.budget += c
		g.packets += pieces(b.Datagrams[n+i].Len, g.mtu)
		g.granted--
	}
}

// Feedback returns what has been seen until the last look.
func (g *Governor) Feedback() Feedback { return g.result }

// Queues returns every socket that there has been, as last seen, valid until the
// next look.
func (g *Governor) Queues() []Queue { return g.known }

// settled is how long everything must have been taken to be called at rest:
// what passes from one queue to another is seen in neither.
const settled = 20 * time.Millisecond

// Drain waits until everything has been taken, or lost and written off, and
// nothing moves any more. It gives up when the receiver has taken nothing for
// as long as patience, or ctx ends, and returns how many datagrams are
// outstanding then. Queues may hold others' datagrams still: see [Governor.Queues].
func (g *Governor) Drain(ctx context.Context, patience time.Duration) (outstanding int, err error) {
	start := g.clock.Now()
	g.took = start
	for {
		if err := g.look(); err != nil {
			return g.count, err
		}
		g.tell(start, patience)
		enough := patience
		if g.count == 0 && g.queued() == 0 {
			enough = min(settled, patience)
		}
		if g.idle(start) >= enough {
			return g.count, nil
		}
		if err := g.clock.SleepUntil(ctx, g.clock.Now()+int64(longestPause)); err != nil {
			return g.count, err
		}
	}
}

// wait looks until enough room is there for sending to be worth its while, and
// returns how many datagrams fit.
func (g *Governor) wait(ctx context.Context, b *forward.Batch) (int, error) {
	g.pause = shortestPause
	start := g.clock.Now()
	for {
		n := g.fitting(b)
		if n == len(b.Datagrams) || n > 0 && (g.budget >= g.room || ctx.Err() != nil) {
			g.tell(start, g.patience)
			return n, nil
		}
		if n == 0 && g.count == 0 && g.queued() == 0 && !g.anyDebt() {
			return 1, nil // larger than any queue: the kernel takes it into an empty one
		}
		if g.tell(start, g.patience); g.patience > 0 && g.idle(start) >= g.patience {
			return 0, &StuckError{Stall: g.stall(start, g.patience), Taken: min(g.result.Taken, g.granted), Granted: g.granted}
		}
		slept := g.clock.Now()
		if err := g.clock.SleepUntil(ctx, slept+int64(g.nextPause())); err != nil {
			return 0, err
		}
		g.blame(time.Duration(g.clock.Now() - slept))
		if err := g.look(); err != nil {
			return 0, err
		}
	}
}

// blame notes for which socket it was waited: the one with the least room, as last
// seen.
func (g *Governor) blame(waited time.Duration) {
	var least *Queue
	for i := range g.known {
		q := &g.known[i]
		if !q.Gone && (least == nil || q.Believed-q.Allocated < least.Believed-least.Allocated) {
			least = q
		}
	}
	if least != nil {
		least.Waited += waited
	}
}

// idle is how long the receiver has taken nothing of what has waited since start.
func (g *Governor) idle(start int64) time.Duration {
	return time.Duration(g.clock.Now() - max(start, g.took))
}

// stall describes how the receiver stands.
func (g *Governor) stall(start int64, limit time.Duration) Stall {
	s := Stall{For: g.idle(start), Limit: limit}
	for i := range g.sockets {
		if s.Socket == "" || g.sockets[i].Queued > 0 {
			s.Socket = g.sockets[i].Name
		}
		if g.sockets[i].Queued > 0 {
			break
		}
	}
	return s
}

// tell announces that the receiver takes nothing, and that it takes again.
func (g *Governor) tell(start int64, limit time.Duration) {
	idle := g.idle(start) >= announceAfter && g.queued() > 0
	if g.say == nil || idle == g.announced {
		return
	}
	switch s := g.stall(start, limit); {
	case idle:
		g.announced, g.since = true, max(start, g.took)
		g.say(s)
	case g.took >= start:
		g.announced = false
		s.For, s.Over = time.Duration(g.clock.Now()-g.since), true
		g.say(s)
	}
}

// anyDebt reports whether a socket has not yet given back what it could not
// hold a further datagram with.
func (g *Governor) anyDebt() bool {
	for i := range g.known {
		if q := &g.known[i]; !q.Gone && q.Allocated > q.Buffer {
			return true
		}
	}
	return false
}

// nextPause is the time in which, at the rate so far, the receiver will have
// made the room that is missing; without a rate it grows.
func (g *Governor) nextPause() time.Duration {
	g.pause = min(2*g.pause, longestPause)
	if g.rate <= 0 {
		return g.pause
	}
	missing := float64(g.room-g.budget) / g.rate // nanoseconds, more than an integer holds if it takes nothing
	return time.Duration(min(max(missing, float64(shortestPause)), float64(longestPause)))
}

// fitting returns how many of the leading datagrams the budget allows.
func (g *Governor) fitting(b *forward.Batch) int {
	left, packets, most := g.budget, g.packets, min(len(b.Datagrams), ringSize-g.count)
	for i := range most {
		left -= Cost(b.Datagrams[i].Len, g.mtu)
		packets -= pieces(b.Datagrams[i].Len, g.mtu)
		if left < 0 || packets < 0 {
			return i
		}
	}
	return most
}

// charge notes that datagrams are on the way.
func (g *Governor) charge(ds []forward.Datagram) {
	for i := range ds {
		c := Cost(ds[i].Len, g.mtu)
		g.costs[(g.first+g.count)%ringSize] = uint32(c)
		g.count++
		g.inFlight += c
		g.budget -= c
		g.packets -= pieces(ds[i].Len, g.mtu)
	}
	g.granted += uint64(len(ds))
}

// look reads the counters, retires what was taken, and reckons anew.
func (g *Governor) look() error {
	g.result.Looks++
	taken, err := g.probe.Taken() // before the queues: see Probe
	if err != nil {
		return fmt.Errorf("watch the receiver: %w", err)
	}
	news := taken - g.taken
	g.result.Taken, g.taken = g.result.Taken+news, taken
	if err := g.readSockets(); err != nil {
		return err
	}
	now := g.clock.Now()
	if news > 0 {
		g.took = now
	}
	dropped := g.meet()
	news += dropped
	g.result.Dropped += dropped
	before := g.inFlight
	g.retire(news)
	g.measure(float64(before-g.inFlight), float64(now-g.looked))
	g.looked = now
	if news > 0 {
		g.learn()
	}
	if news > 0 || g.queued() > 0 || g.count == 0 {
		g.moved = now
	} else if now-g.moved > int64(writeOff) {
		g.writeOff()
	}
	g.broken = g.broken && g.count > 0
	g.reckon()
	return nil
}

// writeOff gives up what is still missing.
func (g *Governor) writeOff() {
	if g.broken {
		g.result.InGone += uint64(g.count)
	} else {
		g.result.WrittenOff += uint64(g.count)
	}
	g.retire(uint64(g.count))
}

// measure keeps a running mean of the rate at which the receiver takes, in
// bytes of cost per nanosecond, of about the last ten looks.
func (g *Governor) measure(took, elapsed float64) {
	if elapsed <= 0 {
		return
	}
	if took == 0 && g.queued() == 0 {
		return // there was nothing to take
	}
	g.rate += (took/elapsed - g.rate) / 10
}

// learn follows the quotient of what is outstanding and what the queues show of
// it: downwards at once, upwards slowly, for what is on the way makes it larger.
func (g *Governor) learn() {
	const enough = 64 << 10 // in the queues, for the quotient to tell anything
	if seen := g.queued(); seen > enough {
		g.excess = max(1, min(float64(g.inFlight)/float64(seen), g.excess*1.01))
	}
}

// readSockets reads the sockets. That one has gone ends the run only if none is
// left of those that shared its load.
func (g *Governor) readSockets() error {
	var gone *Queue
	for range 3 { // a list that is read while it changes may lack one
		list, err := g.probe.Sockets(g.spare[:0])
		if err != nil {
			return fmt.Errorf("watch the receiver: %w", err)
		}
		g.sockets, g.spare = list, g.sockets
		if gone = g.missing(); gone == nil {
			return nil
		}
	}
	if !g.othersOf(gone) {
		return &GoneError{Socket: gone.Name, Taken: min(g.result.Taken, g.granted), Granted: g.granted}
	}
	for i := range g.known {
		if q := &g.known[i]; !q.Gone && find(g.sockets, q.ID) == nil {
			q.Gone, g.broken = true, g.count > 0
		}
	}
	return nil
}

// missing returns a known socket that was not seen now: one whose stage has none
// left, if there is such a one.
func (g *Governor) missing() (gone *Queue) {
	for i := range g.known {
		if q := &g.known[i]; !q.Gone && find(g.sockets, q.ID) == nil {
			if gone = q; !g.othersOf(q) {
				return gone
			}
		}
	}
	return gone
}

// othersOf reports whether one of the known sockets of a stage is still there. One
// that has just come does not count: then the whole receiver is another.
func (g *Governor) othersOf(gone *Queue) bool {
	for i := range g.known {
		if q := &g.known[i]; !q.Gone && q.Stage == gone.Stage && find(g.sockets, q.ID) != nil {
			return true
		}
	}
	return false
}

func find(list []Socket, id uint64) *Socket {
	for i := range list {
		if list[i].ID == id {
			return &list[i]
		}
	}
	return nil
}

// meet keeps what was seen of each socket, makes new ones known, and returns how
// many datagrams they have dropped since the last look.
func (g *Governor) meet() (dropped uint64) {
	for i := range g.sockets {
		s := &g.sockets[i]
		q := g.queue(s.ID)
		if q == nil {
			g.known = append(g.known, Queue{Socket: *s, Believed: s.Buffer})
			continue
		}
		if s.Drops > q.Drops {
			dropped += s.Drops - q.Drops
			g.doubt(q, s.Allocated)
		}
		full := q.Believed >= q.Buffer
		q.Socket = *s
		if full || q.Believed > s.Buffer {
			q.Believed = s.Buffer
		} else {
			g.trust(q)
		}
		s.Buffer = q.Believed
	}
	return dropped
}

func (g *Governor) queue(id uint64) *Queue {
	for i := range g.known {
		if g.known[i].ID == id {
			return &g.known[i]
		}
	}
	return nil
}

// doubt lowers what a socket is believed to hold, which has dropped a datagram
// while this memory, or that of the last look, was allocated. What was allocated
// is a lower bound of the limit, but the queue may have been emptied since; so the
// belief falls to a sixty-fourth at the most. A socket that was full had its reason.
func (g *Governor) doubt(q *Queue, allocated int) {
	held := max(q.Allocated, allocated)
	if g.granted == 0 || held >= q.Buffer {
		return
	}
	less := min(held, q.Believed) // with a margin:
	q.Believed = max(less-less/8, q.Believed/64, min(leastBelief, q.Buffer))
	q.Held = max(q.Held, held)
	q.hold = max(beliefHolds, 2*q.hold)
	q.grows = g.clock.Now() + int64(q.hold)
}

// trust lets a belief grow that has held for long.
func (g *Governor) trust(q *Queue) {
	if now := g.clock.Now(); now >= q.grows {
		q.Believed = min(q.Buffer, q.Believed+q.Believed/8)
		q.grows = now + int64(beliefGrows)
	}
}

// retire takes the n oldest datagrams off what is outstanding.
func (g *Governor) retire(n uint64) {
	for ; n > 0 && g.count > 0; n-- {
		g.inFlight -= int(g.costs[g.first])
		g.first = (g.first + 1) % ringSize
		g.count--
	}
}

// queued adds up all queues.
func (g *Governor) queued() (n int) {
	for i := range g.sockets {
		n += g.sockets[i].Queued
	}
	return n
}

// reckon computes the budget: for each stage what is free in its fullest socket,
// less what has not yet come so far; and what may be on the way at all. The
// second takes the queues' content at its usual cost, lest a long queue that
// takes less than its bound pass for a long way.
func (g *Governor) reckon() {
	last := 0
	for i := range g.sockets {
		last = max(last, g.sockets[i].Stage)
	}
	seen, budget, capacity := 0, ringSize*leastCost, onWayLimit*leastCost
	for stage := 0; stage <= last; stage++ {
		free := ringSize * leastCost
		for i := range g.sockets {
			if s := &g.sockets[i]; s.Stage == stage {
				free = min(free, s.Buffer-s.Allocated)
				capacity = min(capacity, s.Buffer)
				seen += s.Queued
			}
		}
		budget = min(budget, free-max(g.inFlight-seen, 0))
	}
	g.budget, g.packets = budget, onWayLimit
	if onWay := g.inFlight - int(g.excess*float64(seen)); onWay > 0 {
		g.packets -= int(int64(onWay) * int64(g.count) / int64(g.inFlight)) // at their mean cost
	}
	g.room = capacity / 4
	if g.broken {
		g.budget, g.packets = 0, 0 // until it is known what went with the socket
	}
}
