package transmit

import (
	"fmt"
	"strconv"
)

// CPU selects the processor that a sending goroutine is pinned to: a sender
// that migrates reorders packets on loopback and veth devices, because each
// processor has a backlog queue of its own.
type CPU int

// CPUs that are not numbers.
const (
	CPUAuto CPU = -1 // choose one, see [Pinned]
	CPUOff  CPU = -2 // do not pin
)

// ParseCPU reads the value of a command-line flag: auto, off, or a number.
func ParseCPU(s string) (CPU, error) {
	switch s {
	case "", "auto":
		return CPUAuto, nil
	case "off":
		return CPUOff, nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("unknown CPU %q (want auto, off or a number)", s)
	}
	return CPU(n), nil
}

// String is the inverse of ParseCPU.
func (c CPU) String() string {
	switch c {
	case CPUAuto:
		return "auto"
	case CPUOff:
		return "off"
	}
	return strconv.Itoa(int(c))
}

// Pinned runs fn with its goroutine locked to a thread, and that thread to one
// processor, and returns fn's error. Afterwards the thread is as it was; should
// that fail, the goroutine stays locked to it, so that the thread dies with
// the goroutine and no other goroutine inherits it.
//
// CPUAuto takes, of the processors this process may use, one of those with the
// highest capacity (a fast core where they differ), and of those the one that
// has served the fewest interrupts of devices, the last if they are equal: it
// is what disturbs a sender most. One that another sender of this machine and
// network namespace is pinned to is taken only if there is no other. Where
// pinning does not exist (darwin), CPUAuto behaves as CPUOff, and a number is an
// error. The thread's timers are made precise as well (see prctl(2),
// PR_SET_TIMERSLACK), whatever cpu is.
func Pinned(cpu CPU, fn func() error) error { return pinned(cpu, fn) }
