package doctor

import (
	"fmt"
	"time"
)

// What the stack wants of a machine. The memory is what the services use while
// a capture of some megabytes is replayed, with some room; the disk is what the
// images take, and what Prometheus and Loki keep of a week of such work.
const (
	memoryLow   = 2e9 // bytes: something will be killed
	memoryWant  = 4e9
	availableOK = 1.5e9
	diskLow     = 1e9
	diskWant    = 5e9
)

// How full the disk may be, whatever fills it: from the second on Loki takes no lines
// (assets/stack/loki/loki.yaml: disk_full_threshold).
const (
	diskNearlyFull = 0.87
	diskFull       = 0.92
)

func judgeMemory(f Facts) Line {
	if line, missing := f.Memory.unknown(); missing {
		return line
	}
	m := f.Memory.Value
	fact := fmt.Sprintf("%s of memory", size(m.Total))
	if m.Available >= 0 {
		fact += fmt.Sprintf(", %s available", size(m.Available))
	}
	switch {
	case m.Total < memoryLow:
		return problem(fact+fmt.Sprintf("; the stack wants %s", size(memoryWant)), more(f, "memory"))
	case m.Total < memoryWant:
		return warning(fact+fmt.Sprintf("; the stack wants %s", size(memoryWant)), more(f, "memory"))
	case m.Available >= 0 && m.Available < availableOK && len(f.Services.Value) == 0:
		return warning(fact+fmt.Sprintf("; the stack takes up to %s", size(availableOK)), "end what takes the memory: ps aux --sort -rss | head")
	}
	return ok(fact)
}

// more says how a machine gets more of something.
func more(f Facts, what string) string {
	if f.Here || f.Engine.Value.Remote {
		return "give the machine more " + what
	}
	return "give the engine's virtual machine more " + what + " (Docker Desktop: Settings, Resources; colima start --memory 4 --cpu 4)"
}

func judgeDisk(f Facts) Line {
	if line, missing := f.Disk.unknown(); missing {
		return line
	}
	const prune = "docker system prune (it removes what is unused)"
	d := f.Disk.Value
	fact := fmt.Sprintf("%s free in %s", size(d.Free), d.Path)
	used := 0.0
	if d.Total > 0 {
		used = float64(d.Used) / float64(d.Total) // as Loki counts
	}
	full := fmt.Sprintf("; it is %.0f %% full, and from %.0f %% on Loki takes no log lines", used*100, diskFull*100)
	switch {
	case used >= diskFull:
		return problem(fact+full, prune)
	case d.Free < diskLow:
		return problem(fact, prune)
	case used >= diskNearlyFull:
		return warning(fact+full, prune)
	case d.Free < diskWant:
		return warning(fact+fmt.Sprintf("; images and logs want %s", size(diskWant)), prune)
	}
	return ok(fact)
}

// judgeCPUs compares the processors with the threads that work at the same time
// while packets flow: one sender, and the workers of the one sensor that they
// flow to.
func judgeCPUs(f Facts) Line {
	if line, missing := f.CPUs.unknown(); missing {
		return line
	}
	cpus, workers, sensor := f.CPUs.Value, 1, "a sensor"
	for _, s := range f.Sensors.Value {
		if n := len(s.Sockets.Value); n > workers {
			workers, sensor = n, s.Service
		}
	}
	fact := fmt.Sprintf("%s for the sender and %s of %s", count(cpus, "CPU"), count(workers, "worker"), sensor)
	switch {
	case cpus < 1+workers && workers > 1:
		return warning(fact+": they wait for each other", more(f, "CPUs")+", or run fewer workers")
	case cpus < 1+workers:
		return warning(fact+": they wait for each other", more(f, "CPUs"))
	}
	return ok(fact)
}

// count says a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// clockWant is how far two clocks may differ until their times confuse people.
const clockWant = 2 * time.Second

// clockLimit is how far they may differ until Grafana's default time range
// shows nothing of a run.
const clockLimit = 5 * time.Minute

func judgeClock(f Facts) Line {
	if line, missing := f.Clock.unknown(); missing {
		return line
	}
	c := f.Clock.Value
	off := max(c.Ahead.Abs()-c.Uncertain, 0)
	steered := ""
	if c.Synchronised != nil && (f.Here || off >= clockWant) {
		steered = map[bool]string{true: "; a time server steers it", false: "; no time server steers it"}[*c.Synchronised]
	}
	switch {
	case off < clockWant && f.Here:
		return ok("the engine's is this machine's" + steered)
	case off < clockWant:
		return ok("the engine's agrees with this machine's" + steered)
	}
	way := "ahead of"
	if c.Ahead < 0 {
		way = "behind"
	}
	fact := fmt.Sprintf("the engine's is %s %s this machine's%s", c.Ahead.Abs().Round(time.Second), way, steered)
	remedy := "sudo timedatectl set-ntp true (on both machines); restart a virtual machine that slept"
	if off > clockLimit {
		return problem(fact, remedy)
	}
	return warning(fact, remedy)
}

func judgeFilter(f Facts) Line {
	if line, missing := f.Filter.unknown(); missing {
		return Line{State: Warning, Fact: line.Fact, Remedy: line.Remedy}
	}
	return ok(f.Filter.Value)
}

// size writes a number of bytes with a decimal unit, as everything of this
// program does.
func size[T int | int64 | float64](n T) string {
	v, unit := float64(n), "B"
	for _, u := range []string{"kB", "MB", "GB", "TB"} {
		if v < 999.5 {
			break
		}
		v, unit = v/1000, u
	}
	if v < 10 && unit != "B" {
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}
