package drops

import (
	"fmt"
	"slices"
	"strings"
)

// An advice is what may be said about a loss, and when. What is said follows from
// what was seen in the very reading that is judged: a cause that was not seen is
// not named, and where no cause was seen, that is said.
type advice struct {
	name string // for tests
	// seen reports whether the cause was seen.
	seen func(clues) bool
	// say returns why packets or lines died, and the command that mends it, empty
	// where none is known.
	say func(clues) (reason, cure string)
}

// clues are a hop that loses, within its report.
type clues struct {
	r *Report
	h *HopReport
}

// advices are those for a hop, the surest first. The last is for all that the
// others do not explain.
func advices(hop Hop) []advice {
	switch hop {
	case HopSender:
		return senderAdvices()
	case HopConntrack:
		return conntrackAdvices()
	case HopHostUDP:
		return hostUDPAdvices()
	case HopProxy:
		return proxyAdvices()
	case HopLoopback, HopBridge, HopVeth, HopDevice:
		return deviceAdvices()
	case HopSoftnet:
		return softnetAdvices()
	case HopIP:
		return ipAdvices()
	case HopUDP:
		return udpAdvices()
	case HopSocket:
		return socketAdvices()
	case HopZeek:
		return zeekAdvices()
	case HopCollector:
		return collectorAdvices()
	case HopLoki:
		return lokiAdvices()
	}
	return []advice{{"unknown", always, func(c clues) (string, string) { return "the counters grew: " + c.names(), "" }}}
}

// first is the first of a list whose cause was seen.
func first(list []advice, c clues) advice {
	return list[slices.IndexFunc(list, func(a advice) bool { return a.seen(c) })]
}

// advise says why a hop loses, and what mends it.
func (r *Report) advise(h *HopReport) (reason, cure string) {
	c := clues{r, h}
	return first(advices(h.Hop), c).say(c)
}

// always is for what may be said of every loss.
func always(clues) bool { return true }

// Why is why the first hop that loses does so, or why packets came in another
// order, and the command that mends it. Both are empty where there is nothing to
// mend, the command alone where none is known.
func (r *Report) Why() (reason, cure string) {
	switch {
	case r.Culprit != nil:
		return r.Culprit.Reason, r.Culprit.Cure
	case r.Verdict == VerdictReordered:
		c := clues{r: r}
		return first(orderAdvices(), c).say(c)
	}
	return "", ""
}

// Hint is what the counters of a hop that other traffic shares mean, and what
// mends it if these were the sensors' packets; empty for a hop that loses
// nothing.
func (r *Report) Hint(h *HopReport) (reason, cure string) {
	if h.Verdict != VerdictSuspect {
		return "", ""
	}
	return r.advise(h)
}

// most reports whether counters explain at least half of what died at the hop.
func (c clues) most(h *HopReport, names ...string) bool {
	n := h.grew(names...)
	return n > 0 && (c.h.Lost == nil || 2*n >= *c.h.Lost)
}

// names are the counters of deaths that grew.
func (c clues) names() string { return grownNames(c.h, RoleLost, RoleVain) }

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

// relayed reports whether packets for these sensors may have passed a UDP socket
// of the host, such as docker-proxy's: the host's UDP then took at least half as
// many as came to the sensors' namespaces. Known is false where that cannot be
// told, for counters are not known, count since the machine's start, or nothing
// came.
func (r *Report) relayed(sensors ...string) (yes, known bool) {
	host := r.hop(HopHostUDP, "")
	if r.SinceStart || host == nil || host.In == nil {
		return false, false
	}
	var came uint64
	for _, sensor := range sensors {
		udp := r.hop(HopUDP, sensor)
		if udp == nil || udp.In == nil {
			return false, false
		}
		came += *udp.In
		if ip := r.hop(HopIP, sensor); ip != nil && ip.Lost != nil {
			came += *ip.Lost
		}
	}
	return came > 0 && 2*host.grew(inDatagrams, inDatagrams6) >= came, came > 0
}

// orderAdvices are for packets that came in another order. They are only asked
// where the packets passed a UDP socket of the host.
func orderAdvices() []advice {
	const cure = "zeekdemo replay --direct   (`zeekdemo verify FILE` tells whether the capture itself has gaps)"
	return []advice{
		{"order, docker-proxy", clues.proxyListens, func(clues) (string, string) {
			return "as many packets as came to the sensor passed UDP sockets of this machine, such as docker-proxy's, which may let one packet overtake another", cure
		}},
		{"order, unknown", always, func(clues) (string, string) {
			return "as many packets as came to the sensor passed UDP sockets of this machine, and docker-proxy has none: whose let them overtake each other is not known", ""
		}},
	}
}

// proxyListens reports whether docker-proxy has a socket for any sensor.
func (c clues) proxyListens() bool {
	return slices.ContainsFunc(c.r.Hops, func(h HopReport) bool { return h.Hop == HopProxy && h.facts.isProxy() })
}

// isProxy reports whether the process that holds the socket is known to be
// docker-proxy.
func (f Facts) isProxy() bool { return f.Listens && strings.HasPrefix(f.Process, "docker-proxy ") }
