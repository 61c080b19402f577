package pace

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

// simSocket is a receive queue of the simulated receiver.
type simSocket struct {
	id      uint64
	buffer  int
	queue   []int // true sizes
	queued  int
	debt    int // taken and not given back, see Socket.Allocated
	drops   uint64
	highest int
	limit   int // of its memory, whatever the buffer says; 0 for none
}

func (s *simSocket) allocated() int { return s.queued + s.debt }

// simulation is a receiver with queues in series, the way to it, and a clock.
// Nothing in it is real time.
type simulation struct {
	random *rand.Rand
	now    int64
	stages [][]*simSocket // 0 is the receiver's own
	onWay  []simDatagram  // by no particular time
	taken  uint64
	// service returns how many nanoseconds a reader needs for a datagram now.
	service func(now int64) int64
	busy    []int64 // per stage, until when its reader is busy
	delay   int64   // longest time on the way
	lost    func() bool
	lag     int64 // how long a look may take
	reads   int
	err     error
	next    uint64
	mtu     int // as the governor knows it
}

type simDatagram struct {
	at    int64
	size  int
	stage int
}

func newSimulation(seed uint64, buffers ...[]int) *simulation {
	s := &simulation{random: rand.New(rand.NewPCG(seed, 7)), service: func(int64) int64 { return 1000 }, lost: func() bool { return false }}
	for _, stage := range buffers {
		var sockets []*simSocket
		for _, b := range stage {
			s.next++
			sockets = append(sockets, &simSocket{id: s.next, buffer: b})
		}
		s.stages = append(s.stages, sockets)
	}
	s.busy = make([]int64, len(buffers))
	return s
}

func (s *simulation) Now() int64 { return s.now }

func (s *simulation) SleepUntil(ctx context.Context, t int64) error {
	s.advance(t)
	return ctx.Err()
}

// advance lets time pass, in steps of a microsecond.
func (s *simulation) advance(until int64) {
	for s.now < until {
		s.now = min(s.now+1000, until)
		rest := s.onWay[:0]
		for _, d := range s.onWay {
			if d.at <= s.now {
				s.arrive(d)
			} else {
				rest = append(rest, d)
			}
		}
		s.onWay = rest
		for stage := range s.stages {
			s.serve(stage)
		}
	}
}

func (s *simulation) arrive(d simDatagram) {
	if len(s.stages[d.stage]) == 0 {
		return // nobody listens any more
	}
	q := s.stages[d.stage][s.random.IntN(len(s.stages[d.stage]))]
	if q.allocated() > q.buffer || q.limit > 0 && q.allocated()+d.size > q.limit {
		q.drops++
		return
	}
	q.queue = append(q.queue, d.size)
	q.queued += d.size
	q.highest = max(q.highest, q.queued)
}

// serve lets each reader of a stage take what it has the time for.
func (s *simulation) serve(stage int) {
	for s.busy[stage] < s.now {
		took := false
		for _, q := range s.stages[stage] {
			if len(q.queue) == 0 {
				q.debt = 0
				continue
			}
			size := q.queue[0]
			q.queue, q.queued, took = q.queue[1:], q.queued-size, true
			if q.debt += size; q.debt > q.buffer/4 {
				q.debt = 0
			}
			if stage == 0 {
				s.taken++
			} else {
				s.onWay = append(s.onWay, simDatagram{s.now + s.random.Int64N(5000), size, stage - 1})
			}
		}
		if !took {
			s.busy[stage] = s.now
			return
		}
		s.busy[stage] += s.service(s.now)
	}
}

func (s *simulation) Taken() (uint64, error) {
	s.reads++
	n := s.taken
	s.advance(s.now + s.random.Int64N(s.lag+1))
	return n, s.err
}

func (s *simulation) Sockets(buf []Socket) ([]Socket, error) {
	for stage, sockets := range s.stages {
		for _, q := range sockets {
			buf = append(buf, Socket{ID: q.id, Stage: stage, Name: fmt.Sprintf("s%d", q.id), Queued: q.queued, Allocated: q.allocated(), Buffer: q.buffer, Drops: q.drops})
		}
		s.advance(s.now + s.random.Int64N(s.lag+1))
	}
	return buf, s.err
}

func (s *simulation) drops() (n uint64) {
	for _, stage := range s.stages {
		for _, q := range stage {
			n += q.drops
		}
	}
	return n
}

// send puts a batch on the way; true sizes are at most what the governor thinks.
func (s *simulation) send(b *forward.Batch) {
	for _, d := range b.Datagrams {
		s.advance(s.now + 1000 + s.random.Int64N(2000))
		if s.lost() {
			continue
		}
		size := Cost(d.Len, s.mtu) - s.random.IntN(Cost(d.Len, s.mtu)/3)
		s.onWay = append(s.onWay, simDatagram{s.now + s.random.Int64N(s.delay+1), size, len(s.stages) - 1})
	}
}

// forwardTo sends n datagrams of random lengths, governed.
func forwardTo(t *testing.T, s *simulation, g *Governor, n, longest int) {
	t.Helper()
	for sent := 0; sent < n; {
		b := batchOf(s.random, min(1+s.random.IntN(256), n-sent), longest)
		for len(b.Datagrams) > 0 {
			grant, err := g.Reserve(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			if grant.Datagrams < 1 || grant.Datagrams > len(b.Datagrams) {
				t.Fatalf("granted %d of %d", grant.Datagrams, len(b.Datagrams))
			}
			piece := &forward.Batch{Datagrams: b.Datagrams[:grant.Datagrams]}
			s.send(piece)
			g.Sent(piece, grant.Datagrams)
			b.Datagrams = b.Datagrams[grant.Datagrams:]
			sent += grant.Datagrams
		}
	}
}

func batchOf(random *rand.Rand, n, longest int) *forward.Batch {
	b := new(forward.Batch)
	for range n {
		length := 60 + random.IntN(longest)
		if random.IntN(4) > 0 {
			length = 60 + random.IntN(min(longest, 400)) // most packets are small
		}
		b.Datagrams = append(b.Datagrams, forward.Datagram{Len: length})
	}
	return b
}

const (
	untuned = 425984 // an untuned sensor's buffer
	proxy   = 212992 // docker-proxy's
)

// Whatever the receiver does and however late it shows, no queue overflows and
// everything is taken.
func TestNothingIsEverDropped(t *testing.T) {
	pausing := func(every, long int64) func(int64) int64 {
		last := int64(0)
		return func(now int64) int64 {
			if now-last > every {
				last = now + long
				return long
			}
			return 5000
		}
	}
	tests := []struct {
		name    string
		buffers [][]int
		service func(int64) int64
		delay   int64
		longest int
	}{
		{"fast receiver", [][]int{{untuned}}, func(int64) int64 { return 100 }, 0, 1400},
		{"slow receiver", [][]int{{untuned}}, func(int64) int64 { return 20_000 }, 0, 1400},
		{"small buffer", [][]int{{proxy}}, func(int64) int64 { return 8000 }, 3000, 1400},
		{"tiny buffer", [][]int{{4608}}, func(int64) int64 { return 3000 }, 3000, 9000},
		{"huge buffer", [][]int{{64 << 20}}, func(int64) int64 { return 10_000 }, 3000, 9000},
		{"pauses", [][]int{{untuned}}, pausing(20*ms, 50*ms), 3000, 1400},
		{"all on the way for long", [][]int{{untuned}}, func(int64) int64 { return 4000 }, 10 * ms, 1400},
		{"behind a proxy", [][]int{{untuned}, {proxy}}, func(int64) int64 { return 7000 }, 3000, 1400},
		{"behind a proxy, pauses", [][]int{{untuned}, {proxy}}, pausing(15*ms, 40*ms), 3000, 9000},
		{"eight sockets", [][]int{{untuned, untuned, untuned, untuned, untuned, untuned, untuned, untuned}}, func(int64) int64 { return 30_000 }, 0, 1400},
		{"datagrams larger than the buffer", [][]int{{2304}}, func(int64) int64 { return 3000 }, 5000, 60_000},
		{"random service", [][]int{{untuned}, {proxy}}, nil, 100_000, 4000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for seed := range uint64(4) {
				s := newSimulation(seed, tt.buffers...)
				s.service, s.delay, s.lag = tt.service, tt.delay, 20_000
				if tt.service == nil {
					s.service = func(int64) int64 { return 1 + s.random.Int64N(1<<s.random.IntN(20)) }
				}
				n := 4000
				if tt.buffers[0][0] < proxy {
					n = 300
				}
				g, err := NewGovernor(s, s)
				if err != nil {
					t.Fatal(err)
				}
				forwardTo(t, s, g, n, tt.longest)
				left, err := g.Drain(t.Context(), 10*time.Second)
				if err != nil || left != 0 || s.drops() != 0 || s.taken != uint64(n) || g.Feedback().Taken != uint64(n) || g.Feedback().WrittenOff != 0 {
					t.Errorf("seed %d: %d of %d taken, %d dropped, %d left, %+v, %v", seed, s.taken, n, s.drops(), left, g.Feedback(), err)
				}
			}
		})
	}
}

// Of several sockets the one that holds all back is known: here the one with the least
// room.
func TestWhomItWaitsFor(t *testing.T) {
	s := newSimulation(1, []int{8 * untuned, untuned, 8 * untuned})
	s.service, s.lag = func(int64) int64 { return 20_000 }, 20_000
	g, err := NewGovernor(s, s)
	if err != nil {
		t.Fatal(err)
	}
	forwardTo(t, s, g, 4000, 1400)
	for _, q := range g.Queues() {
		if waited := q.Waited > 0; waited != (q.ID == 2) {
			t.Errorf("socket %d: waited %s for it", q.ID, q.Waited)
		}
	}
}

// A slow receiver is kept busy: at least 0.95 of what it can do. A fast one is
// looked at seldom.
func TestReceiverNeverWaits(t *testing.T) {
	for _, buffers := range [][][]int{{{proxy}}, {{untuned}}, {{64 << 20}}, {{untuned}, {proxy}}} {
		const n, each = 30_000, int64(8000)
		s := newSimulation(1, buffers...)
		s.service, s.lag = func(int64) int64 { return each }, 20_000
		g, err := NewGovernor(s, s)
		if err != nil {
			t.Fatal(err)
		}
		forwardTo(t, s, g, n, 1400)
		if _, err := g.Drain(t.Context(), time.Second); err != nil {
			t.Fatal(err)
		}
		if least := int64(n) * each; (s.now-int64(settled))*95 > least*100 {
			t.Errorf("%v: took %v, the receiver alone needs %v", buffers, time.Duration(s.now), time.Duration(least))
		}
	}
	s := newSimulation(1, []int{untuned})
	s.service = func(int64) int64 { return 10 }
	g, err := NewGovernor(s, s)
	if err != nil {
		t.Fatal(err)
	}
	forwardTo(t, s, g, 30_000, 1400)
	if s.reads > 30_000/64 {
		t.Errorf("looked %d times for 30000 datagrams", s.reads)
	}
}

func newTestGovernor(t *testing.T, s *simulation) *Governor {
	t.Helper()
	g, err := NewGovernor(s, s)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// What is lost on the way does not stop the run, and is counted.
func TestLossOnTheWayIsWrittenOff(t *testing.T) {
	s := newSimulation(3, []int{proxy})
	s.lost = func() bool { return s.random.IntN(3) == 0 }
	g := newTestGovernor(t, s)
	forwardTo(t, s, g, 3000, 1400)
	left, err := g.Drain(t.Context(), time.Second)
	f := g.Feedback()
	if err != nil || left != 0 || f.WrittenOff == 0 || f.Taken+f.WrittenOff != 3000 || f.Taken != s.taken {
		t.Errorf("%+v, %d left, %v", f, left, err)
	}
}

// Drops by others' datagrams, or of ones that were on the way before, are seen.
func TestDropsAreRecorded(t *testing.T) {
	s := newSimulation(3, []int{proxy})
	s.stages[0][0].drops = 1000 // before the start: not this run's
	g := newTestGovernor(t, s)
	forwardTo(t, s, g, 100, 1400)
	s.stages[0][0].drops += 7
	if _, err := g.Drain(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	if f := g.Feedback(); f.Dropped != 7 {
		t.Errorf("%+v", f)
	}
}

// The last socket that goes ends the run with an error that tells how far it got,
// even if another has come in its place.
func TestLastSocketThatGoes(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		s := newSimulation(5, []int{untuned})
		s.service = func(int64) int64 { return 50_000 }
		g := newTestGovernor(t, s)
		forwardTo(t, s, g, 100, 1400)
		s.stages[0] = nil
		if restarted {
			s.stages[0] = []*simSocket{{id: 9, buffer: proxy}}
		}
		s.advance(s.now + 2*int64(lookInterval))
		_, err := g.Reserve(t.Context(), batchOf(s.random, 1, 100))
		var gone *GoneError
		if !errors.As(err, &gone) || gone.Socket != "s1" || gone.Granted != 100 || gone.Taken > 100 {
			t.Errorf("restarted %t: %+v, %v", restarted, gone, err)
		}
	}
}

func TestProbeThatFails(t *testing.T) {
	s := newSimulation(5, []int{untuned})
	g := newTestGovernor(t, s)
	s.err = errors.New("no more")
	s.advance(s.now + 2*int64(lookInterval))
	if _, err := g.Reserve(t.Context(), batchOf(s.random, 1, 100)); !errors.Is(err, s.err) {
		t.Error(err)
	}
	if _, err := NewGovernor(s, s); !errors.Is(err, s.err) {
		t.Error(err)
	}
	if _, err := NewGovernor(newSimulation(1, []int{}), s); err == nil {
		t.Error("a receiver without a socket is watched")
	}
}

// An interrupt ends the waiting; what fits is granted even then.
func TestInterruptedWait(t *testing.T) {
	s := newSimulation(5, []int{proxy})
	s.service = func(int64) int64 { return hour }
	g := newTestGovernor(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := &forward.Batch{Datagrams: make([]forward.Datagram, 1000)}
	grant, err := g.Reserve(ctx, b)
	if err != nil || grant.Datagrams == 0 || grant.Datagrams == 1000 {
		t.Fatalf("%+v, %v", grant, err)
	}
	s.send(&forward.Batch{Datagrams: b.Datagrams[:grant.Datagrams]})
	if grant, err = g.Reserve(ctx, b); !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", grant, err)
	}
}

// What the sink could not send is not waited for.
func TestUnsentIsTakenBack(t *testing.T) {
	s := newSimulation(5, []int{proxy})
	g := newTestGovernor(t, s)
	before := g.budget
	b := &forward.Batch{Datagrams: make([]forward.Datagram, 50)}
	if _, err := g.Reserve(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	g.Sent(b, 0)
	if g.budget != before || g.count != 0 || g.inFlight != 0 || g.granted != 0 {
		t.Errorf("budget %d, was %d; %d outstanding", g.budget, before, g.count)
	}
}

// However large the buffers, the queue of the processor is not.
func TestOnTheWayIsBounded(t *testing.T) {
	s := newSimulation(5, []int{1 << 30})
	s.delay = hour
	g := newTestGovernor(t, s)
	b := &forward.Batch{Datagrams: make([]forward.Datagram, 5000)}
	if grant, err := g.Reserve(t.Context(), b); err != nil || grant.Datagrams > 800 {
		t.Errorf("%d datagrams on the way, %v", grant.Datagrams, err)
	}
}

// steady is a receiver that takes everything at once.
type steady struct {
	taken uint64
	now   int64
	g     *Governor
}

func (s *steady) Now() int64 { return s.now }
func (s *steady) SleepUntil(context.Context, int64) error {
	s.now += 1000
	return nil
}

func (s *steady) Taken() (uint64, error) {
	if s.g != nil {
		s.taken += uint64(s.g.count)
	}
	return s.taken, nil
}

func (s *steady) Sockets(buf []Socket) ([]Socket, error) {
	for i := range 4 {
		buf = append(buf, Socket{ID: uint64(i), Buffer: proxy})
	}
	return buf, nil
}

func TestGovernorDoesNotAllocate(t *testing.T) {
	s := &steady{}
	g, err := NewGovernor(s, s)
	if err != nil {
		t.Fatal(err)
	}
	s.g = g
	b := &forward.Batch{Datagrams: make([]forward.Datagram, 100)}
	for i := range b.Datagrams {
		b.Datagrams[i].Len = 350
	}
	if n := testing.AllocsPerRun(1000, func() {
		grant, err := g.Reserve(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		g.Sent(&forward.Batch{Datagrams: b.Datagrams[:grant.Datagrams]}, grant.Datagrams)
	}); n > 0 {
		t.Errorf("%v allocations per grant", n)
	}
	if g.result.Looks < 100 {
		t.Errorf("only %d looks", g.result.Looks)
	}
}

// A datagram that may come in fragments takes more than one that comes whole,
// and where the way is not known the worst is reckoned with.
func TestCostKnowsTheWay(t *testing.T) {
	for _, tt := range []struct{ n, mtu, cost int }{
		{60, 65535, 1280}, {1400, 65535, 2360}, {1472, 65535, 2432}, {7492, 65535, 9152}, {9000, 65535, 16640},
		{1400, 1500, 2360}, {1472, 1500, 3584}, {9000, 1500, 16640}, {9000, 9000, 16640 + 1280},
		{60, 0, 1280}, {1472, 0, 3584}, {9000, 0, 16640 + 1280}, {20_000, 0, 2*16640 + 4352},
	} {
		if got := Cost(tt.n, tt.mtu); got != tt.cost {
			t.Errorf("%d bytes at an MTU of %d cost %d, want %d", tt.n, tt.mtu, got, tt.cost)
		}
	}
}
