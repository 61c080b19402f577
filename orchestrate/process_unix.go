//go:build unix

package orchestrate

import (
	"errors"
	"syscall"
)

// processExists asks for a process of any user.
func processExists(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
