package filter

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// capNetRaw is CAP_NET_RAW of linux/capability.h.
const capNetRaw = 13

// inheritCapture hands the capability to capture down to a program, if this
// process has it as a file capability: those do not pass to another program of
// themselves.
func inheritCapture(cmd *exec.Cmd) {
	if os.Geteuid() == 0 || !mayCapture() {
		return
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{AmbientCaps: []uintptr{capNetRaw}}
}

// mayCapture reads the permitted capabilities of this process.
func mayCapture() bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if hex, ok := strings.CutPrefix(line, "CapPrm:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && set&(1<<capNetRaw) != 0
		}
	}
	return false
}
