package drops

import "strings"

// The host's hops count the whole machine's packets, so what is said of them is
// about whoever's packets died there.

// captureDrops begins the name of what a packet socket of this program dropped.
const captureDrops = "packet socket of " + ownName + " "

// senderAdvices are for what the host sends by UDP.
func senderAdvices() []advice {
	sendBuffer := func(c clues) bool { return c.most(c.h, "UdpSndbufErrors", "Udp6SndbufErrors") }
	return []advice{
		// What a device's queue refuses of UDP is counted as both.
		{"sender, device queue", func(c clues) bool { return sendBuffer(c) && c.most(c.h, "IpOutDiscards", "Ip6OutDiscards") }, func(c clues) (string, string) {
			return "the queue of a device that UDP sends to was full: " + c.names(), "tc -s qdisc show"
		}},
		{"sender, buffer", sendBuffer, func(c clues) (string, string) {
			return "a sender's socket buffer or device queue was full: " + c.names(), "zeekdemo tune-host"
		}},
		{"sender, neighbour", func(c clues) bool { return c.most(c.h, unresolved) }, func(c clues) (string, string) {
			return "nobody answered for a receiver's link address, and more waited for it than may: " + c.names(), "ip neigh show nud incomplete nud failed"
		}},
		{"sender, mirror", func(c clues) bool { return c.most(c.h, c.captures()...) }, func(c clues) (string, string) {
			return "a mirror's packet socket was full: packets come faster than it forwards them: " + c.names(), "zeekdemo mirror --how kernel IFACE"
		}},
		{"sender, unknown", always, func(c clues) (string, string) { return "why is not known beyond the counters' names: " + c.names(), "" }},
	}
}

// captures are the counters of this program's packet sockets.
func (c clues) captures() (names []string) {
	for _, d := range c.h.Counters {
		if strings.HasPrefix(d.Name, captureDrops) {
			names = append(names, d.Name)
		}
	}
	return names
}

// fullTable is the share of a table's size from which on it counts as full.
const fullTable = 0.95

// conntrackAdvices are for the host's connection tracking.
func conntrackAdvices() []advice {
	return []advice{
		{"conntrack, full", func(c clues) bool {
			return len(c.h.Queues) > 0 && c.h.Queues[0].Size > 0 && float64(c.h.Queues[0].Used) >= fullTable*float64(c.h.Queues[0].Size)
		}, func(clues) (string, string) {
			return "connection tracking had no room for more flows", "sysctl net.netfilter.nf_conntrack_max"
		}},
		{"conntrack, race", func(c clues) bool { return c.most(c.h, "insert_failed") }, func(clues) (string, string) {
			return "connection tracking lost races for an entry: several processors had packets of one new flow", "zeekdemo replay --direct --tx packet"
		}},
		{"conntrack, unknown", always, func(clues) (string, string) {
			return "connection tracking dropped packets, and now has room for more flows: why is not known", ""
		}},
	}
}

// hostUDPAdvices are for IP and UDP of the host, on the way to docker-proxy.
func hostUDPAdvices() []advice {
	return []advice{
		{"host, no port", clues.nobodyHears, func(clues) (string, string) {
			return "datagrams came for ports on which nobody listens", "zeekdemo status"
		}},
		{"host, relayed", clues.onTheWayToAProxy, func(c clues) (string, string) {
			return "IP or UDP of the host refused: " + c.names(), "zeekdemo replay --direct"
		}},
		{"host, unknown", always, func(c clues) (string, string) {
			return "IP or UDP of the host refused, and no sensor's packets were seen to pass there: " + c.names(), ""
		}},
	}
}

// onTheWayToAProxy reports whether a sensor's packets may have passed the host's
// UDP to docker-proxy, or have died there.
func (c clues) onTheWayToAProxy() bool {
	for _, h := range c.r.Hops {
		if h.Hop == HopProxy && h.facts.Listens {
			if yes, known := c.r.relayed(h.Sensor); yes && known {
				return true
			}
		}
	}
	return false
}
