package pace

import (
	"errors"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

// A socket that drops at a share of its buffer, for its memory is limited
// otherwise, loses a little once and nothing afterwards.
func TestMemoryLimitBelowTheBuffer(t *testing.T) {
	for name, share := range map[string]float64{"40 %": 0.4, "a tenth": 0.1, "six tenths": 0.6} {
		for seed := range uint64(4) {
			s := newSimulation(seed, []int{untuned})
			for _, q := range s.stages[0] {
				q.limit = int(share * untuned)
			}
			s.service, s.delay, s.lag = func(int64) int64 { return 10_000 }, 3000, 20_000
			g := newTestGovernor(t, s)
			forwardTo(t, s, g, 20_000, 1400)
			first := s.drops()
			forwardTo(t, s, g, 40_000, 1400)
			if first == 0 || first > 1000 || s.drops() != first {
				t.Errorf("%s, seed %d: %d dropped, of these %d at first", name, seed, s.drops(), first)
			}
			left, err := g.Drain(t.Context(), time.Second)
			if err != nil || left != 0 || g.Feedback().Dropped != first || s.taken+first != 60_000 {
				t.Errorf("%s, seed %d: %d left, %+v, %v", name, seed, left, g.Feedback(), err)
			}
			for i, q := range g.Queues() {
				limit := s.stages[0][i].limit
				if q.Buffer != untuned || q.Believed >= limit || q.Believed < limit/4 || q.Held > limit || q.Held < limit/2 {
					t.Errorf("%s, seed %d: %+v, the limit is %d", name, seed, q, limit)
				}
			}
		}
	}
}

// A limit that goes is noticed after some time; one that stays costs less and less
// often.
func TestBeliefGrowsSlowly(t *testing.T) {
	for _, stays := range []bool{false, true} {
		s := newSimulation(1, []int{untuned})
		s.stages[0][0].limit = untuned / 2
		s.service = func(int64) int64 { return 5000 }
		g := newTestGovernor(t, s)
		forwardTo(t, s, g, 3000, 400)
		if !stays {
			s.stages[0][0].limit = 0
		}
		first, grown := s.drops(), false
		for range 600 { // ten minutes, full each second
			s.stages[0][0].queue, s.stages[0][0].queued = nil, 0
			s.taken += uint64(g.count)
			s.now += int64(beliefGrows)
			forwardTo(t, s, g, 500, 400)
			q := g.Queues()[0]
			grown = grown || q.Believed > untuned/2
			if q.Believed > q.Buffer {
				t.Fatalf("%+v", q)
			}
		}
		if !grown {
			t.Errorf("stays %t: never tried: %+v", stays, g.Queues()[0])
		}
		if more := s.drops() - first; !stays && (more > 0 || g.Queues()[0].Believed != untuned) {
			t.Errorf("without a limit: %d more dropped, %+v", more, g.Queues()[0])
		}
		if q := g.Queues()[0]; stays && q.hold > 16*beliefHolds {
			t.Errorf("in ten minutes the belief has been wrong too often: %+v", q)
		}
	}
}

// A queue that was full when it dropped, for others send to it too, is not
// believed to be smaller.
func TestFullBufferIsNoLimit(t *testing.T) {
	s := newSimulation(3, []int{proxy})
	g := newTestGovernor(t, s)
	forwardTo(t, s, g, 100, 1400)
	q := s.stages[0][0]
	q.queue, q.queued = []int{proxy + 1}, proxy+1
	q.drops += 7
	if err := g.look(); err != nil {
		t.Fatal(err)
	}
	if q := g.Queues()[0]; q.Believed != proxy || g.Feedback().Dropped != 7 {
		t.Errorf("%+v", q)
	}
}

// A receiver that takes nothing is announced, waited for as long as was asked, and
// then the run ends with what is known.
func TestReceiverThatStops(t *testing.T) {
	const limit = 5 * time.Second
	s := newSimulation(5, []int{proxy})
	s.service = func(now int64) int64 {
		if now > 2*ms {
			return hour
		}
		return 1000
	}
	g := newTestGovernor(t, s)
	var told []Stall
	g.Patience(limit, func(news Stall) { told = append(told, news) })
	forwardTo(t, s, g, 300, 400)
	var err error
	for b := batchOf(s.random, 64, 400); err == nil; {
		var grant forward.Grant
		if grant, err = g.Reserve(t.Context(), b); err == nil {
			s.send(&forward.Batch{Datagrams: b.Datagrams[:grant.Datagrams]})
		}
	}
	var stuck *StuckError
	if !errors.As(err, &stuck) || stuck.Socket != "s1" || stuck.For < limit || stuck.Granted <= stuck.Taken || stuck.Taken != s.taken || s.now > int64(limit+2*time.Second) {
		t.Errorf("%+v, %v", stuck, err)
	}
	if len(told) != 1 || told[0].For < announceAfter || told[0].For > announceAfter+time.Second || told[0].Limit != limit || told[0].Over {
		t.Errorf("told %+v", told)
	}
}

// Without a limit it is waited for until it takes again, which is announced.
func TestReceiverThatPausesForLong(t *testing.T) {
	const pause = 5 * time.Second
	s := newSimulation(5, []int{proxy})
	paused := false
	s.service = func(now int64) int64 {
		if !paused && now > 2*ms {
			paused = true
			return int64(pause)
		}
		return 3000
	}
	g := newTestGovernor(t, s)
	var told []Stall
	g.Patience(0, func(news Stall) { told = append(told, news) })
	forwardTo(t, s, g, 4000, 400)
	if left, err := g.Drain(t.Context(), time.Second); err != nil || left != 0 || s.drops() != 0 || s.taken != 4000 {
		t.Errorf("%d left, %d taken, %v", left, s.taken, err)
	}
	if len(told) != 2 || told[0].Over || !told[1].Over || told[1].For < pause-time.Second || told[1].Limit != 0 {
		t.Errorf("told %+v", told)
	}
}

// One of several sockets that goes takes with it what was in its queue, which is
// counted exactly; the others go on, and so does one that comes in its place.
func TestOneOfSeveralSocketsGoes(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		for seed := range uint64(4) {
			s := newSimulation(seed, []int{untuned, untuned, proxy})
			s.service, s.lag = func(int64) int64 { return 20_000 }, 20_000
			g := newTestGovernor(t, s)
			forwardTo(t, s, g, 3000, 1400)
			left := s.stages[0][2]
			if len(left.queue) == 0 {
				t.Fatal("nothing is in its queue")
			}
			s.stages[0] = s.stages[0][:2]
			if restarted {
				s.stages[0] = append(s.stages[0], &simSocket{id: 9, buffer: untuned})
			}
			forwardTo(t, s, g, 6000, 1400)
			outstanding, err := g.Drain(t.Context(), time.Second)
			f := g.Feedback()
			if err != nil || outstanding != 0 || f.InGone != uint64(len(left.queue)) || f.Taken+f.InGone != 9000 || f.Taken != s.taken || s.drops() != 0 || f.WrittenOff != 0 {
				t.Errorf("restarted %t, seed %d: %d were in its queue, %d taken; %+v, %d left, %v", restarted, seed, len(left.queue), s.taken, f, outstanding, err)
			}
			for _, q := range g.Queues() {
				if q.Gone != (q.ID == 3) {
					t.Errorf("%+v", q)
				}
			}
		}
	}
}

// The drops of a socket that has gone stay counted.
func TestDropsOfASocketThatGoes(t *testing.T) {
	s := newSimulation(3, []int{proxy, proxy})
	g := newTestGovernor(t, s)
	forwardTo(t, s, g, 1000, 1400)
	s.stages[0][1].drops = 7
	if err := g.look(); err != nil {
		t.Fatal(err)
	}
	s.stages[0] = s.stages[0][:1]
	forwardTo(t, s, g, 1000, 1400)
	if _, err := g.Drain(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	if f := g.Feedback(); f.Dropped != 7 || g.Queues()[1].Drops != 7 {
		t.Errorf("%+v, %+v", f, g.Queues())
	}
}
