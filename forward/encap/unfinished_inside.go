package encap

import "encoding/binary"

// A host that tunnels leaves the checksums of the packet inside to its network card
// (in Linux, tx-udp_tnl-segmentation and the like). The tunnel's own UDP checksum is
// one of these then:
//
//   - 0: there is none (RFC 768, RFC 6935). It stays so.
//   - Already what it is with the inner checksum in place, as Linux computes it (local
//     checksum offload, Documentation/networking/checksum-offloads.rst). It stays.
//   - Right for what the capture shows. It is computed anew.
//   - Left as well. It is computed, after what is inside.
//   - Wrong. It stays, as it would without a tunnel.
//
// GRE's checksum is treated likewise.

// inside finds the IP packet that a whole IP packet carries, as payload of a protocol
// that begins at the offset at: nil where there is none. A datagram that ends
// elsewhere than its IP packet is not looked into, nor is what an ICMP error quotes:
// that is no packet any more.
func inside(packet []byte, at int, proto byte) (within []byte, kind tunnel) {
	if len(packet) < at+udpLen || !carries(proto, binary.BigEndian.Uint32(packet[at:])) ||
		proto == protoUDP && int(binary.BigEndian.Uint16(packet[at+4:])) != len(packet)-at {
		return nil, tunnelNone
	}
	n, kind := carried(packet, at, proto)
	if kind == tunnelNone || kind == tunnelQuote || n.etherType != etherTypeIPv4 && n.etherType != etherTypeIPv6 {
		return nil, kind
	}
	return packet[n.offset:], kind
}

// isLeftInside reports whether something is unfinished about the packet inside of one
// that is within depth tunnels itself.
func isLeftInside(packet []byte, at int, proto byte, depth int) bool {
	if depth == maxNested {
		return false
	}
	within, _ := inside(packet, at, proto)
	return within != nil && mayBeUnfinished(within) && examineWithin(within, 0, depth+1) != 0 // of no length on the wire, none is repaired
}

// fillSumsInside computes what was left inside a packet, and anew those checksums of
// the tunnel that were right.
func fillSumsInside(packet []byte, at int, proto byte, depth int) {
	within, kind := inside(packet, at, proto)
	gre := at
	if kind == tunnelGREUDP {
		gre += udpLen
	}
	greHeld := (kind == tunnelGRE || kind == tunnelGREUDP) && hasGREChecksum(packet, gre) && fold(sum(0, packet[gre:])) == 0xffff
	udpHeld := proto == protoUDP && packet[at+6]|packet[at+7] != 0 && isSumRight(packet, at, proto)
	fillSums(within[:ipLength(within)], examineWithin(within, 0, depth+1), depth+1)
	if greHeld {
		binary.BigEndian.PutUint16(packet[gre+4:], 0)
		binary.BigEndian.PutUint16(packet[gre+4:], ^fold(sum(0, packet[gre:])))
	}
	if udpHeld {
		transportChecksum(packet, at, protoUDP)
	}
}

// hasGREChecksum reports whether GRE at the offset at of a packet, of version 0, has
// a checksum (RFC 2784 section 2.3).
func hasGREChecksum(packet []byte, at int) bool {
	return len(packet) >= at+8 && binary.BigEndian.Uint16(packet[at:])&(greChecksum|greVersion) == greChecksum
}
