package encap

import (
	"encoding/binary"

	"github.com/zeekdemo/zeekdemo/forward"
)

// The link types with direction have a byte for it in front: LINKTYPE_PPP_WITH_DIR,
// _C_HDLC_WITH_DIR and _FRELAY_WITH_DIR.
func normalisePPPDirection(n *inner, data []byte, length int) forward.Refusal {
	return normalisePPP(n, data[min(1, len(data)):], length-1)
}

func normaliseHDLCDirection(n *inner, data []byte, length int) forward.Refusal {
	return normaliseHDLC(n, data[min(1, len(data)):], length-1)
}

func normaliseFrameRelayDirection(n *inner, data []byte, length int) forward.Refusal {
	return normaliseFrameRelay(n, data[min(1, len(data)):], length-1)
}

// normalisePPPD handles LINKTYPE_PPP_PPPD: PPP whose address byte is the direction,
// with or without a control byte behind it (Linux drivers/net/ppp/ppp_generic.c has
// a zero there, others the 03 of RFC 1662).
func normalisePPPD(n *inner, data []byte, length int) forward.Refusal {
	if len(data) < 4 {
		return forward.RefusedMalformed
	}
	if data[1] == 0x03 || data[1] == 0 && data[2]&1 == 0 { // the upper byte of a protocol is even
		return normalisePPP(n, data[2:], length-2)
	}
	return normalisePPP(n, data[1:], length-1)
}

// normaliseHDLC handles LINKTYPE_C_HDLC: address, control, EtherType. Cisco's own
// protocols (keepalives, CDP) and OSI carry no packet that Ethernet could.
func normaliseHDLC(n *inner, data []byte, length int) forward.Refusal {
	const size, slarp, cdp, osi = 4, 0x8035, 0x2000, 0xfefe
	if len(data) <= size {
		return forward.RefusedMalformed
	}
	switch etherType := binary.BigEndian.Uint16(data[2:]); {
	case etherType < etherTypeMin, etherType == slarp, etherType == cdp, etherType == osi:
		return forward.SkippedNoPacket
	default:
		return n.set(syntheticDst(), syntheticSrc(), etherType, data[size:], length-size)
	}
}

// normalisePPPoE handles LINKTYPE_PPP_ETHER: the PPPoE header of a session (RFC 2516),
// which Ethernet carries as well.
func normalisePPPoE(n *inner, data []byte, length int) forward.Refusal {
	const size, session = 6, 0x8864
	if len(data) <= size {
		return forward.RefusedMalformed
	}
	return n.set(syntheticDst(), syntheticSrc(), session, data, length)
}

// Values of Frame Relay (RFC 2427 and its appendix A, ISO/IEC TR 9577).
const (
	frUnnumbered = 0x03
	nlpidSNAP    = 0x80
	nlpidIPv6    = 0x8e
	nlpidIPv4    = 0xcc
	nlpidPPP     = 0xcf
)

// normaliseFrameRelay handles LINKTYPE_FRELAY: a Q.922 address of two to four bytes,
// whose last one is odd, then RFC 2427's control and NLPID or Cisco's EtherType.
func normaliseFrameRelay(n *inner, data []byte, length int) forward.Refusal {
	at := 1
	for at < 4 && at < len(data) && data[at]&1 == 0 {
		at++
	}
	at++
	if len(data) <= at+2 {
		return forward.RefusedMalformed
	}
	if data[at] == frUnnumbered {
		at++
		if data[at] == 0 { // a pad
			at++
		}
		return n.setNLPID(data[at], data[at+1:], length-at-1)
	}
	if etherType := binary.BigEndian.Uint16(data[at:]); etherType >= etherTypeMin {
		return n.set(syntheticDst(), syntheticSrc(), etherType, data[at+2:], length-at-2)
	}
	return forward.SkippedNoPacket
}

func (n *inner) setNLPID(nlpid byte, data []byte, length int) forward.Refusal {
	switch nlpid {
	case nlpidIPv4, nlpidIPv6:
		return n.setIP(data, length)
	case nlpidPPP:
		return normalisePPP(n, data, length)
	case nlpidSNAP:
		return n.setSNAP(data, length)
	}
	return forward.SkippedNoPacket
}

// setSNAP handles an organisation code and protocol without LLC before them: an
// EtherType, or bridged Ethernet (RFC 2427 section 4.2) with and without its frame
// check sequence.
func (n *inner) setSNAP(data []byte, length int) forward.Refusal {
	const size, bridgedFCS, bridged = 5, 0x0080c20001, 0x0080c20007
	if len(data) <= size {
		return forward.RefusedMalformed
	}
	code := uint64(data[0])<<32 | uint64(binary.BigEndian.Uint32(data[1:]))
	data, length = data[size:], length-size
	switch {
	case code == bridgedFCS:
		return n.setEthernet(withoutFCS(data, length))
	case code == bridged:
		return n.setEthernet(data, length)
	case code >= etherTypeMin && code <= 0xffff:
		return n.set(syntheticDst(), syntheticSrc(), uint16(code), data, length)
	}
	return forward.SkippedNoPacket
}

// normaliseLLC handles LINKTYPE_ATM_RFC1483: LLC and SNAP (RFC 2684).
func normaliseLLC(n *inner, data []byte, length int) forward.Refusal {
	return n.setLLC(syntheticDst(), syntheticSrc(), data, length)
}

// normaliseTokenRing handles LINKTYPE_IEEE802_5: access control, frame control,
// destination, source, source routing where the source's group bit is set, LLC.
func normaliseTokenRing(n *inner, data []byte, length int) forward.Refusal {
	size := 14
	if len(data) <= size {
		return forward.RefusedMalformed
	}
	if data[1]&0xc0 != 0x40 {
		return forward.SkippedNoPacket // MAC frames
	}
	dst, src := mac(data[2:8]), mac(data[8:14])
	if src[0]&0x80 != 0 {
		src[0] &^= 0x80
		size += int(data[14] & 0x1f)
	}
	if len(data) <= size {
		return forward.RefusedMalformed
	}
	return n.setLLC(dst, src, data[size:], length-size)
}

// normaliseFibreChannel handles LINKTYPE_IP_OVER_FC: two network addresses of 8 bytes
// that end in MAC addresses (RFC 2625), LLC.
func normaliseFibreChannel(n *inner, data []byte, length int) forward.Refusal {
	const size = 16
	if len(data) <= size {
		return forward.RefusedMalformed
	}
	return n.setLLC(mac(data[2:8]), mac(data[10:16]), data[size:], length-size)
}

// normaliseFireWire handles LINKTYPE_APPLE_IP_OVER_IEEE1394: two addresses of 8 bytes
// and an EtherType.
func normaliseFireWire(n *inner, data []byte, length int) forward.Refusal {
	return n.setBehind(16, 18, data, length)
}

// normaliseIPoIB handles LINKTYPE_IPOIB: a global route header of 40 bytes, an
// EtherType and two bytes (RFC 4391 section 6).
func normaliseIPoIB(n *inner, data []byte, length int) forward.Refusal {
	return n.setBehind(40, 44, data, length)
}

// setBehind makes an Ethernet frame of what is behind a header of size bytes, whose
// EtherType is at the offset at.
func (n *inner) setBehind(at, size int, data []byte, length int) forward.Refusal {
	if len(data) <= size {
		return forward.RefusedMalformed
	}
	etherType := binary.BigEndian.Uint16(data[at:])
	if etherType < etherTypeMin {
		return forward.SkippedNoPacket
	}
	return n.set(syntheticDst(), syntheticSrc(), etherType, data[size:], length-size)
}
