package tcmirror

import (
	"crypto/rand"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
)

// self is this process.
func self() owner {
	o := owner{pid: os.Getpid(), space: pidSpace()}
	o.start, _ = startOf(o.pid)
	return o
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

// startOf returns when a process started, in clock ticks since boot; ok is false
// if it does not run.
func startOf(pid int) (start uint64, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	p, err := procfs.Stat(string(b))
	return p.Started, err == nil && !p.Ended()
}

// alive reports whether the process still runs. One of another PID namespace is
// taken for alive: it cannot be seen from here.
func (o owner) alive() bool {
	if o.space != pidSpace() {
		return true
	}
	start, ok := startOf(o.pid)
	return ok && (o.start == 0 || start == o.start)
}

// Widths of the parts of a tunnel's name behind the prefix: the PID and a random
// number, in base 36. The name is all that tells of the owner until the alias is
// written.
const (
	nameBase   = 36
	namePID    = 5
	nameRandom = 2
)

func newName(pid int) string {
	b := make([]byte, 2)
	_, _ = rand.Read(b) // never fails
	n := (int(b[0])<<8 | int(b[1])) % (nameBase * nameBase)
	return DevicePrefix + padded(pid, namePID) + padded(n, nameRandom)
}

func padded(n, width int) string {
	return fmt.Sprintf("%0*s", width, strconv.FormatInt(int64(n), nameBase))
}

// nameOwner is the PID in a tunnel's name.
func nameOwner(name string) (pid int, ok bool) {
	digits, ok := strings.CutPrefix(name, DevicePrefix)
	if !ok || len(digits) != namePID+nameRandom {
		return 0, false
	}
	n, err := strconv.ParseInt(digits[:namePID], nameBase, 32)
	return int(n), err == nil
}
