//go:build !linux

package transmit

import (
	"errors"
	"fmt"
	"runtime"
)

func pinned(cpu CPU, fn func() error) error {
	if cpu >= 0 {
		return fmt.Errorf("pin sender to CPU %v on %s: %w", cpu, runtime.GOOS, errors.ErrUnsupported)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return fn()
}

func spread(n int) []CPU {
	list := make([]CPU, n)
	for i := range list {
		list[i] = CPUOff
	}
	return list
}
