package encap

import (
	"encoding/binary"

	"github.com/zeekdemo/zeekdemo/forward"
)

// TCP flags (RFC 9293 section 3.1).
const (
	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpPSH = 0x08
	tcpURG = 0x20
	tcpCWR = 0x80
)

// superFrame is a TCP segment larger than the link could have carried, as
// offloading leaves it in a capture. Offsets are into its frame.
type superFrame struct {
	ip      int // of the IP header
	tcp     int // of the TCP header
	payload int // of the TCP payload
	end     int // of the IP packet as it was on the wire; may lie beyond the frame
	ipv6    bool
	jumbo   int // length of a jumbo payload header (RFC 2675) to leave out, 8 or 0
}

// resegment appends e.inner, followed by zeros, as TCP segments of at most MTU
// bytes, and adds to out. It fails, and appends nothing, where e.inner is no
// TCP segment or its IP packet is not the reason for its length.
//
// It does what a network card does with a super-frame (Linux, Documentation/
// networking/segmentation-offloads.rst): IPv4 identification counts up, the
// sequence number goes on, CWR and SYN are in the first segment only, FIN, RST
// and PSH in the last only, the options are in all, lengths and checksums are
// computed. Of a super-frame that the capture cut, the segments go as far as
// the captured bytes, the last of them shorter, and without FIN, RST and PSH.
func (e *Encapsulator) resegment(b *forward.Batch, time int64, zeros int, out *forward.Outcome) bool {
	frame := e.whole()
	s, ok := parseSuperFrame(frame, e.inner.length, e.config.RawIP)
	if !ok {
		return false
	}
	limit := min(e.maxInner, s.ip+e.config.MTU)
	if min(s.end, len(frame)+zeros) <= limit {
		return false
	}
	e.template = append(append(e.template[:0], frame[:s.ip+s.fixed()]...), frame[s.ip+s.fixed()+s.jumbo:s.payload]...)
	s.dropJumbo(e.template)
	size := limit - len(e.template)
	if size <= 0 {
		return false
	}
	e.segments(b, &s, frame, size, min(s.end, len(frame)+zeros), time, out)
	return true
}

// fixed is the length of the IP header up to where a jumbo payload header is.
func (s *superFrame) fixed() int {
	if s.ipv6 {
		return ipv6Len
	}
	return ipv4Len
}

// dropJumbo corrects the next header and the offsets for a jumbo payload header
// that the template has left out already.
func (s *superFrame) dropJumbo(template []byte) {
	if s.jumbo > 0 {
		template[s.ip+6] = protoTCP
		s.tcp -= s.jumbo
	}
}

// segments appends the segments of s; the payload ends at the offset end.
func (e *Encapsulator) segments(b *forward.Batch, s *superFrame, frame []byte, size, end int, time int64, out *forward.Outcome) {
	port := e.port(e.hash(frame))
	for i, at := 0, s.payload; at < end; i, at = i+1, at+size {
		n := min(size, end-at)
		data := frame[min(at, len(frame)):min(at+n, len(frame))]
		e.append(b, e.template, data, n-len(data), time, port)
		d := b.Datagrams[len(b.Datagrams)-1]
		segment := b.Buf[d.Off+len(e.header) : d.Off+d.Len]
		s.patchTCP(segment, at-s.payload, at+n == s.end)
		s.patchIP(segment[s.ip:], i)
		s.checksum(segment)
		out.Inner += len(segment)
	}
}

// patchTCP corrects the TCP header of the segment that begins offset bytes into
// the payload.
func (s *superFrame) patchTCP(segment []byte, offset int, last bool) {
	tcp := segment[s.tcp:]
	flags := tcp[13]
	seq := binary.BigEndian.Uint32(tcp[4:]) + uint32(offset)
	if offset > 0 {
		if flags&tcpSYN != 0 {
			seq++ // SYN itself takes a number
		}
		flags &^= tcpSYN | tcpCWR
	}
	if !last {
		flags &^= tcpFIN | tcpRST | tcpPSH
	}
	if urgent := int(binary.BigEndian.Uint16(tcp[18:])); flags&tcpURG != 0 && offset > 0 {
		if urgent <= offset {
			flags &^= tcpURG
		}
		binary.BigEndian.PutUint16(tcp[18:], uint16(max(urgent-offset, 0)))
	}
	binary.BigEndian.PutUint32(tcp[4:], seq)
	tcp[13] = flags
}

// patchIP corrects lengths, identification and header checksum of segment i.
func (s *superFrame) patchIP(packet []byte, i int) {
	if s.ipv6 {
		binary.BigEndian.PutUint16(packet[4:], uint16(len(packet)-ipv6Len))
		return
	}
	binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
	binary.BigEndian.PutUint16(packet[4:], binary.BigEndian.Uint16(packet[4:])+uint16(i))
	binary.BigEndian.PutUint16(packet[10:], 0)
	header := packet[:int(packet[0]&15)*4]
	binary.BigEndian.PutUint16(packet[10:], ^fold(sum(0, header)))
}

// checksum computes the TCP checksum over the pseudo-header (RFC 9293 section
// 3.1, RFC 8200 section 8.1) and the segment.
func (s *superFrame) checksum(segment []byte) {
	tcp := segment[s.tcp:]
	addresses := segment[s.ip+12 : s.ip+20]
	if s.ipv6 {
		addresses = segment[s.ip+8 : s.ip+40]
	}
	binary.BigEndian.PutUint16(tcp[16:], 0)
	pseudo := sum(0, addresses) + protoTCP + uint64(len(tcp))
	binary.BigEndian.PutUint16(tcp[16:], ^fold(pseudo+sum(0, tcp)))
}

// parseSuperFrame finds the headers of a TCP segment, behind VLAN tags and MPLS
// labels if there are any; rawIP says that frame begins with the IP header. The
// frame had length bytes on the wire. Fragments, and IPv6 packets with a routing
// header (the checksum covers another destination), are not for segmenting, nor
// is what lies behind a header with a length of its own (IEEE 802.3, PPPoE).
func parseSuperFrame(frame []byte, length int, rawIP bool) (s superFrame, ok bool) {
	if !rawIP {
		at := locateNetwork(frame)
		if at.lengths || at.etherType != etherTypeIPv4 && at.etherType != etherTypeIPv6 {
			return s, false
		}
		s.ip = at.offset
	}
	packet := frame[s.ip:]
	if proto, ok := s.parse(packet); !ok || proto != protoTCP || len(frame) < s.tcp+20 {
		return s, false
	}
	s.payload = s.tcp + int(frame[s.tcp+12]>>4)*4
	s.end = length
	if n := ipLength(packet); n > 0 {
		s.end = min(length, s.ip+n)
	}
	return s, s.payload >= s.tcp+20 && s.payload <= len(frame) && s.payload < s.end
}

// parse finds what follows the IP header that packet begins with. It fails where a
// segment of that could not have the same headers.
func (s *superFrame) parse(packet []byte) (proto byte, ok bool) {
	switch {
	case len(packet) >= ipv4Len && packet[0]>>4 == 4:
		return s.parse4(packet)
	case len(packet) >= ipv6Len && packet[0]>>4 == 6:
		return s.parse6(packet)
	}
	return 0, false
}

func (s *superFrame) parse4(packet []byte) (proto byte, ok bool) {
	size := int(packet[0]&15) * 4
	s.tcp = s.ip + size
	return packet[9], size >= ipv4Len && binary.BigEndian.Uint16(packet[6:])&0x3fff == 0
}

// parse6 walks over extension headers. A jumbo payload header, as BIG TCP puts
// it into its super-frames, is a hop-by-hop header of 8 bytes with the one
// option c2; its segments do not need it.
func (s *superFrame) parse6(packet []byte) (proto byte, ok bool) {
	s.ipv6 = true
	if len(packet) >= ipv6Len+8 && packet[6] == protoHopByHop && ipLength(packet) == 0 &&
		packet[ipv6Len] == protoTCP && packet[ipv6Len+1] == 0 && packet[ipv6Len+2] == 0xc2 {
		s.jumbo = 8
		s.tcp = s.ip + ipv6Len + s.jumbo
		return protoTCP, true
	}
	proto, at := packet[6], ipv6Len
	for proto == protoHopByHop || proto == protoDestOpts {
		if len(packet) < at+8 {
			return 0, false
		}
		proto, at = packet[at], at+8+8*int(packet[at+1])
	}
	s.tcp = s.ip + at
	return proto, true
}
