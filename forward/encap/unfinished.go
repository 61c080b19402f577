package encap

import (
	"encoding/binary"

	"github.com/zeekdemo/zeekdemo/forward"
)

// unfinished says what a capturing host left to its network card in an IP packet,
// so that the capture does not have it and the wire had.
type unfinished uint8

// What may have been left.
const (
	noLength       unfinished = 1 << iota // of the packet: the card was to cut it
	noHeaderSum                           // IPv4's header checksum
	noTransportSum                        // that of TCP, UDP, ICMP, ICMPv6 or GRE
	noSumInside                           // any of these in a packet that it carries as a tunnel
)

// leastFrame is what Ethernet pads shorter frames to, in bytes without the frame
// check sequence (IEEE 802.3 section 4.2.3.3).
const leastFrame = 60

// unfinishedIn looks at an Ethernet frame that had length bytes on the wire. What is
// finished, as nearly all is, is seen so by a handful of additions.
func unfinishedIn(frame []byte, length int) unfinished {
	// The usual case, in one look: TCP over IPv4 in Ethernet, no options, no fragment.
	if len(frame) >= 54 {
		h := (*[54]byte)(frame)
		if binary.BigEndian.Uint32(h[12:])>>8 == etherTypeIPv4<<8|0x45 && h[23] == protoTCP {
			size := uint32(binary.BigEndian.Uint16(h[16:]))
			check := binary.BigEndian.Uint16(h[50:])
			src, dst := binary.BigEndian.Uint32(h[26:]), binary.BigEndian.Uint32(h[30:])
			pseudo := src>>16 + src&0xffff + dst>>16 + dst&0xffff + protoTCP
			if check != 0 && check != fold32(pseudo+size-ipv4Len) && check != fold32(pseudo) && size != 0 && h[24]|h[25] != 0 {
				return 0
			}
		}
	}
	return unfinishedInAny(frame, length)
}

func unfinishedInAny(frame []byte, length int) unfinished {
	if len(frame) < etherLen+ipv4Len+udpLen {
		return 0
	}
	etherType, at := binary.BigEndian.Uint16(frame[12:]), etherLen
	if etherType == etherTypeVLAN {
		etherType, at = binary.BigEndian.Uint16(frame[16:]), etherLen+4
	}
	switch packet := frame[at:]; {
	case etherType == etherTypeIPv4 && packet[0] == 0x45 && len(packet) >= ipv4Len+udpLen:
		if !mayBeUnfinished4(packet) {
			return 0
		}
		return examine(packet, length-at)
	case etherType == etherTypeIPv6 && len(packet) >= ipv6Len+udpLen:
		if !mayBeUnfinished6(packet) {
			return 0
		}
		return examine(packet, length-at)
	case etherType < etherTypeMin, etherType == etherTypeARP:
		return 0
	}
	n := locateNetwork(frame)
	if n.etherType != etherTypeIPv4 && n.etherType != etherTypeIPv6 {
		return 0
	}
	left := examine(frame[n.offset:], length-n.offset)
	if n.lengths {
		left &^= noLength // what has a length before it was not cut by a card
	}
	return left
}

// mayBeUnfinished is false where an IP packet is certainly not unfinished, and
// carries none.
func mayBeUnfinished(packet []byte) bool {
	switch {
	case len(packet) >= ipv4Len+udpLen && packet[0] == 0x45:
		return mayBeUnfinished4(packet)
	case len(packet) >= ipv6Len+udpLen && packet[0]>>4 == 6:
		return mayBeUnfinished6(packet)
	}
	return true
}

// mayBeUnfinished4 is mayBeUnfinished for an IPv4 packet without options.
func mayBeUnfinished4(packet []byte) bool {
	length := uint32(binary.BigEndian.Uint16(packet[2:]))
	if length == 0 || binary.BigEndian.Uint16(packet[10:]) == 0 {
		return true
	}
	var check uint16
	switch proto := packet[9]; {
	case binary.BigEndian.Uint16(packet[6:])&0x3fff != 0:
		return false
	case proto == protoTCP && len(packet) >= ipv4Len+20:
		check = binary.BigEndian.Uint16(packet[ipv4Len+16:])
	case proto == protoUDP:
		if carries(protoUDP, binary.BigEndian.Uint32(packet[ipv4Len:])) {
			return true
		}
		check = binary.BigEndian.Uint16(packet[ipv4Len+6:])
	case proto == protoICMP:
		return packet[ipv4Len+2]|packet[ipv4Len+3] == 0
	default:
		return carries(proto, 0)
	}
	src, dst := binary.BigEndian.Uint32(packet[12:]), binary.BigEndian.Uint32(packet[16:])
	pseudo := src>>16 + src&0xffff + dst>>16 + dst&0xffff + uint32(packet[9])
	return check == 0 || check == fold32(pseudo+length-ipv4Len) || check == fold32(pseudo)
}

// mayBeUnfinished6 is the same for an IPv6 packet.
func mayBeUnfinished6(packet []byte) bool {
	length, proto := uint32(binary.BigEndian.Uint16(packet[4:])), packet[6]
	var check uint16
	switch {
	case length == 0 || proto == protoHopByHop || proto == protoDestOpts:
		return true
	case proto == protoTCP && len(packet) >= ipv6Len+20:
		check = binary.BigEndian.Uint16(packet[ipv6Len+16:])
	case proto == protoUDP:
		if carries(protoUDP, binary.BigEndian.Uint32(packet[ipv6Len:])) {
			return true
		}
		check = binary.BigEndian.Uint16(packet[ipv6Len+6:])
	case proto == protoICMPv6:
		check = binary.BigEndian.Uint16(packet[ipv6Len+2:])
	default:
		return carries(proto, 0)
	}
	pseudo := uint32(fold(sum(0, packet[8:ipv6Len]))) + uint32(proto)
	return check == 0 || check == fold32(pseudo+length) || check == fold32(pseudo)
}

// fold32 is fold for the sum of a few words.
func fold32(s uint32) uint16 {
	s = s>>16 + s&0xffff
	return uint16(s>>16 + s&0xffff)
}

// examine proves what is unfinished about an IP packet, of which wire bytes followed
// its beginning on the wire. A checksum is if it is wrong and the field holds what
// a host leaves there for its card: nothing, or the sum of the pseudo-header (with
// the length, as most systems do, or without). Another wrong one was wrong on the wire.
// The same goes for the packet that it carries, if it is a tunnel's.
func examine(packet []byte, wire int) unfinished { return examineWithin(packet, wire, 0) }

// examineWithin is examine for a packet within depth tunnels.
func examineWithin(packet []byte, wire, depth int) (left unfinished) {
	var s superFrame
	proto, ok := s.parse(packet)
	end := 0
	if ok {
		end = ipLength(packet)
	}
	switch {
	case !ok || end > len(packet) || s.tcp > len(packet) || end > 0 && end < s.tcp:
		return 0
	case end == 0 && s.isCutByCard(packet, wire, proto):
		return noLength
	case end == 0:
		return 0
	}
	if !s.ipv6 && packet[10]|packet[11] == 0 && fold(sum(0, packet[:s.tcp])) != 0xffff {
		left = noHeaderSum
	}
	if packet = packet[:end]; isSumLeft(packet, s.tcp, proto) {
		left |= noTransportSum
	}
	if isLeftInside(packet, s.tcp, proto, depth) {
		left |= noSumInside
	}
	return left
}

// isCutByCard reports whether an IP packet without a length is one that the network
// card was to cut: its transport header is whole and says nothing else, and what
// follows is more than Ethernet's padding could be.
func (s *superFrame) isCutByCard(packet []byte, wire int, proto byte) bool {
	if s.jumbo > 0 || s.ipv6 && packet[6] == protoHopByHop || wire <= leastFrame-etherLen {
		return false
	}
	switch {
	case proto == protoTCP && len(packet) >= s.tcp+20:
		header := int(packet[s.tcp+12]>>4) * 4
		return header >= 20 && s.tcp+header <= len(packet)
	case proto == protoUDP && len(packet) >= s.tcp+udpLen:
		n := int(binary.BigEndian.Uint16(packet[s.tcp+4:]))
		return n == 0 || n == wire-s.tcp
	}
	return false
}

// sumField is the offset of the checksum in the header of what an IP packet carries
// behind at bytes; 0 for a protocol without one that is known here.
func sumField(packet []byte, at int, proto byte) int {
	ipv6 := packet[0]>>4 == 6
	switch {
	case proto == protoTCP:
		return 16
	case proto == protoUDP:
		return 6
	case proto == protoICMP && !ipv6, proto == protoICMPv6 && ipv6:
		return 2
	case proto == protoGRE && hasGREChecksum(packet, at):
		return 4
	}
	return 0
}

// pseudoSums adds up the pseudo-header of what an IP packet carries, without its
// length and with it; ICMP and GRE have none.
func pseudoSums(packet []byte, proto byte, length int) (bare, whole uint64) {
	addresses := packet[12:ipv4Len]
	switch {
	case proto == protoICMP || proto == protoGRE:
		return 0, 0
	case packet[0]>>4 == 6:
		addresses = packet[8:ipv6Len]
	}
	bare = sum(0, addresses) + uint64(proto)
	return bare, bare + uint64(length)
}

// isSumLeft reports whether the checksum of what a whole IP packet carries behind at
// bytes was left to the card.
func isSumLeft(packet []byte, at int, proto byte) bool {
	field := sumField(packet, at, proto)
	if field == 0 || len(packet) < at+field+2 {
		return false
	}
	check := binary.BigEndian.Uint16(packet[at+field:])
	if check == 0 && proto == protoUDP && mayHaveNoSum(packet, at) {
		return false
	}
	bare, whole := pseudoSums(packet, proto, len(packet)-at)
	if check != 0 && check != fold(bare) && check != fold(whole) {
		return false
	}
	return !isSumRight(packet, at, proto)
}

// isSumRight reports whether the checksum of what a whole IP packet carries behind at
// bytes is right.
func isSumRight(packet []byte, at int, proto byte) bool {
	_, pseudo := pseudoSums(packet, proto, len(packet)-at)
	return fold(pseudo+sum(0, packet[at:])) == 0xffff
}

// mayHaveNoSum reports whether a UDP datagram behind at bytes of an IP packet may do
// without a checksum: over IPv4 any (RFC 768), over IPv6 a tunnel's (RFC 6935).
func mayHaveNoSum(packet []byte, at int) bool {
	return packet[0]>>4 == 4 || carries(protoUDP, binary.BigEndian.Uint32(packet[at:]))
}

// finish puts right what is unfinished about the Ethernet frame (or IP packet, with
// Config.RawIP) that had length bytes on the wire, and says what it did or would
// have had to. It looks at a cut frame's length only: the rest is not there to be
// added up.
func (e *Encapsulator) finish(frame []byte, length int) (done forward.OutcomeFlags) {
	var left unfinished
	packet := frame
	if e.config.RawIP {
		left = examine(frame, length)
	} else if left = unfinishedIn(frame, length); left != 0 {
		at := locateNetwork(frame).offset
		packet, length = frame[at:], length-at
	}
	if left&noLength != 0 {
		if done = setLength(packet, length); done == 0 {
			return 0
		}
		left = examine(packet, length) // what it carries is seen only now
	}
	switch {
	case left == 0:
		return done
	case !e.config.FixChecksums:
		return done | forward.ChecksumsOpen
	}
	fillSums(packet[:ipLength(packet)], left, 0)
	return done | forward.ChecksumsFixed
}

// setLength makes an IP packet as long as it was on the wire, and its checksums right
// if all of it is there.
func setLength(packet []byte, wire int) forward.OutcomeFlags {
	var s superFrame
	proto, _ := s.parse(packet)
	field, n := packet[2:], wire
	if s.ipv6 {
		field, n = packet[4:], wire-ipv6Len
	}
	if n > 0xffff {
		return 0 // longer than the field can say, and nothing that could be cut
	}
	binary.BigEndian.PutUint16(field, uint16(n))
	if proto == protoUDP {
		binary.BigEndian.PutUint16(packet[s.tcp+4:], uint16(wire-s.tcp))
	}
	left := noHeaderSum
	if wire <= len(packet) {
		packet, left = packet[:wire], noHeaderSum|noTransportSum
	}
	fillSums(packet, left, 0)
	return forward.LengthRepaired
}

// fillSums computes the checksums that were left of an IP packet within depth
// tunnels. What it carries comes first, for its own checksums cover that.
func fillSums(packet []byte, left unfinished, depth int) {
	var s superFrame
	proto, _ := s.parse(packet)
	if left&noSumInside != 0 {
		fillSumsInside(packet, s.tcp, proto, depth)
	}
	if left&noHeaderSum != 0 && !s.ipv6 {
		binary.BigEndian.PutUint16(packet[10:], 0)
		binary.BigEndian.PutUint16(packet[10:], ^fold(sum(0, packet[:s.tcp])))
	}
	if left&noTransportSum == 0 {
		return
	}
	if proto == protoTCP || proto == protoUDP {
		transportChecksum(packet, s.tcp, proto)
		return
	}
	body := packet[s.tcp:]
	field := body[sumField(packet, s.tcp, proto):]
	field[0], field[1] = 0, 0
	_, pseudo := pseudoSums(packet, proto, len(body))
	binary.BigEndian.PutUint16(field, ^fold(pseudo+sum(0, body)))
}

// told is what an outcome says of a frame that stays as it is.
func (u unfinished) told() forward.OutcomeFlags {
	if u != 0 {
		return forward.ChecksumsOpen
	}
	return 0
}

// isCutByCard reports whether the frame is an IP packet without a length that the
// network card was to cut.
func (n *inner) isCutByCard(rawIP bool) bool {
	packet, wire := n.body, n.length-n.headLen
	switch {
	case rawIP:
	case n.headLen == 0:
		at := locateNetwork(packet)
		if at.lengths || at.etherType != etherTypeIPv4 && at.etherType != etherTypeIPv6 {
			return false
		}
		packet, wire = packet[at.offset:], wire-at.offset
	default:
		if t := binary.BigEndian.Uint16(n.head[12:]); t != etherTypeIPv4 && t != etherTypeIPv6 {
			return false
		}
	}
	return len(packet) >= ipv4Len && ipLength(packet) == 0 && examine(packet, wire) == noLength
}
