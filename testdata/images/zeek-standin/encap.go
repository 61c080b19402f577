package main

import "encoding/binary"

// noVNI is logged for packets that came in no tunnel, as Zeek does.
const noVNI = ^uint32(0)

// decapsulate returns the VNI and the inner Ethernet frame of one datagram.
type decapsulate func(datagram []byte) (vni uint32, frame []byte, ok bool)

// stripVXLAN removes the header of RFC 7348 section 5.
func stripVXLAN(d []byte) (uint32, []byte, bool) {
	const header, validVNI = 8, 0x08
	if len(d) < header || d[0]&validVNI == 0 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint32(d[4:]) >> 8, d[header:], true
}

// stripGENEVE removes the header of RFC 8926 section 3.4 with its options.
// Like Zeek it takes the link type from the listener, not from the header.
func stripGENEVE(d []byte) (uint32, []byte, bool) {
	const fixed = 8
	if len(d) < fixed || d[0]>>6 != 0 {
		return 0, nil, false
	}
	header := fixed + 4*int(d[0]&0x3f)
	if len(d) < header {
		return 0, nil, false
	}
	return binary.BigEndian.Uint32(d[4:]) >> 8, d[header:], true
}

// decapsulator picks the function for a listener's encapsulation.
func decapsulator(encap string) decapsulate {
	if encap == "geneve" {
		return stripGENEVE
	}
	return stripVXLAN
}
