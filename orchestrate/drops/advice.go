package drops

import (
	"fmt"
	"slices"
	"strings"
)

// smallBuffer is the size of a sensor's receive buffer, in bytes, under which it
// is the first thing to mend: a tuned machine gives 64 MiB.
const smallBuffer = 8 << 20

// advice is the reason that a loss at a hop usually has, and the command that
// cures it.
func advice(r *Report, h *HopReport) (reason, cure string) {
	switch h.Hop {
	case HopProxy:
		return adviseProxy(h)
	case HopLoopback, HopBridge, HopVeth, HopDevice:
		return adviseDevice(h)
	case HopSoftnet:
		return adviseSoftnet(h)
	case HopIP:
		return adviseIP(h)
	case HopUDP:
		return adviseUDP(r, h)
	case HopSocket:
		return adviseSocket(r, h)
	case HopZeek:
		return "Zeek itself counts packets that its source dropped", "zeekdemo logs " + h.Sensor
	case HopCollector:
		if h.grew(vanishedLines) > 0 {
			return "its queue lost lines that it had accepted: the disk was full", "docker system df"
		}
		return "Loki refuses lines for good, and the collector gave them up", "zeekdemo logs collector --tail 20"
	case HopLoki:
		return "Loki discards lines: " + grownNames(h, RolePart), "zeekdemo logs loki --tail 20"
	}
	return adviseHost(h)
}

// Hint is what the counters of a hop that other traffic shares usually mean, and
// what mends it; empty for a hop that loses nothing.
func (h *HopReport) Hint() (reason, cure string) {
	if h.Verdict != VerdictSuspect {
		return "", ""
	}
	return adviseHost(h)
}

func adviseProxy(h *HopReport) (string, string) {
	if h.facts.Stopped {
		return h.facts.Process + " is stopped: nobody empties its queue", fmt.Sprintf("kill -CONT %d", h.facts.PID)
	}
	process := h.facts.Process
	if process == "" {
		process = "docker-proxy"
	}
	return fmt.Sprintf("%s copies one packet at a time and never raises its receive buffer%s", process, sizes(h)), "zeekdemo replay --direct"
}

// sizes tells the buffers' size where it is known.
func sizes(h *HopReport) string {
	if len(h.Queues) == 0 || h.Queues[0].Size == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d KiB)", h.Queues[0].Size>>10)
}

func adviseDevice(h *HopReport) (string, string) {
	dev := h.facts.Device
	switch {
	case h.grew(queueDrops) > 0:
		return fmt.Sprintf("the queueing discipline of %s, %s, has a limit and was full", dev, h.facts.Queueing), fmt.Sprintf("tc qdisc del dev %s root", dev)
	case h.Hop == HopVeth && h.grew(txDropped) > 0:
		return "the sensor's end of the link is down or not there", "zeekdemo up"
	case h.Hop == HopDevice:
		return fmt.Sprintf("%s, the sensor's end of its link, refuses what it receives", dev), "zeekdemo up"
	}
	return dev + " refuses packets: it is down, or they are longer than its MTU", fmt.Sprintf("ip -s link show dev %s", dev)
}

func adviseSoftnet(h *HopReport) (string, string) {
	if h.grew(flowLimited) > 0 {
		return "one flow filled more than half of a processor's queue, and net.core.flow_limit_cpu_bitmap forbids that", "sysctl -w net.core.flow_limit_cpu_bitmap=0"
	}
	reason := "a processor's queue of received packets was full"
	if h.facts.Backlog > 0 {
		reason += fmt.Sprintf(": it takes %d (net.core.netdev_max_backlog)", h.facts.Backlog)
	}
	if len(h.facts.RPS) > 0 {
		reason += "; rps_cpus: " + strings.Join(h.facts.RPS, ", ")
	}
	return reason, "zeekdemo tune-host"
}

func adviseIP(h *HopReport) (string, string) {
	if h.grew(reasmFails, reasmFails6) > 0 {
		return "datagrams came in fragments, some of which did not come in time: the MTU on the way is smaller than they are", "zeekdemo replay --direct"
	}
	return "IP refuses packets as wrong: " + grownNames(h, RoleLost, RoleVain), "zeekdemo replay --direct"
}

func adviseUDP(r *Report, h *HopReport) (string, string) {
	socket := r.hop(HopSocket, h.Sensor)
	switch {
	case h.grew(noPorts, noPorts6) > 0 && socket != nil && socket.facts.Listens:
		return "packets came for a port on which the sensor does not listen", "zeekdemo status"
	case h.grew(noPorts, noPorts6) > 0:
		return "nobody listens on the sensor's port: Zeek has not opened its socket, or has closed it", "docker restart zeekdemo-" + h.Sensor + "-1"
	case h.grew("UdpInCsumErrors", "Udp6InCsumErrors") > 0:
		return wrongChecksum, "ethtool -K IFACE tx off"
	case h.grew("UdpMemErrors", "Udp6MemErrors") > 0:
		return "all UDP sockets together hold as much memory as net.ipv4.udp_mem allows", "sysctl net.ipv4.udp_mem"
	}
	return "datagrams died at sockets that are gone now", "zeekdemo logs " + h.Sensor
}

func adviseSocket(r *Report, h *HopReport) (string, string) {
	if udp := r.hop(HopUDP, h.Sensor); udp.grew("UdpInCsumErrors", "Udp6InCsumErrors")*2 > *h.Lost {
		return wrongChecksum, "ethtool -K IFACE tx off"
	}
	if h.facts.Stopped {
		return "Zeek is stopped: nobody empties its queue", "docker unpause zeekdemo-" + h.Sensor + "-1"
	}
	least := int64(0)
	for _, q := range h.Queues {
		if q.Size > 0 && (least == 0 || q.Size < least) {
			least = q.Size
		}
	}
	if least > 0 && least < smallBuffer {
		return fmt.Sprintf("packets come faster than Zeek reads, and its receive buffer is small%s: net.core.rmem_max limited it when it was opened", sizes(h)),
			"zeekdemo tune-host --restart-sensors"
	}
	return "packets come faster than Zeek reads, for longer than its receive buffer can hold" + sizes(h), "zeekdemo replay --lossless require"
}

// adviseHeld is about a collector that cannot go on.
func adviseHeld(h *HopReport) (string, string) {
	switch {
	case h.grew("otelcol_exporter_enqueue_failed_log_records") > 0:
		return "its queue cannot take more: the disk is full", "docker system df"
	case h.Held > 0:
		return "it is short of memory", "zeekdemo logs collector --tail 20"
	}
	return "Loki does not answer, or refuses for now", "zeekdemo up"
}

// adviseHost is about hops whose counters other traffic shares.
func adviseHost(h *HopReport) (string, string) {
	switch h.Hop {
	case HopSender:
		return "a sender's socket buffer or device queue was full: " + grownNames(h, RoleLost, RoleVain), "zeekdemo tune-host"
	case HopConntrack:
		return "connection tracking had no room for more flows, or lost a race for one", "zeekdemo replay --direct"
	case HopHostUDP:
		if h.grew(noPorts, noPorts6) > 0 {
			return "datagrams came for ports on which nobody listens", "zeekdemo status"
		}
		return "IP or UDP of the host refused: " + grownNames(h, RoleLost, RoleVain), "zeekdemo replay --direct"
	}
	return "the counters grew: " + grownNames(h, RoleLost, RoleVain), "zeekdemo tune-host"
}

// wrongChecksum is the reason of a wrong checksum.
const wrongChecksum = "the outer checksum of datagrams is wrong: something on the way changed them, or a card was to compute it and did not"

// grew is how much counters grew together, as far as is known.
func (h *HopReport) grew(names ...string) (n uint64) {
	for _, name := range names {
		if d := h.counter(name); d != nil {
			n += d.Grown
		}
	}
	return n
}

// grownNames names the counters of these roles that grew.
func grownNames(h *HopReport, roles ...Role) string {
	var names []string
	for _, d := range h.Counters {
		if d.Grown > 0 && slices.Contains(roles, d.Role) {
			names = append(names, fmt.Sprintf("%s (%d)", strings.TrimPrefix(d.Name, "discarded: "), d.Grown))
		}
	}
	return strings.Join(names, ", ")
}
