package encap

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Parts of the expected frames.
var (
	ipPacket  = tcp4Frame(20, 1)[14:]
	ip6Packet = tcp6Frame(20, 1)[14:]
	arpPacket = slices.Concat(be16(1), be16(0x0800), []byte{6, 4, 0, 1}, payloadBytes(20))
	macA      = []byte{0, 0x16, 0x3e, 0, 0, 1}
	macB      = []byte{0, 0x16, 0x3e, 0, 0, 2}
	macC      = []byte{0, 0x16, 0x3e, 0, 0, 3}
	macD      = []byte{0, 0x16, 0x3e, 0, 0, 4}
	synthetic = slices.Concat([]byte{2, 0x5a, 0x45, 0x45, 0x4b, 2}, []byte{2, 0x5a, 0x45, 0x45, 0x4b, 1})
	stp       = slices.Concat([]byte{0x42, 0x42, 3}, payloadBytes(35))
)

func cat(parts ...[]byte) []byte { return slices.Concat(parts...) }

func le16(v int) []byte { return binary.LittleEndian.AppendUint16(nil, uint16(v)) }
func le32(v int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(v)) }

func cooked1(kind, hardware int, addr []byte, proto int) []byte {
	return cat(be16(kind), be16(hardware), be16(len(addr)), addr, make([]byte, 8-len(addr)), be16(proto))
}

func cooked2(kind, hardware int, addr []byte, proto int) []byte {
	return cat(be16(proto), be16(0), be32(3), be16(hardware), []byte{byte(kind), byte(len(addr))}, addr, make([]byte, 8-len(addr)))
}

// wlan is an 802.11 header without QoS: frame control, then addresses 1 to 3.
func wlan(fc0, fc1 byte) []byte {
	return cat([]byte{fc0, fc1, 0, 0}, macA, macB, macC, []byte{0, 0})
}

// tlv is an NFLOG attribute, padded.
func tlv(order binary.AppendByteOrder, kind int, value []byte) []byte {
	out := order.AppendUint16(nil, uint16(4+len(value)))
	out = append(order.AppendUint16(out, uint16(kind)), value...)
	return append(out, make([]byte, -len(value)&3)...)
}

type normaliseCase struct {
	name string
	lt   forward.LinkType
	data []byte
	want [][]byte // Ethernet frames; none where refused
	why  forward.Refusal
}

func normaliseCases() []normaliseCase {
	ip := cat(synthetic, be16(0x0800), ipPacket)
	ip6 := cat(synthetic, be16(0x86dd), ip6Packet)
	snapIP := snap(0x0800, ipPacket)
	fcs := []byte{0xde, 0xad, 0xbe, 0xef}
	qos := func(control int) []byte { return le16(control) }
	sub := func(payload []byte) []byte { return cat(macA, macB, be16(len(payload)), payload) }
	padded := func(b []byte) []byte { return append(slices.Clone(b), make([]byte, -len(b)&3)...) }
	ciscoSNAP := cat([]byte{0xaa, 0xaa, 3, 0, 0, 0x0c}, be16(0x2000), payloadBytes(30))
	one := func(b []byte) [][]byte { return [][]byte{b} }
	return append(wrappedCases(), []normaliseCase{
		{"raw 101, IPv4", 101, ipPacket, one(ip), 0},
		{"raw 101, IPv6", 101, ip6Packet, one(ip6), 0},
		{"raw 12", 12, ipPacket, one(ip), 0},
		{"raw 14", 14, ip6Packet, one(ip6), 0},
		{"IPv4 228", 228, ipPacket, one(ip), 0},
		{"IPv6 229", 229, ip6Packet, one(ip6), 0},
		{"raw, no IP version", 101, []byte{0x20, 1, 2, 3}, nil, forward.RefusedMalformed},
		{"raw, empty", 101, nil, nil, forward.RefusedMalformed},

		{"null, little endian", 0, cat(le32(2), ipPacket), one(ip), 0},
		{"null, big endian", 0, cat(be32(2), ipPacket), one(ip), 0},
		{"null, Linux IPv6", 0, cat(le32(10), ip6Packet), one(ip6), 0},
		{"null, NetBSD IPv6", 0, cat(le32(24), ip6Packet), one(ip6), 0},
		{"null, FreeBSD IPv6", 0, cat(le32(28), ip6Packet), one(ip6), 0},
		{"null, macOS IPv6", 0, cat(be32(30), ip6Packet), one(ip6), 0},
		{"null, Windows IPv6", 0, cat(le32(23), ip6Packet), one(ip6), 0},
		{"null, an EtherType", 0, cat(be32(0x0806), arpPacket), one(cat(synthetic, be16(0x0806), arpPacket)), 0},
		{"null, AppleTalk", 0, cat(le32(16), ipPacket), nil, forward.SkippedNoPacket},
		{"null, too short", 0, []byte{2, 0, 0, 0}, nil, forward.RefusedMalformed},
		{"loop", 108, cat(be32(24), ip6Packet), one(ip6), 0},

		{"SLL, IPv4", 113, cat(cooked1(0, 1, macB, 0x0800), ipPacket), one(cat(synthetic[:6], macB, be16(0x0800), ipPacket)), 0},
		{"SLL, broadcast ARP", 113, cat(cooked1(1, 1, macB, 0x0806), arpPacket),
			one(cat(bytes.Repeat([]byte{0xff}, 6), macB, be16(0x0806), arpPacket)), 0},
		{"SLL, tunnel without addresses", 113, cat(cooked1(4, 65534, nil, 0x86dd), ip6Packet), one(ip6), 0},
		{"SLL, VLAN", 113, cat(cooked1(0, 1, macB, 0x8100), be16(5), be16(0x0800), ipPacket),
			one(cat(synthetic[:6], macB, be16(0x8100), be16(5), be16(0x0800), ipPacket)), 0},
		{"SLL, 802.2", 113, cat(cooked1(2, 1, macB, 4), stp), one(cat(synthetic[:6], macB, be16(len(stp)), stp)), 0},
		{"SLL, 802.2 with SNAP", 113, cat(cooked1(2, 1, macB, 4), snapIP), one(cat(synthetic[:6], macB, be16(0x0800), ipPacket)), 0},
		{"SLL, Novell 802.3", 113, cat(cooked1(2, 1, macB, 1), []byte{0xff, 0xff, 0, 9}), one(cat(synthetic[:6], macB, be16(4), []byte{0xff, 0xff, 0, 9})), 0},
		{"SLL, CAN", 113, cat(cooked1(2, 280, nil, 0x0c), ipPacket), nil, forward.SkippedNoPacket},
		{"SLL, netlink", 113, cat(cooked1(4, 824, nil, 0x0800), ipPacket), nil, forward.SkippedNoPacket},
		{"SLL, 802.11", 113, cat(cooked1(0, 801, macB, 4), wlan(0x08, 0), snapIP), one(cat(macA, macB, be16(0x0800), ipPacket)), 0},
		{"SLL, too short", 113, make([]byte, 15), nil, forward.RefusedMalformed},
		{"SLL2, IPv6", 276, cat(cooked2(0, 1, macB, 0x86dd), ip6Packet), one(cat(synthetic[:6], macB, be16(0x86dd), ip6Packet)), 0},
		{"SLL2, broadcast ARP", 276, cat(cooked2(1, 1, macB, 0x0806), arpPacket),
			one(cat(bytes.Repeat([]byte{0xff}, 6), macB, be16(0x0806), arpPacket)), 0},
		{"SLL2, 802.2", 276, cat(cooked2(2, 1, macB, 4), stp), one(cat(synthetic[:6], macB, be16(len(stp)), stp)), 0},
		{"SLL2, too short", 276, make([]byte, 19), nil, forward.RefusedMalformed},

		{"PPP with ff03", 9, cat([]byte{0xff, 3}, be16(0x21), ipPacket), one(ip), 0},
		{"PPP without", 9, cat(be16(0x57), ip6Packet), one(ip6), 0},
		{"PPP, protocol in one byte", 9, cat([]byte{0xff, 3, 0x21}, ipPacket), one(ip), 0},
		{"PPP, neither", 9, cat([]byte{0x57}, ip6Packet), one(ip6), 0},
		{"PPP, MPLS", 9, cat(be16(0x281), be32(0x100), ipPacket), one(cat(synthetic, be16(0x8847), be32(0x100), ipPacket)), 0},
		{"PPP, LCP", 9, cat([]byte{0xff, 3}, be16(0xc021), payloadBytes(10)), nil, forward.SkippedNoPacket},
		{"PPP, IPCP", 50, cat([]byte{0xff, 3}, be16(0x8021), payloadBytes(10)), nil, forward.SkippedNoPacket},
		{"PPP in HDLC", 50, cat([]byte{0xff, 3}, be16(0x21), ipPacket), one(ip), 0},
		{"Cisco HDLC", 50, cat([]byte{0x0f, 0}, be16(0x86dd), ip6Packet), one(ip6), 0},
		{"Cisco HDLC, SLARP", 50, cat([]byte{0x8f, 0}, be16(0x8035), payloadBytes(10)), nil, forward.SkippedNoPacket},
		{"PPP, too short", 9, []byte{0xff, 3, 0}, nil, forward.RefusedMalformed},

		{"FDDI, SNAP", 10, cat([]byte{0x50}, macA, macB, snapIP), one(cat(macA, macB, be16(0x0800), ipPacket)), 0},
		{"FDDI, priority", 10, cat([]byte{0x57}, macA, macB, snapIP), one(cat(macA, macB, be16(0x0800), ipPacket)), 0},
		{"FDDI, LLC", 10, cat([]byte{0x50}, macA, macB, stp), one(cat(macA, macB, be16(len(stp)), stp)), 0},
		{"FDDI, SNAP of a company", 10, cat([]byte{0x50}, macA, macB, ciscoSNAP), one(cat(macA, macB, be16(len(ciscoSNAP)), ciscoSNAP)), 0},
		{"FDDI, long LLC", 10, cat([]byte{0x50}, macA, macB, stp, make([]byte, 2000)), one(cat(macA, macB, be16(0x8870), stp, make([]byte, 2000))), 0},
		{"FDDI, SMT", 10, cat([]byte{0x41}, macA, macB, snapIP), nil, forward.SkippedNoPacket},
		{"FDDI, too short", 10, make([]byte, 12), nil, forward.RefusedMalformed},

		{"802.11, ad hoc", 105, cat(wlan(0x08, 0), snapIP), one(cat(macA, macB, be16(0x0800), ipPacket)), 0},
		{"802.11, to DS", 105, cat(wlan(0x08, 1), snapIP), one(cat(macC, macB, be16(0x0800), ipPacket)), 0},
		{"802.11, from DS", 105, cat(wlan(0x08, 2), snapIP), one(cat(macA, macC, be16(0x0800), ipPacket)), 0},
		{"802.11, four addresses", 105, cat(wlan(0x08, 3), macD, snapIP), one(cat(macC, macD, be16(0x0800), ipPacket)), 0},
		{"802.11, QoS", 105, cat(wlan(0x88, 1), qos(5), snapIP), one(cat(macC, macB, be16(0x0800), ipPacket)), 0},
		{"802.11, QoS, four addresses, HT control", 105, cat(wlan(0x88, 0x83), macD, qos(5), le32(7), snapIP),
			one(cat(macC, macD, be16(0x0800), ipPacket)), 0},
		{"802.11, LLC without SNAP", 105, cat(wlan(0x08, 1), stp), one(cat(macC, macB, be16(len(stp)), stp)), 0},
		{"802.11, A-MSDU", 105, cat(wlan(0x88, 1), qos(0x80), padded(sub(snap(0x0806, arpPacket))), padded(sub(snapIP)), sub(stp)),
			[][]byte{cat(macA, macB, be16(0x0806), arpPacket), cat(macA, macB, be16(0x0800), ipPacket), cat(macA, macB, be16(len(stp)), stp)}, 0},
		{"802.11, protected", 105, cat(wlan(0x08, 0x41), snapIP), nil, forward.SkippedNoPacket},
		{"802.11, no data", 105, wlan(0x48, 1), nil, forward.SkippedNoPacket},
		{"802.11, beacon", 105, cat(wlan(0x80, 0), payloadBytes(60)), nil, forward.SkippedNoPacket},
		{"802.11, acknowledgement", 105, cat([]byte{0xd4, 0, 0, 0}, macA), nil, forward.SkippedNoPacket},
		{"802.11, later fragment", 105, cat(wlan(0x08, 1)[:22], []byte{1, 0}, snapIP), nil, forward.SkippedNoPacket},
		{"802.11, another version", 105, cat(wlan(0x09, 1), snapIP), nil, forward.RefusedMalformed},
		{"802.11, too short", 105, wlan(0x08, 1)[:23], nil, forward.RefusedMalformed},
		{"radiotap", 127, cat([]byte{0, 0, 8, 0}, le32(0), wlan(0x08, 1), snapIP), one(cat(macC, macB, be16(0x0800), ipPacket)), 0},
		{"radiotap, timer, FCS", 127, cat([]byte{0, 0, 17, 0}, le32(3), make([]byte, 8), []byte{0x10}, wlan(0x08, 1), snapIP, fcs),
			one(cat(macC, macB, be16(0x0800), ipPacket)), 0},
		{"radiotap, two bitmaps, FCS", 127, cat([]byte{0, 0, 13, 0}, le32(1<<31|2), le32(0), []byte{0x10}, wlan(0x08, 1), snapIP, fcs),
			one(cat(macC, macB, be16(0x0800), ipPacket)), 0},
		{"radiotap, header padded", 127, cat([]byte{0, 0, 9, 0}, le32(2), []byte{0x20}, wlan(0x88, 1), qos(0), []byte{0, 0}, snapIP),
			one(cat(macC, macB, be16(0x0800), ipPacket)), 0},
		{"radiotap, too long", 127, cat([]byte{0, 0, 90, 0}, le32(0), wlan(0x08, 1)), nil, forward.RefusedMalformed},

		{"NFLOG, little endian", 239, cat([]byte{2, 0}, be16(5), tlv(binary.LittleEndian, 1, cat(be16(0x0800), []byte{1, 0})),
			tlv(binary.LittleEndian, 10, []byte("drop\x00")), tlv(binary.LittleEndian, 9, ipPacket)), one(ip), 0},
		{"NFLOG, big endian", 239, cat([]byte{10, 0}, be16(5), tlv(binary.BigEndian, 1, cat(be16(0x86dd), []byte{1, 0})),
			tlv(binary.BigEndian, 9, ip6Packet)), one(ip6), 0},
		{"NFLOG, ARP", 239, cat([]byte{3, 0}, be16(5), tlv(binary.LittleEndian, 1, cat(be16(0x0806), []byte{1, 0})),
			tlv(binary.LittleEndian, 9, arpPacket)), one(cat(synthetic, be16(0x0806), arpPacket)), 0},
		{"NFLOG, a prefix before and behind", 239, cat([]byte{2, 0}, be16(5), tlv(binary.LittleEndian, 10, []byte("DROP in: \x00")),
			tlv(binary.LittleEndian, 1, cat(be16(0x0800), []byte{1, 0})), tlv(binary.LittleEndian, 9, ipPacket)), one(ip), 0},
		{"NFLOG, no payload", 239, cat([]byte{2, 0}, be16(5), tlv(binary.LittleEndian, 10, []byte("x\x00"))), nil, forward.SkippedNoPacket},
		{"NFLOG, broken attribute", 239, cat([]byte{2, 0}, be16(5), le16(3), le16(9), ipPacket), nil, forward.RefusedMalformed},

		{"802.15.4", 195, ipPacket, nil, forward.RefusedLinkType},
		{"Ethernet, empty", 1, nil, nil, forward.RefusedMalformed},
		{"Ethernet, a stump", 1, []byte{1, 2, 3}, one([]byte{1, 2, 3}), 0},
	}...)
}

// payloads are the inner frames of a batch.
func payloads(b *forward.Batch, headerLen int) [][]byte {
	var out [][]byte
	for i := range b.Datagrams {
		out = append(out, b.Payload(i)[headerLen:])
	}
	return out
}

func TestNormalise(t *testing.T) {
	e, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range normaliseCases() {
		var b forward.Batch
		out := e.Encapsulate(&b, &forward.Frame{Data: tt.data, Length: len(tt.data), LinkType: tt.lt})
		got := payloads(&b, 8)
		if out.Refusal != tt.why || !slices.EqualFunc(got, tt.want, bytes.Equal) {
			t.Errorf("%s: %v\n got %x\nwant %x", tt.name, out.Refusal, got, tt.want)
			continue
		}
		inner := len(slices.Concat(got...))
		var flags forward.OutcomeFlags
		if tt.lt != forward.LinkEthernet && tt.why == 0 {
			flags = forward.Normalised
		}
		if out.Inner != inner || out.Flags != flags {
			t.Errorf("%s: outcome %+v, %d inner bytes", tt.name, out, inner)
		}
	}
}

// Cut by one byte, every frame that passes says so, and padding restores its
// length; all else is a clean refusal.
func TestNormaliseCutFrames(t *testing.T) {
	plain, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	padding, err := New(Config{PadCut: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range normaliseCases() {
		if tt.why != 0 || len(tt.data) < 4 {
			continue
		}
		fcs := 0
		if bytes.HasSuffix(tt.data, []byte{0xde, 0xad, 0xbe, 0xef}) {
			fcs = 4 // is not sent, so its loss is none
		}
		f := forward.Frame{Data: tt.data[:len(tt.data)-1-fcs], Length: len(tt.data), LinkType: tt.lt}
		whole := slices.Concat(tt.want...)
		var b forward.Batch
		out := plain.Encapsulate(&b, &f)
		if got := slices.Concat(payloads(&b, 8)...); out.Refusal != 0 || out.Flags&forward.CutBySnap == 0 || !bytes.Equal(got, whole[:len(whole)-1]) {
			t.Errorf("%s: cut, %+v\n got %x\nwant %x", tt.name, out, got, whole[:len(whole)-1])
		}
		b.Reset()
		out = padding.Encapsulate(&b, &f)
		want := append(slices.Clone(whole[:len(whole)-1]), 0)
		if got := slices.Concat(payloads(&b, 8)...); out.Flags&(forward.CutBySnap|forward.Padded) != forward.CutBySnap|forward.Padded || !bytes.Equal(got, want) {
			t.Errorf("%s: padded, %+v\n got %x\nwant %x", tt.name, out, got, want)
		}
	}
}

// FuzzNormalise: no panic, nothing appended where refused, and what passes
// consists of the frame's own bytes behind an Ethernet header.
func FuzzNormalise(f *testing.F) {
	for _, tt := range normaliseCases() {
		f.Add(uint16(tt.lt), tt.data, uint16(0), false)
	}
	for _, frame := range captureSeeds(f) {
		f.Add(uint16(frame.LinkType), frame.Data, uint16(frame.Length-len(frame.Data)), true)
	}
	var encapsulators [2]*Encapsulator
	for i := range encapsulators {
		var err error
		if encapsulators[i], err = New(Config{VNI: 5, PadCut: i == 1}); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, lt uint16, data []byte, cut uint16, pad bool) {
		e := encapsulators[0]
		if pad {
			e = encapsulators[1]
		}
		frame := forward.Frame{Data: data, Length: len(data) + int(cut), LinkType: forward.LinkType(lt)}
		before := slices.Clone(data)
		b := forward.Batch{Buf: []byte("before"), Datagrams: make([]forward.Datagram, 1)}
		out := e.Encapsulate(&b, &frame)
		if !bytes.Equal(before, data) {
			t.Fatal("the frame was changed")
		}
		checkBatch(t, &b, out, len("before"), 1, 8)
		if out.Refusal != forward.RefusedLinkType && !Supported(frame.LinkType) || out.Refusal == forward.RefusedLinkType && Supported(frame.LinkType) && !holdsAny(frame.LinkType) {
			t.Fatalf("%v, but supported: %v", out.Refusal, Supported(frame.LinkType))
		}
		if out.Refusal != 0 || out.Flags&(forward.Resegmented|forward.Padded|forward.LengthRepaired) != 0 {
			return
		}
		for i := 1; i < len(b.Datagrams); i++ {
			inner := b.Payload(i)[8:]
			if frame.LinkType == forward.LinkEthernet && !bytes.Equal(inner, data) {
				t.Fatal("an Ethernet frame was changed")
			}
			if frame.LinkType != forward.LinkEthernet && (len(inner) < 14 || !bytes.Contains(data, inner[14:])) {
				t.Fatalf("%x is not from %x", inner, data)
			}
		}
	})
}

// holdsAny reports whether frames of the link type tell the link type inside.
func holdsAny(lt forward.LinkType) bool {
	return slices.Contains([]forward.LinkType{forward.LinkPKTAP, forward.LinkPPI, forward.LinkERF}, lt)
}

// checkBatch checks what holds for every outcome: contiguous datagrams behind
// what was in the batch, within the limits, and Inner.
func checkBatch(t *testing.T, b *forward.Batch, out forward.Outcome, bytesBefore, datagramsBefore, headerLen int) {
	t.Helper()
	if out.Refusal != forward.RefusedNot {
		if len(b.Buf) != bytesBefore || len(b.Datagrams) != datagramsBefore || out.Flags != 0 || out.Inner != 0 {
			t.Fatalf("refused as %v, but appended or flagged: %+v", out.Refusal, out)
		}
		return
	}
	at, inner := bytesBefore, 0
	for _, d := range b.Datagrams[datagramsBefore:] {
		if d.Off != at || d.Len <= headerLen || d.Len > DefaultMaxDatagram || d.Port < DefaultPortMin {
			t.Fatalf("datagram %+v at %d", d, at)
		}
		at += d.Len
		inner += d.Len - headerLen
	}
	if at != len(b.Buf) || inner != out.Inner || inner == 0 {
		t.Fatalf("%d bytes in the batch, %d in datagrams; %d inner, outcome %+v", len(b.Buf), at, inner, out)
	}
}
