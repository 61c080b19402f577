package encap

import (
	"encoding/binary"
	"math/bits"
)

// EtherTypes and LLC values (https://www.iana.org/assignments/ieee-802-numbers).
const (
	etherTypeIPv4     = 0x0800
	etherTypeARP      = 0x0806
	etherTypeTEB      = 0x6558 // transparent Ethernet bridging
	etherTypeVLAN     = 0x8100
	etherTypeIPv6     = 0x86dd
	etherTypeMPLS     = 0x8847
	etherTypeMPLSMul  = 0x8848
	etherTypePPPoE    = 0x8864 // session stage
	etherTypeJumboLLC = 0x8870 // LLC too long for an IEEE 802.3 length field (IEEE 802.1AC)
	etherTypeQinQ     = 0x88a8
	etherTypePBB      = 0x88e7 // IEEE 802.1ah, I-tag
	etherTypeQinQOld1 = 0x9100 // QinQ before IEEE 802.1ad
	etherTypeQinQOld2 = 0x9200
	etherTypeMin      = 0x0600 // below, the field is an IEEE 802.3 length
	maxLength8023     = 1500
)

// IP protocol numbers (https://www.iana.org/assignments/protocol-numbers).
const (
	protoHopByHop = 0
	protoTCP      = 6
	protoUDP      = 17
	protoDCCP     = 33
	protoRouting  = 43
	protoFragment = 44
	protoAuth     = 51
	protoDestOpts = 60
	protoSCTP     = 132
	protoMobility = 135
	protoUDPLite  = 136
	protoHIP      = 139
	protoShim6    = 140
)

// flowHash is a hash of the flow that an Ethernet frame belongs to, given the
// fragments that came before. It is the
// same for both directions, so that a monitor's workers, chosen by the outer
// source port, see whole connections. It covers
//
//   - of IP packets, behind VLAN tags (any number), MPLS labels, PPPoE, LLC/SNAP
//     and provider backbone tags: addresses and protocol, and the ports of TCP,
//     UDP, SCTP, DCCP and UDP-Lite. Extension headers of IPv6 are looked
//     through. Fragments count as the first of their datagram does, see [fragments].
//     ICMP counts without type and code.
//   - of ICMP errors: the flow of the packet that they quote.
//   - of tunnels (VXLAN, GENEVE, GRE with all that it carries, IP in IP, GTP-U,
//     Teredo, ERSPAN): what is inside, and inside that. For their own headers may
//     differ by direction, as the source ports of VXLAN do. Where that cannot be
//     seen, because the end of what was captured hides it, the tunnel itself counts.
//   - of other frames: the MAC addresses and the EtherType.
//
// VLAN identifiers, labels and session numbers are left out: the two directions
// may have different ones.
func (s *fragments) flowHash(frame []byte) uint64 {
	// The usual case, in one look: IPv4 in Ethernet, no options, no fragment.
	if len(frame) >= 38 &&
		binary.BigEndian.Uint32(frame[12:])>>8 == etherTypeIPv4<<8|0x45 &&
		binary.BigEndian.Uint16(frame[20:])&0x3fff == 0 &&
		!carries(frame[23], binary.BigEndian.Uint32(frame[34:])) {
		src := uint64(binary.BigEndian.Uint32(frame[26:])) << 16
		dst := uint64(binary.BigEndian.Uint32(frame[30:])) << 16
		proto := frame[23]
		if hasPorts(proto) {
			ports := binary.BigEndian.Uint32(frame[34:])
			src |= uint64(ports >> 16)
			dst |= uint64(ports & 0xffff)
		}
		return mixFlow(src, dst, uint64(proto))
	}
	// The next: IP in Ethernet with one VLAN tag or none, all headers there.
	if len(frame) >= 60 {
		etherType, packet := binary.BigEndian.Uint16(frame[12:]), frame[etherLen:]
		if etherType == etherTypeVLAN {
			etherType, packet = binary.BigEndian.Uint16(packet[2:]), packet[4:]
		}
		switch {
		case etherType == etherTypeIPv4 && packet[0]>>4 == 4:
			return s.flowHash4(packet, 0)
		case etherType == etherTypeIPv6 && packet[0]>>4 == 6:
			return s.flowHash6(packet, 0)
		}
	}
	return s.flowHashAny(frame)
}

func (s *fragments) flowHashAny(frame []byte) uint64 {
	n := locateNetwork(frame)
	if h, ok := s.flowHashAt(frame, n, 0); ok {
		return h
	}
	return mixFlow(0, 0, uint64(n.etherType))
}

// flowHashAt is flowHash for what lies at n, within depth tunnels. It fails where
// there are no addresses.
func (s *fragments) flowHashAt(frame []byte, n network, depth int) (uint64, bool) {
	switch n.etherType {
	case etherTypeIPv4, etherTypeIPv6:
		if h, ok := s.flowHashIPAt(frame[n.offset:], depth); ok {
			return h, true
		}
	}
	if n.mac < 0 || len(frame) < n.mac+12 {
		return 0, false
	}
	dst := binary.BigEndian.Uint64(frame[n.mac:]) >> 16
	src := binary.BigEndian.Uint64(frame[n.mac+4:]) & (1<<48 - 1)
	return mixFlow(src, dst, uint64(n.etherType)<<8), true
}

// flowHashIP is flowHash for a bare IPv4 or IPv6 packet. It fails where the
// addresses are not there.
func (s *fragments) flowHashIP(packet []byte) (uint64, bool) { return s.flowHashIPAt(packet, 0) }

func (s *fragments) flowHashIPAt(packet []byte, depth int) (uint64, bool) {
	switch {
	case len(packet) >= ipv4Len && packet[0]>>4 == 4:
		return s.flowHash4(packet, depth), true
	case len(packet) >= ipv6Len && packet[0]>>4 == 6:
		return s.flowHash6(packet, depth), true
	}
	return 0, false
}

// flowHashInside is the hash of what an IP packet carries, at the offset at and by
// a protocol that may carry something. It fails where that is nothing that is known.
func (s *fragments) flowHashInside(packet []byte, at int, proto byte, depth int) (uint64, bool) {
	if depth == maxNested {
		return 0, false
	}
	n, kind := carried(packet, at, proto)
	if kind == tunnelNone {
		return 0, false
	}
	if kind == tunnelQuote {
		return s.quoted(packet, n, depth+1)
	}
	return s.flowHashAt(packet, n, depth+1)
}

func (s *fragments) flowHash4(packet []byte, depth int) uint64 {
	if binary.BigEndian.Uint16(packet[6:])&0x3fff != 0 {
		return s.fragment4(packet, depth)
	}
	return s.whole4(packet, depth)
}

// whole4 is the hash of an IPv4 packet that is no fragment, or the first one.
func (s *fragments) whole4(packet []byte, depth int) uint64 {
	src := uint64(binary.BigEndian.Uint32(packet[12:])) << 16
	dst := uint64(binary.BigEndian.Uint32(packet[16:])) << 16
	proto := packet[9]
	if at := int(packet[0]&15) * 4; at >= ipv4Len && len(packet) >= at+4 {
		ports := binary.BigEndian.Uint32(packet[at:])
		if carries(proto, ports) {
			if h, ok := s.flowHashInside(packet, at, proto, depth); ok {
				return h
			}
		}
		if hasPorts(proto) {
			src |= uint64(ports >> 16)
			dst |= uint64(ports & 0xffff)
		}
	}
	return mixFlow(src, dst, uint64(proto))
}

func (s *fragments) flowHash6(packet []byte, depth int) uint64 {
	proto, at := packet[6], ipv6Len
	if !hasPorts(proto) {
		var fragment int
		if proto, at, fragment = upperLayer6(packet); fragment > 0 {
			return s.fragment6(packet, fragment, proto, at, depth)
		}
	}
	return s.whole6(packet, proto, at, depth)
}

// whole6 is the hash of an IPv6 packet that is no fragment, or the first one, with
// its upper-layer protocol at an offset; 0 where that is not there.
func (s *fragments) whole6(packet []byte, proto byte, at, depth int) uint64 {
	src := mixPair(binary.BigEndian.Uint64(packet[8:]), binary.BigEndian.Uint64(packet[16:]))
	dst := mixPair(binary.BigEndian.Uint64(packet[24:]), binary.BigEndian.Uint64(packet[32:]))
	if at > 0 && len(packet) >= at+4 {
		ports := binary.BigEndian.Uint32(packet[at:])
		if carries(proto, ports) {
			if h, ok := s.flowHashInside(packet, at, proto, depth); ok {
				return h
			}
		}
		if hasPorts(proto) {
			src += uint64(ports>>16) * mixC
			dst += uint64(ports&0xffff) * mixC
		}
	}
	return mixFlow(src, dst, uint64(proto))
}

// upperLayer6 walks over the extension headers of an IPv6 packet, whose fixed
// header is there, and returns the upper-layer protocol and its offset. The
// offset is 0 where there is none to read: in a fragment but the first, where the
// protocol is the fragment header's, or where the packet ends before. Fragment is the
// offset of the fragment header, 0 where there is none. An atomic fragment (RFC 6946),
// offset 0 and none to follow, is a whole packet.
func upperLayer6(packet []byte) (proto byte, at, fragment int) {
	proto, at = packet[6], ipv6Len
	for isExtension(proto) {
		if len(packet) < at+8 {
			return proto, 0, fragment
		}
		next, size := packet[at], 8+8*int(packet[at+1])
		switch proto {
		case protoFragment:
			word := binary.BigEndian.Uint16(packet[at+2:])
			if word&0xfff9 != 0 {
				fragment = at
			}
			if word&0xfff8 != 0 {
				return next, 0, fragment
			}
			size = 8
		case protoAuth:
			size = 8 + 4*int(packet[at+1])
		}
		proto, at = next, at+size
	}
	return proto, at, fragment
}

// isExtension reports whether an IPv6 next header is an extension header that
// can be walked over (RFC 7045).
func isExtension(proto byte) bool {
	switch proto {
	case protoHopByHop, protoRouting, protoFragment, protoAuth, protoDestOpts,
		protoMobility, protoHIP, protoShim6:
		return true
	}
	return false
}

func hasPorts(proto byte) bool {
	if proto < 64 {
		return (1<<protoTCP|1<<protoUDP|uint64(1)<<protoDCCP)>>proto&1 != 0
	}
	return proto == protoSCTP || proto == protoUDPLite
}

// network is where the network header of an Ethernet frame lies.
type network struct {
	offset    int
	etherType uint16 // of what lies there; an IEEE 802.3 length, or 0, where it is unknown
	mac       int    // offset of the innermost MAC addresses
	lengths   bool   // a header with a length field of its own lies before it
}

// locateNetwork walks over tags, labels and session headers. Every step goes
// forward, so it ends; a frame that ends within them is located at its end.
func locateNetwork(frame []byte) network {
	if len(frame) < etherLen {
		return network{offset: len(frame)}
	}
	n := network{offset: etherLen, etherType: binary.BigEndian.Uint16(frame[12:])}
	for n.step(frame) {
	}
	n.offset = min(n.offset, len(frame))
	return n
}

// step walks over one header, and reports whether there was one.
func (n *network) step(frame []byte) bool {
	rest := frame[min(n.offset, len(frame)):]
	switch n.etherType {
	case etherTypeVLAN, etherTypeQinQ, etherTypeQinQOld1, etherTypeQinQOld2:
		return n.to(rest, 4, 2)
	case etherTypePBB:
		if len(rest) < 4+etherLen {
			return false
		}
		n.mac = n.offset + 4
		return n.to(rest, 4+etherLen, 4+12)
	case etherTypeMPLS, etherTypeMPLSMul:
		return n.stepMPLS(rest)
	case etherTypePPPoE:
		return n.stepPPPoE(rest)
	case etherTypeIPv4, etherTypeIPv6, 0:
		return false
	}
	if n.etherType < etherTypeMin && isSNAP(rest) {
		n.lengths = true
		return n.to(rest, 8, 6)
	}
	return false
}

// to goes size bytes forward; the next EtherType is at the offset typeAt.
func (n *network) to(rest []byte, size, typeAt int) bool {
	if len(rest) < size {
		return false
	}
	n.etherType = binary.BigEndian.Uint16(rest[typeAt:])
	n.offset += size
	return true
}

// stepMPLS walks over the label stack (RFC 3032). What follows has no type; as
// everybody does, take the first four bits: 4 and 6 are IP, 0 is the control
// word of an Ethernet pseudowire (RFC 4448 section 4.6).
func (n *network) stepMPLS(rest []byte) bool {
	at := 0
	for bottom := false; !bottom; at += 4 {
		if len(rest) < at+4 {
			return false
		}
		bottom = rest[at+2]&1 != 0
	}
	if len(rest) <= at {
		return false
	}
	n.offset += at
	switch rest[at] >> 4 {
	case 4:
		n.etherType = etherTypeIPv4
	case 6:
		n.etherType = etherTypeIPv6
	case 0:
		if len(rest) >= at+4+etherLen {
			n.mac = n.offset + 4
			return n.to(rest[at:], 4+etherLen, 4+12)
		}
		n.etherType = 0
	default:
		n.etherType = 0
	}
	return true
}

// stepPPPoE walks over the session header and the PPP protocol (RFC 2516).
func (n *network) stepPPPoE(rest []byte) bool {
	if len(rest) < 8 {
		return false
	}
	switch binary.BigEndian.Uint16(rest[6:]) {
	case pppIPv4:
		n.etherType = etherTypeIPv4
	case pppIPv6:
		n.etherType = etherTypeIPv6
	default:
		return false
	}
	n.offset += 8
	n.lengths = true
	return true
}

// isSNAP reports whether data begins with an LLC header and a SNAP header that
// holds an EtherType: OUI 00-00-00 (RFC 1042) or 00-00-f8 (IEEE 802.1H).
func isSNAP(data []byte) bool {
	if len(data) < 8 || binary.BigEndian.Uint32(data)&0xffffff00 != 0xaaaa0300 || data[3] != 0 || data[4] != 0 {
		return false
	}
	return (data[5] == 0 || data[5] == 0xf8) && binary.BigEndian.Uint16(data[6:]) >= etherTypeMin
}

// Odd constants with evenly spread bits (fractions of pi), to multiply by.
const (
	mixA = 0x243f6a8885a308d3
	mixB = 0x13198a2e03707345
	mixC = 0xa4093822299f31d1
)

// mixFlow hashes two endpoints, in either order, and a protocol.
func mixFlow(a, b, proto uint64) uint64 {
	return mixPair(mixPair(min(a, b), max(a, b)), proto)
}

// mixPair folds the 128-bit product of its masked arguments.
func mixPair(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^mixA, b^mixB)
	return hi ^ lo
}
