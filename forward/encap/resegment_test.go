package encap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/zeekdemo/zeekdemo/forward"
)

// segment is what gopacket, an independent decoder, finds in a TCP frame.
type segment struct {
	frame   []byte
	open    bool // the IP header gives no length
	ip4     *layers.IPv4
	ip6     *layers.IPv6
	tcp     *layers.TCP
	options []byte // of TCP
	payload []byte
}

// decode reads an IPv6 payload length of 0 as "up to the end", which gopacket
// itself does for IPv4 only.
func decode(frame []byte) (s segment, ok bool) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	s.ip6, _ = p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	if s.ip6 != nil && s.ip6.Length == 0 && s.ip6.NextHeader != layers.IPProtocolIPv6HopByHop {
		s.open = true
		at := cap(frame) - cap(s.ip6.Contents)
		frame = slices.Clone(frame)
		binary.BigEndian.PutUint16(frame[at+4:], uint16(len(frame)-at-40))
	}
	return s.decode(frame)
}

func (s segment) decode(frame []byte) (segment, bool) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	s.frame = frame
	s.ip4, _ = p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	s.ip6, _ = p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	s.tcp, _ = p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if s.tcp == nil || s.ip4 == nil && s.ip6 == nil {
		return s, false
	}
	s.options, s.payload = s.tcp.Contents[20:], s.tcp.Payload
	return s, true
}

// network returns the IP header, the packet as long as it says, and what the
// TCP checksum covers beside the segment.
func (s segment) network() (header, packet, pseudo []byte) {
	size := len(s.tcp.Contents) + len(s.tcp.Payload)
	if s.ip4 != nil {
		return s.ip4.Contents, slices.Concat(s.ip4.Contents, s.ip4.Payload), slices.Concat(s.ip4.SrcIP.To4(), s.ip4.DstIP.To4(), be16(6), be16(size))
	}
	from := s.frame[cap(s.frame)-cap(s.ip6.Contents):]
	return s.ip6.Contents, from[:min(len(from), 40+int(s.ip6.Length))], slices.Concat(s.ip6.SrcIP, s.ip6.DstIP, be32(size), be32(6))
}

// checkSegments checks segments against their super-frame: lengths, checksums,
// numbers and flags are right, and their payloads together are want.
func checkSegments(t *testing.T, super segment, segments [][]byte, mtu int, want []byte, complete bool) {
	t.Helper()
	var payload []byte
	for i, frame := range segments {
		s, ok := decode(frame)
		if !ok {
			t.Fatalf("segment %d is no TCP: %x", i, frame)
		}
		header, packet, pseudo := s.network()
		if len(packet) > mtu || !bytes.HasSuffix(frame, packet) {
			t.Fatalf("segment %d: packet of %d bytes in a frame of %d, MTU %d", i, len(packet), len(frame), mtu)
		}
		if s.ip4 != nil && (checksum16(header) != 0 || int(s.ip4.Length) != len(packet) || s.ip4.Id != super.ip4.Id+uint16(i)) {
			t.Fatalf("segment %d: wrong IPv4 header %x", i, header)
		}
		if s.ip6 != nil && int(s.ip6.Length) != len(packet)-40 {
			t.Fatalf("segment %d: wrong IPv6 header %x", i, header)
		}
		if checksum16(pseudo, s.tcp.Contents, s.tcp.Payload) != 0 {
			t.Fatalf("segment %d: wrong TCP checksum", i)
		}
		last := complete && i == len(segments)-1
		seq := super.tcp.Seq + uint32(len(payload))
		if super.tcp.SYN && i > 0 {
			seq++
		}
		if s.tcp.Seq != seq || s.tcp.Ack != super.tcp.Ack || !bytes.Equal(s.options, super.options) ||
			s.tcp.Window != super.tcp.Window || s.tcp.ACK != super.tcp.ACK || s.tcp.ECE != super.tcp.ECE {
			t.Fatalf("segment %d: %+v, super-frame %+v", i, s.tcp, super.tcp)
		}
		if s.tcp.FIN != (super.tcp.FIN && last) || s.tcp.PSH != (super.tcp.PSH && last) || s.tcp.RST != (super.tcp.RST && last) ||
			s.tcp.CWR != (super.tcp.CWR && i == 0) || s.tcp.SYN != (super.tcp.SYN && i == 0) {
			t.Fatalf("segment %d of %d: flags %+v, super-frame %+v", i, len(segments), s.tcp, super.tcp)
		}
		payload = append(payload, s.payload...)
	}
	if !bytes.Equal(payload, want) {
		t.Fatalf("payload of %d bytes, want %d", len(payload), len(want))
	}
}

func superFrame4(n int, flags byte) []byte {
	return ether(1, 2, 0x0800, ip4(1, 2, 6, 0x4000, tcp(40000, 443, 0xfffffc00, flags, true, payloadBytes(n))))
}

func superFrame6(n int, flags byte) []byte {
	return ether(1, 2, 0x86dd, ip6(1, 2, 6, tcp(40000, 443, 7, flags, true, payloadBytes(n))))
}

// withLength0 is the frame with the IP length field as transmit offloading
// leaves it.
func withLength0(frame []byte) []byte {
	out := slices.Clone(frame)
	at := 16
	if out[12] == 0x86 {
		at = 18
	}
	out[at], out[at+1] = 0, 0
	return out
}

func TestResegment(t *testing.T) {
	const payload = 64000
	destOpts := ether(1, 2, 0x86dd, ip6(1, 2, 60, slices.Concat([]byte{6, 0, 1, 4, 0, 0, 0, 0}, tcp(1, 2, 3, 0x18, false, payloadBytes(payload)))))
	for _, tt := range []struct {
		name  string
		frame []byte
		mtu   int
	}{
		{"IPv4", superFrame4(payload, 0x18), 1500},
		{"IPv4, odd MTU", superFrame4(payload, 0x10), 1333},
		{"IPv4, all flags that matter", superFrame4(payload, 0xd9), 9000},
		{"IPv4, SYN with data, RST", superFrame4(payload, 0x06), 1500},
		{"IPv4, smallest MTU", superFrame4(payload, 0x18), 68},
		{"IPv4, total length 0", withLength0(superFrame4(payload, 0x18)), 1500},
		{"IPv4, total length 0, longer than it could say", withLength0(superFrame4(180000, 0x18)), 1500},
		{"IPv4, VLAN", vlanTag(superFrame4(payload, 0x18), 3), 1500},
		{"IPv4, QinQ", vlanTag(ethertyped(vlanTag(superFrame4(payload, 0x19), 3), 0x88a8), 4), 1500},
		{"IPv6", superFrame6(payload, 0x18), 1500},
		{"IPv6, payload length 0", withLength0(superFrame6(payload, 0x19)), 1280},
		{"IPv6, VLAN", vlanTag(superFrame6(payload, 0x18), 3), 1500},
		{"IPv6, destination options", destOpts, 1500},
	} {
		for _, all := range []bool{false, true} {
			c := Config{MTU: tt.mtu, ResegmentAll: all}
			if !all {
				c.MaxDatagram = 30000 // and so the frame does not pass
			}
			t.Run(fmt.Sprint(tt.name, ", all ", all), func(t *testing.T) { checkResegmented(t, c, tt.frame) })
		}
	}
}

// checkResegmented has a super-frame re-segmented, and its payload searched in
// the segments.
func checkResegmented(t *testing.T, c Config, frame []byte) {
	t.Helper()
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	super, ok := decode(frame)
	if !ok {
		t.Fatal("gopacket sees no TCP")
	}
	want := frame[bytes.Index(frame, payloadBytes(64)):]
	var b forward.Batch
	out := e.Encapsulate(&b, &forward.Frame{Data: frame, Length: len(frame), LinkType: forward.LinkEthernet})
	flags := forward.Resegmented
	if super.open || super.ip4 != nil && binary.BigEndian.Uint16(frame[16:]) == 0 {
		flags |= forward.LengthRepaired
	}
	if out.Refusal != 0 || out.Flags != flags {
		t.Fatalf("outcome %+v", out)
	}
	segments := payloads(&b, 8)
	checkSegments(t, super, segments, c.MTU, want, true)
	if !bytes.Equal(segments[1][:12], frame[:12]) {
		t.Error("MAC addresses changed")
	}
	if len(segments) > 2 && len(segments[1]) != len(segments[0]) {
		t.Errorf("segments of %d and %d bytes", len(segments[0]), len(segments[1]))
	}
	for _, d := range b.Datagrams {
		if d.Port != b.Datagrams[0].Port {
			t.Error("ports differ")
		}
	}
}

// BIG TCP: the hop-by-hop header with the jumbo option is left out.
func TestResegmentJumbogram(t *testing.T) {
	segmentBytes := tcp(1, 2, 3, 0x18, false, payloadBytes(150000))
	packet := ip6(1, 2, 0, slices.Concat([]byte{6, 0, 0xc2, 4}, be32(8+len(segmentBytes)), segmentBytes))
	binary.BigEndian.PutUint16(packet[4:], 0)
	frame := ether(1, 2, 0x86dd, packet)
	e, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	var b forward.Batch
	out := e.Encapsulate(&b, &forward.Frame{Data: frame, Length: len(frame), LinkType: forward.LinkEthernet})
	if out.Refusal != 0 {
		t.Fatal(out.Refusal)
	}
	super, _ := decode(ether(1, 2, 0x86dd, ip6(1, 2, 6, segmentBytes)))
	checkSegments(t, super, payloads(&b, 8), 1500, payloadBytes(150000), true)
}

func TestResegmentUrgentPointer(t *testing.T) {
	frame := superFrame4(3000, 0x38)
	binary.BigEndian.PutUint16(frame[14+20+18:], 2000)
	e, err := New(Config{ResegmentAll: true})
	if err != nil {
		t.Fatal(err)
	}
	var b forward.Batch
	e.Encapsulate(&b, &forward.Frame{Data: frame, Length: len(frame), LinkType: forward.LinkEthernet})
	var got []uint16
	for _, p := range payloads(&b, 8) {
		s, _ := decode(p)
		if s.tcp.URG != (s.tcp.Urgent > 0) {
			t.Errorf("URG %v with pointer %d", s.tcp.URG, s.tcp.Urgent)
		}
		got = append(got, s.tcp.Urgent)
	}
	if !slices.Equal(got, []uint16{2000, 2000 - 1448, 0}) {
		t.Errorf("urgent pointers %v", got)
	}
}

// A super-frame that the capture cut goes as far as its captured bytes; padded,
// it goes all the way.
func TestResegmentCut(t *testing.T) {
	const captured, payload = 20000, 60000
	whole := superFrame4(payload, 0x19)
	f := forward.Frame{Data: whole[:captured], Length: len(whole), LinkType: forward.LinkEthernet}
	super, _ := decode(whole)
	for _, pad := range []bool{false, true} {
		e, err := New(Config{PadCut: pad, MaxDatagram: 10000})
		if err != nil {
			t.Fatal(err)
		}
		var b forward.Batch
		out := e.Encapsulate(&b, &f)
		want := payloadBytes(payload)[:captured-66]
		flags := forward.Resegmented | forward.CutBySnap
		if pad {
			want = append(want, make([]byte, payload-len(want))...)
			flags |= forward.Padded
		}
		if out.Refusal != 0 || out.Flags != flags {
			t.Fatalf("pad %v: outcome %+v", pad, out)
		}
		checkSegments(t, super, payloads(&b, 8), 1500, want, pad)
	}
}

func TestTooLong(t *testing.T) {
	routing := ether(1, 2, 0x86dd, ip6(1, 2, 43, slices.Concat([]byte{6, 2, 0, 1, 0, 0, 0, 0}, addr6(9), tcp(1, 2, 3, 0x18, false, payloadBytes(9000)))))
	fragment := ether(1, 2, 0x0800, ip4(1, 2, 6, 0x2000, tcp(1, 2, 3, 0x18, false, payloadBytes(9000))))
	pppoe := ether(1, 2, 0x8864, slices.Concat([]byte{0x11, 0, 0, 1}, be16(0), be16(0x21), superFrame4(9000, 0x10)[14:]))
	for name, frame := range map[string][]byte{
		"UDP":                       ether(1, 2, 0x0800, ip4(1, 2, 17, 0, udp(1, 2, payloadBytes(9000)))),
		"TCP fragment":              fragment,
		"no IP":                     ether(1, 2, 0x88b5, payloadBytes(9000)),
		"routing header":            routing,
		"PPPoE":                     pppoe,
		"a trailer is what is long": slices.Concat(superFrame4(100, 0x10), make([]byte, 9000)),
	} {
		e, err := New(Config{MaxDatagram: 4000})
		if err != nil {
			t.Fatal(err)
		}
		var b forward.Batch
		out := e.Encapsulate(&b, &forward.Frame{Data: frame, Length: len(frame), LinkType: forward.LinkEthernet})
		if out != (forward.Outcome{Refusal: forward.RefusedTooLong}) || len(b.Datagrams) != 0 || len(b.Buf) != 0 {
			t.Errorf("%s: %+v, %d datagrams", name, out, len(b.Datagrams))
		}
	}
}

// The largest frame passes, one byte more does not; padding stops at the limit.
func TestMaxDatagram(t *testing.T) {
	const limit = 3000
	e, err := New(Config{MaxDatagram: limit, PadCut: true})
	if err != nil {
		t.Fatal(err)
	}
	frame := func(n int) []byte { return ether(1, 2, 0x88b5, payloadBytes(n-14)) }
	for _, tt := range []struct {
		captured, length int
		want             forward.Refusal
		inner            int
	}{
		{limit - 8, limit - 8, 0, limit - 8},
		{limit - 7, limit - 7, forward.RefusedTooLong, 0},
		{100, limit - 8, 0, limit - 8},
		{100, limit, 0, limit - 8},
		{100, 1 << 30, 0, 100},
	} {
		var b forward.Batch
		out := e.Encapsulate(&b, &forward.Frame{Data: frame(tt.captured), Length: tt.length, LinkType: forward.LinkEthernet})
		if out.Refusal != tt.want || out.Inner != tt.inner {
			t.Errorf("%d of %d bytes: %+v", tt.captured, tt.length, out)
		}
	}
}

// FuzzResegment: whatever is re-segmented decodes, with the same payload, and
// right lengths, numbers and checksums.
func FuzzResegment(f *testing.F) {
	// Small, or the fuzzer spends its time on making them smaller.
	for _, frame := range [][]byte{
		superFrame4(600, 0x18), superFrame6(600, 0x19), withLength0(superFrame4(600, 0xd8)), withLength0(superFrame6(600, 0x10)),
		vlanTag(superFrame4(600, 0x12), 3), tcp4Frame(600, 3), vlanTag(ethertyped(vlanTag(superFrame6(600, 0x18), 3), 0x88a8), 4),
		ether(1, 2, 0x8847, slices.Concat(be32(0x100), superFrame4(600, 0x18)[14:])),
	} {
		f.Add(frame, uint16(200), uint16(4000), uint16(0), false, true)
		f.Add(frame, uint16(100), uint16(576), uint16(900), true, false)
	}
	for _, frame := range captureSeeds(f) {
		if frame.LinkType == forward.LinkEthernet && len(frame.Data) < 1000 {
			f.Add(frame.Data, uint16(68), uint16(576), uint16(frame.Length-len(frame.Data)), false, true)
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte, mtu, limit, cut uint16, pad, all bool) {
		e, err := New(Config{MTU: int(mtu), MaxDatagram: int(limit), PadCut: pad, ResegmentAll: all})
		if err != nil {
			t.Skip()
		}
		for _, tag := range [][]byte{{0x91, 0}, {0x92, 0}} { // gopacket knows 88a8 only
			frame = bytes.ReplaceAll(frame, tag, []byte{0x88, 0xa8})
		}
		if locateNetwork(frame).mac > 0 {
			t.Skip() // nor Ethernet in MPLS or in a backbone tag
		}
		var b forward.Batch
		out := e.Encapsulate(&b, &forward.Frame{Data: frame, Length: len(frame) + int(cut), LinkType: forward.LinkEthernet})
		checkBatch(t, &b, out, 0, 0, 8)
		for _, d := range b.Datagrams {
			if d.Len > e.Config().MaxDatagram {
				t.Fatalf("datagram of %d bytes, at most %d", d.Len, e.Config().MaxDatagram)
			}
		}
		if out.Flags&forward.Resegmented == 0 {
			return
		}
		if pad {
			frame, cut = append(slices.Clone(frame), make([]byte, cut)...), 0
		}
		checkCutSegments(t, payloads(&b, 8), e.Config().MTU, frame, cut == 0)
	})
}

// checkCutSegments checks the segments of a frame that may have been cut.
func checkCutSegments(t *testing.T, segments [][]byte, mtu int, frame []byte, complete bool) {
	t.Helper()
	super, ok := decode(frame)
	if !ok && super.ip6 != nil && super.ip6.NextHeader != layers.IPProtocolTCP {
		t.Skip() // gopacket also demands sense of the options in extension headers
	}
	if !ok {
		t.Fatal("re-segmented what gopacket does not see as TCP")
	}
	checkSegments(t, super, segments, mtu, super.payload, complete || len(super.payload) == 0 || isWhole(super))
}

// isWhole reports whether the IP packet was captured whole.
func isWhole(s segment) bool {
	_, packet, _ := s.network()
	if s.ip4 != nil {
		length := int(binary.BigEndian.Uint16(s.ip4.Contents[2:])) // gopacket replaces 0
		return length > 0 && length <= len(packet)
	}
	return !s.open && int(s.ip6.Length)+40 <= len(packet)
}
