package transmit

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"
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
	if cpu == CPUAuto {
		cpu = chooseCPU(os.DirFS("/sys/devices/system/cpu"), members(before))
	}
	if cpu >= 0 {
		var one sys.CPUSet
		one.Set(int(cpu))
		if err := sys.SetAffinity(one); err != nil {
			return nil, fmt.Errorf("pin sender to CPU %v: %w", cpu, err)
		}
	}
	slack, slackErr := sys.SetTimerSlack(1) // without it timers are late, not wrong
	return func() error {
		if slackErr == nil {
			_, slackErr = sys.SetTimerSlack(slack)
		}
		if cpu >= 0 {
			err = sys.SetAffinity(before)
		}
		return err
	}, nil
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

// chooseCPU implements the choice that Pinned documents. root is
// /sys/devices/system/cpu, allowed is in ascending order.
func chooseCPU(root fs.FS, allowed []int) CPU {
	if len(allowed) == 0 {
		return CPUOff
	}
	if len(allowed) > 1 && allowed[0] == 0 {
		allowed = allowed[1:]
	}
	best, most := allowed[0], -1
	for _, cpu := range allowed {
		if c := capacity(root, cpu); c >= most {
			best, most = cpu, c
		}
	}
	return CPU(best)
}

// capacity returns how fast a processor is compared with the machine's others:
// its scheduler capacity (arm64), else its highest frequency, else 0.
func capacity(root fs.FS, cpu int) int {
	for _, file := range []string{"cpu_capacity", "cpufreq/cpuinfo_max_freq"} {
		text, err := fs.ReadFile(root, fmt.Sprintf("cpu%d/%s", cpu, file))
		if err != nil {
			continue
		}
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return n
		}
	}
	return 0
}
