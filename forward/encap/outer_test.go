package encap

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

func outerConfig(k Kind, v6 bool) OuterConfig {
	c := OuterConfig{Kind: k, SrcMAC: [6]byte{2, 0, 0, 0, 0, 1}, DstMAC: [6]byte{2, 0, 0, 0, 0, 2}, TTL: 9,
		Src: netip.MustParseAddr("10.1.2.3"), Dst: netip.MustParseAddr("::ffff:10.1.2.4")}
	if v6 {
		c.Src, c.Dst = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::ffff:2")
	}
	return c
}

func TestNewOuterRefuses(t *testing.T) {
	four, six := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	for want, c := range map[string]OuterConfig{
		"missing":            {Src: four},
		"different families": {Src: four, Dst: six},
		"unknown":            {Kind: 9, Src: four, Dst: four},
	} {
		if _, err := NewOuter(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewOuter(%+v) = %v, want an error with %q", c, err, want)
		}
	}
}

// gopacket must read back what was put in, and the checksums must be right.
func TestOuterPut(t *testing.T) {
	for _, kind := range []Kind{VXLAN, GENEVE} {
		for _, v6 := range []bool{false, true} {
			c := outerConfig(kind, v6)
			o, err := NewOuter(c)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range []int{0, 1, 8, 31, 32, 33, 1450, 65507} {
				packet := slices.Concat(make([]byte, o.Len()), payloadBytes(n))
				o.Put(packet[:o.Len()], packet[o.Len():], 51234)
				p := gopacket.NewPacket(packet, layers.LayerTypeEthernet, gopacket.NoCopy)
				eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
				u, _ := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
				if u == nil || u.SrcPort != 51234 || uint16(u.DstPort) != kind.Port() || int(u.Length) != 8+n ||
					[6]byte(eth.SrcMAC) != c.SrcMAC || [6]byte(eth.DstMAC) != c.DstMAC {
					t.Fatalf("%v, IPv6 %v, %d bytes: %v", kind, v6, n, p)
				}
				checkOuterIP(t, p, c, n)
				checkOuterChecksum(t, packet, v6, kind == VXLAN && !v6)
			}
		}
	}
}

func checkOuterIP(t *testing.T, p gopacket.Packet, c OuterConfig, n int) {
	t.Helper()
	if v4, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok {
		if checksum16(v4.Contents) != 0 || int(v4.Length) != 28+n || v4.TTL != c.TTL || v4.Id != 0 ||
			v4.Flags != layers.IPv4DontFragment || !v4.SrcIP.Equal(c.Src.AsSlice()) || !v4.DstIP.Equal(c.Dst.AsSlice()) {
			t.Fatalf("%d bytes: IPv4 header %x", n, v4.Contents)
		}
		return
	}
	v6, ok := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	if !ok || int(v6.Length) != 8+n || v6.HopLimit != c.TTL || !v6.SrcIP.Equal(c.Src.AsSlice()) || !v6.DstIP.Equal(c.Dst.AsSlice()) {
		t.Fatalf("%d bytes: %v", n, p)
	}
}

func outerPseudo(packet []byte, v6 bool) []byte {
	if v6 {
		return slices.Concat(packet[22:54], be32(len(packet)-54), be32(17))
	}
	return slices.Concat(packet[26:34], be16(17), be16(len(packet)-34))
}

func checkOuterChecksum(t *testing.T, packet []byte, v6, zero bool) {
	t.Helper()
	start := 34
	if v6 {
		start = 54
	}
	field := binary.BigEndian.Uint16(packet[start+6:])
	if zero {
		if field != 0 {
			t.Fatalf("checksum %#x, want 0", field)
		}
		return
	}
	if field == 0 || checksum16(outerPseudo(packet, v6), packet[start:]) != 0 {
		t.Fatalf("%d bytes: wrong checksum %#x", len(packet), field)
	}
}

// A checksum that comes out as 0 is sent as ffff.
func TestOuterChecksumIsNeverZero(t *testing.T) {
	o, err := NewOuter(outerConfig(GENEVE, false))
	if err != nil {
		t.Fatal(err)
	}
	hdr, payload := make([]byte, OuterLen4), make([]byte, 2)
	o.Put(hdr, payload, 1)
	binary.BigEndian.PutUint16(payload, binary.BigEndian.Uint16(hdr[40:])) // now the sum is ffff
	o.Put(hdr, payload, 1)
	if got := binary.BigEndian.Uint16(hdr[40:]); got != 0xffff {
		t.Errorf("checksum %#x", got)
	}
}

// What the kernel does with a partial checksum: sum from csum_start to the end,
// complement, store at csum_start + csum_offset.
func TestOuterPutPartial(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, n := range []int{1, 33, 1450, 60000} {
			o, err := NewOuter(outerConfig(VXLAN, v6))
			if err != nil {
				t.Fatal(err)
			}
			packet := slices.Concat(make([]byte, o.Len()), payloadBytes(n))
			o.PutPartial(packet, n, 51234)
			start := o.ChecksumStart()
			binary.BigEndian.PutUint16(packet[start+ChecksumOffset:], checksum16(packet[start:]))
			checkOuterChecksum(t, packet, v6, false)
			p := gopacket.NewPacket(packet, layers.LayerTypeEthernet, gopacket.NoCopy)
			checkOuterIP(t, p, outerConfig(VXLAN, v6), n)
		}
	}
}

func TestOuterForceChecksumAndFragments(t *testing.T) {
	c := outerConfig(VXLAN, false)
	c.ForceChecksum, c.MayFragment, c.DstPort, c.TTL = true, true, 4790, 0
	o, err := NewOuter(c)
	if err != nil {
		t.Fatal(err)
	}
	for id := uint16(1); id <= 3; id++ {
		packet := slices.Concat(make([]byte, o.Len()), payloadBytes(100))
		o.Put(packet, packet[o.Len():], 7)
		checkOuterChecksum(t, packet, false, false)
		v4 := gopacket.NewPacket(packet, layers.LayerTypeEthernet, gopacket.NoCopy).Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		if v4.Id != id || v4.Flags != 0 || v4.TTL != 64 || checksum16(v4.Contents) != 0 || packet[37] != 4790&0xff {
			t.Errorf("IPv4 header %x", v4.Contents)
		}
	}
}
