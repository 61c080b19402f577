package transmit

import (
	"fmt"
	"net/netip"
	"strings"
)

// The packet transmission passes by all that a kernel may do to a packet between
// a UDP socket and a device. Where something would be done (an address
// translated, a packet encrypted, another route taken for UDP than for the rest)
// frames that pass it by go astray. So [Auto] takes the packet transmission only
// where it is known that nothing would be done:
//
//   - The journey is what the datagrams have in common.
//   - The surroundings are what this machine has that acts on packets.
//   - An obstacle is a piece of the surroundings that would act on the journey's
//     packets, or may: what cannot be told counts.

// journey is what netfilter, routing rules and IPsec policies see of each
// datagram. Source ports differ.
type journey struct {
	src, dst netip.Addr
	port     uint16 // destination's
	device   string // of the route, not of a bridge's port
	index    int
}

// surroundings are what acts on packets. A field that could not be read has its
// reason in unseen.
type surroundings struct {
	encapsulated string // what the route wraps packets into, as "MPLS"; "" if nothing
	rules        []routingRule
	policies     []ipsecPolicy
	marks        bool     // something may mark packets before they are routed
	translations []string // rules for address translation that match the journey, or may
	unseen       []string
}

// routingRule is a rule of ip-rule(8), as far as the lookup of a route by
// destination alone does not take it into account.
type routingRule struct {
	priority         int
	protocol         int    // 0: any
	srcPort, dstPort ports  // zero: any
	mark             uint32 // wanted, if mask is not 0
	mask             uint32
	src, dst         netip.Prefix // zero: any
}

// ports is a range of ports, both included.
type ports struct{ from, to uint16 }

func (p ports) any() bool            { return p == ports{} }
func (p ports) has(port uint16) bool { return p.any() || p.from <= port && port <= p.to }

// ipsecPolicy is an outgoing policy of ip-xfrm(8).
type ipsecPolicy struct {
	src, dst netip.Prefix
	protocol int    // 0: any
	dstPort  uint16 // 0: any
	index    int    // of a device; 0: any
}

// obstacles lists what would act on the journey's packets, or may.
func (s surroundings) obstacles(j journey) []string {
	var list []string
	if s.encapsulated != "" {
		list = append(list, "the route wraps packets into "+s.encapsulated)
	}
	for _, r := range s.rules {
		if r.concerns(j, s.marks) {
			list = append(list, fmt.Sprintf("routing rule %d chooses by %s", r.priority, r.by()))
		}
	}
	for _, p := range s.policies {
		if p.concerns(j) {
			list = append(list, fmt.Sprintf("an IPsec policy applies to packets to %v", p.dst))
		}
	}
	for _, t := range s.translations {
		list = append(list, "network address translation may apply ("+t+")")
	}
	if len(s.unseen) > 0 {
		list = append(list, "it cannot be seen what acts on packets ("+strings.Join(s.unseen, "; ")+")")
	}
	return list
}

// concerns reports whether the rule may choose another route for the journey's
// packets than for others to the same destination.
func (r routingRule) concerns(j journey, marks bool) bool {
	special := r.protocol != 0 || !r.srcPort.any() || !r.dstPort.any() || r.mask != 0 && marks
	switch {
	case !special:
		return false
	case r.protocol != 0 && r.protocol != protocolUDP, !r.dstPort.has(j.port):
		return false
	case r.src.IsValid() && !r.src.Contains(j.src), r.dst.IsValid() && !r.dst.Contains(j.dst.WithZone("")):
		return false
	}
	return r.mask == 0 || marks || r.mark == 0
}

// by names what a rule looks at.
func (r routingRule) by() string {
	switch {
	case r.mask != 0:
		return "a packet's mark, which a packet filter may set"
	case !r.srcPort.any(), !r.dstPort.any():
		return "port"
	}
	return "protocol"
}

func (p ipsecPolicy) concerns(j journey) bool {
	switch {
	case p.protocol != 0 && p.protocol != protocolUDP, p.dstPort != 0 && p.dstPort != j.port:
		return false
	case p.src.IsValid() && !p.src.Contains(j.src), p.dst.IsValid() && !p.dst.Contains(j.dst.WithZone("")):
		return false
	}
	return p.index == 0 || p.index == j.index
}

// obstacleError says why the packet transmission is not taken by itself.
type obstacleError struct{ obstacles []string }

func (e *obstacleError) Error() string {
	return "it passes by what this machine may do to packets: " + strings.Join(e.obstacles, "; ")
}
