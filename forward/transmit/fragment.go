package transmit

import "encoding/binary"

// Numbers of RFC 791 section 3.1 and RFC 8200 section 4.5.
const (
	etherHeaderLen    = 14
	fragmentHeaderLen = 8      // IPv6's
	moreFragments4    = 1 << 5 // in the upper byte of IPv4's flags and offset
	dontFragment4     = 1 << 6 // likewise
	fragmentHeader6   = 44     // next header value
	protocolUDP       = 17
)

// fragmenter cuts one UDP datagram after the other into IP fragments. The
// datagram's IP payload, of which the pieces are cut, is its UDP header and its
// payload.
type fragmenter struct {
	headerLen int // IP header without IPv6's fragment header
	piece     int // bytes of IP payload per fragment but the last; a multiple of 8
	id        uint32
}

// newFragmenter returns one for outer IP packets of at most mtu bytes.
func newFragmenter(headerLen, mtu int) fragmenter {
	f := fragmenter{headerLen: headerLen}
	f.piece = (mtu - f.perFragment()) &^ 7
	return f
}

// perFragment is the number of bytes before each fragment's piece.
func (f *fragmenter) perFragment() int {
	if f.headerLen == ipv6HeaderLen {
		return ipv6HeaderLen + fragmentHeaderLen
	}
	return f.headerLen
}

// pieces returns the number of fragments for a UDP payload of n bytes.
func (f *fragmenter) pieces(n int) int {
	return (udpHeaderLen + n + f.piece - 1) / f.piece
}

// put writes the headers of the fragment that begins off bytes into the IP
// payload to dst and returns their length and the part of the UDP payload,
// [from, to), that belongs behind them. whole holds the Ethernet, IP and UDP
// headers of the datagram as if it were not fragmented, its UDP checksum being
// final; n is the length of its payload. The identification is f.id.
func (f *fragmenter) put(dst, whole []byte, off, n int) (length, from, to int) {
	size := min(f.piece, udpHeaderLen+n-off)
	last := off+size == udpHeaderLen+n
	length = copy(dst, whole[:etherHeaderLen+f.headerLen])
	if f.headerLen == ipv6HeaderLen {
		length += f.patch6(dst[etherHeaderLen:], off, size, last)
	} else {
		f.patch4(dst[etherHeaderLen:], off, size, last)
	}
	if off > 0 {
		return length, off - udpHeaderLen, off - udpHeaderLen + size
	}
	length += copy(dst[length:], whole[etherHeaderLen+f.headerLen:][:udpHeaderLen])
	return length, 0, size - udpHeaderLen
}

// patch4 turns the IPv4 header of the whole datagram into the fragment's.
func (f *fragmenter) patch4(ip []byte, off, size int, last bool) {
	binary.BigEndian.PutUint16(ip[2:], uint16(f.headerLen+size))
	binary.BigEndian.PutUint16(ip[4:], uint16(f.id))
	binary.BigEndian.PutUint16(ip[6:], uint16(off/8))
	if !last {
		ip[6] |= moreFragments4
	}
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], headerChecksum(ip[:f.headerLen]))
}

// patch6 does it for IPv6, adds the fragment header and returns its length.
func (f *fragmenter) patch6(ip []byte, off, size int, last bool) int {
	binary.BigEndian.PutUint16(ip[4:], uint16(fragmentHeaderLen+size))
	ip[6] = fragmentHeader6
	h := ip[ipv6HeaderLen : ipv6HeaderLen+fragmentHeaderLen]
	h[0], h[1] = protocolUDP, 0
	flags := uint16(off) // the offset counts 8 bytes and stands in the upper 13 bits
	if !last {
		flags |= 1
	}
	binary.BigEndian.PutUint16(h[2:], flags)
	binary.BigEndian.PutUint32(h[4:], f.id)
	return fragmentHeaderLen
}

// headerChecksum is that of an IPv4 header whose checksum field is zero (RFC
// 1071).
func headerChecksum(ip []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
