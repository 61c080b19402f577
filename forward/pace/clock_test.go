package pace

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

func TestClockIsNeverEarly(t *testing.T) {
	c := NewClock()
	for _, d := range []time.Duration{-time.Second, 0, time.Microsecond, 300 * time.Microsecond, 15 * time.Millisecond, 45 * time.Millisecond} {
		until := c.Now() + int64(d)
		if err := c.SleepUntil(t.Context(), until); err != nil {
			t.Fatal(err)
		}
		if now := c.Now(); now < until {
			t.Errorf("a wait of %v ended %d ns early", d, until-now)
		}
	}
}

// However long a wait, an interrupt ends it. The limit leaves room for a busy
// machine; what the interface promises is measured on idle ones.
func TestClockIsInterruptible(t *testing.T) {
	c := NewClock()
	for range 3 { // the timer is used again
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		start := time.Now()
		if err := c.SleepUntil(ctx, c.Now()+hour); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("interrupted after %v", took)
		}
	}
}

func TestClockThatIsInterruptedBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := NewClock()
	for _, d := range []int64{-1, ms, hour} {
		if err := c.SleepUntil(ctx, c.Now()+d); !errors.Is(err, context.Canceled) {
			t.Errorf("wait of %d ns: error %v", d, err)
		}
	}
}

func TestClockDoesNotAllocate(t *testing.T) {
	c := NewClock()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if n := testing.AllocsPerRun(10, func() { _ = c.SleepUntil(ctx, c.Now()+25*ms) }); n != 0 {
		t.Errorf("%v allocations per wait", n)
	}
}

// With the real clock a schedule of two seconds keeps to its end: lateness of
// single wake-ups, which a busy machine causes, does not add up to it. Only
// the last of 400 may be late, and that by what a very busy machine causes.
func TestRealClockDoesNotDrift(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two seconds")
	}
	p, c := newRecorded(t, 1), NewClock()
	start := c.Now()
	var due int64
	for i := range int64(401) {
		due, _ = p.Due(&forward.Frame{Time: i * 5 * ms}, 100, c.Now()-start)
		if err := c.SleepUntil(t.Context(), start+due); err != nil {
			t.Fatal(err)
		}
	}
	if took := c.Now() - start; due != 2*sec || took < due || took > due+sec/4 {
		t.Errorf("due after %d ns, took %d", due, took)
	}
}
