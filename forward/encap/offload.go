package encap

import (
	"encoding/binary"
)

// A capture on a machine sees some packets before the network card has done its
// part, or after it has done too much: checksums that are to be filled in, and
// several packets merged into one. Splitter and the checksum functions make of
// them what is on the wire.

// Splitter cuts a merged packet (by TSO, GSO, GRO, LRO, or UDP's equivalents) into
// the packets it stands for, given the size of their payload, which the kernel
// knows. It allocates only until its buffer has grown to the largest segment.
type Splitter struct {
	super   superFrame
	udp     bool
	frame   []byte
	headers []byte // of a segment, as the first one has them
	segment []byte
	size    int // of a segment's payload
	at, i   int // the next segment's payload, and its number
}

// Split begins with an Ethernet frame, or a bare IP packet, whose transport
// payload is to be cut into pieces of size bytes. It fails where that is not a
// whole TCP segment or UDP datagram of an IP packet, as within another tunnel.
// The frame must not change until the last Next.
func (x *Splitter) Split(frame []byte, size int, rawIP bool) bool {
	var ok bool
	if x.super, ok = parseSuperFrame(frame, len(frame), rawIP); ok {
		x.udp = false
	} else if x.super, ok = parseSuperDatagram(frame, rawIP); ok {
		x.udp = true
	}
	s := &x.super
	if !ok || size <= 0 || s.ip+ipLength(frame[s.ip:]) > len(frame) || s.end-s.payload <= size {
		return false
	}
	x.headers = append(append(x.headers[:0], frame[:s.ip+s.fixed()]...), frame[s.ip+s.fixed()+s.jumbo:s.payload]...)
	s.dropJumbo(x.headers)
	x.frame, x.size, x.at, x.i = frame, size, s.payload, 0
	return true
}

// Next returns the next segment, valid until the call after; false after the last.
func (x *Splitter) Next() (segment []byte, ok bool) {
	s := &x.super
	if x.at >= s.end {
		return nil, false
	}
	n := min(x.size, s.end-x.at)
	x.segment = append(append(x.segment[:0], x.headers...), x.frame[x.at:x.at+n]...)
	if x.udp {
		binary.BigEndian.PutUint16(x.segment[s.tcp+4:], uint16(udpLen+n))
	} else {
		s.patchTCP(x.segment, x.at-s.payload, x.at+n == s.end)
	}
	s.patchIP(x.segment[s.ip:], x.i)
	if x.udp {
		transportChecksum(x.segment[s.ip:], s.tcp-s.ip, protoUDP)
	} else {
		s.checksum(x.segment)
	}
	x.at, x.i = x.at+n, x.i+1
	return x.segment, true
}

// parseSuperDatagram is parseSuperFrame for UDP.
func parseSuperDatagram(frame []byte, rawIP bool) (s superFrame, ok bool) {
	at, proto, ok := locateTransport(frame, rawIP)
	if !ok || proto != protoUDP || len(frame) < at.transport+udpLen {
		return s, false
	}
	s = superFrame{ip: at.ip, tcp: at.transport, payload: at.transport + udpLen, end: len(frame), ipv6: frame[at.ip]>>4 == 6}
	if n := ipLength(frame[s.ip:]); n > 0 {
		s.end = min(s.end, s.ip+n)
	}
	return s, s.payload < s.end
}

// transport is where an IP packet and what it carries lie in a frame.
type transport struct{ ip, transport int }

// locateTransport finds the transport header of an IP packet that is no
// fragment, and its protocol.
func locateTransport(frame []byte, rawIP bool) (at transport, proto byte, ok bool) {
	if !rawIP {
		n := locateNetwork(frame)
		if n.lengths || n.etherType != etherTypeIPv4 && n.etherType != etherTypeIPv6 {
			return at, 0, false
		}
		at.ip = n.offset
	}
	packet := frame[at.ip:]
	switch {
	case len(packet) >= ipv4Len && packet[0]>>4 == 4:
		size := int(packet[0]&15) * 4
		at.transport = at.ip + size
		return at, packet[9], size >= ipv4Len && binary.BigEndian.Uint16(packet[6:])&0x3fff == 0
	case len(packet) >= ipv6Len && packet[0]>>4 == 6:
		var offset int
		proto, offset = upperLayer6(packet)
		at.transport = at.ip + offset
		return at, proto, offset > 0
	}
	return at, 0, false
}

// PartialChecksum completes a checksum that was left to the network card: the
// field, offset bytes behind start, holds the sum of the pseudo-header, and the
// checksum covers everything from start on (CHECKSUM_PARTIAL in the kernel's
// linux/skbuff.h). It fails where the field is not within the frame, and leaves
// SCTP's alone: that is no sum.
func PartialChecksum(frame []byte, start, offset int) bool {
	const sctpOffset = 8
	if start < 0 || start+offset+2 > len(frame) || offset == sctpOffset {
		return false
	}
	c := ^fold(sum(0, frame[start:]))
	if c == 0 {
		c = 0xffff // as UDP wants it, and TCP does not mind
	}
	binary.BigEndian.PutUint16(frame[start+offset:], c)
	return true
}

// FillChecksum computes the checksum of the TCP segment or UDP datagram in a frame
// anew. It fails where there is none, or not all of it: then nothing is changed.
func FillChecksum(frame []byte, rawIP bool) bool {
	at, proto, ok := locateTransport(frame, rawIP)
	if !ok {
		return false
	}
	end := len(frame)
	if n := ipLength(frame[at.ip:]); n > 0 { // else Ethernet's padding would count
		end = at.ip + n
	}
	least := map[byte]int{protoTCP: 20, protoUDP: udpLen}[proto]
	if least == 0 || end > len(frame) || end < at.transport+least {
		return false
	}
	transportChecksum(frame[at.ip:end], at.transport-at.ip, proto)
	return true
}

// transportChecksum computes the checksum of what an IP packet carries behind
// header bytes, over the pseudo-header (RFC 9293 section 3.1, RFC 768, RFC 8200
// section 8.1) and all that follows.
func transportChecksum(packet []byte, header int, proto byte) {
	addresses := packet[12:20]
	if packet[0]>>4 == 6 {
		addresses = packet[8:40]
	}
	body := packet[header:]
	field := body[6:8]
	if proto == protoTCP {
		field = body[16:18]
	}
	field[0], field[1] = 0, 0
	c := ^fold(sum(0, addresses) + uint64(proto) + uint64(len(body)) + sum(0, body))
	if c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(field, c)
}

// InsertTag puts a VLAN tag that the network card has taken out back where it
// was: behind the hardware addresses. Frame has 4 bytes to spare before the
// Ethernet header; the result begins at frame[0].
func InsertTag(frame []byte, tpid, tci uint16) {
	const addresses = 12
	copy(frame[:addresses], frame[4:4+addresses])
	binary.BigEndian.PutUint16(frame[addresses:], tpid)
	binary.BigEndian.PutUint16(frame[addresses+2:], tci)
}
