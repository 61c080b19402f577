package main

import "encoding/binary"

// noVNI is logged for packets that came in no tunnel, as Zeek does.
const noVNI = ^uint32(0)

// vnis are the network identifiers of the tunnels that a packet came in.
type vnis struct{ geneve, vxlan uint32 }

// noTunnel are those of a packet that came in none.
func noTunnel() vnis { return vnis{noVNI, noVNI} }

// decapsulate returns the VNIs and the inner frame of one datagram, or why Zeek
// drops it, as the name of a weird.
type decapsulate func(datagram []byte) (v vnis, frame []byte, weird string)

// stripVXLAN removes the header of RFC 7348 section 5.
func stripVXLAN(d []byte) (vnis, []byte, string) {
	const header, validVNI = 8, 0x08
	v := noTunnel()
	switch {
	case len(d) < header:
		return v, nil, "skipped_packet"
	case d[0]&validVNI == 0:
		return v, nil, "vxlan_unset_I_flag"
	}
	v.vxlan = binary.BigEndian.Uint32(d[4:]) >> 8
	return v, d[header:], ""
}

// stripGENEVE removes the header of RFC 8926 section 3.4 with its options.
// Like Zeek it takes the link type from the listener, not from the header.
func stripGENEVE(d []byte) (vnis, []byte, string) {
	const fixed = 8
	v := noTunnel()
	if len(d) < fixed {
		return v, nil, "skipped_packet"
	}
	if d[0]>>6 != 0 {
		return v, nil, "geneve_invalid_version"
	}
	header := fixed + 4*int(d[0]&0x3f)
	if len(d) < header {
		return v, nil, "geneve_too_short"
	}
	v.geneve = binary.BigEndian.Uint32(d[4:]) >> 8
	return v, d[header:], ""
}

// stripBoth removes GENEVE, the headers of IPv4 and UDP, and VXLAN, as Zeek does:
// there is no Ethernet between them, it knows no IPv6 there, and it asks for no port.
func stripBoth(d []byte) (vnis, []byte, string) {
	const fixed, udp, protocolAt = 20, 8, 9
	outer, d, weird := stripGENEVE(d)
	if weird != "" {
		return outer, nil, weird
	}
	if len(d) < fixed {
		return outer, nil, "short_IP_in_GENEVE"
	}
	if d[0]>>4 != 4 {
		return outer, nil, "unhandled IP version"
	}
	header := 4 * int(d[0]&0x0f)
	if header < fixed || header > len(d) {
		return outer, nil, "invalid_IP_header_length"
	}
	if d[protocolAt] != protoUDP {
		return outer, nil, "non_UDP_proto"
	}
	if len(d) < header+udp {
		return outer, nil, "skipped_packet"
	}
	inner, frame, weird := stripVXLAN(d[header+udp:])
	return vnis{outer.geneve, inner.vxlan}, frame, weird
}

// decapsulators are the encapsulations by what Zeek calls them.
func decapsulators() map[string]decapsulate {
	return map[string]decapsulate{"vxlan": stripVXLAN, "geneve": stripGENEVE, "geneve+vxlan": stripBoth}
}
