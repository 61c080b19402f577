package encap

import (
	"encoding/binary"

	"github.com/zeekdemo/zeekdemo/forward"
)

// mac is a MAC address.
type mac [6]byte

// The synthetic MAC addresses stand where the link type has none: locally
// administered unicast addresses (the 02 bit of the first byte) that spell
// "ZEEK" in the middle. syntheticSrc is also replaced by the sender's address
// where a Linux cooked header has it, and syntheticDst by the broadcast address
// where it says that the frame was one.
func syntheticSrc() mac { return mac{0x02, 0x5a, 0x45, 0x45, 0x4b, 0x01} }
func syntheticDst() mac { return mac{0x02, 0x5a, 0x45, 0x45, 0x4b, 0x02} }
func broadcast() mac    { return mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

// inner is a frame in its Ethernet form: an optional new header, and what
// follows it of the captured bytes.
type inner struct {
	head    [etherLen]byte
	headLen int
	body    []byte
	length  int // bytes the frame had on the wire, head included

	more       []byte // further subframes of an A-MSDU
	moreLength int    // their bytes on the wire
}

// set makes an Ethernet frame of body, which had length bytes on the wire.
func (n *inner) set(dst, src mac, etherType uint16, body []byte, length int) forward.Refusal {
	copy(n.head[0:], dst[:])
	copy(n.head[6:], src[:])
	binary.BigEndian.PutUint16(n.head[12:], etherType)
	n.headLen, n.body, n.length = etherLen, body, etherLen+length
	return forward.RefusedNot
}

// setLLC makes an Ethernet frame of an IEEE 802.2 LLC header and what follows:
// Ethernet II where SNAP holds an EtherType, else IEEE 802.3 with a length.
func (n *inner) setLLC(dst, src mac, llc []byte, length int) forward.Refusal {
	switch {
	case isSNAP(llc):
		return n.set(dst, src, binary.BigEndian.Uint16(llc[6:]), llc[8:], length-8)
	case len(llc) < 3:
		return forward.RefusedMalformed
	case length > maxLength8023:
		return n.set(dst, src, etherTypeJumboLLC, llc, length)
	}
	return n.set(dst, src, uint16(length), llc, length)
}

// setIP makes an Ethernet frame of a bare IP packet, by its version.
func (n *inner) setIP(packet []byte, length int) forward.Refusal {
	if len(packet) == 0 {
		return forward.RefusedMalformed
	}
	etherType := uint16(etherTypeIPv4)
	switch packet[0] >> 4 {
	case 4:
	case 6:
		etherType = etherTypeIPv6
	default:
		return forward.RefusedMalformed
	}
	return n.set(syntheticDst(), syntheticSrc(), etherType, packet, length)
}

// normaliser puts the Ethernet form of data, which had length bytes on the
// wire (not fewer than len(data)), into n, or says why there is none.
type normaliser func(n *inner, data []byte, length int) forward.Refusal

// normaliserOf returns nil for Ethernet and for link types without one.
func normaliserOf(lt forward.LinkType) normaliser {
	switch lt {
	case forward.LinkRaw, forward.LinkRawBSD12, forward.LinkRawBSD14, forward.LinkIPv4, forward.LinkIPv6:
		return (*inner).setIP
	case forward.LinkNull, forward.LinkLoop:
		return normaliseLoopback
	case forward.LinkLinuxSLL:
		return normaliseSLL
	case forward.LinkLinuxSLL2:
		return normaliseSLL2
	case forward.LinkPPP, forward.LinkPPPHDLC:
		return normalisePPP
	case forward.LinkFDDI:
		return normaliseFDDI
	case forward.LinkIEEE80211:
		return normaliseDot11
	case forward.LinkRadiotap:
		return normaliseRadiotap
	case forward.LinkNFLOG:
		return normaliseNFLOG
	}
	if normalise := wrappedNormaliserOf(lt); normalise != nil {
		return normalise
	}
	return serialNormaliserOf(lt)
}

// wrappedNormaliserOf is normaliserOf for headers that stand before what could stand
// alone.
func wrappedNormaliserOf(lt forward.LinkType) normaliser {
	switch lt {
	case forward.LinkPFLOG:
		return normalisePFLOG
	case forward.LinkOldPFLOG:
		return normaliseOldPFLOG
	case forward.LinkENC:
		return normaliseENC
	case forward.LinkIPNET:
		return normaliseIPNET
	case forward.LinkPKTAP:
		return normalisePKTAP
	case forward.LinkPPI:
		return normalisePPI
	case forward.LinkERF:
		return normaliseERF
	case forward.LinkNetAnalyzer:
		return normaliseNetAnalyzer
	case forward.LinkPrism, forward.LinkAVS:
		return normalisePrism
	}
	return nil
}

// serialNormaliserOf is normaliserOf for serial lines and other networks.
func serialNormaliserOf(lt forward.LinkType) normaliser {
	switch lt {
	case forward.LinkSLIP:
		return normaliseSLIP
	case forward.LinkPPPD:
		return normalisePPPD
	case forward.LinkCHDLC:
		return normaliseHDLC
	case forward.LinkPPPEther:
		return normalisePPPoE
	case forward.LinkFrameRelay:
		return normaliseFrameRelay
	case forward.LinkPPPDirection:
		return normalisePPPDirection
	case forward.LinkCHDLCDirection:
		return normaliseHDLCDirection
	case forward.LinkFrameRelayDirection:
		return normaliseFrameRelayDirection
	case forward.LinkATM:
		return normaliseLLC
	case forward.LinkIEEE8025:
		return normaliseTokenRing
	case forward.LinkIPOverFC:
		return normaliseFibreChannel
	case forward.LinkFireWire:
		return normaliseFireWire
	case forward.LinkIPoIB:
		return normaliseIPoIB
	}
	return nil
}

// normaliseLoopback handles LINKTYPE_NULL and LINKTYPE_LOOP: a 4-byte address
// family, in the byte order of the capturing machine or in network byte order,
// which the value itself tells. AF_INET is 2 everywhere; AF_INET6 is 10 (Linux),
// 23 (Windows), 24 (NetBSD, OpenBSD), 28 (FreeBSD) or 30 (macOS).
func normaliseLoopback(n *inner, data []byte, length int) forward.Refusal {
	if len(data) < 5 {
		return forward.RefusedMalformed
	}
	family := binary.BigEndian.Uint32(data)
	if family > 0xffff {
		family = binary.LittleEndian.Uint32(data)
	}
	data, length = data[4:], length-4
	switch family {
	case 2, 10, 23, 24, 28, 30:
		return n.setIP(data, length)
	}
	if family >= etherTypeMin && family <= 0xffff { // as some drivers write
		return n.set(syntheticDst(), syntheticSrc(), uint16(family), data, length)
	}
	return forward.SkippedNoPacket
}

// ARPHRD_ values (linux/if_arp.h) whose cooked protocol field is no EtherType.
const (
	arphrdEther         = 1
	arphrdFrameRelay    = 770
	arphrdGRE           = 778
	arphrdIEEE80211     = 801
	arphrdIEEE80211Rtap = 803
	arphrdNetlink       = 824
)

// cooked is what both versions of the Linux cooked header say
// (https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL.html, ..._SLL2.html).
type cooked struct {
	packetType uint16 // 1 is a broadcast
	hardware   uint16 // ARPHRD_ value
	addrLen    uint16
	addr       []byte // 8 bytes
	protocol   uint16
}

func normaliseSLL(n *inner, data []byte, length int) forward.Refusal {
	const size = 16
	if len(data) < size {
		return forward.RefusedMalformed
	}
	return n.setCooked(cooked{
		packetType: binary.BigEndian.Uint16(data),
		hardware:   binary.BigEndian.Uint16(data[2:]),
		addrLen:    binary.BigEndian.Uint16(data[4:]),
		addr:       data[6:14],
		protocol:   binary.BigEndian.Uint16(data[14:]),
	}, data[size:], length-size)
}

func normaliseSLL2(n *inner, data []byte, length int) forward.Refusal {
	const size = 20
	if len(data) < size {
		return forward.RefusedMalformed
	}
	return n.setCooked(cooked{
		packetType: uint16(data[10]),
		hardware:   binary.BigEndian.Uint16(data[8:]),
		addrLen:    uint16(data[11]),
		addr:       data[12:20],
		protocol:   binary.BigEndian.Uint16(data),
	}, data[size:], length-size)
}

// setCooked makes an Ethernet frame of what follows a cooked header. The
// sender's MAC address is kept where it has one of 6 bytes. A VLAN tag is the
// EtherType 0x8100 with the tag in front of the payload, as in Ethernet.
func (n *inner) setCooked(c cooked, body []byte, length int) forward.Refusal {
	switch c.hardware {
	case arphrdIEEE80211:
		return normaliseDot11(n, body, length)
	case arphrdIEEE80211Rtap:
		return normaliseRadiotap(n, body, length)
	case arphrdFrameRelay:
		return normaliseFrameRelay(n, body, length)
	case arphrdNetlink:
		return forward.SkippedNoPacket // the protocol is a netlink family
	}
	if c.hardware == arphrdGRE && c.protocol == etherTypeTEB {
		return n.setEthernet(body, length) // the GRE header's protocol type: bridged
	}
	dst, src := syntheticDst(), syntheticSrc()
	if c.packetType == 1 {
		dst = broadcast()
	}
	if c.addrLen == 6 && c.hardware == arphrdEther {
		src = mac(c.addr[:6])
	}
	switch {
	case c.protocol >= etherTypeMin:
		return n.set(dst, src, c.protocol, body, length)
	case c.protocol == 4: // ETH_P_802_2: LLC follows
		return n.setLLC(dst, src, body, length)
	case c.protocol == 1 && length <= maxLength8023: // ETH_P_802_3: Novell's frames without LLC
		return n.set(dst, src, uint16(length), body, length)
	}
	return forward.SkippedNoPacket
}

// PPP protocol numbers (https://www.iana.org/assignments/ppp-numbers).
const (
	pppIPv4    = 0x0021
	pppIPv6    = 0x0057
	pppMPLS    = 0x0281
	pppMPLSMul = 0x0283
)

// normalisePPP handles LINKTYPE_PPP and LINKTYPE_PPP_HDLC: PPP (RFC 1661) with
// or without the address and control bytes ff-03 of RFC 1662, the protocol in
// one or two bytes, and Cisco's HDLC framing (0f or 8f, 00, an EtherType), which
// both link types may hold. Control and network control protocols, and
// compressed packets, carry no packet.
func normalisePPP(n *inner, data []byte, length int) forward.Refusal {
	if len(data) >= 4 && (data[0] == 0x0f || data[0] == 0x8f) && data[1] == 0 {
		return n.setPPP(binary.BigEndian.Uint16(data[2:]), data[4:], length-4)
	}
	at := 0
	if len(data) >= 2 && data[0] == 0xff && data[1] == 0x03 {
		at = 2
	}
	if len(data) < at+2 {
		return forward.RefusedMalformed
	}
	protocol, size := binary.BigEndian.Uint16(data[at:]), 2
	if data[at]&1 != 0 { // odd: compressed to one byte (RFC 1661 section 6.5)
		protocol, size = uint16(data[at]), 1
	}
	return n.setPPP(protocol, data[at+size:], length-at-size)
}

func (n *inner) setPPP(protocol uint16, body []byte, length int) forward.Refusal {
	switch protocol {
	case pppIPv4, etherTypeIPv4:
		protocol = etherTypeIPv4
	case pppIPv6, etherTypeIPv6:
		protocol = etherTypeIPv6
	case pppMPLS, etherTypeMPLS:
		protocol = etherTypeMPLS
	case pppMPLSMul, etherTypeMPLSMul:
		protocol = etherTypeMPLSMul
	default:
		return forward.SkippedNoPacket
	}
	return n.set(syntheticDst(), syntheticSrc(), protocol, body, length)
}

// normaliseFDDI handles LINKTYPE_FDDI: frame control, destination, source (both
// taken to be in canonical bit order), LLC. Only LLC frames (frame control
// 01..LLLL, ANSI X3.139) carry a packet; tokens, MAC and SMT frames do not.
func normaliseFDDI(n *inner, data []byte, length int) forward.Refusal {
	const size = 13
	if len(data) < size {
		return forward.RefusedMalformed
	}
	if data[0]&0x70 != 0x50 {
		return forward.SkippedNoPacket
	}
	return n.setLLC(mac(data[1:7]), mac(data[7:13]), data[size:], length-size)
}

// Values of NFLOG (linux/netfilter/nfnetlink_log.h, linux/netfilter.h).
const (
	nfulaPacketHeader = 1
	nfulaPayload      = 9
	nfprotoINet       = 1
	nfprotoIPv4       = 2
	nfprotoIPv6       = 10
)

// normaliseNFLOG handles LINKTYPE_NFLOG: family, version, resource, then TLVs in
// the byte order of the capturing machine, of which one holds the packet. What
// it is says the family, or the packet header's protocol (ARP, bridged frames).
func normaliseNFLOG(n *inner, data []byte, length int) forward.Refusal {
	if len(data) < 8 || data[1] != 0 {
		return forward.RefusedMalformed
	}
	order := nflogOrder(data)
	var protocol uint16
	for at := 4; at+4 <= len(data); {
		size, kind := int(order.Uint16(data[at:])), order.Uint16(data[at+2:])&0x7fff
		if size < 4 || at+size > length {
			return forward.RefusedMalformed
		}
		value := data[at+4 : min(at+size, len(data))]
		switch {
		case kind == nfulaPacketHeader && len(value) >= 2:
			protocol = binary.BigEndian.Uint16(value)
		case kind == nfulaPayload:
			return n.setNFLOG(data[0], protocol, value, size-4)
		}
		at += (size + 3) &^ 3
	}
	if length > len(data) {
		return forward.RefusedMalformed // the payload was cut off
	}
	return forward.SkippedNoPacket
}

func (n *inner) setNFLOG(family byte, protocol uint16, payload []byte, length int) forward.Refusal {
	switch {
	case family == nfprotoINet || family == nfprotoIPv4 || family == nfprotoIPv6:
		return n.setIP(payload, length)
	case protocol >= etherTypeMin:
		return n.set(syntheticDst(), syntheticSrc(), protocol, payload, length)
	}
	return forward.SkippedNoPacket
}

// nflogOrder is the byte order in which the first TLV makes sense: its length
// is small, so the wrong order makes it large.
func nflogOrder(data []byte) binary.ByteOrder {
	if binary.LittleEndian.Uint16(data[4:]) <= binary.BigEndian.Uint16(data[4:]) {
		return binary.LittleEndian
	}
	return binary.BigEndian
}
