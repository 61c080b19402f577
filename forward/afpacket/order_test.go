package afpacket

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// fakeFrame is a frame with its time stamp, which its ring shows from another time on.
type fakeFrame struct {
	at, shown int64
	ring, n   int
}

// fakeRings are rings that show frames as time goes by.
type fakeRings struct {
	order
	at     int64
	frames [][]fakeFrame // of each ring, in its order
	// knows says that an empty ring can be told from one with frames that it does not
	// show yet.
	knows bool
}

func newFakeRings(frames [][]fakeFrame) *fakeRings {
	r := &fakeRings{frames: frames}
	r.order = order{bound: int64(30 * time.Millisecond), lanes: make([]lane, len(frames)), clock: func() int64 { return r.at }}
	return r
}

// run takes all frames as a Worker does, and returns them with the times at which they
// came, and how many were late.
func (r *fakeRings) run(t *testing.T) (got []fakeFrame, came []int64, late int) {
	t.Helper()
	for steps := 0; ; steps++ {
		if steps > 100_000 {
			t.Fatal("it does not end")
		}
		next := int64(-1) // when a ring shows something new
		for i, frames := range r.frames {
			if r.lanes[i].has || len(frames) == 0 {
				continue
			}
			switch f := frames[0]; {
			case f.shown <= r.at:
				r.show(i, f.at)
			case next < 0 || f.shown < next:
				next = f.shown
			}
			if r.knows && !r.lanes[i].has && frames[0].at > r.at {
				r.empty(i, r.at)
			}
		}
		for i, frames := range r.frames {
			if r.knows && len(frames) == 0 {
				r.empty(i, r.at)
			}
		}
		switch i, hold := r.choose(); {
		case i >= 0:
			got, came = append(got, r.frames[i][0]), append(came, r.at)
			r.frames[i] = r.frames[i][1:]
			if r.pass(i) {
				late++
			}
		case hold > 0 && (next < 0 || r.at+int64(hold) < next):
			r.at += int64(hold)
		case next >= 0:
			r.at = next
		default:
			return got, came, late
		}
	}
}

// blocks makes a ring of frames at times, shown when their block's time is up.
func blocks(ring int, times []int64, retire int64) (frames []fakeFrame) {
	until := int64(-1)
	for n, at := range times {
		if at > until {
			until = at + retire
		}
		frames = append(frames, fakeFrame{at, until, ring, n})
	}
	return frames
}

const ms = int64(time.Millisecond)

// As long as rings show their frames within the bound, they come out in the order of
// their time stamps, none is late, and none waits longer than the bound.
func TestRingsAreMerged(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var rings [][]fakeFrame
		total := 0
		for i := range 1 + random.IntN(4) {
			var times []int64
			at := random.Int64N(20 * ms)
			for range random.IntN(300) {
				at += random.Int64N(1 + random.Int64N(5*ms))
				times = append(times, at)
			}
			rings = append(rings, blocks(i, times, 1+random.Int64N(25*ms)))
			total += len(times)
		}
		r := newFakeRings(rings)
		r.knows = random.IntN(2) == 0
		got, came, late := r.run(t)
		if !slices.IsSortedFunc(got, func(a, b fakeFrame) int { return int(a.at - b.at) }) || len(got) != total || late != 0 {
			t.Fatalf("%d frames of %d, %d late, or not in order", len(got), total, late)
		}
		for i, f := range got {
			if came[i] > f.at+r.bound || came[i] < f.shown {
				t.Fatalf("a frame of %d, shown at %d, came at %d", f.at, f.shown, came[i])
			}
		}
	}
}

// A ring that is silent holds the others back until the bound, and not at all where
// it can be seen to be empty.
func TestASilentRingDelaysNothingForLong(t *testing.T) {
	for _, knows := range []bool{false, true} {
		r := newFakeRings([][]fakeFrame{blocks(0, []int64{ms, 2 * ms, 50 * ms}, 10*ms), nil})
		r.knows = knows
		_, came, late := r.run(t)
		want := []int64{31 * ms, 32 * ms, 80 * ms}
		if knows {
			want = []int64{11 * ms, 11 * ms, 60 * ms}
		}
		if !slices.Equal(came, want) || late != 0 {
			t.Errorf("empty rings are known %v: came at %v, want %v", knows, came, want)
		}
	}
}

// A ring that is over holds nothing back.
func TestARingThatIsOver(t *testing.T) {
	r := newFakeRings([][]fakeFrame{blocks(0, []int64{ms, 2 * ms}, 10*ms), nil})
	r.lanes[1].over = true
	if _, came, _ := r.run(t); !slices.Equal(came, []int64{11 * ms, 11 * ms}) {
		t.Errorf("came at %v", came)
	}
}

// What is shown later than the bound comes out nevertheless, in the order of its ring,
// and is counted.
func TestLateFramesAreCounted(t *testing.T) {
	slow := []fakeFrame{{2 * ms, 100 * ms, 1, 0}, {4 * ms, 100 * ms, 1, 1}, {90 * ms, 100 * ms, 1, 2}}
	r := newFakeRings([][]fakeFrame{blocks(0, []int64{ms, 3 * ms, 5 * ms, 95 * ms}, ms), slow})
	got, _, late := r.run(t)
	var order []int64
	for _, f := range got {
		order = append(order, f.at/ms)
	}
	if !slices.Equal(order, []int64{1, 3, 5, 2, 4, 90, 95}) || late != 2 {
		t.Errorf("order %v, %d late", order, late)
	}
}

// Time stamps within a ring may go back by a little, as CPUs overtake each other: the
// ring's order stays, and that is not late.
func TestARingsOwnOrderStays(t *testing.T) {
	r := newFakeRings([][]fakeFrame{{{5, 10, 0, 0}, {4, 10, 0, 1}, {6, 10, 0, 2}}, {{7, 10, 1, 0}}})
	got, _, late := r.run(t)
	if late != 0 || got[0].n != 0 || got[1].n != 1 || got[2].n != 2 {
		t.Errorf("%v, %d late", got, late)
	}
}

// A clock that is set back by an hour neither stops the frames from before nor lets
// them wait for it.
func TestAClockThatIsSetBack(t *testing.T) {
	const hour = int64(time.Hour)
	r := newFakeRings([][]fakeFrame{
		{{hour, 0, 0, 0}, {hour + ms, 0, 0, 1}, {2 * ms, 3 * ms, 0, 2}},
		{{ms, 2 * ms, 1, 0}, {3 * ms, 4 * ms, 1, 1}},
	})
	got, came, _ := r.run(t)
	if len(got) != 5 || came[len(came)-1] > 40*ms || came[0] > 30*ms {
		t.Errorf("%v came at %v", got, came)
	}
}

func TestChoosingDoesNotAllocate(t *testing.T) {
	r := newFakeRings(make([][]fakeFrame, 3))
	if n := testing.AllocsPerRun(1000, func() {
		r.at += ms
		r.show(0, r.at)
		r.show(1, r.at-1)
		r.empty(2, r.at)
		for i, _ := r.choose(); i >= 0; i, _ = r.choose() {
			r.pass(i)
		}
	}); n != 0 {
		t.Errorf("%.1f allocations", n)
	}
}

// BenchmarkChoose is what merging costs a frame of four interfaces that are all busy.
func BenchmarkChoose(b *testing.B) {
	r := newFakeRings(make([][]fakeFrame, 4))
	for i := range r.lanes {
		r.show(i, int64(i))
	}
	r.at = int64(time.Hour)
	b.ReportAllocs()
	for n := int64(4); b.Loop(); n++ {
		i, _ := r.choose()
		r.pass(i)
		r.show(i, n)
	}
}
