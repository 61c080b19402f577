package orchestrate

import (
	"os"
	"strings"
	"syscall"
)

// bootID is the ID of the kernel's present boot; empty where it is hidden.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// pidSpace is the inode of this process's PID namespace, 0 if that is hidden.
func pidSpace() uint64 {
	info, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return 0
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ino
	}
	return 0
}
