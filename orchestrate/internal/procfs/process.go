package procfs

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// TicksPerSecond is USER_HZ, in which the kernel tells times of processes: 100
// on every architecture that runs containers (include/asm-generic/param.h).
const TicksPerSecond = 100

// Process is what /proc/PID/stat tells of a process.
type Process struct {
	PID     int
	Name    string // at most 15 bytes of its program's, or what it calls itself; may hold anything
	State   string // a letter, see proc_pid_stat(5)
	Started uint64 // ticks since the machine started: no two processes of a PID have the same
}

// Ended reports whether it is dead, though perhaps nobody has waited for it yet.
func (p Process) Ended() bool { return p.State == "Z" || p.State == "X" }

// Stopped reports whether it does nothing because it was told to, by a signal or
// a debugger.
func (p Process) Stopped() bool { return p.State == "T" || p.State == "t" }

// Stat reads /proc/PID/stat (do_task_stat in fs/proc/array.c). The second field,
// a name, is in parentheses and may hold parentheses and blanks itself; the
// third is the state, the 22nd when the process started.
func Stat(text string) (Process, error) {
	first, last := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if first < 0 || last < first {
		return Process{}, errors.New("it has no name in parentheses")
	}
	fields := strings.Fields(text[last+1:]) // from the third on
	if len(fields) < 20 {
		return Process{}, fmt.Errorf("it has %d fields, want at least 22", 2+len(fields))
	}
	pid, errPID := strconv.Atoi(strings.TrimSpace(text[:first]))
	started, errStarted := strconv.ParseUint(fields[19], 10, 64)
	return Process{PID: pid, Name: text[first+1 : last], State: fields[0], Started: started}, errors.Join(errPID, errStarted)
}

// ProcessStatus is what is needed of /proc/PID/status.
type ProcessStatus struct {
	Effective uint64 // the capabilities in use, bit CAP_* each (include/uapi/linux/capability.h)
}

// Status reads /proc/PID/status (proc_pid_status in fs/proc/array.c): a name, a
// colon and a value a line.
func Status(text string) (ProcessStatus, error) {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			return ProcessStatus{Effective: mask}, err
		}
	}
	return ProcessStatus{}, errors.New("it has no CapEff")
}

// Comm reads /proc/PID/comm (comm_show in fs/proc/base.c): the name that is also
// in stat, and a line feed.
func Comm(text string) string { return strings.TrimSuffix(text, "\n") }

// CommandLine reads /proc/PID/cmdline (proc_pid_cmdline_read in fs/proc/base.c):
// the arguments, each with a zero byte at its end. It is empty for a thread of
// the kernel and for a process that has ended.
func CommandLine(text string) []string {
	text, _ = strings.CutSuffix(text, "\x00")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\x00")
}

// Cgroup is a line of /proc/PID/cgroup: a hierarchy, and where the process is in
// it, seen from the reader's own cgroup namespace.
type Cgroup struct {
	Controllers string // with commas between; empty for version 2
	Path        string
}

// Cgroups reads /proc/PID/cgroup (proc_cgroup_show in kernel/cgroup/cgroup.c):
// number, controllers and path, with colons between. The path may hold colons.
func Cgroups(text string) (list []Cgroup) {
	for line := range strings.Lines(text) {
		if part := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(part) == 3 {
			list = append(list, Cgroup{Controllers: part[1], Path: part[2]})
		}
	}
	return list
}
