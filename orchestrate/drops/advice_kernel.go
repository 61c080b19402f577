package drops

import (
	"fmt"
	"slices"
	"strings"
)

// smallBuffer is the size of a sensor's receive buffer, in bytes, under which it
// is the first thing to mend: a tuned machine gives 64 MiB.
const smallBuffer = 8 << 20

// tunedBacklog is the length of the processors' queues that tune-host sets, in
// packets: where they are as long, it mends nothing.
const tunedBacklog = 10000

// Why UDP did not put a datagram into a socket's queue: __udp_queue_rcv_skb in
// net/ipv4/udp.c counts each of these, and the socket's drops beside it.
func queueFull() []string     { return []string{"UdpRcvbufErrors", "Udp6RcvbufErrors"} }
func wrongChecksum() []string { return []string{"UdpInCsumErrors", "Udp6InCsumErrors"} }
func noMemory() []string      { return []string{"UdpMemErrors", "Udp6MemErrors"} }
func unheard() []string       { return []string{noPorts, noPorts6} }

// udp is where UDP counts what it does not put into the hop's sockets.
func (c clues) udp() *HopReport {
	switch c.h.Hop {
	case HopProxy:
		return c.r.hop(HopHostUDP, "")
	case HopSocket:
		return c.r.hop(HopUDP, c.h.Sensor)
	}
	return c.h
}

func (c clues) stopped() bool      { return c.h.facts.Stopped }
func (c clues) full() bool         { return c.most(c.udp(), queueFull()...) }
func (c clues) badChecksums() bool { return c.most(c.udp(), wrongChecksum()...) }
func (c clues) outOfMemory() bool  { return c.most(c.udp(), noMemory()...) }
func (c clues) nobodyHears() bool  { return c.most(c.h, unheard()...) }

// The advices that several hops share.
func checksumAdvice() advice {
	return advice{"wrong checksum", clues.badChecksums, func(clues) (string, string) {
		return "the outer checksum of datagrams is wrong: something on the way changed them, or a card was to compute it and did not", "ethtool -K IFACE tx off"
	}}
}

func memoryAdvice() advice {
	return advice{"no memory", clues.outOfMemory, func(clues) (string, string) {
		return "there was no memory for datagrams: all UDP sockets together hold as much as net.ipv4.udp_mem allows, or the container as much as its limit", "sysctl net.ipv4.udp_mem"
	}}
}

// sizes tells the buffers' size where it is known.
func sizes(h *HopReport) string {
	if len(h.Queues) == 0 || h.Queues[0].Size == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d KiB)", h.Queues[0].Size>>10)
}

// proxyAdvices are for the socket at a sensor's published port. Whatever the
// reason, packets that go to the container's own address do not die there.
func proxyAdvices() []advice {
	const cure = "zeekdemo replay --direct"
	return []advice{
		{"proxy, stopped", clues.stopped, func(c clues) (string, string) {
			return c.h.facts.Process + " is stopped: nobody empties its queue", fmt.Sprintf("kill -CONT %d", c.h.facts.PID)
		}},
		checksumAdvice(),
		memoryAdvice(),
		{"proxy, slow", func(c clues) bool { return c.full() && c.h.facts.isProxy() }, func(c clues) (string, string) {
			return fmt.Sprintf("%s copies one packet at a time and never raises its receive buffer%s", c.h.facts.Process, sizes(c.h)), cure
		}},
		{"proxy, another process is slow", clues.full, func(c clues) (string, string) {
			process := c.h.facts.Process
			if process == "" {
				process = fmt.Sprintf("the process at %s (which one is not known)", c.h.facts.At)
			}
			return fmt.Sprintf("packets come faster than %s reads, for longer than its receive buffer%s can hold", process, sizes(c.h)), cure
		}},
		{"proxy, unknown", always, func(clues) (string, string) {
			return "not known: its socket dropped them, and no counter that was read tells why", cure
		}},
	}
}

// deviceAdvices are for devices: lo, the bridge, both ends of a sensor's link.
func deviceAdvices() []advice {
	return []advice{
		{"device, queue limit", func(c clues) bool { return c.most(c.h, queueDrops) && limited(c.h.facts.Queueing) }, func(c clues) (string, string) {
			return fmt.Sprintf("the queueing discipline of %s, %s, has a limit and was full", c.h.facts.Device, c.h.facts.Queueing), fmt.Sprintf("tc qdisc del dev %s root", c.h.facts.Device)
		}},
		{"device, queue", func(c clues) bool { return c.most(c.h, queueDrops) }, func(c clues) (string, string) {
			return fmt.Sprintf("the queueing discipline of %s, %s, dropped them: by its limit or by its rule, which of these is not known", c.h.facts.Device, c.h.facts.Queueing),
				fmt.Sprintf("tc qdisc del dev %s root", c.h.facts.Device)
		}},
		{"device, MTU", clues.smallerMTU, func(c clues) (string, string) {
			return fmt.Sprintf("%s, the sensor's end of its link, takes at most %d bytes, and %s passes on up to %d: it usually refuses longer ones",
				c.h.facts.Device, c.h.facts.MTU, c.r.hop(HopBridge, "").facts.Device, c.r.hop(HopBridge, "").facts.MTU), "docker restart zeekdemo-" + c.h.Sensor + "-1"
		}},
		{"device, sensor's end", func(c clues) bool { return c.h.Hop == HopDevice }, func(c clues) (string, string) {
			return fmt.Sprintf("%s, the sensor's end of its link, refused them: it was down, they were too long for it, or nobody takes their protocol; which of these is not known", c.h.facts.Device), "zeekdemo status"
		}},
		{"device, no other end", clues.noOtherEnd, func(c clues) (string, string) {
			return fmt.Sprintf("the other end of %s cannot be seen: the sensor is down, or its link", c.h.facts.Device), "zeekdemo up"
		}},
		{"device, unknown", always, func(c clues) (string, string) {
			return fmt.Sprintf("%s refused them: it was down, or they were longer than its MTU or that of its other end; which of these is not known", c.h.facts.Device),
				fmt.Sprintf("ip -s link show dev %s", c.h.facts.Device)
		}},
	}
}

// limited are the queueing disciplines that drop for nothing but their limit
// (net/sched).
func limited(kind string) bool {
	return slices.Contains([]string{"tbf", "pfifo", "bfifo", "pfifo_fast", "pfifo_head_drop", "mq", "htb", "prio"}, kind)
}

// smallerMTU reports whether the sensor's end of its link refused frames and
// takes shorter ones than the bridge passes on.
func (c clues) smallerMTU() bool {
	bridge := c.r.hop(HopBridge, "")
	return c.h.Hop == HopDevice && bridge != nil && c.h.facts.MTU > 0 && c.h.facts.MTU < bridge.facts.MTU && c.most(c.h, rxDropped)
}

// noOtherEnd reports whether the host's end of a link drops what it sends, and
// of the sensor's end there are no counters.
func (c clues) noOtherEnd() bool {
	other := c.r.hop(HopDevice, c.h.Sensor)
	return c.h.Hop == HopVeth && c.most(c.h, txDropped) && (other == nil || other.Lost == nil)
}

// softnetAdvices are for the processors' queues. Flow limit and length are all
// that makes them drop (enqueue_to_backlog in net/core/dev.c).
func softnetAdvices() []advice {
	return []advice{
		{"softnet, flow limit", func(c clues) bool { return 2*c.h.grew(flowLimited) >= max(1, c.h.grew(softDropped)) }, func(clues) (string, string) {
			return "one flow filled more than half of a processor's queue, and net.core.flow_limit_cpu_bitmap forbids that", "sysctl -w net.core.flow_limit_cpu_bitmap=0"
		}},
		{"softnet, long queue", func(c clues) bool { return c.h.facts.Backlog >= tunedBacklog }, func(c clues) (string, string) {
			return queueWasFull(c.h) + ": packets come faster than it takes them", "zeekdemo replay --pps RATE"
		}},
		{"softnet, full", always, func(c clues) (string, string) { return queueWasFull(c.h), "zeekdemo tune-host" }},
	}
}

func queueWasFull(h *HopReport) string {
	reason := "a processor's queue of received packets was full"
	if h.facts.Backlog > 0 {
		reason += fmt.Sprintf(": it takes %d (net.core.netdev_max_backlog)", h.facts.Backlog)
	}
	if len(h.facts.RPS) > 0 {
		reason += "; rps_cpus: " + strings.Join(h.facts.RPS, ", ")
	}
	return reason
}

// ipAdvices are for IP of a sensor's namespace.
func ipAdvices() []advice {
	fragments := func(c clues) bool { return c.most(c.h, reasmFails, reasmFails6) }
	late := func(c clues) bool { return fragments(c) && c.most(c.h, reasmTimeout, reasmTimeout6) }
	return []advice{
		{"fragments by a relay", func(c clues) bool { yes, _ := c.r.relayed(c.h.Sensor); return late(c) && yes && c.proxyListens() }, func(clues) (string, string) {
			return "datagrams came in fragments, some of which did not come in time: they passed a UDP socket of this machine, and are longer than the MTU behind it", "zeekdemo replay --direct"
		}},
		{"fragments, late", late, func(clues) (string, string) {
			return "datagrams came in fragments, some of which did not come in time: they are longer than the MTU of the sender or of somebody on the way", ""
		}},
		{"fragments", fragments, func(clues) (string, string) {
			return "datagrams came in fragments that could not be put together: they overlap, or there was no memory for them (net.ipv4.ipfrag_high_thresh); which of these is not known", "sysctl net.ipv4.ipfrag_high_thresh"
		}},
		{"ip, conntrack", func(c clues) bool { return c.most(c.h, conntrackDrop) }, func(clues) (string, string) {
			return "connection tracking in the sensor's namespace dropped them: why it does not count", ""
		}},
		{"ip, unknown", always, func(c clues) (string, string) {
			return "IP of the sensor's namespace refused them; what was wrong with them is not known beyond the counters' names: " + c.names(), ""
		}},
	}
}

// udpAdvices are for UDP of a sensor's namespace, beside its sockets.
func udpAdvices() []advice {
	socket := func(c clues) (before, now Facts) {
		if s := c.r.hop(HopSocket, c.h.Sensor); s != nil {
			return s.was, s.facts
		}
		return Facts{}, Facts{}
	}
	return []advice{
		{"udp, another port", func(c clues) bool {
			before, now := socket(c)
			return c.nobodyHears() && before.Listens && now.Listens && !c.r.SinceStart
		}, func(clues) (string, string) {
			return "packets came for a port on which the sensor does not listen", "zeekdemo status"
		}},
		{"udp, before it listened", func(c clues) bool { _, now := socket(c); return c.nobodyHears() && now.Listens }, func(clues) (string, string) {
			return "packets came before Zeek had opened its socket, or for another port than its own", "zeekdemo status"
		}},
		{"udp, nobody listens", func(c clues) bool {
			s := c.r.hop(HopSocket, c.h.Sensor)
			return c.nobodyHears() && s != nil && s.Lost != nil
		}, func(c clues) (string, string) {
			return "nobody listens on the sensor's port: Zeek has not opened its socket, or has closed it", "docker restart zeekdemo-" + c.h.Sensor + "-1"
		}},
		{"udp, no port", clues.nobodyHears, func(clues) (string, string) {
			return "packets came for a port on which nobody listens; whether that is the sensor's is not known", "zeekdemo status"
		}},
		checksumAdvice(),
		memoryAdvice(),
		{"udp, unknown", always, func(c clues) (string, string) {
			return "not known: UDP dropped them, and no socket that the sensor has now counted them: another one in its namespace, or one that is gone", "zeekdemo logs " + c.h.Sensor
		}},
	}
}

// socketAdvices are for the sensor's receive queues.
func socketAdvices() []advice {
	return []advice{
		checksumAdvice(),
		{"socket, stopped", clues.stopped, func(c clues) (string, string) {
			return "Zeek is stopped: nobody empties its queue", "docker unpause zeekdemo-" + c.h.Sensor + "-1"
		}},
		memoryAdvice(),
		{"socket, small buffer", func(c clues) bool { least := c.h.leastBuffer(); return c.full() && least > 0 && least < smallBuffer }, func(c clues) (string, string) {
			return fmt.Sprintf("packets come faster than Zeek reads, and its receive buffer is small%s: net.core.rmem_max limits what Zeek asks for when it opens its socket", sizes(c.h)),
				"zeekdemo tune-host --restart-sensors"
		}},
		{"socket, full", clues.full, func(c clues) (string, string) {
			return "packets come faster than Zeek reads, for longer than its receive buffer can hold" + sizes(c.h), "zeekdemo replay --lossless require"
		}},
		{"socket, unknown", always, func(clues) (string, string) {
			return "not known: the socket dropped them, and no counter that was read tells why", ""
		}},
	}
}

// leastBuffer is the size of the smallest of the hop's queues; 0 if not known.
func (h *HopReport) leastBuffer() (least int64) {
	for _, q := range h.Queues {
		if q.Size > 0 && (least == 0 || q.Size < least) {
			least = q.Size
		}
	}
	return least
}

// zeekAdvices are for what Zeek says of itself.
func zeekAdvices() []advice {
	return []advice{{"zeek, unknown", always, func(c clues) (string, string) {
		return "not known: Zeek counts packets that its source dropped, and does not say why", "zeekdemo logs " + c.h.Sensor
	}}}
}
