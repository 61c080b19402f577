package sys

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Monotonic is CLOCK_MONOTONIC, which starts with the machine, and not the time of
// day, which somebody may set: a schedule does not move with that.
func TestMonotonicIsTheKernelsClock(t *testing.T) {
	for range 100 {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			t.Fatal(err)
		}
		if d := time.Duration(Monotonic() - ts.Nano()); d.Abs() > 10*time.Second { // of a busy machine
			t.Fatalf("%v from the kernel's monotonic clock", d)
		}
	}
}
