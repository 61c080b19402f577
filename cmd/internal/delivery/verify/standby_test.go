package verify

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// meeting lets steps of the engine wait for each other.
type meeting struct {
	t       *testing.T
	mu      sync.Mutex
	seen    map[string]int
	changed chan struct{} // closed at the next step
}

// meet calls do at each step of the engine, with how often that has come.
func meet(t *testing.T, e *fakeEngine, do func(m *meeting, step string, n int)) {
	m := &meeting{t: t, seen: map[string]int{}, changed: make(chan struct{})}
	e.at = func(step string) {
		m.mu.Lock()
		m.seen[step]++
		n := m.seen[step]
		close(m.changed)
		m.changed = make(chan struct{})
		m.mu.Unlock()
		do(m, step, n)
	}
}

// await waits until a step has come n times.
func (m *meeting) await(step string, n int) {
	late := time.After(20 * time.Second)
	for {
		m.mu.Lock()
		got, changed := m.seen[step], m.changed
		m.mu.Unlock()
		if got >= n {
			return
		}
		select {
		case <-changed:
		case <-late:
			m.t.Errorf("%q came %d times, not %d", step, got, n)
			return
		}
	}
}

// lives are the sensors that were made, in their order.
func (e *fakeEngine) lives() (list []orchestrate.OneShot) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, shot := range e.all {
		if shot.Capture == "" {
			list = append(list, shot)
		}
	}
	return list
}

// While a capture is judged the sensor of the next one is started, and there is one
// for each capture.
func TestTheNextSensorIsStartedInAdvance(t *testing.T) {
	temporary(t)
	e, o := newFake(t), options()
	o.Way.Kind = way.Published
	meet(t, e, func(m *meeting, step string, n int) {
		if step == "wait sent" {
			m.await("start live", min(n+1, 3))
		}
		if lives := len(e.lives()); lives > 3 {
			t.Errorf("%d sensors", lives)
		}
	})
	rows, err := Run(t.Context(), e, []string{sample(t), sample(t), sample(t)}, o)
	if err != nil || len(e.left()) > 0 {
		t.Fatalf("%v, left: %v", err, e.left())
	}
	for _, row := range rows {
		equal(t, row, way.Published, sampleFrames)
	}
	names := map[string]bool{}
	for _, shot := range e.lives() {
		names[shot.ContainerName()] = true
	}
	if len(names) != 3 {
		t.Errorf("sensors %v, want one for each capture", names)
	}
}

// A sensor that was started in advance, and that no capture takes, is removed.
func TestASensorThatNobodyTakesIsRemoved(t *testing.T) {
	temporary(t)
	e, o, folder := newFake(t), options(), t.TempDir()
	o.Way.Kind = way.Published
	meet(t, e, func(m *meeting, step string, _ int) {
		if step == "wait sent" {
			m.await("start live", 2)
		}
	})
	rows, err := Run(t.Context(), e, []string{sample(t), folder}, o)
	if err != nil || len(e.left()) > 0 || len(e.lives()) != 2 {
		t.Errorf("%v, %d sensors, left: %v", err, len(e.lives()), e.left())
	}
	if rows[0].Verdict != Equal || rows[1].Verdict != Failed || rows[1].Error != "open capture: open "+folder+": is a directory" {
		t.Errorf("%s, %s: %s", rows[0].Verdict, rows[1].Verdict, rows[1].Error)
	}
}

// Nor does it stay where the run was interrupted.
func TestASensorInAdvanceGoesWithAnInterruptedRun(t *testing.T) {
	temporary(t)
	const looks = 7 // at the first one, while it starts and while it is drained
	for until, nth := range map[string]int{"create live": 2, "start live": 2, "look live": looks + 1} {
		t.Run(until, func(t *testing.T) {
			t.Parallel()
			e, o := newFake(t), options()
			o.Way.Kind = way.Published
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			meet(t, e, func(_ *meeting, step string, n int) {
				if step == until && n == nth {
					cancel()
				}
			})
			rows, err := Run(ctx, e, []string{sample(t), sample(t)}, o)
			if err != nil || len(e.left()) > 0 || len(e.lives()) != 2 {
				t.Errorf("%v, %d sensors, left: %v", err, len(e.lives()), e.left())
			}
			if second := rows[1]; second.Verdict != Failed || second.Error != delivery.ErrInterrupted.Error() {
				t.Errorf("%s: %s", second.Verdict, second.Error)
			}
		})
	}
}

// Where the sensor in advance does not start, the capture that it was for fails,
// and no other.
func TestASensorInAdvanceThatDoesNotStart(t *testing.T) {
	temporary(t)
	e, o := newFake(t), options()
	o.Way.Kind = way.Published
	meet(t, e, func(m *meeting, step string, n int) {
		if step == "start live" {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.fail[step] = map[int]error{2: errors.New("it broke")}[n]
		}
	})
	rows, err := Run(t.Context(), e, []string{sample(t), sample(t), sample(t)}, o)
	if err != nil || len(e.left()) > 0 {
		t.Fatalf("%v, left: %v", err, e.left())
	}
	for i, want := range []Verdict{Equal, Failed, Equal} {
		if rows[i].Verdict != want || (rows[i].Error == "it broke") != (want == Failed) {
			t.Errorf("%d: %s: %s", i, rows[i].Verdict, rows[i].Error)
		}
	}
}

// That only a published port leads to the sensors is found out once.
func TestLaterSensorsArePublishedWhereTheFirstHadToBe(t *testing.T) {
	temporary(t)
	e := newFake(t)
	rows, err := Run(t.Context(), e, []string{sample(t), sample(t)}, options())
	if err != nil || len(e.left()) > 0 {
		t.Fatalf("%v, left: %v", err, e.left())
	}
	for _, row := range rows {
		equal(t, row, way.Published, sampleFrames)
	}
	var published []bool
	for _, shot := range e.lives() {
		published = append(published, shot.Publish)
	}
	if want := []bool{false, true, true}; !slices.Equal(published, want) {
		t.Errorf("published: %v, want %v", published, want)
	}
}

// The sensors of a run are in one network: that they are reached directly is found
// out once.
func TestADirectWayIsTriedOnce(t *testing.T) {
	s := &subject{run: &run{Options: options(), engine: newFake(t)}}
	if opened, err := s.open(t.Context(), orchestrate.Sensor{}); err != nil || opened.Kind != way.Published || s.reached.Load() {
		t.Errorf("of one without an address: %s, %v", opened.Kind, err)
	}
	s.reached.Store(true)
	if opened, err := s.open(t.Context(), orchestrate.Sensor{}); err != nil || opened.Kind != way.Direct || len(opened.Reasons) > 0 {
		t.Errorf("once another was reached: %s, %v", opened.Kind, err)
	}
}

// Containers are removed while the next capture is verified.
func TestContainersAreRemovedMeanwhile(t *testing.T) {
	temporary(t)
	e, o := newFake(t), options()
	o.Way.Kind = way.Published
	meet(t, e, func(m *meeting, step string, n int) {
		if strings.HasPrefix(step, "remove ") && step != "remove run" && step != "remove forgotten" && n == 1 {
			m.await("wait captured", 2)
		}
	})
	rows, err := Run(t.Context(), e, []string{sample(t), sample(t)}, o)
	if err != nil || len(e.left()) > 0 {
		t.Fatalf("%v, left: %v", err, e.left())
	}
	for _, row := range rows {
		equal(t, row, way.Published, sampleFrames)
	}
}

// sized is an engine that knows its machine.
type sized struct {
	*fakeEngine
	size orchestrate.Capacity
	err  error
}

func (s sized) Capacity(context.Context) (orchestrate.Capacity, error) { return s.size, s.err }

// Where no number is asked for, as many captures are verified at a time as the
// engine's machine bears. Whichever ends first, rows are in the captures' order.
func TestAsManyAtATimeAsTheMachineBears(t *testing.T) {
	temporary(t)
	fake, o := newFake(t), options()
	o.Way.Kind, o.Jobs = way.Published, 0
	meet(t, fake, func(m *meeting, step string, n int) {
		if step == "wait sent" && n == 1 {
			m.await("wait sent", 3) // the third is begun when the second has ended
		}
	})
	captures := []string{sample(t), sample(t), sample(t)}
	rows, err := Run(t.Context(), sized{fakeEngine: fake, size: orchestrate.Capacity{CPUs: 2, Memory: 1 << 50}}, captures, o)
	if err != nil || len(fake.left()) > 0 {
		t.Fatalf("%v, left: %v", err, fake.left())
	}
	for i, row := range rows {
		equal(t, row, way.Published, sampleFrames)
		if row.Capture != captures[i] {
			t.Errorf("row %d is of %s", i, row.Capture)
		}
	}
}

func TestHowManyCapturesAMachineBears(t *testing.T) {
	for _, tt := range []struct {
		cpus, workers int
		mib           int64
		want          int
	}{{2, 1, 24 << 10, 2}, {8, 1, 16 << 10, 8}, {8, 1, 8 << 10, 4}, {4, 1, 2047, 1}, {4, 1, 0, 1}, {0, 1, 0, 1}, {1, 1, 64 << 10, 1},
		{8, 3, 16 << 10, 2}, {2, 3, 24 << 10, 2}, {8, 2, 6 << 10, 1}} {
		if got := bearable(orchestrate.Capacity{CPUs: tt.cpus, Memory: tt.mib << 20}, tt.workers); got != tt.want {
			t.Errorf("%d processors, %d MiB, %d workers: %d captures, want %d", tt.cpus, tt.mib, tt.workers, got, tt.want)
		}
	}
	e := newFake(t)
	if n := jobs(t.Context(), e, 1); n != 1 {
		t.Errorf("of a machine that is not known: %d", n)
	}
	if n := jobs(t.Context(), sized{fakeEngine: e, size: orchestrate.Capacity{CPUs: 8, Memory: 1 << 50}, err: errors.New("no answer")}, 1); n != 1 {
		t.Errorf("of an engine that does not answer: %d", n)
	}
	if n := jobs(t.Context(), sized{fakeEngine: e, size: orchestrate.Capacity{CPUs: 8, Memory: 1 << 50}}, 1); n != 8 {
		t.Errorf("of eight processors: %d", n)
	}
}
