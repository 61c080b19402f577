package encap

import "encoding/binary"

// More IP protocol numbers, and those of tunnels.
const (
	protoICMP   = 1
	protoIPIP   = 4 // RFC 2003
	protoIPv6   = 41
	protoGRE    = 47 // RFC 2784
	protoICMPv6 = 58
	protoMPLS   = 137 // RFC 4023
)

// Ports of tunnels over UDP.
const (
	portGTPU       = 2152 // 3GPP TS 29.281
	portTeredo     = 3544 // RFC 4380
	portGREInUDP   = 4754 // RFC 8086
	portVXLAN      = 4789 // RFC 7348
	portVXLANGPE   = 4790 // draft-ietf-nvo3-vxlan-gpe
	portGENEVE     = 6081 // RFC 8926
	portVXLANLinux = 8472 // of Linux's vxlan devices unless they are told otherwise
)

// EtherTypes within GRE.
const (
	etherTypePPP        = 0x880b // RFC 2637
	etherTypeERSPAN     = 0x88be // types I and II, draft-foschiano-erspan
	etherTypeERSPANIII  = 0x22eb
	pppAddressAndFields = 0xff03 // RFC 1662
)

// Flags of GRE (RFC 2784, RFC 2890, RFC 2637).
const (
	greChecksum = 0x8000
	greRouting  = 0x4000
	greKey      = 0x2000
	greSequence = 0x1000
	greAck      = 0x0080
	greVersion  = 0x0007
)

// tunnel is a way of carrying packets within packets.
type tunnel uint8

const (
	tunnelNone   tunnel = iota // none, or none that is known
	tunnelIP                   // right behind the IP header
	tunnelGRE                  // right behind the IP header as well
	tunnelUDP                  // by a header that is the same in all packets of a flow: VXLAN, GENEVE
	tunnelGREUDP               // GRE over UDP
	tunnelOther                // by a header that is not: GTP-U, Teredo
	tunnelQuote                // an ICMP error, and what it quotes
)

// maxNested is how many tunnels within each other are looked into.
const maxNested = 8

// carries reports whether an IP packet of a protocol, whose payload begins with
// word, may carry another packet.
func carries(proto byte, word uint32) bool {
	switch proto {
	case protoTCP:
		return false
	case protoUDP:
		return isTunnelPort(uint16(word)) || isTunnelPort(uint16(word>>16))
	case protoICMP, protoIPIP, protoIPv6, protoGRE, protoICMPv6, protoMPLS:
		return true
	}
	return false
}

func isTunnelPort(port uint16) bool {
	if port < portGTPU || port > portVXLANLinux { // the usual case, in one look
		return false
	}
	switch port {
	case portGTPU, portTeredo, portGREInUDP, portVXLAN, portVXLANGPE, portGENEVE, portVXLANLinux:
		return true
	}
	return false
}

// carried finds what an IP packet carries whose payload, of a protocol, begins at
// the offset at: where the network header of the packet inside lies, behind
// hardware addresses, tags and labels.
func carried(packet []byte, at int, proto byte) (n network, kind tunnel) {
	n.mac = -1
	switch proto {
	case protoIPIP:
		n.offset, n.etherType, kind = at, etherTypeIPv4, tunnelIP
	case protoIPv6:
		n.offset, n.etherType, kind = at, etherTypeIPv6, tunnelIP
	case protoMPLS:
		n.offset, n.etherType, kind = at, etherTypeMPLS, tunnelIP
	case protoGRE:
		kind = n.gre(packet, at)
	case protoICMP, protoICMPv6:
		kind = n.quote(packet, at, proto)
	case protoUDP:
		kind = n.udp(packet, at)
	}
	if kind != tunnelNone && !n.enter(packet) {
		kind = tunnelNone
	}
	return n, kind
}

// enter goes from the beginning of what is inside to its network header.
func (n *network) enter(packet []byte) bool {
	if n.etherType == etherTypeTEB {
		if len(packet) < n.offset+etherLen {
			return false
		}
		n.mac, n.etherType = n.offset, binary.BigEndian.Uint16(packet[n.offset+12:])
		n.offset += etherLen
	}
	for n.step(packet) {
	}
	return n.offset <= len(packet)
}

// quote is for ICMP errors (RFC 792, RFC 4443 section 2.1): a header of 8 bytes, then
// the packet in question, or its beginning.
func (n *network) quote(packet []byte, at int, proto byte) tunnel {
	n.etherType = etherTypeIPv4
	isError := false
	switch packet[at] {
	case 3, 4, 5, 11, 12:
		isError = proto == protoICMP
	case 1, 2:
		isError = proto == protoICMPv6
	}
	if proto == protoICMPv6 {
		n.etherType = etherTypeIPv6
		isError = isError || packet[at] == 3 || packet[at] == 4
	}
	if n.offset = at + 8; !isError {
		return tunnelNone
	}
	return tunnelQuote
}

// gre is for GRE of version 0, and of version 1, which carries PPP.
func (n *network) gre(packet []byte, at int) tunnel {
	if len(packet) < at+4 {
		return tunnelNone
	}
	flags := binary.BigEndian.Uint16(packet[at:])
	n.etherType = binary.BigEndian.Uint16(packet[at+2:])
	n.offset = at + 4
	for _, flag := range []uint16{greChecksum, greKey, greSequence, greAck} {
		if flags&flag != 0 {
			n.offset += 4
		}
	}
	switch {
	case flags&greRouting != 0 || flags&greVersion > 1, len(packet) < n.offset+2:
		return tunnelNone
	case n.etherType == etherTypePPP:
		return n.ppp(packet)
	case flags&greVersion != 0 || flags&greAck != 0:
		return tunnelNone
	case n.etherType == etherTypeERSPAN:
		n.etherType = etherTypeTEB
		if flags&greSequence != 0 { // type II has a header, type I none
			n.offset += 8
		}
	case n.etherType == etherTypeERSPANIII:
		n.etherType = etherTypeTEB
		if n.offset += 12; len(packet) >= n.offset && packet[n.offset-1]&1 != 0 {
			n.offset += 8 // a platform's own header
		}
	}
	return tunnelGRE
}

// ppp is for a PPP frame with IP in it, its fields compressed or not.
func (n *network) ppp(packet []byte) tunnel {
	if binary.BigEndian.Uint16(packet[n.offset:]) == pppAddressAndFields {
		n.offset += 2
	}
	if len(packet) < n.offset+2 {
		return tunnelNone
	}
	proto := uint16(packet[n.offset])
	n.offset++
	if proto&1 == 0 {
		proto = proto<<8 | uint16(packet[n.offset])
		n.offset++
	}
	switch proto {
	case pppIPv4:
		n.etherType = etherTypeIPv4
	case pppIPv6:
		n.etherType = etherTypeIPv6
	default:
		return tunnelNone
	}
	return tunnelGRE
}

// tunnelPort returns the tunnel's port of two, so that it is the same with the two
// swapped: 0 if neither is one. Most tunnels have theirs as the destination, Teredo's
// server answers from its own.
func tunnelPort(a, b uint16) uint16 {
	switch is, other := isTunnelPort(a), isTunnelPort(b); {
	case is && other:
		return min(a, b)
	case is:
		return a
	case other:
		return b
	}
	return 0
}

// udp is for tunnels over UDP, known by their ports and by how they begin.
func (n *network) udp(packet []byte, at int) tunnel {
	if len(packet) < at+udpLen+8 {
		return tunnelNone
	}
	n.offset = at + udpLen
	b := packet[n.offset:]
	switch tunnelPort(binary.BigEndian.Uint16(packet[at:]), binary.BigEndian.Uint16(packet[at+2:])) {
	case portVXLAN, portVXLANLinux:
		n.offset += 8
		n.etherType = etherTypeTEB
		return tunnelIf(b[0]&0x08 != 0 && b[7] == 0, tunnelUDP)
	case portVXLANGPE:
		n.offset += 8
		n.etherType = gpeTypes[b[3]&7]
		return tunnelIf(b[0]&0x0c == 0x0c && b[3] < 8 && n.etherType != 0, tunnelUDP)
	case portGENEVE:
		n.offset += 8 + int(b[0]&0x3f)*4
		n.etherType = binary.BigEndian.Uint16(b[2:])
		return tunnelIf(b[0]>>6 == 0 && b[7] == 0, tunnelUDP)
	case portGREInUDP:
		return tunnelIf(n.gre(packet, n.offset) == tunnelGRE, tunnelGREUDP)
	case portGTPU:
		return tunnelIf(n.gtp(packet, b), tunnelOther)
	case portTeredo:
		return tunnelIf(n.teredo(packet, b), tunnelOther)
	}
	return tunnelNone
}

// gpeTypes are the EtherTypes of VXLAN-GPE's next protocols; 0 is none that is known.
var gpeTypes = [8]uint16{1: etherTypeIPv4, 2: etherTypeIPv6, 3: etherTypeTEB, 5: etherTypeMPLS}

func tunnelIf(is bool, kind tunnel) tunnel {
	if is {
		return kind
	}
	return tunnelNone
}

// gtp is for a user's packet in GTP-U of version 1 (3GPP TS 29.281 section 5): b is
// its header, with optional fields and extension headers.
func (n *network) gtp(packet, b []byte) bool {
	const userPacket, more, extended = 255, 7, 4
	if b[0]&0xf0 != 0x30 || b[1] != userPacket {
		return false
	}
	size := 8
	if b[0]&more != 0 {
		size = 12
	}
	for next := b[0]&extended != 0; next; {
		if len(b) < size+1 {
			return false
		}
		if b[size-1] == 0 {
			break
		}
		extension := int(b[size]) * 4
		if size += extension; extension == 0 {
			return false
		}
	}
	n.offset += size
	return n.version(packet)
}

// teredo is for IPv6 packets behind the indications of RFC 4380 section 5.1.1, which
// are as long as they say.
func (n *network) teredo(packet, b []byte) bool {
	if b[0] == 0 && b[1] == 1 { // authentication
		n.offset += 13 + int(b[2]) + int(b[3])
	}
	if len(packet) >= n.offset+2 && packet[n.offset] == 0 && packet[n.offset+1] == 0 { // origin
		n.offset += 8
	}
	return n.version(packet) && n.etherType == etherTypeIPv6 && len(packet) >= n.offset+ipv6Len &&
		n.offset+ipv6Len+int(binary.BigEndian.Uint16(packet[n.offset+4:])) <= len(packet)
}

// version takes the type from the version of an IP header.
func (n *network) version(packet []byte) bool {
	if len(packet) <= n.offset {
		return false
	}
	switch packet[n.offset] >> 4 {
	case 4:
		n.etherType = etherTypeIPv4
	case 6:
		n.etherType = etherTypeIPv6
	default:
		return false
	}
	return true
}
