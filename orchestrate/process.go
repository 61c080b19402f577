package orchestrate

import (
	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
)

// seen is what is known of a process of this machine.
type seen struct {
	exists  bool
	started uint64 // in clock ticks since boot; no two processes of a number have the same; 0: not known
}

// processFrom judges by a process's /proc/PID/stat. One of which nothing can be
// told is taken to exist.
func processFrom(stat string) seen {
	p, err := procfs.Stat(stat)
	if err != nil {
		return seen{exists: true}
	}
	return seen{exists: !p.Ended(), started: p.Started}
}
