package encap

import (
	"bytes"
	"slices"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
)

// TestRawIP: what a service that mirrors IP packets sends of each frame.
func TestRawIP(t *testing.T) {
	e, err := New(Config{Kind: GENEVE, RawIP: true})
	if err != nil {
		t.Fatal(err)
	}
	short := ip4(1, 2, 17, 0, udp(1, 2, []byte("x")))
	for _, tt := range []struct {
		name  string
		lt    forward.LinkType
		frame []byte
		want  []byte
		proto []byte
	}{
		{"IPv4", 1, ether(1, 2, 0x0800, ipPacket), ipPacket, be16(0x0800)},
		{"IPv6 in QinQ", 1, vlanTag(ethertyped(vlanTag(ether(1, 2, 0x86dd, ip6Packet), 3), 0x88a8), 4), ip6Packet, be16(0x86dd)},
		{"Ethernet's padding", 1, slices.Concat(ether(1, 2, 0x0800, short), make([]byte, 17)), short, be16(0x0800)},
		{"raw IPv6", 101, ip6Packet, ip6Packet, be16(0x86dd)},
		{"cooked", 113, slices.Concat(cooked1(0, 1, macB, 0x0800), ipPacket), ipPacket, be16(0x0800)},
		{"ARP", 1, ether(1, 2, 0x0806, arpPacket), nil, nil},
		{"not IP in spite of its EtherType", 1, ether(1, 2, 0x0800, arpPacket), nil, nil},
	} {
		var b forward.Batch
		out := e.Encapsulate(&b, &forward.Frame{Data: tt.frame, Length: len(tt.frame), LinkType: tt.lt})
		if tt.want == nil {
			if out != (forward.Outcome{Refusal: forward.SkippedNoPacket}) || len(b.Datagrams) != 0 {
				t.Errorf("%s: %+v", tt.name, out)
			}
			continue
		}
		if out.Refusal != 0 || !bytes.Equal(b.Payload(0)[8:], tt.want) || !bytes.Equal(b.Payload(0)[2:4], tt.proto) || out.Inner != len(tt.want) {
			t.Errorf("%s: %+v, %x", tt.name, out, b.Buf)
		}
		if h, _ := flowHashIP(tt.want); b.Datagrams[0].Port != e.port(h) {
			t.Errorf("%s: port is not that of the flow", tt.name)
		}
	}
}

func TestRawIPResegments(t *testing.T) {
	e, err := New(Config{Kind: GENEVE, RawIP: true, ResegmentAll: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, frame := range [][]byte{superFrame4(30000, 0x18), vlanTag(superFrame6(30000, 0x19), 3)} {
		var b forward.Batch
		out := e.Encapsulate(&b, &forward.Frame{Data: frame, Length: len(frame), LinkType: forward.LinkEthernet})
		if out.Flags != forward.Resegmented {
			t.Fatalf("%+v", out)
		}
		super, _ := decode(frame)
		var segments [][]byte
		for _, p := range payloads(&b, 8) {
			segments = append(segments, ether(1, 2, int(b.Buf[2])<<8|int(b.Buf[3]), p)) // for the decoder
		}
		checkSegments(t, super, segments, 1500, payloadBytes(30000), true)
	}
}
