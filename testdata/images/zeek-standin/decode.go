package main

import (
	"encoding/binary"
	"net/netip"
)

// IP protocol numbers.
const (
	protoICMP   = 1
	protoIPIP   = 4
	protoTCP    = 6
	protoUDP    = 17
	protoIPv6   = 41
	protoICMPv6 = 58
)

// TCP flags, RFC 9293 section 3.1.
const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// packet is one IP packet as the connection table needs it. Its slices point
// into the frame and are valid only until the next one.
type packet struct {
	time     int64 // ns since the epoch
	vnis     vnis
	src, dst netip.Addr
	proto    uint8
	srcPort  uint16 // ICMP: the type
	dstPort  uint16 // ICMP: the counterpart's type, or the code where there is none
	oneWay   bool   // an ICMP message to which there is no answer
	ipLen    int    // bytes from the IP header on, as sent
	dataLen  int    // payload bytes of the transport, as sent
	data     []byte // payload bytes of the transport, as captured
	flags    uint8
	seq, ack uint32
	window   uint16
}

// link types of the capture file formats that the decoder knows.
const (
	linkNull     = 0
	linkEthernet = 1
	linkPPP      = 9
	linkFDDI     = 10
	linkRawBSD   = 12
	linkRaw      = 101
	linkLoop     = 108
	linkSLL      = 113
	linkIPv4     = 228
	linkIPv6     = 229
	linkSLL2     = 276
)

// EtherTypes, IEEE registry.
const (
	etherIPv4   = 0x0800
	etherIPv6   = 0x86dd
	etherVLAN   = 0x8100
	etherQinQ   = 0x88a8
	etherQinQ91 = 0x9100
	etherMPLS   = 0x8847
	etherMPLSmc = 0x8848
	etherPPPoE  = 0x8864
)

// decoder turns frames into packets. It keeps the fragments that wait for
// their siblings, and counts what it could not use.
type decoder struct {
	pkt       packet
	fragments fragments
	weird     string // why the last frame was not decoded, in Zeek's words; "" if it was or is not IP
}

// decode reads one frame of the given link type; wireLen is its length as
// sent. The packet is nil where the frame holds no complete IP packet.
func (d *decoder) decode(link int, frame []byte, wireLen int) *packet {
	d.weird = ""
	d.pkt = packet{time: d.pkt.time, vnis: d.pkt.vnis}
	etherType, off := linkHeader(link, frame)
	if off < 0 && link == linkRaw && len(frame) > 0 {
		d.weird = "unknown_ip_version"
	}
	etherType, off = skipTags(etherType, frame, off)
	if off < 0 || off > len(frame) {
		return nil
	}
	return d.network(etherType, frame[off:], wireLen-off)
}

func (d *decoder) network(etherType int, b []byte, wireLen int) *packet {
	switch etherType {
	case etherIPv4:
		return d.ipv4(b, wireLen)
	case etherIPv6:
		return d.ipv6(b, wireLen)
	}
	return nil
}

// linkHeader returns the EtherType that follows the link header and the
// header's length, or -1 where it is cut or unknown.
func linkHeader(link int, b []byte) (etherType, off int) {
	switch link {
	case linkEthernet:
		return etherTypeAt(b, 12)
	case linkFDDI:
		return llc(b, 13)
	case linkSLL:
		return etherTypeAt(b, 14)
	case linkSLL2:
		if len(b) < 20 {
			return 0, -1
		}
		return int(binary.BigEndian.Uint16(b)), 20
	case linkPPP:
		return pppHeader(b)
	case linkNull, linkLoop:
		return ipVersion(b, 4)
	case linkRaw, linkRawBSD, linkIPv4, linkIPv6:
		return ipVersion(b, 0)
	}
	return 0, -1
}

// etherTypeAt reads the EtherType at off; a value that is a length (IEEE
// 802.3) is followed by LLC.
func etherTypeAt(b []byte, off int) (int, int) {
	if len(b) < off+2 {
		return 0, -1
	}
	t := int(binary.BigEndian.Uint16(b[off:]))
	off += 2
	if t >= 0x600 {
		return t, off
	}
	return llc(b, off)
}

// llc reads the SAPs of IEEE 802.2 at off: IP's own, or SNAP's with an EtherType.
func llc(b []byte, off int) (int, int) {
	const sapIP, sapSNAP = 0x06, 0xaa
	switch {
	case len(b) >= off+8 && b[off] == sapSNAP && b[off+1] == sapSNAP:
		return int(binary.BigEndian.Uint16(b[off+6:])), off + 8
	case len(b) >= off+3 && b[off] == sapIP && b[off+1] == sapIP:
		return etherIPv4, off + 3
	}
	return 0, -1
}

// ipVersion tells IPv4 from IPv6 by the first nibble after off bytes.
func ipVersion(b []byte, off int) (int, int) {
	if len(b) <= off {
		return 0, -1
	}
	switch b[off] >> 4 {
	case 4:
		return etherIPv4, off
	case 6:
		return etherIPv6, off
	}
	return 0, -1
}

// pppHeader reads RFC 1662's address and control bytes, which may be missing.
func pppHeader(b []byte) (int, int) {
	off := 0
	if len(b) > 1 && b[0] == 0xff && b[1] == 0x03 {
		off = 2
	}
	if len(b) < off+2 {
		return 0, -1
	}
	return pppType(binary.BigEndian.Uint16(b[off:])), off + 2
}

func pppType(proto uint16) int {
	switch proto {
	case 0x0021:
		return etherIPv4
	case 0x0057:
		return etherIPv6
	}
	return 0
}

// skipTags walks over VLAN tags, MPLS labels and PPPoE.
func skipTags(t int, b []byte, off int) (int, int) {
	for off >= 0 {
		switch t {
		case etherVLAN, etherQinQ, etherQinQ91:
			t, off = etherTypeAt(b, off+2)
		case etherMPLS, etherMPLSmc:
			t, off = skipLabels(b, off)
		case etherPPPoE:
			if len(b) < off+8 {
				return 0, -1
			}
			return pppType(binary.BigEndian.Uint16(b[off+6:])), off + 8
		default:
			return t, off
		}
	}
	return 0, -1
}

// skipLabels walks to the bottom of an MPLS stack. What follows is told from
// its first nibble: IPv4, IPv6, or a pseudowire's control word and Ethernet.
func skipLabels(b []byte, off int) (int, int) {
	for {
		if len(b) < off+5 {
			return 0, -1
		}
		bottom := b[off+2]&1 != 0
		off += 4
		if bottom {
			break
		}
	}
	switch b[off] >> 4 {
	case 4, 6:
		return ipVersion(b, off)
	case 0:
		return etherTypeAt(b, off+4+12)
	}
	return 0, -1
}

// ipv4 reads RFC 791's header and what follows it.
func (d *decoder) ipv4(b []byte, wireLen int) *packet {
	if len(b) < 20 || int(b[0]&0x0f)*4 < 20 {
		d.weird = "truncated_IP"
		return nil
	}
	header := int(b[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 { // segmentation offload: the length did not fit
		total = wireLen
	}
	if total > wireLen || total < header || len(b) < header {
		d.weird = "truncated_IP"
		return nil
	}
	p := &d.pkt
	p.src, p.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	p.ipLen = int(binary.BigEndian.Uint16(b[2:])) // Zeek, too, counts such a packet's as 0
	body := b[header:min(total, len(b))]
	frag := binary.BigEndian.Uint16(b[6:])
	if frag&0x3fff == 0 {
		return d.transport(b[9], body, total-header)
	}
	if len(body) < total-header {
		return nil // a fragment that was cut cannot be put together
	}
	whole := d.fragments.add(fragmentKey{p.src, p.dst, uint32(binary.BigEndian.Uint16(b[4:])), b[9], p.vnis},
		fragment{off: int(frag&0x1fff) * 8, more: frag&0x2000 != 0, data: body})
	if whole == nil {
		return nil
	}
	p.ipLen = header + len(whole)
	return d.transport(b[9], whole, len(whole))
}

// ipv6 reads RFC 8200's header and its extension headers.
func (d *decoder) ipv6(b []byte, wireLen int) *packet {
	const fixed = 40
	if len(b) < fixed {
		d.weird = "truncated_IPv6"
		return nil
	}
	total := fixed + int(binary.BigEndian.Uint16(b[4:]))
	if total == fixed { // a jumbogram or segmentation offload
		total = wireLen
	}
	if total > wireLen {
		d.weird = "truncated_IPv6"
		return nil
	}
	p := &d.pkt
	p.src, p.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	p.ipLen = total
	return d.extensions(b[6], b[:min(total, len(b))], fixed, total)
}

// extensions walks the chain of extension headers from off to the transport.
func (d *decoder) extensions(next uint8, b []byte, off, total int) *packet {
	for {
		switch next {
		case 0, 43, 60, 135: // hop by hop, routing, destination, mobility
			if len(b) < off+8 {
				d.weird = "truncated_IPv6"
				return nil
			}
			if next == 43 {
				d.route(b[off:])
			}
			next, off = b[off], off+8+8*int(b[off+1])
		case 44:
			return d.ipv6Fragment(b, off, total)
		default:
			if off > len(b) {
				d.weird = "truncated_IPv6"
				return nil
			}
			return d.transport(next, b[off:], total-off)
		}
	}
}

// route takes the final destination out of a routing header of type 0 that was
// not walked to its end, RFC 2460 section 4.4.
func (d *decoder) route(b []byte) {
	length := 8 + 8*int(b[1])
	if kind, left := b[2], b[3]; kind == 0 && left > 0 && length >= 24 && len(b) >= length {
		d.pkt.dst = netip.AddrFrom16([16]byte(b[length-16 : length]))
	}
}

// ipv6Fragment reads the fragment header at off, RFC 8200 section 4.5.
func (d *decoder) ipv6Fragment(b []byte, off, total int) *packet {
	if len(b) < off+8 {
		d.weird = "truncated_IPv6"
		return nil
	}
	next, field := b[off], binary.BigEndian.Uint16(b[off+2:])
	body := b[off+8:]
	if field&0xfff9 == 0 { // an atomic fragment, RFC 6946
		d.pkt.ipLen -= 8 // Zeek removes the header
		return d.extensions(next, b, off+8, total)
	}
	if len(body) < total-off-8 {
		return nil
	}
	p := &d.pkt
	whole := d.fragments.add(fragmentKey{p.src, p.dst, binary.BigEndian.Uint32(b[off+4:]), next, p.vnis},
		fragment{off: int(field &^ 7), more: field&1 != 0, data: body})
	if whole == nil {
		return nil
	}
	p.ipLen = off + len(whole)
	return d.extensions(next, whole, 0, len(whole))
}

// transport reads the header of the protocol that IP carries; length is b's as sent.
func (d *decoder) transport(proto uint8, b []byte, length int) *packet {
	p := &d.pkt
	p.proto = proto
	switch proto {
	case protoTCP:
		return d.tcp(b, length)
	case protoUDP:
		if len(b) < 8 {
			return nil
		}
		p.ports(b)
		p.payload(b, 8, length)
	case protoICMP, protoICMPv6:
		if len(b) < 8 {
			return nil
		}
		p.icmp(b[0], b[1])
		p.payload(b, 8, length)
	case protoIPIP:
		return d.network(etherIPv4, b, length)
	case protoIPv6:
		return d.network(etherIPv6, b, length)
	default:
		p.payload(b, 0, length)
	}
	return p
}

func (d *decoder) tcp(b []byte, length int) *packet {
	if len(b) < 20 {
		return nil
	}
	header := int(b[12]>>4) * 4
	if header < 20 || header > length {
		return nil
	}
	p := &d.pkt
	p.ports(b)
	p.seq, p.ack = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	p.flags, p.window = b[13], binary.BigEndian.Uint16(b[14:])
	p.payload(b, min(header, len(b)), length)
	p.dataLen = length - header
	return p
}

func (p *packet) ports(b []byte) {
	p.srcPort, p.dstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
}

func (p *packet) payload(b []byte, header, length int) {
	p.data, p.dataLen = b[header:], length-header
}

// icmp sets the ports as Zeek does: a type and its answer's type, so that both
// are one connection, or type and code where there is no answer.
func (p *packet) icmp(typ, code uint8) {
	p.srcPort = uint16(typ)
	counterpart, ok := icmpCounterpart(p.proto, typ)
	p.dstPort, p.oneWay = counterpart, !ok
	if !ok {
		p.dstPort = uint16(code)
	}
}

// icmpCounterpart pairs requests and answers (RFC 792, RFC 950, RFC 1256,
// RFC 4443, RFC 4861, RFC 2710).
func icmpCounterpart(proto, typ uint8) (uint16, bool) {
	if proto == protoICMPv6 {
		switch typ {
		case 128, 130, 133, 135, 139, 144, 146:
			return uint16(typ) + 1, true
		case 129, 131, 134, 136, 140, 145, 147:
			return uint16(typ) - 1, true
		}
		return 0, false
	}
	switch typ {
	case 0:
		return 8, true
	case 8:
		return 0, true
	case 9:
		return 10, true
	case 10:
		return 9, true
	case 13, 15, 17:
		return uint16(typ) + 1, true
	case 14, 16, 18:
		return uint16(typ) - 1, true
	}
	return 0, false
}
