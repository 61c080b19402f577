package procfs

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Memory is what is needed of /proc/meminfo, in bytes.
type Memory struct {
	Total     int64
	Available int64 // without swapping; -1 in kernels before 3.14, which do not say
}

// MemInfo reads /proc/meminfo (meminfo_proc_show in fs/proc/meminfo.c): a name, a
// colon, a number and mostly the unit kB a line, which is 1024 bytes.
func MemInfo(text string) (Memory, error) {
	m := Memory{Available: -1}
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		n, err := strconv.ParseInt(fields[0], 10, 64)
		switch {
		case err != nil || n < 0 || n > math.MaxInt64>>10:
		case name == "MemTotal":
			m.Total = n << 10
		case name == "MemAvailable":
			m.Available = n << 10
		}
	}
	if m.Total == 0 {
		return m, errors.New("it has no MemTotal")
	}
	return m, nil
}

// Uptime reads /proc/uptime (uptime_proc_show in fs/proc/uptime.c): for how many
// seconds the machine has been running, and for how many its processors were
// idle, of which the first is returned.
func Uptime(text string) (seconds float64, err error) {
	first, _, _ := strings.Cut(text, " ")
	seconds, err = strconv.ParseFloat(first, 64)
	if err != nil || !(seconds >= 0) || math.IsInf(seconds, 0) {
		return 0, fmt.Errorf("%q does not begin with seconds", text)
	}
	return seconds, nil
}
