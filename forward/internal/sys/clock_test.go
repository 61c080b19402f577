package sys

import (
	"testing"
	"time"
)

func TestMonotonicNeverGoesBack(t *testing.T) {
	last := Monotonic()
	for range 10000 {
		now := Monotonic()
		if now < last {
			t.Fatalf("clock went back from %d to %d", last, now)
		}
		last = now
	}
}

// TestSleepUntil checks the one promise that holds on any machine however
// busy: never early.
func TestSleepUntil(t *testing.T) {
	for _, d := range []time.Duration{-time.Second, 0, time.Microsecond, 300 * time.Microsecond, 5 * time.Millisecond} {
		until := Monotonic() + int64(d)
		SleepUntil(until)
		if now := Monotonic(); now < until {
			t.Errorf("sleep of %v ended %d ns early", d, until-now)
		}
	}
}

func TestSleepUntilThePastDoesNotSleep(t *testing.T) {
	allocs := testing.AllocsPerRun(100, func() { SleepUntil(Monotonic() - 1) })
	if allocs != 0 {
		t.Errorf("%v allocations per call", allocs)
	}
}
