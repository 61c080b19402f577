package encap

import (
	"encoding/binary"
	"hash/crc32"
)

// A capture on a machine sees some packets before the network card has done its
// part, or after it has done too much: checksums that are to be filled in, and
// several packets merged into one. Splitter and the checksum functions make of
// them what is on the wire.

// Merge is what the kernel says about a merged packet (struct virtio_net_hdr in
// linux/virtio_net.h).
type Merge struct {
	Size int  // bytes of transport payload in each packet that was merged; the last may have less
	UDP  bool // they are UDP datagrams, else TCP segments
	// Tunnel says that they are inside a tunnel. They may be where it is false:
	// packet sockets do not tell.
	Tunnel bool
	// Start is the offset of the transport header whose payload was merged, which is
	// the one whose checksum is open; negative where none is.
	Start int
}

// Splitting says what [Splitter.Split] can do about a packet.
type Splitting uint8

// The possibilities.
const (
	LeftWhole Splitting = iota // it is merged, but it is not known how to cut it
	OnePacket                  // it is not merged
	IsSplit                    // Next returns what it stands for
)

// Splitter cuts a merged packet (by TSO, GSO, GRO, LRO, or UDP's equivalents) into
// the packets it stands for, given the size of their payload, which the kernel
// knows. It allocates only until its buffer has grown to the largest segment.
//
// Packets that were merged within a tunnel (IP in IP, GRE, VXLAN, GENEVE, and what
// else has a header over UDP that is the same in all packets of a flow) have all
// their headers put right: lengths, IPv4 identifications and checksums, outside and
// inside. A UDP checksum of zero, which says that there is none, stays zero. Where
// headers contradict each other or the kernel, or count packets themselves, the
// packet is left whole: a cut in the wrong place makes garbage of all but the first.
type Splitter struct {
	super   superFrame
	udp     bool
	outer   [maxNested]outerHeaders // outermost first
	nested  int                     // of them in use
	frame   []byte
	headers []byte // of a segment, as the first one has them
	segment []byte
	size    int // of a segment's payload
	at, i   int // the next segment's payload, and its number
}

// outerHeaders are those of a tunnel that a merged packet is in.
type outerHeaders struct {
	ip  int // offset of the IP header
	udp int // of the UDP header, 0 if there is none
	gre int // of the GRE header, 0 if there is none
}

// Split begins with an Ethernet frame, or a bare IP packet, that the kernel says is
// merged. The frame must not change until the last Next.
func (x *Splitter) Split(frame []byte, m Merge, rawIP bool) Splitting {
	x.nested, x.udp, x.at, x.super = 0, m.UDP, 0, superFrame{}
	if m.Size <= 0 || !x.find(frame, m, rawIP) {
		return LeftWhole
	}
	s := &x.super
	if s.end-s.payload <= m.Size {
		return OnePacket
	}
	x.headers = append(append(x.headers[:0], frame[:s.ip+s.fixed()]...), frame[s.ip+s.fixed()+s.jumbo:s.payload]...)
	s.dropJumbo(x.headers)
	x.frame, x.size, x.at, x.i = frame, m.Size, s.payload, 0
	return IsSplit
}

// find walks from the outside to the header whose payload was merged.
func (x *Splitter) find(frame []byte, m Merge, rawIP bool) bool {
	var n network
	switch {
	case !rawIP:
		n = locateNetwork(frame)
	case len(frame) > 0:
		n.version(frame)
	}
	for !n.lengths && n.offset < len(frame) && (n.etherType == etherTypeIPv4 || n.etherType == etherTypeIPv6) {
		s := superFrame{ip: n.offset}
		proto, ok := s.parse(frame[s.ip:])
		if !ok || len(frame) < s.tcp+udpLen {
			return false
		}
		if x.isMerged(frame, &s, proto, m) {
			x.super = s
			return x.bounds(frame) && (x.nested > 0 || !m.Tunnel)
		}
		if n, ok = x.descend(frame, &s, proto, m); !ok {
			return false
		}
	}
	return false
}

// isMerged reports whether the transport header of s is the one whose payload was
// merged. Where the kernel does not tell, a tunnel's datagram is not to be cut:
// whole tunnelled packets may have been merged, or what is inside.
func (x *Splitter) isMerged(frame []byte, s *superFrame, proto byte, m Merge) bool {
	switch {
	case proto != protoTCP && proto != protoUDP || (proto == protoUDP) != m.UDP, m.Start >= 0 && m.Start != s.tcp:
		return false
	case proto == protoTCP:
		return true
	}
	return m.Start >= 0 || !carries(proto, binary.BigEndian.Uint32(frame[s.tcp:]))
}

// descend notes the headers of a tunnel, and goes to the network header in it.
func (x *Splitter) descend(frame []byte, s *superFrame, proto byte, m Merge) (n network, ok bool) {
	if x.nested == maxNested || s.jumbo > 0 || proto == protoUDP && m.UDP && m.Start < 0 {
		return n, false
	}
	n, kind := carried(frame[s.ip:], s.tcp-s.ip, proto)
	n.offset += s.ip
	outer := outerHeaders{ip: s.ip}
	switch kind {
	case tunnelIP:
	case tunnelGRE:
		outer.gre = s.tcp
	case tunnelUDP:
		outer.udp = s.tcp
	case tunnelGREUDP:
		outer.udp, outer.gre = s.tcp, s.tcp+udpLen
	case tunnelNone:
		outer.udp = s.tcp
		if proto != protoUDP || isESP(binary.BigEndian.Uint32(frame[s.tcp:])) || !n.before(frame, s.tcp+udpLen, m) {
			return n, false
		}
	default:
		return n, false
	}
	if outer.gre > 0 && !isPlainGRE(binary.BigEndian.Uint32(frame[outer.gre:])) {
		return n, false
	}
	x.outer[x.nested] = outer
	x.nested++
	return n, true
}

// isESP reports whether one of two ports is that of ESP over UDP (RFC 3948), which
// counts packets and may show what it is yet to encrypt.
func isESP(ports uint32) bool {
	const port = 4500
	return uint16(ports) == port || ports>>16 == port
}

// isPlainGRE reports whether a GRE header, of which word is the beginning, is the
// same in all packets but for its checksum: none are numbered, and it is no ERSPAN.
func isPlainGRE(word uint32) bool {
	flags, etherType := uint16(word>>16), uint16(word)
	return flags&(greSequence|greAck|greVersion) == 0 && etherType != etherTypeERSPAN && etherType != etherTypeERSPANIII
}

// before finds the IP header before the merged packets' transport header, where the
// tunnel that begins at the offset from is not known: a port of its own choice, or
// another kind of it. It has to fit in all respects.
func (n *network) before(frame []byte, from int, m Merge) bool {
	*n = network{}
	proto := byte(protoTCP)
	if m.UDP {
		proto = protoUDP
	}
	for at := m.Start - ipv4Len; at >= from && at >= m.Start-60 && m.Start < len(frame); at -= 4 {
		s := superFrame{ip: at}
		if n.offset = at; !n.version(frame) {
			continue
		}
		found, ok := s.parse(frame[at:])
		if ok && found == proto && s.tcp == m.Start && ipLength(frame[at:]) > 0 && at+ipLength(frame[at:]) <= len(frame) {
			return true
		}
	}
	return false
}

// bounds determines where the payload begins and ends. All headers that give a
// length have to agree, and everything has to be there.
func (x *Splitter) bounds(frame []byte) bool {
	s := &x.super
	s.payload = s.tcp + udpLen
	if !x.udp {
		if len(frame) < s.tcp+20 || frame[s.tcp+12]>>4 < 5 {
			return false
		}
		s.payload = s.tcp + int(frame[s.tcp+12]>>4)*4
	}
	for _, o := range x.outer[:x.nested] {
		if !s.endsAt(frame, o.ip, ipLength(frame[o.ip:])) ||
			o.udp > 0 && !s.endsAt(frame, o.udp, int(binary.BigEndian.Uint16(frame[o.udp+4:]))) {
			return false
		}
	}
	if !s.endsAt(frame, s.ip, ipLength(frame[s.ip:])) {
		return false
	}
	if s.end == 0 {
		s.end = len(frame)
	}
	return s.payload < s.end
}

// endsAt takes note of a header that says that so much follows from its offset on; 0
// says nothing.
func (s *superFrame) endsAt(frame []byte, offset, length int) bool {
	end := offset + length
	switch {
	case length == 0:
		return true
	case s.end == 0:
		s.end = end
	}
	return end == s.end && end <= len(frame)
}

// Next returns the next segment, valid until the call after; false after the last.
func (x *Splitter) Next() (segment []byte, ok bool) {
	s := &x.super
	if x.at == 0 || x.at >= s.end { // nothing is split, or nothing left
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
	for i := x.nested - 1; i >= 0; i-- { // their checksums cover what is inside
		x.outer[i].patch(x.segment, x.i)
	}
	x.at, x.i = x.at+n, x.i+1
	return x.segment, true
}

// patch corrects a tunnel's headers around segment i.
func (o outerHeaders) patch(segment []byte, i int) {
	if o.gre > 0 && binary.BigEndian.Uint16(segment[o.gre:])&greChecksum != 0 {
		binary.BigEndian.PutUint16(segment[o.gre+4:], 0)
		binary.BigEndian.PutUint16(segment[o.gre+4:], ^fold(sum(0, segment[o.gre:])))
	}
	ip := superFrame{ipv6: segment[o.ip]>>4 == 6}
	ip.patchIP(segment[o.ip:], i)
	if o.udp == 0 {
		return
	}
	binary.BigEndian.PutUint16(segment[o.udp+4:], uint16(len(segment)-o.udp))
	if segment[o.udp+6]|segment[o.udp+7] != 0 {
		transportChecksum(segment[o.ip:], o.udp-o.ip, protoUDP)
	}
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
		proto, offset, fragment := upperLayer6(packet)
		at.transport = at.ip + offset
		return at, proto, offset > 0 && fragment == 0
	}
	return at, 0, false
}

// PartialChecksum completes a checksum that was left to the network card: the
// field, offset bytes behind start, holds the sum of the pseudo-header, and the
// checksum covers everything from start on (CHECKSUM_PARTIAL in the kernel's
// linux/skbuff.h). SCTP's, which is no sum, is computed from nothing. It fails where
// the field is not within the frame.
func PartialChecksum(frame []byte, start, offset int) bool {
	if start < 0 || start+offset+2 > len(frame) {
		return false
	}
	if offset == sctpOffset {
		at, proto, ok := locateTransport(frame, false)
		return ok && proto == protoSCTP && at.transport == start && fillChecksum(frame[at.ip:], start-at.ip, proto, 0)
	}
	c := ^fold(sum(0, frame[start:]))
	if c == 0 {
		c = 0xffff // as UDP wants it, and TCP does not mind
	}
	binary.BigEndian.PutUint16(frame[start+offset:], c)
	return true
}

// The checksum of SCTP is a CRC (RFC 9260 section 6.8) at this offset of its header.
const (
	sctpOffset = 8
	sctpLen    = 12
)

// sctpChecksum computes the checksum of an SCTP packet.
func sctpChecksum(packet []byte) {
	field := packet[sctpOffset : sctpOffset+4]
	clear(field)
	binary.LittleEndian.PutUint32(field, crc32.Checksum(packet, crc32.MakeTable(crc32.Castagnoli)))
}

// FillChecksum computes the checksum of the TCP segment, UDP datagram or SCTP packet
// in a frame anew, and in what it carries if it is a tunnel's, whose own checksum stays away if
// it was. It fails where there is none, or not all of it: then nothing is changed.
func FillChecksum(frame []byte, rawIP bool) bool {
	at, proto, ok := locateTransport(frame, rawIP)
	return ok && fillChecksum(frame[at.ip:], at.transport-at.ip, proto, 0)
}

// fillChecksum is FillChecksum for an IP packet with a payload of a protocol.
func fillChecksum(packet []byte, at int, proto byte, depth int) bool {
	end := len(packet)
	if n := ipLength(packet); n > 0 { // else Ethernet's padding would count
		end = n
	}
	if end > len(packet) || end < at+4 {
		return false
	}
	inside := false
	if n, kind := carried(packet[:end], at, proto); depth < maxNested && kind != tunnelNone && kind != tunnelQuote {
		if nested, proto, ok := locateTransport(packet[n.offset:end], true); ok {
			inside = fillChecksum(packet[n.offset:end], nested.transport, proto, depth+1)
		}
	}
	least := map[byte]int{protoTCP: 20, protoUDP: udpLen, protoSCTP: sctpLen}[proto]
	if proto == protoSCTP && end >= at+least {
		sctpChecksum(packet[at:end])
		return true
	}
	if least == 0 || end < at+least || inside && packet[at+6]|packet[at+7] == 0 {
		return inside
	}
	transportChecksum(packet[:end], at, proto)
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
