// Package sys is the border to the operating system: the only place in forward
// that uses unsafe and golang.org/x/sys/unix. What lies behind it is thin: one
// system call per function, memory prepared by the caller, errors that answer
// to errors.Is with the errno and with os.ErrPermission and its like.
//
// Each file pair x_linux.go and x_other.go implements what x.go documents.
// Elsewhere than on Linux everything but the clock returns an error that wraps
// [errors.ErrUnsupported].
package sys

import "time"

// clockOrigin ties Go's monotonic clock, which is read without a system call,
// to the kernel's, whose absolute values [SleepUntil] needs.
var clockOrigin = newOrigin()

type origin struct {
	goTime time.Time
	kernel int64 // kernel's monotonic clock at goTime, nanoseconds
}

func newOrigin() origin { return origin{goTime: time.Now(), kernel: kernelMonotonic()} }

// Monotonic returns the monotonic clock in nanoseconds: CLOCK_MONOTONIC on
// Linux, elsewhere the time since the process started. It never goes back and
// is no time of day. It costs no system call.
func Monotonic() int64 {
	return clockOrigin.kernel + int64(time.Since(clockOrigin.goTime))
}

// SleepUntil sleeps until [Monotonic] has reached t, in nanoseconds, and
// returns at once if it has. It wakes as precisely as the kernel's timer does:
// on Linux within the thread's timer slack (50 us, or what [SetTimerSlack]
// made it) plus the scheduler's delay. It blocks the thread, not only the
// goroutine.
func SleepUntil(t int64) { sleepUntil(t) }
