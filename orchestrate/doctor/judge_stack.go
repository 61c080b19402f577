package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/hosttune"
)

// noSensor is why something about running sensors is not known.
const noSensor = "not looked at: no sensor runs"

func judgeStack(f Facts) Line {
	if line, missing := f.Services.unknown(); missing {
		return line
	}
	services := f.Services.Value
	if len(services) == 0 {
		return ok("none is here yet: `zeekdemo up` starts one")
	}
	for _, s := range services {
		if !s.Healthy {
			return problem(s.Service+": "+s.Health, stackRemedy(s))
		}
	}
	return ok(fmt.Sprintf("all %d services answer", len(services)))
}

func stackRemedy(s orchestrate.ServiceStatus) string {
	if s.State == "missing" {
		return "zeekdemo up"
	}
	return "zeekdemo logs " + s.Service + " --tail 20; zeekdemo up"
}

func judgeProxy(f Facts) Line {
	if line, missing := f.Proxy.unknown(); missing {
		return line
	}
	p := f.Proxy.Value
	if p.On {
		return ok("on (" + p.Evidence + "): at speed, packets to 127.0.0.1 are lost or reordered there; `replay` goes around it")
	}
	return ok("off (" + p.Evidence + "): 127.0.0.1 goes by NAT")
}

func judgeDirect(f Facts) Line {
	if line, missing := f.Sensors.unknown(); missing {
		return line
	}
	if len(f.Sensors.Value) == 0 {
		return unknown("not tested: no sensor runs")
	}
	var reached []string
	for _, s := range f.Sensors.Value {
		if s.Reach == "" {
			reached = append(reached, s.Service)
			continue
		}
		if !f.Here || f.Machine.Value.Rootless {
			return ok("containers' addresses cannot be reached from here, as with every engine in a place of its own: `replay` goes by sidecar" + otherBuild(f))
		}
		return warning(fmt.Sprintf("sensor %s cannot be reached at its own address: %s", s.Service, s.Reach),
			"zeekdemo replay --via sidecar; a firewall on this machine may be the cause")
	}
	return ok(strings.Join(reached, ", ") + ": reached at the container's own address")
}

// otherBuild names what a sidecar needs where this program is not for the
// engine's platform.
func otherBuild(f Facts) string {
	if want := platform(f.Engine.Value); f.Platform != want {
		return fmt.Sprintf(", with --sidecar-binary and the build for %s", want)
	}
	return ""
}

func judgeTuning(f Facts) Line {
	if line, missing := f.Tuning.unknown(); missing {
		return line
	}
	t := f.Tuning.Value
	switch {
	case t.Count(hosttune.Drift, "") > 0:
		return warning("it was tuned, and changed since: "+list(settings(t, hosttune.Drift)), "zeekdemo tune-host")
	case !t.Tuned:
		return warning(fmt.Sprintf("%d of %d settings not fit for bursts of packets", t.Count(hosttune.Wants, ""), len(t.Lines)), "zeekdemo tune-host (--dry-run lists them)")
	case t.Recorded:
		return ok("tuned; `zeekdemo tune-host --revert` takes it back")
	}
	return ok("every setting is fit for bursts as it is")
}

// settings names those in a state, each once.
func settings(t hosttune.Status, state hosttune.State) (names []string) {
	for _, l := range t.Lines {
		if l.State == state {
			names = append(names, l.Setting)
		}
	}
	return names
}

// rmemMax is net.core.rmem_max in bytes; 0 if it is not known.
func rmemMax(t hosttune.Status) int {
	for _, l := range t.Lines {
		if l.Setting == "net.core.rmem_max" {
			n, err := strconv.Atoi(l.Now)
			if err == nil {
				return n
			}
		}
	}
	return 0
}

// zeekAsks is the receive buffer that the stack's sensors ask for, in bytes
// (udp_recv_buffer_size in assets/stack/zeek/sensor.zeek).
const zeekAsks = 32 << 20

// bufferWant is the receive buffer from which on a sensor takes bursts of a fast
// sender: the kernel's own accounting, which is twice what was asked for, of
// half of what the stack's sensors ask for.
const bufferWant = zeekAsks

func judgeBuffers(f Facts) Line {
	if line, missing := f.Sensors.unknown(); missing {
		return line
	}
	if len(f.Sensors.Value) == 0 {
		return unknown(noSensor)
	}
	var words []string
	var small, older []string
	var drops uint64
	for _, s := range f.Sensors.Value {
		if line, missing := s.Sockets.unknown(); missing {
			return line
		}
		least := -1
		for _, socket := range s.Sockets.Value {
			drops += socket.Drops
			if least < 0 || socket.Buffer < least {
				least = socket.Buffer
			}
		}
		switch {
		case least < 0:
			return warning(fmt.Sprintf("sensor %s has no socket", s.Service), "zeekdemo logs "+s.Service+" --tail 20")
		case least == 0:
			return Line{State: Unknown, Fact: "only root may ask the kernel" + dropped(drops), Remedy: "sudo zeekdemo doctor"}
		case least < bufferWant && least < 2*min(zeekAsks, rmemMax(f.Tuning.Value)):
			older = append(older, s.Service)
		case least < bufferWant:
			small = append(small, s.Service)
		}
		words = append(words, fmt.Sprintf("%s %s", s.Service, kernelSize(least)))
	}
	fact := strings.Join(words, ", ") + dropped(drops)
	switch {
	case len(older) > 0:
		return warning(fact+"; opened before the tuning", "zeekdemo tune-host --restart-sensors")
	case len(small) > 0:
		return warning(fmt.Sprintf("%s; a burst of %s fills it", fact, packets(f)), "zeekdemo tune-host --restart-sensors")
	case drops > 0:
		return warning(fact, "zeekdemo replay waits for the sensor; other senders have to be slower")
	}
	return ok(fact)
}

// kernelSize writes a size that the kernel chose, which is one of binary units.
func kernelSize(n int) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func dropped(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %d datagrams dropped so far", n)
}

// packetMemory is what the kernel accounts for a datagram of ordinary size, in
// bytes: its header block and the buffer that it lies in.
const packetMemory = 1100

// packets estimates how many datagrams fill the smallest buffer there is.
func packets(f Facts) string {
	var sizes []int
	for _, s := range f.Sensors.Value {
		for _, socket := range s.Sockets.Value {
			sizes = append(sizes, socket.Buffer)
		}
	}
	return fmt.Sprintf("%d packets", slices.Min(sizes)/packetMemory)
}
