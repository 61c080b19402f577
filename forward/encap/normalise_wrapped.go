package encap

import (
	"encoding/binary"

	"github.com/zeekdemo/zeekdemo/forward"
)

// setAs makes an Ethernet frame of data of link type lt, for headers that tell what
// follows them. One such header inside another is refused: nobody writes that, and
// it could go on for ever.
func (n *inner) setAs(lt forward.LinkType, data []byte, length int) forward.Refusal {
	switch lt {
	case forward.LinkEthernet:
		return n.setEthernet(data, length)
	case forward.LinkPKTAP, forward.LinkPPI, forward.LinkERF:
		return forward.RefusedLinkType
	}
	normalise := normaliserOf(lt)
	if normalise == nil {
		return forward.RefusedLinkType
	}
	return normalise(n, data, length)
}

// setEthernet takes an Ethernet frame as it is.
func (n *inner) setEthernet(data []byte, length int) forward.Refusal {
	if len(data) < etherLen {
		return forward.RefusedMalformed
	}
	n.body, n.length = data, length
	return forward.RefusedNot
}

// withoutFCS takes a frame check sequence off, of which the capture may hold less
// than it is long.
func withoutFCS(data []byte, length int) ([]byte, int) {
	length = max(length-fcsLen, 0)
	return data[:min(len(data), length)], length
}

// normalisePFLOG handles LINKTYPE_PFLOG: a header of a length that its first byte
// gives, padded to four bytes, then an IP packet (OpenBSD net/if_pflog.h; FreeBSD,
// NetBSD and macOS have fields and numbers of address families of their own).
func normalisePFLOG(n *inner, data []byte, length int) forward.Refusal {
	const least = 45 // the shortest header there was: up to the rule's number
	if len(data) == 0 || data[0] < least {
		return forward.RefusedMalformed
	}
	return n.skipToIP((int(data[0])+3)&^3, data, length)
}

// normaliseOldPFLOG handles what OpenBSD wrote before 3.4: 28 bytes, then IP.
func normaliseOldPFLOG(n *inner, data []byte, length int) forward.Refusal {
	return n.skipToIP(28, data, length)
}

// normaliseENC handles LINKTYPE_ENC: address family, SPI and flags, then the IP
// packet before encryption or after decryption (OpenBSD net/if_enc.h).
func normaliseENC(n *inner, data []byte, length int) forward.Refusal {
	return n.skipToIP(12, data, length)
}

// normaliseIPNET handles LINKTYPE_IPNET: dl_ipnetinfo_t of Solaris, then IP.
func normaliseIPNET(n *inner, data []byte, length int) forward.Refusal {
	return n.skipToIP(24, data, length)
}

// normaliseSLIP handles LINKTYPE_SLIP: 16 bytes, then IP. Headers compressed as in
// RFC 1144 are not restored.
func normaliseSLIP(n *inner, data []byte, length int) forward.Refusal {
	return n.skipToIP(16, data, length)
}

// skipToIP makes an Ethernet frame of the IP packet behind size bytes.
func (n *inner) skipToIP(size int, data []byte, length int) forward.Refusal {
	if len(data) <= size {
		return forward.RefusedMalformed
	}
	return n.setIP(data[size:], length-size)
}

// normalisePKTAP handles LINKTYPE_PKTAP: the header's length, the record's kind
// (1 is a packet) and the packet's link type, little-endian (macOS net/pktap.h).
func normalisePKTAP(n *inner, data []byte, length int) forward.Refusal {
	if len(data) < 12 {
		return forward.RefusedMalformed
	}
	le := binary.LittleEndian
	size, kind, link := le.Uint32(data), le.Uint32(data[4:]), le.Uint32(data[8:])
	switch {
	case size < 12 || size >= uint32(len(data)) || link > 0xffff:
		return forward.RefusedMalformed
	case kind != 1:
		return forward.SkippedNoPacket
	}
	return n.setAs(forward.LinkType(link), data[size:], length-int(size))
}

// Values of PPI (the PPI header format of CACE Technologies, 2008).
const (
	ppiHeaderLen   = 8
	ppiDot11Common = 2 // field: 8 bytes timer, then flags
	ppiFCS         = 1 // flag: the 802.11 frame ends with its frame check sequence
)

// normalisePPI handles LINKTYPE_PPI: version, flags, the header's length and the
// packet's link type, then fields.
func normalisePPI(n *inner, data []byte, length int) forward.Refusal {
	if len(data) < ppiHeaderLen {
		return forward.RefusedMalformed
	}
	size, link := int(binary.LittleEndian.Uint16(data[2:])), binary.LittleEndian.Uint32(data[4:])
	if data[0] != 0 || size < ppiHeaderLen || size >= len(data) || link > 0xffff {
		return forward.RefusedMalformed
	}
	fields := data[ppiHeaderLen:size]
	data, length = data[size:], length-size
	if forward.LinkType(link) == forward.LinkIEEE80211 && ppiHasFCS(fields) {
		data, length = withoutFCS(data, length)
	}
	return n.setAs(forward.LinkType(link), data, length)
}

// ppiHasFCS looks for the 802.11 field and its flag.
func ppiHasFCS(fields []byte) bool {
	le := binary.LittleEndian
	for len(fields) >= 4 {
		kind, size := le.Uint16(fields), int(le.Uint16(fields[2:]))
		if kind == ppiDot11Common {
			return size >= 10 && len(fields) >= 14 && le.Uint16(fields[12:])&ppiFCS != 0
		}
		fields = fields[min(4+size, len(fields)):]
	}
	return false
}

// Types of ERF records (Endace's ERF types reference).
const (
	erfPOS          = 1
	erfEthernet     = 2
	erfColourPOS    = 10
	erfColourEth    = 11
	erfDSMEthernet  = 16
	erfHashEthernet = 20
	erfIPv4         = 22
	erfIPv6         = 23
	erfHeaderLen    = 16
)

// normaliseERF handles LINKTYPE_ERF: a time stamp, type, flags, the record's length,
// a counter and the length on the wire, then further headers of 8 bytes each, the
// uppermost bit of whose first byte tells of one more. Ethernet is preceded by two
// bytes and ends with its frame check sequence.
func normaliseERF(n *inner, data []byte, length int) forward.Refusal {
	if len(data) < erfHeaderLen {
		return forward.RefusedMalformed
	}
	kind, record, wire := data[8], int(binary.BigEndian.Uint16(data[10:])), int(binary.BigEndian.Uint16(data[14:]))
	data = data[:max(erfHeaderLen, min(len(data), record))]
	at := erfHeaderLen
	for more := kind & 0x80; more != 0; at += 8 {
		if len(data) < at+8 {
			return forward.RefusedMalformed
		}
		more = data[at] & 0x80
	}
	return n.setERF(kind&0x7f, data[at:], wire)
}

func (n *inner) setERF(kind byte, data []byte, length int) forward.Refusal {
	switch kind {
	case erfEthernet, erfColourEth, erfDSMEthernet, erfHashEthernet:
		if len(data) < 2 {
			return forward.RefusedMalformed
		}
		return n.setEthernet(withoutFCS(data[2:], length))
	case erfIPv4, erfIPv6:
		return n.setIP(data[:min(len(data), length)], length)
	case erfPOS, erfColourPOS:
		return normalisePPP(n, data[:min(len(data), length)], length)
	}
	return forward.SkippedNoPacket // ATM, InfiniBand, meta data
}

// normaliseNetAnalyzer handles LINKTYPE_NETANALYZER: four bytes, then Ethernet with
// its frame check sequence.
func normaliseNetAnalyzer(n *inner, data []byte, length int) forward.Refusal {
	if len(data) < 4 {
		return forward.RefusedMalformed
	}
	return n.setEthernet(withoutFCS(data[4:], length-4))
}

// normalisePrism handles LINKTYPE_IEEE802_11_PRISM and _AVS: a header of 144 bytes,
// or AVS's, whose magic number and length come first, then IEEE 802.11.
func normalisePrism(n *inner, data []byte, length int) forward.Refusal {
	const avs, prismLen = 0x80211000, 144
	if len(data) < 8 {
		return forward.RefusedMalformed
	}
	size := uint32(prismLen)
	if binary.BigEndian.Uint32(data)&0xfffff000 == avs {
		size = binary.BigEndian.Uint32(data[4:])
	}
	if size < 8 || size >= uint32(len(data)) {
		return forward.RefusedMalformed
	}
	return n.setDot11(data[size:], length-int(size), false)
}
