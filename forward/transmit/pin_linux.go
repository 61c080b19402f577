package transmit

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

func pinned(cpu CPU, fn func() error) error {
	runtime.LockOSThread()
	restore, err := pinThread(cpu)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		if restore() == nil {
			runtime.UnlockOSThread()
		}
	}()
	return fn()
}

// pinThread pins the calling thread and returns what takes that back.
func pinThread(cpu CPU) (restore func() error, err error) {
	before, err := sys.Affinity()
	if err != nil {
		return nil, fmt.Errorf("pin sender to CPU %v: %w", cpu, err)
	}
	var held claim
	if cpu == CPUAuto {
		cpu, held = claimBest(os.DirFS("/"), members(before))
	} else if cpu >= 0 {
		held = claimCPU(int(cpu)) // asked for by number it is shared, if it must be
	}
	if cpu >= 0 {
		var one sys.CPUSet
		one.Set(int(cpu))
		if err := sys.SetAffinity(one); err != nil {
			release(held)
			return nil, fmt.Errorf("pin sender to CPU %v: %w", cpu, err)
		}
	}
	slack, slackErr := sys.SetTimerSlack(1) // without it timers are late, not wrong
	return func() error {
		release(held)
		if slackErr == nil {
			_, slackErr = sys.SetTimerSlack(slack)
		}
		if cpu >= 0 {
			err = sys.SetAffinity(before)
		}
		return err
	}, nil
}

// claimBest claims the best of the allowed processors that no other sender of
// this machine has. If they have all, it is the best one without a claim.
func claimBest(root fs.FS, allowed []int) (CPU, claim) {
	left := slices.Clone(allowed)
	for len(left) > 0 {
		best := chooseCPU(root, left)
		if c := claimCPU(int(best)); c != nil {
			return best, c
		}
		left = slices.DeleteFunc(left, func(cpu int) bool { return cpu == int(best) })
	}
	return chooseCPU(root, allowed), nil
}

// release gives a claim up, if there is one.
func release(c claim) {
	if c != nil {
		_ = c.Close() // nothing is written to it
	}
}

// members lists a set's processors in ascending order.
func members(set sys.CPUSet) []int {
	var cpus []int
	for cpu, left := 0, set.Count(); left > 0; cpu++ {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
			left--
		}
	}
	return cpus
}

// chooseCPU implements the choice that Pinned documents. root is the file
// system's root, allowed is in ascending order.
func chooseCPU(root fs.FS, allowed []int) CPU {
	if len(allowed) == 0 {
		return CPUOff
	}
	served := interrupts(root)
	best := allowed[0]
	for _, cpu := range allowed[1:] {
		faster := capacity(root, cpu) - capacity(root, best)
		if faster > 0 || faster == 0 && served[cpu] <= served[best] {
			best = cpu
		}
	}
	return CPU(best)
}

// interrupts returns how many interrupts of devices each processor has served:
// the numbered lines of /proc/interrupts. It is empty where there are none to
// be read.
func interrupts(root fs.FS) map[int]uint64 {
	text, err := fs.ReadFile(root, "proc/interrupts")
	if err != nil {
		return nil
	}
	var columns []int // the processor of each
	served := map[int]uint64{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if columns == nil {
			columns = processors(fields)
			continue
		}
		if len(fields) == 0 || strings.Trim(fields[0], "0123456789") != ":" {
			continue // timers and the like, which every processor has of its own
		}
		for i, field := range fields[1:min(len(fields), len(columns)+1)] {
			n, _ := strconv.ParseUint(field, 10, 64)
			served[columns[i]] += n
		}
	}
	return served
}

// processors reads the heading of /proc/interrupts: CPU0 CPU1 ...
func processors(fields []string) []int {
	columns := make([]int, len(fields))
	for i, field := range fields {
		columns[i], _ = strconv.Atoi(strings.TrimPrefix(field, "CPU"))
	}
	return columns
}

// capacity returns how fast a processor is compared with the machine's others:
// its scheduler capacity (arm64), else its highest frequency, else 0.
func capacity(root fs.FS, cpu int) int {
	for _, file := range []string{"cpu_capacity", "cpufreq/cpuinfo_max_freq"} {
		text, err := fs.ReadFile(root, fmt.Sprintf("sys/devices/system/cpu/cpu%d/%s", cpu, file))
		if err != nil {
			continue
		}
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return n
		}
	}
	return 0
}

// unclaimedLast sorts the processors that no other sender has behind the others.
func unclaimedLast(cpus []int) []int {
	var claimed, free []int
	for _, cpu := range cpus {
		if c := claimCPU(cpu); c != nil {
			release(c)
			free = append(free, cpu)
		} else {
			claimed = append(claimed, cpu)
		}
	}
	return append(claimed, free...)
}

func spread(n int) []CPU {
	set, err := sys.Affinity()
	allowed := unclaimedLast(members(set))
	list := make([]CPU, n)
	for i := range list {
		list[i] = CPUOff
		if err == nil && len(allowed) > 0 {
			list[i] = CPU(allowed[len(allowed)-1-i%len(allowed)]) // the first serves most interrupts
		}
	}
	return list
}
