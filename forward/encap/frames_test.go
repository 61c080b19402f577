package encap

import (
	"encoding/binary"
	"slices"
)

// Hand-made frames. They do not use the package's own checksum code: the
// reference implementation here adds one 16-bit word after the other.

// checksum16 is the Internet checksum of RFC 1071, the slow way.
func checksum16(parts ...[]byte) uint16 {
	var s uint32
	all := slices.Concat(parts...)
	for i := 0; i < len(all); i += 2 {
		w := uint32(all[i]) << 8
		if i+1 < len(all) {
			w |= uint32(all[i+1])
		}
		s += w
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

func be16(v int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(v)) }
func be32(v int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }

// payloadBytes are n bytes that differ from their neighbours.
func payloadBytes(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>8)*31
	}
	return p
}

func ether(dst, src byte, etherType int, payload []byte) []byte {
	return slices.Concat(
		[]byte{0, 0x16, 0x3e, 0, 0, dst}, []byte{0, 0x16, 0x3e, 0, 0, src}, be16(etherType), payload)
}

// ip4 is an IPv4 packet 10.0.0.src to 10.0.0.dst; frag is flags and offset.
func ip4(src, dst byte, proto byte, frag int, payload []byte) []byte {
	h := slices.Concat([]byte{0x45, 0}, be16(20+len(payload)), be16(0xfffe), be16(frag),
		[]byte{64, proto, 0, 0, 10, 0, 0, src, 10, 0, 0, dst})
	binary.BigEndian.PutUint16(h[10:], checksum16(h))
	if proto == 6 && frag&0x3fff == 0 {
		payload = withTCPSum(h[12:20], payload)
	}
	return append(h, payload...)
}

func addr6(host byte) []byte {
	return []byte{0xfd, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, host}
}

func ip6(src, dst byte, next byte, payload []byte) []byte {
	if next == 6 {
		payload = withTCPSum(slices.Concat(addr6(src), addr6(dst)), payload)
	}
	return slices.Concat([]byte{0x60, 0, 0, 0}, be16(len(payload)), []byte{next, 64}, addr6(src), addr6(dst), payload)
}

// withTCPSum is a TCP segment with its checksum.
func withTCPSum(addresses, segment []byte) []byte {
	if len(segment) < 20 {
		return segment
	}
	segment = slices.Clone(segment)
	copy(segment[16:], be16(int(checksum16(addresses, be16(6), be32(len(segment)), segment))))
	return segment
}

// tcp is a segment with a timestamp-sized block of options if opts is true. Its
// checksum is left to the IP packet.
func tcp(sport, dport int, seq uint32, flags byte, opts bool, payload []byte) []byte {
	var options []byte
	if opts {
		options = []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}
	}
	off := byte((20 + len(options)) / 4 << 4)
	return slices.Concat(be16(sport), be16(dport), be32(int(seq)), be32(0x01020304),
		[]byte{off, flags}, be16(501), be16(0), be16(0), options, payload)
}

func udp(sport, dport int, payload []byte) []byte {
	return slices.Concat(be16(sport), be16(dport), be16(8+len(payload)), be16(0), payload)
}

// tcp4Frame is TCP over IPv4 in Ethernet with n bytes of payload: 54+n bytes.
func tcp4Frame(n int, host byte) []byte {
	return ether(1, 2, 0x0800, ip4(host, 200, 6, 0x4000, tcp(40000, 443, 1000, 0x18, false, payloadBytes(n))))
}

func tcp6Frame(n int, host byte) []byte {
	return ether(1, 2, 0x86dd, ip6(host, 200, 6, tcp(40000, 443, 1000, 0x18, false, payloadBytes(n))))
}

// vlanTag inserts an 802.1Q tag.
func vlanTag(frame []byte, id int) []byte {
	return slices.Concat(frame[:12], be16(0x8100), be16(id), frame[12:])
}

func ethertyped(frame []byte, etherType int) []byte {
	out := slices.Clone(frame)
	binary.BigEndian.PutUint16(out[12:], uint16(etherType))
	return out
}

func snap(etherType int, payload []byte) []byte {
	return slices.Concat([]byte{0xaa, 0xaa, 3, 0, 0, 0}, be16(etherType), payload)
}
