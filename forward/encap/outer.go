package encap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Lengths and offsets of the outer headers, in bytes.
const (
	OuterLen4 = etherLen + ipv4Len + udpLen // Ethernet, IPv4 and UDP header together
	OuterLen6 = etherLen + ipv6Len + udpLen // Ethernet, IPv6 and UDP header together

	// ChecksumOffset is that of the UDP checksum from the start of the UDP
	// header: csum_offset of a virtio-net header (linux/virtio_net.h). The
	// UDP header starts at [Outer.ChecksumStart].
	ChecksumOffset = 6

	etherLen = 14
	ipv4Len  = 20
	ipv6Len  = 40
	udpLen   = 8
)

// OuterConfig says where datagrams go.
type OuterConfig struct {
	Kind           Kind       // decides on the UDP checksum, see Kind.ZeroChecksum
	SrcMAC, DstMAC [6]byte    // of the outer Ethernet header
	Src, Dst       netip.Addr // both IPv4 or both IPv6; 4-in-6 addresses count as IPv4
	DstPort        uint16     // 0 means Kind.Port()
	TTL            uint8      // TTL or hop limit; 0 means 64
	DSCP           uint8      // differentiated services codepoint (RFC 2474), 0 to MaxDSCP

	// ForceChecksum computes the UDP checksum over IPv4 too where
	// Kind.ZeroChecksum says that it is not needed.
	ForceChecksum bool
	// MayFragment leaves the Don't Fragment bit of IPv4 clear.
	MayFragment bool
}

// MaxDSCP is the largest codepoint: it has six bits.
const MaxDSCP = 63

// Outer writes outer Ethernet, IP and UDP headers. It is not safe for
// concurrent use.
//
// The IPv4 identification is 0 in datagrams that may not be fragmented (RFC
// 6864 section 4.1 lets "atomic" datagrams have any), so headers depend on
// nothing but their datagram; with OuterConfig.MayFragment, and in fragments,
// it counts up by one per datagram, from 1.
type Outer struct {
	template  [OuterLen6]byte
	length    int    // of the template in use
	zero      bool   // UDP checksum not computed
	id        uint16 // last IPv4 identification used; with MayFragment
	counted   bool   // identification counts
	ipSum     uint32 // of the IPv4 header without length, identification and checksum
	pseudoSum uint32 // of pseudo-header and UDP header without lengths, source port and checksum
}

// NewOuter checks c and prepares the headers.
func NewOuter(c OuterConfig) (*Outer, error) {
	c.Src, c.Dst = c.Src.Unmap(), c.Dst.Unmap()
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("prepare outer headers: %w", err)
	}
	if c.DstPort == 0 {
		c.DstPort = c.Kind.Port()
	}
	if c.TTL == 0 {
		c.TTL = 64
	}
	o := &Outer{counted: c.MayFragment}
	copy(o.template[0:], c.DstMAC[:])
	copy(o.template[6:], c.SrcMAC[:])
	if c.Dst.Is4() {
		o.prepare4(c)
	} else {
		o.prepare6(c)
	}
	binary.BigEndian.PutUint16(o.template[o.length-udpLen+2:], c.DstPort)
	o.pseudoSum = uint32(fold(sum(0, c.Src.AsSlice())+sum(0, c.Dst.AsSlice()))) + protoUDP + uint32(c.DstPort)
	o.zero = c.Kind.ZeroChecksum(c.Dst.Is6()) && !c.ForceChecksum
	return o, nil
}

func (c OuterConfig) validate() error {
	switch {
	case c.Kind > GENEVE:
		return fmt.Errorf("unknown %v", c.Kind)
	case !c.Src.IsValid() || !c.Dst.IsValid():
		return errors.New("source or destination address is missing")
	case c.DSCP > MaxDSCP:
		return fmt.Errorf("DSCP %d is not within 0 to %d", c.DSCP, MaxDSCP)
	case c.Src.Is4() != c.Dst.Is4():
		return fmt.Errorf("source %v and destination %v are of different families", c.Src, c.Dst)
	}
	return nil
}

func (o *Outer) prepare4(c OuterConfig) {
	o.length = OuterLen4
	binary.BigEndian.PutUint16(o.template[12:], etherTypeIPv4)
	ip := o.template[etherLen : etherLen+ipv4Len]
	ip[0], ip[1] = 0x45, c.DSCP<<2
	if !c.MayFragment {
		ip[6] = 0x40
	}
	ip[8], ip[9] = c.TTL, protoUDP
	src, dst := c.Src.As4(), c.Dst.As4()
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	o.ipSum = uint32(fold(sum(0, ip)))
}

func (o *Outer) prepare6(c OuterConfig) {
	o.length = OuterLen6
	binary.BigEndian.PutUint16(o.template[12:], etherTypeIPv6)
	ip := o.template[etherLen : etherLen+ipv6Len]
	ip[0], ip[1] = 0x60|c.DSCP>>2, c.DSCP<<6
	ip[6], ip[7] = protoUDP, c.TTL
	src, dst := c.Src.As16(), c.Dst.As16()
	copy(ip[8:], src[:])
	copy(ip[24:], dst[:])
}

// Len is the length of the headers: OuterLen4 or OuterLen6.
func (o *Outer) Len() int { return o.length }

// ChecksumStart is the offset of the UDP header, and where the UDP checksum
// begins to count: csum_start of a virtio-net header.
func (o *Outer) ChecksumStart() int { return o.length - udpLen }

// Put writes the headers of one datagram into hdr, which must hold Len bytes:
// all lengths and checksums are final. The payload is only read.
func (o *Outer) Put(hdr, payload []byte, srcPort uint16) {
	o.putLengths(hdr, len(payload), srcPort)
	if o.zero {
		return
	}
	check := ^fold(uint64(o.udpSum(len(payload), srcPort)) + sum(0, payload))
	if check == 0 { // 0 would say that there is none (RFC 768)
		check = 0xffff
	}
	binary.BigEndian.PutUint16(hdr[o.length-2:], check)
}

// PutPartial writes the headers of a datagram whose UDP checksum the kernel or
// the device will complete (VIRTIO_NET_HDR_F_NEEDS_CSUM): its field holds the
// sum of the pseudo-header alone, not complemented. payloadLen may be that of
// a UDP GSO super-packet, several datagrams of one size (the last may be
// shorter): the kernel then splits it and corrects all lengths
// (net/ipv4/udp_offload.c, __udp_gso_segment).
func (o *Outer) PutPartial(hdr []byte, payloadLen int, srcPort uint16) {
	o.putLengths(hdr, payloadLen, srcPort)
	ports := uint32(srcPort) + uint32(binary.BigEndian.Uint16(o.template[o.length-udpLen+2:]))
	pseudo := o.udpSum(payloadLen, srcPort) - ports - uint32(udpLen+payloadLen)
	binary.BigEndian.PutUint16(hdr[o.length-2:], fold(uint64(pseudo)))
}

// udpSum adds up pseudo-header and UDP header without the checksum.
func (o *Outer) udpSum(payloadLen int, srcPort uint16) uint32 {
	return o.pseudoSum + uint32(srcPort) + 2*uint32(udpLen+payloadLen)
}

// putLengths copies the template and fills in all but the UDP checksum, which
// stays 0.
func (o *Outer) putLengths(hdr []byte, payloadLen int, srcPort uint16) {
	udpSize := udpLen + payloadLen
	if o.length == OuterLen4 {
		h := (*[OuterLen4]byte)(hdr)
		*h = [OuterLen4]byte(o.template[:OuterLen4])
		total := uint16(ipv4Len + udpSize)
		binary.BigEndian.PutUint16(h[16:], total)
		check := o.ipSum + uint32(total)
		if o.counted {
			o.id++
			binary.BigEndian.PutUint16(h[18:], o.id)
			check += uint32(o.id)
		}
		binary.BigEndian.PutUint16(h[24:], ^fold(uint64(check)))
		binary.BigEndian.PutUint16(h[34:], srcPort)
		binary.BigEndian.PutUint16(h[38:], uint16(udpSize))
		return
	}
	h := (*[OuterLen6]byte)(hdr)
	*h = o.template
	binary.BigEndian.PutUint16(h[18:], uint16(udpSize))
	binary.BigEndian.PutUint16(h[54:], srcPort)
	binary.BigEndian.PutUint16(h[58:], uint16(udpSize))
}
