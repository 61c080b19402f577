package encap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

// merged is an Ethernet frame as an offload leaves it: a transport header in front
// of n bytes that count up, in IPv4 or IPv6, behind a VLAN tag or none.
func merged(v6, tagged, udp bool, n int) []byte {
	frame := []byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01")
	if tagged {
		frame = append(frame, 0x81, 0, 0, 100)
	}
	head, proto := make([]byte, 32), byte(protoTCP) // with options
	binary.BigEndian.PutUint32(head, 0x00500401)
	if udp {
		head, proto = head[:8], protoUDP
		binary.BigEndian.PutUint16(head[4:], uint16(8+n))
	} else {
		binary.BigEndian.PutUint32(head[4:], 0xffffff00) // wraps around
		head[12], head[13] = 8<<4, tcpPSH|0x10
	}
	total := len(head) + n
	if v6 {
		ip := make([]byte, ipv6Len)
		ip[0], ip[6], ip[7], ip[8], ip[24] = 0x60, proto, 64, 0xfd, 0xfd
		binary.BigEndian.PutUint16(ip[4:], uint16(total))
		frame = append(append(frame, 0x86, 0xdd), ip...)
	} else {
		ip := make([]byte, ipv4Len)
		copy(ip, []byte{0x45, 0, 0, 0, 0xff, 0xfe, 0x40, 0, 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2})
		binary.BigEndian.PutUint16(ip[2:], uint16(ipv4Len+total))
		frame = append(append(frame, 0x08, 0), ip...)
	}
	frame = append(frame, head...)
	for i := range n {
		frame = append(frame, byte(i)^byte(i>>8))
	}
	return frame
}

// Segments carry the payload once and in order, in packets of the given size, and
// every one is right in itself.
func TestSplitMakesWholePackets(t *testing.T) {
	var x Splitter
	for _, v6 := range []bool{false, true} {
		for _, tagged := range []bool{false, true} {
			for _, udp := range []bool{false, true} {
				t.Run(fmt.Sprintf("IPv6 %v, tagged %v, UDP %v", v6, tagged, udp), func(t *testing.T) {
					frame := merged(v6, tagged, udp, 10_000)
					whole := bytes.Clone(frame)
					if x.Split(frame, Merge{Size: 1448, UDP: udp, Start: -1}, false) != IsSplit {
						t.Fatal("it is not split")
					}
					var payload []byte
					n := 0
					for segment, ok := x.Next(); ok; segment, ok = x.Next() {
						payload = append(payload, checkPart(t, segment, n, v6, udp)...)
						n++
					}
					at, _, _ := locateTransport(whole, false)
					if n != 7 || !bytes.HasSuffix(whole[at.transport:], payload) || len(payload) != 10_000 {
						t.Errorf("%d segments with %d bytes", n, len(payload))
					}
					if !bytes.Equal(frame, whole) {
						t.Error("the frame was changed")
					}
				})
			}
		}
	}
}

// checkPart checks segment n by itself, and returns its payload.
func checkPart(t *testing.T, segment []byte, n int, v6, udp bool) []byte {
	t.Helper()
	at, proto, ok := locateTransport(segment, false)
	if !ok || (proto == protoUDP) != udp {
		t.Fatalf("segment %d is protocol %d", n, proto)
	}
	if length := ipLength(segment[at.ip:]); length != len(segment)-at.ip {
		t.Errorf("segment %d: length field %d of %d", n, length, len(segment)-at.ip)
	}
	before := bytes.Clone(segment)
	if !FillChecksum(segment, false) || !bytes.Equal(before, segment) {
		t.Errorf("segment %d: wrong checksum", n)
	}
	if !v6 && binary.BigEndian.Uint16(segment[at.ip+4:]) != uint16(0xfffe+n) {
		t.Errorf("segment %d: identification %#x", n, segment[at.ip+4:at.ip+6])
	}
	if udp {
		return segment[at.transport+8:]
	}
	if seq := binary.BigEndian.Uint32(segment[at.transport+4:]); seq != uint32(0xffffff00+n*1448) {
		t.Errorf("segment %d: sequence number %#x", n, seq)
	}
	return segment[at.transport+32:]
}

func TestWhatIsNotMergedIsNotSplit(t *testing.T) {
	var x Splitter
	fragment := merged(false, false, true, 5000)
	fragment[20] = 0x20 // more fragments
	proto := func(frame []byte, proto byte) []byte { frame[23] = proto; return frame }
	tcp4, udp4 := merged(false, false, false, 5000), merged(false, false, true, 5000)
	length := merged(false, false, false, 5000)
	length[17]++ // one byte more than there is
	short := merged(false, false, false, 5000)
	short[46] = 4 << 4 // a TCP header of 16 bytes
	carry := nestings()
	var numbered, gtp, erspan, quote = carry["gre, key, sequence"](1, 2, tcp4), carry["gtp-u"](1, 2, tcp4), carry["erspan II"](1, 2, tcp4),
		ether(1, 9, 0x0800, ip4(9, 1, 1, 0, slices.Concat([]byte{3, 1, 0, 0, 0, 0, 0, 0}, tcp4[14:])))
	overUDP := func(port int, payload []byte) []byte {
		return ether(1, 2, 0x0800, ip4(1, 2, 17, 0, udp(40000, port, payload)))
	}
	esp := overUDP(4500, slices.Concat(make([]byte, 8), tcp4[14:]))
	unknown := overUDP(1234, slices.Concat(make([]byte, 8), tcp4))
	contradiction := carry["vxlan"](1, 2, tcp4)
	contradiction[39]++ // the outer UDP length
	outerCut := carry["vxlan"](1, 2, tcp4)
	trailer := ether(1, 2, 0x0800, ip4(1, 2, 4, 0, slices.Concat(tcp4[14:], []byte("within the outer packet"))))
	for name, c := range map[string]struct {
		frame []byte
		m     Merge
		want  Splitting
	}{
		"small enough":                      {merged(false, false, false, 1000), Merge{Size: 1448, Start: 34}, OnePacket},
		"size 0":                            {tcp4, Merge{Start: 34}, LeftWhole},
		"a fragment":                        {fragment, Merge{Size: 1448, UDP: true, Start: 34}, LeftWhole},
		"SCTP":                              {proto(merged(false, false, true, 5000), protoSCTP), Merge{Size: 1448, Start: 34}, LeftWhole},
		"ESP":                               {proto(merged(false, false, true, 5000), 50), Merge{Size: 1448, Start: 42}, LeftWhole},
		"ESP over UDP":                      {esp, Merge{Size: 1448, Start: 14 + 28 + 8 + 20}, LeftWhole},
		"UDP said to be TCP":                {udp4, Merge{Size: 1448, Start: 34}, LeftWhole},
		"TCP said to be UDP":                {tcp4, Merge{Size: 1448, UDP: true, Start: 34}, LeftWhole},
		"another header's checksum is open": {tcp4, Merge{Size: 1448, Start: 38}, LeftWhole},
		"cut":                               {tcp4[:3000], Merge{Size: 1448, Start: 34}, LeftWhole},
		"longer than it is":                 {length, Merge{Size: 1448, Start: 34}, LeftWhole},
		"no TCP header":                     {short, Merge{Size: 1448, Start: 34}, LeftWhole},
		"nothing":                           {nil, Merge{Size: 1448, Start: -1}, LeftWhole},
		"no tunnel where there is one":      {tcp4, Merge{Size: 1448, Start: 34, Tunnel: true}, LeftWhole},
		"numbered GRE":                      {numbered, Merge{Size: 1448, Start: -1}, LeftWhole},
		"GTP-U, which has a length":         {gtp, Merge{Size: 1448, Start: -1}, LeftWhole},
		"ERSPAN":                            {erspan, Merge{Size: 1448, Start: -1}, LeftWhole},
		"a quoted packet":                   {quote, Merge{Size: 1448, Start: -1}, LeftWhole},
		"an unknown tunnel":                 {unknown, Merge{Size: 1448, Start: -1}, LeftWhole},
		"merged datagrams, or what they carry": {carry["vxlan"](1, 2, udp4), Merge{Size: 1448, UDP: true, Start: -1},
			LeftWhole},
		"lengths contradict each other": {contradiction, Merge{Size: 1448, Start: 14 + 36 + 34}, LeftWhole},
		"a tunnel's packet, cut":        {outerCut[:3000], Merge{Size: 1448, Start: 14 + 36 + 34}, LeftWhole},
		"more than the inner packet":    {trailer, Merge{Size: 1448, Start: 54}, LeftWhole},
	} {
		if got := x.Split(c.frame, c.m, false); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
		if segment, ok := x.Next(); ok {
			t.Errorf("%s: a segment of %d bytes", name, len(segment))
		}
	}
}

// The two ways to complete a checksum agree: from the pseudo-header's sum, and
// from nothing.
func TestOpenChecksumsAreCompleted(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			for _, n := range []int{0, 1, 100, 1001} {
				frame := merged(v6, false, udp, n)
				at, proto, _ := locateTransport(frame, false)
				field := map[byte]int{protoTCP: 16, protoUDP: 6}[proto]
				addresses := frame[at.ip+12 : at.ip+20]
				if v6 {
					addresses = frame[at.ip+8 : at.ip+40]
				}
				open := bytes.Clone(frame)
				pseudo := fold(sum(0, addresses) + uint64(proto) + uint64(len(frame)-at.transport))
				binary.BigEndian.PutUint16(open[at.transport+field:], pseudo)
				if !PartialChecksum(open, at.transport, field) || !FillChecksum(frame, false) || !bytes.Equal(open, frame) {
					t.Errorf("IPv6 %v, UDP %v, %d bytes: %x and %x", v6, udp, n, open[at.transport:at.transport+20], frame[at.transport:][:8])
				}
				if padded := append(bytes.Clone(frame), 1, 2, 3); !FillChecksum(padded, false) || !bytes.HasPrefix(padded, frame) {
					t.Error("padding counts")
				}
			}
		}
	}
	if PartialChecksum(make([]byte, 20), 10, 16) || PartialChecksum(make([]byte, 60), 34, 8) || FillChecksum(make([]byte, 10), false) {
		t.Error("something was written that is not there")
	}
}

func TestATagIsPutBack(t *testing.T) {
	frame := []byte("....\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x00rest")
	InsertTag(frame, 0x88a8, 0xe123)
	if want := "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xa8\xe1\x23\x08\x00rest"; string(frame) != want {
		t.Errorf("%x", frame)
	}
}

func TestSplittingDoesNotAllocate(t *testing.T) {
	var x Splitter
	frame := merged(false, false, false, 60_000)
	if n := testing.AllocsPerRun(100, func() {
		x.Split(frame, Merge{Size: 1448, Start: -1}, false)
		for _, ok := x.Next(); ok; _, ok = x.Next() {
		}
	}); n != 0 {
		t.Errorf("%.1f allocations", n)
	}
}

// Within a tunnel nothing is allocated either.
func TestSplittingATunnelDoesNotAllocate(t *testing.T) {
	var x Splitter
	frame := nestings()["geneve, options"](1, 2, merged(true, true, false, 60_000))
	if n := testing.AllocsPerRun(100, func() {
		x.Split(frame, Merge{Size: 1448, Start: -1}, false)
		for _, ok := x.Next(); ok; _, ok = x.Next() {
		}
	}); n != 0 {
		t.Errorf("%.1f allocations", n)
	}
}

// FuzzSplit: whatever is cut carries its payload once and in order, and every segment
// can be cut no further, is right in its lengths and checksums, and comes from the
// flow of the whole.
func FuzzSplit(f *testing.F) {
	f.Add(merged(false, true, false, 5000), 1448, false, -1)
	f.Add(merged(true, false, true, 5000), 100, true, -1)
	for _, carry := range nestings() {
		f.Add(carry(1, 2, merged(false, false, false, 300)), 100, false, -1)
		f.Add(carry(1, 2, merged(true, false, true, 300)), 100, true, 14+36+54)
	}
	f.Fuzz(func(t *testing.T, frame []byte, size int, udp bool, start int) {
		var x Splitter
		m := Merge{Size: size, UDP: udp, Start: start}
		if x.Split(frame, m, false) != IsSplit {
			return
		}
		whole := bytes.Clone(frame)
		var payload []byte
		for i := 0; ; i++ {
			segment, ok := x.Next()
			if !ok {
				break
			}
			if len(segment) > len(frame) || i > len(frame) {
				t.Fatalf("segment %d of %d bytes, of a frame of %d", i, len(segment), len(frame))
			}
			payload = append(payload, segment[len(x.headers):]...)
			again := bytes.Clone(segment)
			if x.super.jumbo == 0 && start >= 0 {
				var y Splitter
				if y.Split(again, m, false) != OnePacket {
					t.Fatalf("segment %d is not one packet: %x", i, segment)
				}
			}
			// What datagrams carry may differ: each may be a tunnel's.
			if s := x.super; (!udp || !carries(protoUDP, binary.BigEndian.Uint32(frame[s.tcp:]))) && s.jumbo == 0 && flowHash(segment) != flowHash(frame) {
				t.Fatalf("segment %d is of another flow", i)
			}
		}
		if s := &x.super; !bytes.Equal(payload, frame[s.payload:s.end]) || !bytes.Equal(frame, whole) {
			t.Fatalf("%d bytes of payload, want those from %d to %d", len(payload), s.payload, s.end)
		}
	})
}
