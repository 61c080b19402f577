package encap

import (
	"encoding/binary"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Bits of IEEE 802.11 headers (IEEE 802.11-2020 sections 9.2.4 and 9.3.2).
const (
	dot11TypeMask  = 0x0c // first byte of the frame control
	dot11TypeData  = 0x08
	dot11NoData    = 0x40 // of a data frame's subtype
	dot11QoS       = 0x80 // likewise
	dot11ToDS      = 0x01 // second byte of the frame control
	dot11FromDS    = 0x02
	dot11Protected = 0x40
	dot11Order     = 0x80 // an HT control field follows, in QoS frames
	dot11AMSDU     = 0x80 // first byte of the QoS control field

	dot11HeaderLen   = 24
	dot11SubframeLen = 14
)

// Bits of radiotap (https://www.radiotap.org).
const (
	radiotapMinLen  = 8
	radiotapTSFT    = 1 << 0 // presence of the 8-byte timer
	radiotapFlags   = 1 << 1 // presence of the flags
	radiotapMore    = 1 << 31
	radiotapFCS     = 0x10 // flag: the frame ends with its frame check sequence
	radiotapDataPad = 0x20 // flag: the 802.11 header is padded to 4 bytes
	fcsLen          = 4
)

// normaliseDot11 handles LINKTYPE_IEEE802_11. Data frames in the clear become
// Ethernet frames, an A-MSDU several; management and control frames, data
// frames without data, protected ones and all fragments but the first carry no
// packet that could be read.
func normaliseDot11(n *inner, data []byte, length int) forward.Refusal {
	return n.setDot11(data, length, false)
}

// normaliseRadiotap handles LINKTYPE_IEEE802_11_RADIOTAP: it walks over the
// radiotap header, whose flags tell of a frame check sequence and of padding.
func normaliseRadiotap(n *inner, data []byte, length int) forward.Refusal {
	if len(data) < radiotapMinLen || data[0] != 0 {
		return forward.RefusedMalformed
	}
	size := int(binary.LittleEndian.Uint16(data[2:]))
	if size < radiotapMinLen || size > len(data) {
		return forward.RefusedMalformed
	}
	flags := radiotapFlagsOf(data[:size])
	data, length = data[size:], length-size
	if flags&radiotapFCS != 0 {
		length = max(length-fcsLen, 0)
		data = data[:min(len(data), length)]
	}
	return n.setDot11(data, length, flags&radiotapDataPad != 0)
}

// radiotapFlagsOf reads the flags field, 0 where there is none. Fields are
// aligned to their size; only the timer comes before.
func radiotapFlagsOf(header []byte) byte {
	present := binary.LittleEndian.Uint32(header[4:])
	at := radiotapMinLen
	for word := present; word&radiotapMore != 0; at += 4 {
		if len(header) < at+4 {
			return 0
		}
		word = binary.LittleEndian.Uint32(header[at:])
	}
	if present&radiotapTSFT != 0 {
		at = (at+7)&^7 + 8
	}
	if present&radiotapFlags == 0 || len(header) <= at {
		return 0
	}
	return header[at]
}

func (n *inner) setDot11(data []byte, length int, padded bool) forward.Refusal {
	switch {
	case len(data) < 2 || data[0]&3 != 0: // protocol version
		return forward.RefusedMalformed
	case data[0]&dot11TypeMask != dot11TypeData || data[0]&dot11NoData != 0 || data[1]&dot11Protected != 0:
		return forward.SkippedNoPacket
	case len(data) < dot11HeaderLen:
		return forward.RefusedMalformed
	case data[22]&0x0f != 0: // fragment number
		return forward.SkippedNoPacket
	}
	size, aggregate := dot11Length(data)
	if padded {
		size = (size + 3) &^ 3
	}
	if len(data) < size {
		return forward.RefusedMalformed
	}
	body, bodyLength := data[size:], length-size
	if aggregate {
		n.more, n.moreLength = body, bodyLength
		if !n.next() {
			return forward.RefusedMalformed
		}
		return forward.RefusedNot
	}
	dst, src := dot11Addresses(data)
	return n.setLLC(dst, src, body, bodyLength)
}

// dot11Length is the length of a data frame's header, and whether an A-MSDU
// follows it. The header's fixed part is there.
func dot11Length(data []byte) (size int, aggregate bool) {
	size = dot11HeaderLen
	if data[1]&(dot11ToDS|dot11FromDS) == dot11ToDS|dot11FromDS {
		size += 6
	}
	if data[0]&dot11QoS != 0 {
		aggregate = len(data) > size && data[size]&dot11AMSDU != 0
		size += 2
		if data[1]&dot11Order != 0 {
			size += 4
		}
	}
	return size, aggregate
}

// dot11Addresses finds destination and source among the up to four addresses
// (IEEE 802.11-2020 table 9-30). The header is there in full.
func dot11Addresses(data []byte) (dst, src mac) {
	a1, a2, a3 := mac(data[4:10]), mac(data[10:16]), mac(data[16:22])
	switch data[1] & (dot11ToDS | dot11FromDS) {
	case 0:
		return a1, a2
	case dot11ToDS:
		return a3, a2
	case dot11FromDS:
		return a1, a3
	}
	return a3, mac(data[24:30])
}

// next moves on to the next subframe of an A-MSDU: destination, source, length,
// LLC, padded to 4 bytes (IEEE 802.11-2020 section 9.3.2.2.2). It reports
// whether there was one with an LLC header.
func (n *inner) next() bool {
	for len(n.more) >= dot11SubframeLen {
		sub, subLength := n.more, n.moreLength
		length := int(binary.BigEndian.Uint16(sub[12:]))
		end := min(dot11SubframeLen+length, len(sub))
		step := (dot11SubframeLen + length + 3) &^ 3
		n.more, n.moreLength = sub[min(step, len(sub)):], max(subLength-step, 0)
		if n.setLLC(mac(sub[:6]), mac(sub[6:12]), sub[dot11SubframeLen:end], length) == forward.RefusedNot {
			return true
		}
	}
	return false
}
