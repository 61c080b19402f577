package sys

import (
	"encoding/binary"
	"net/netip"
)

// Complaint is an ICMP error (RFC 792, RFC 4443) about a datagram that was sent.
type Complaint struct {
	Six        bool       // ICMPv6
	Type, Code uint8      // of the ICMP message
	MTU        int        // of the next hop, where the datagram was too big; 0 if it does not say
	From       netip.Addr // who complains
}

// Quote is what a complaint quotes of the datagram that it is about.
type Quote struct {
	Src, Dst         netip.Addr
	Protocol         uint8
	SrcPort, DstPort uint16 // valid with Ports
	Ports            bool   // the quotation has them: it is no later fragment
}

// Numbers of RFC 791, 792, 4443 and 8200.
const (
	protocolICMP      = 1
	protocolICMPv6    = 58
	fragmentHeader    = 44
	icmpHeaderLen     = 8 // of errors; the quotation follows
	ipv6Len           = 40
	fragmentHeaderLen = 8
	icmpUnreachable   = 3
	icmpTooBigCode    = 4
	icmpv6TooBig      = 2
	icmpv6FirstInfo   = 128 // types below are errors
)

// ParseComplaint reads an IP packet that holds an ICMP error. It is false for any
// other.
func ParseComplaint(packet []byte) (Complaint, Quote, bool) {
	if len(packet) == 0 {
		return Complaint{}, Quote{}, false
	}
	switch packet[0] >> 4 {
	case 4:
		return parseComplaint4(packet)
	case 6:
		return parseComplaint6(packet)
	}
	return Complaint{}, Quote{}, false
}

func parseComplaint4(p []byte) (c Complaint, q Quote, ok bool) {
	n := int(p[0]&15) * 4
	if n < 20 || len(p) < n+icmpHeaderLen || p[9] != protocolICMP || binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
		return c, q, false
	}
	icmp := p[n:]
	switch icmp[0] {
	case icmpUnreachable, 11, 12: // time exceeded, parameter problem
	default:
		return c, q, false
	}
	c = Complaint{Type: icmp[0], Code: icmp[1], From: netip.AddrFrom4([4]byte(p[12:16]))}
	if c.Type == icmpUnreachable && c.Code == icmpTooBigCode {
		c.MTU = int(binary.BigEndian.Uint16(icmp[6:]))
	}
	q, ok = parseQuote4(icmp[icmpHeaderLen:])
	return c, q, ok
}

func parseQuote4(p []byte) (q Quote, ok bool) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return q, false
	}
	q = Quote{Src: netip.AddrFrom4([4]byte(p[12:16])), Dst: netip.AddrFrom4([4]byte(p[16:20])), Protocol: p[9]}
	n := int(p[0]&15) * 4
	if binary.BigEndian.Uint16(p[6:])&0x1fff == 0 {
		q.ports(p, n)
	}
	return q, true
}

func parseComplaint6(p []byte) (c Complaint, q Quote, ok bool) {
	if len(p) < ipv6Len+icmpHeaderLen || p[6] != protocolICMPv6 || p[ipv6Len] >= icmpv6FirstInfo {
		return c, q, false
	}
	icmp := p[ipv6Len:]
	c = Complaint{Six: true, Type: icmp[0], Code: icmp[1], From: netip.AddrFrom16([16]byte(p[8:24]))}
	if c.Type == icmpv6TooBig {
		c.MTU = int(binary.BigEndian.Uint32(icmp[4:]))
	}
	q, ok = parseQuote6(icmp[icmpHeaderLen:])
	return c, q, ok
}

func parseQuote6(p []byte) (q Quote, ok bool) {
	if len(p) < ipv6Len || p[0]>>4 != 6 {
		return q, false
	}
	q = Quote{Src: netip.AddrFrom16([16]byte(p[8:24])), Dst: netip.AddrFrom16([16]byte(p[24:40])), Protocol: p[6]}
	n := ipv6Len
	if q.Protocol == fragmentHeader && len(p) >= n+fragmentHeaderLen {
		q.Protocol = p[n]
		later := binary.BigEndian.Uint16(p[n+2:])&^7 != 0
		if n += fragmentHeaderLen; later {
			return q, true
		}
	}
	q.ports(p, n)
	return q, true
}

// ports reads the ports at the begin of the transport header.
func (q *Quote) ports(p []byte, at int) {
	if q.Ports = len(p) >= at+4; q.Ports {
		q.SrcPort, q.DstPort = binary.BigEndian.Uint16(p[at:]), binary.BigEndian.Uint16(p[at+2:])
	}
}
