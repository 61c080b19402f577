//go:build unix

package orchestrate

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lookAt asks for a process of any user. Where there is /proc, one that has ended
// but was not waited for yet counts as gone.
func lookAt(pid int) seen {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return seen{}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return seen{exists: true}
	}
	return processFrom(string(stat))
}
