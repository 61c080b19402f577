package sys

import "golang.org/x/sys/unix"

func kernelMonotonic() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0 // cannot happen: the clock exists since Linux 2.6
	}
	return ts.Nano()
}

// sleepUntil repeats the call after signals (the Go runtime sends them to
// preempt goroutines); an absolute time makes that exact.
func sleepUntil(t int64) {
	if t <= Monotonic() {
		return
	}
	ts := unix.NsecToTimespec(t)
	for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil) == unix.EINTR {
	}
}

// SetTimerSlack sets how late timers of the calling thread may fire so that
// the kernel can gather them, in nanoseconds, and returns what it was (see
// prctl(2), PR_SET_TIMERSLACK). 0 restores the default.
func SetTimerSlack(ns int) (int, error) {
	was, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return 0, err
	}
	return was, unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(ns), 0, 0, 0)
}
