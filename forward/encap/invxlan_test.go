package encap

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
)

// mirrorPreset is a mirror session to a load balancer, with a VNI.
func mirrorPreset(t *testing.T, vni uint32) Config {
	t.Helper()
	c, err := Preset("aws-mirror-gwlb")
	if err != nil {
		t.Fatal(err)
	}
	c.VNI = vni
	return c
}

// What an appliance behind the load balancer takes apart: GENEVE with its options,
// IPv4, UDP, VXLAN, the frame.
func TestVXLANInGENEVE(t *testing.T) {
	c := mirrorPreset(t, 0x1234)
	c.VNIPerLoop, c.ResegmentAll = true, true
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	var b forward.Batch
	small, super, cooked := tcp4Frame(100, 1), superFrame4(4000, 0x18), tcp4Frame(60, 1)[14:]
	for loop, f := range []forward.Frame{
		{Data: small, LinkType: forward.LinkEthernet},
		{Data: super, LinkType: forward.LinkEthernet},
		{Data: cooked, LinkType: forward.LinkRaw},
	} {
		f.Length, f.Loop = len(f.Data), loop
		if out := e.Encapsulate(&b, &f); out.Refusal != forward.RefusedNot {
			t.Fatalf("loop %d: %+v", loop, out)
		}
	}
	loops := []uint32{0, 1, 1, 1, 2}
	if len(b.Datagrams) != len(loops) {
		t.Fatalf("%d datagrams", len(b.Datagrams))
	}
	for i, loop := range loops {
		d := b.Payload(i)
		if !bytes.Equal(d[:8], []byte{8, 0, 0x08, 0, 0, 0, 0, 0}) {
			t.Errorf("%d: GENEVE header %x", i, d[:8])
		}
		ip, udp, vxlan := d[40:60], d[60:68], d[68:76]
		if ip[0] != 0x45 || ip[9] != 17 || int(binary.BigEndian.Uint16(ip[2:])) != len(d)-40 || checksum16(ip) != 0 {
			t.Errorf("%d: IP header %x of %d bytes", i, ip, len(d)-40)
		}
		if port := binary.BigEndian.Uint16(udp); port != b.Datagrams[i].Port || port == 0 || binary.BigEndian.Uint16(udp[2:]) != 4789 ||
			int(binary.BigEndian.Uint16(udp[4:])) != len(d)-60 || udp[6]|udp[7] != 0 {
			t.Errorf("%d: UDP header %x of %d bytes, the datagram is from port %d", i, udp, len(d)-60, b.Datagrams[i].Port)
		}
		if want := binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, (0x1234+loop)<<8); !bytes.Equal(vxlan, want) {
			t.Errorf("%d: VXLAN header %x, want %x", i, vxlan, want)
		}
	}
	if !bytes.Equal(b.Payload(0)[76:], small) || b.Datagrams[1].Port != b.Datagrams[3].Port {
		t.Errorf("frame %x", b.Payload(0)[76:])
	}
}

// The longest frame that passes makes the longest datagram, whose inner lengths
// hold; one byte more is refused.
func TestVXLANInGENEVEHasRoom(t *testing.T) {
	for _, most := range []int{DefaultMaxDatagram, maxMaxDatagram, 1500} {
		c := mirrorPreset(t, 1)
		c.MaxDatagram = most
		e, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		var b forward.Batch
		frame := ether(1, 2, 0x88b5, make([]byte, most-c.HeaderLen()-14)) // no TCP, which would be cut
		for range 2 {
			b.Reset()
			if out := e.Encapsulate(&b, &forward.Frame{Data: frame, Length: len(frame), LinkType: forward.LinkEthernet}); len(frame) > most-c.HeaderLen() {
				if out.Refusal != forward.RefusedTooLong || len(b.Datagrams) != 0 {
					t.Errorf("%d: %+v", most, out)
				}
				break
			}
			if d := b.Payload(0); len(d) != most || int(binary.BigEndian.Uint16(d[42:])) != most-40 {
				t.Errorf("datagram of %d bytes, IP of %d", len(d), binary.BigEndian.Uint16(d[42:]))
			}
			frame = append(frame, 0)
		}
	}
}

// tshark finds the tunnel within the tunnel, and the frame in it.
func TestTsharkReadsVXLANInGENEVE(t *testing.T) {
	c := mirrorPreset(t, 0x1234)
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	var b forward.Batch
	frame := tcp4Frame(100, 1)
	e.Encapsulate(&b, &forward.Frame{Data: frame, Length: len(frame), LinkType: forward.LinkEthernet})
	frames := outerFrames(t, &b, OuterConfig{Kind: c.Kind, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2")})
	p := pdml(t, writeCapture(t, frames), "-o", "ip.check_checksum:TRUE")[0]
	geneve, inside := p.tunnel(t, GENEVE)
	checkPresetOptions(t, "geneve", geneve, c)
	wantFields(t, "geneve", geneve, map[string]uint64{"geneve.vni": 0, "geneve.proto_type": 0x0800})
	if inside[0].Name != "ip" {
		t.Fatalf("inside is %s", inside[0].Name)
	}
	wantFields(t, "ip", inside[0], map[string]uint64{"ip.checksum.status": 1, "ip.len": uint64(28 + 8 + len(frame))})
	vxlan, inside := p.tunnel(t, VXLAN)
	wantFields(t, "vxlan", vxlan, map[string]uint64{"vxlan.vni": 0x1234})
	if inside[0].Name != "eth" || !bytes.Equal(frames[0].Data[inside[0].Pos:], frame) {
		t.Errorf("inside is %s", inside[0].Name)
	}
}
