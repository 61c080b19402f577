package afpacket

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/zeekdemo/zeekdemo/forward"
)

// passes runs a program as the kernel does.
func passes(t *testing.T, program []bpf.RawInstruction, frame []byte) bool {
	t.Helper()
	code, ok := bpf.Disassemble(program)
	if !ok {
		t.Fatal("not all of the program can be read")
	}
	vm, err := bpf.NewVM(code)
	if err != nil {
		t.Fatal(err)
	}
	n, err := vm.Run(frame)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

// ip4 is an IPv4 packet.
func ip4(proto byte, from, to string, offset uint16, body []byte) []byte {
	p := append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0}, slices.Concat(netip.MustParseAddr(from).AsSlice(), netip.MustParseAddr(to).AsSlice(), body)...)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	binary.BigEndian.PutUint16(p[6:], offset)
	return p
}

// options4 puts options of 8 bytes into an IPv4 packet.
func options4(p []byte) []byte {
	p = slices.Insert(slices.Clone(p), 20, 1, 1, 1, 1, 1, 1, 1, 1)
	p[0] = 0x47
	return p
}

func ip6(next byte, from, to string, body []byte) []byte {
	p := append([]byte{0x60, 0, 0, 0, 0, byte(len(body)), next, 64}, slices.Concat(netip.MustParseAddr(from).AsSlice(), netip.MustParseAddr(to).AsSlice(), body)...)
	return p
}

func udpTo(port uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{0xc0, 0x01}, port)[:4:4]
}

func padded(b []byte, n int) []byte { return append(b, make([]byte, max(0, n-len(b)))...) }

func icmpAbout(packet []byte, kind byte) []byte {
	return append([]byte{kind, 4, 0, 0, 0, 0, 0, 0}, packet...)
}

func TestOnlyTheTunnelIsExcluded(t *testing.T) {
	const me, sensor4, other4, me6, sensor6, other6 = "10.0.0.1", "10.0.0.9", "10.0.0.8", "fd00::1", "fd00::9", "fd00::8"
	tunnels := []Tunnel{
		{To: netip.MustParseAddrPort("10.0.0.9:4789"), From: netip.MustParseAddr(me)},
		{To: netip.MustParseAddrPort("[fd00::9]:6081"), From: netip.MustParseAddr(me6)},
	}
	streams := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.7:2376"), netip.MustParseAddrPort("[fd00::7]:22")}
	own4, own6 := padded(udpTo(4789), 40), padded(udpTo(6081), 40)
	about4, about6 := ip4(17, me, sensor4, 0, padded(udpTo(4789), 8)), ip6(17, me6, sensor6, padded(udpTo(6081), 8))
	fragment := func(next byte) []byte { return append([]byte{next, 0, 0, 8, 0, 0, 0, 1}, own6...) }
	for name, c := range map[string]struct {
		packet []byte
		v6     bool
		own    bool
	}{
		"to the sensor":                     {ip4(17, me, sensor4, 0, own4), false, true},
		"with options":                      {options4(ip4(17, me, sensor4, 0, own4)), false, true},
		"the first fragment":                {ip4(17, me, sensor4, 0x2000, own4), false, true},
		"our second fragment":               {ip4(17, me, sensor4, 185, own4), false, true},
		"a fragment of somebody else's":     {ip4(17, other4, sensor4, 185, own4), false, false},
		"to another port":                   {ip4(17, me, sensor4, 0, padded(udpTo(4790), 40)), false, false},
		"to another machine":                {ip4(17, me, other4, 0, own4), false, false},
		"by TCP":                            {ip4(6, me, sensor4, 0, own4), false, false},
		"from the sensor":                   {ip4(17, sensor4, me, 0, own4), false, false},
		"an error about it":                 {ip4(1, sensor4, me, 0, icmpAbout(about4, 3)), false, true},
		"a ping":                            {ip4(1, sensor4, me, 0, icmpAbout(about4, 8)), false, false},
		"an error about something else":     {ip4(1, sensor4, me, 0, icmpAbout(ip4(17, me, other4, 0, own4), 3)), false, false},
		"IPv6 to the sensor":                {ip6(17, me6, sensor6, own6), true, true},
		"IPv6 to another":                   {ip6(17, me6, other6, own6), true, false},
		"IPv6 to another port":              {ip6(17, me6, sensor6, padded(udpTo(4789), 40)), true, false},
		"an IPv6 fragment":                  {ip6(44, me6, sensor6, fragment(17)), true, true},
		"somebody else's IPv6 fragment":     {ip6(44, other6, sensor6, fragment(17)), true, false},
		"an IPv6 fragment of TCP":           {ip6(44, me6, sensor6, fragment(6)), true, false},
		"an ICMPv6 error about it":          {ip6(58, sensor6, me6, icmpAbout(about6, 1)), true, true},
		"a neighbour solicitation":          {ip6(58, sensor6, me6, icmpAbout(about6, 135)), true, false},
		"a packet that ends in its header":  {ip4(17, me, sensor4, 0, nil)[:18], false, false},
		"a packet that ends in its header6": {ip6(17, me6, sensor6, nil)[:30], true, false},
		"to the engine":                     {ip4(6, me, "10.0.0.7", 0, padded(udpTo(2376), 20)), false, true},
		"from the engine":                   {options4(ip4(6, "10.0.0.7", me, 0, padded([]byte{9, 0x48, 1, 2}, 20))), false, true},
		"to the engine's other ports":       {ip4(6, me, "10.0.0.7", 0, padded(udpTo(80), 20)), false, false},
		"to the engine by UDP":              {ip4(17, me, "10.0.0.7", 0, padded(udpTo(2376), 20)), false, false},
		"to the engine over IPv6":           {ip6(6, me6, "fd00::7", padded(udpTo(22), 20)), true, true},
		"from the engine over IPv6":         {ip6(6, "fd00::7", me6, padded([]byte{0, 22, 1, 2}, 20)), true, true},
		"IPv6 to another engine":            {ip6(6, me6, other6, padded(udpTo(22), 20)), true, false},
		"nothing":                           {nil, false, false},
	} {
		etherType := "\x08\x00"
		if c.v6 {
			etherType = "\x86\xdd"
		}
		for _, tags := range []string{"", "\x81\x00\x00\x64", "\x88\xa8\x00\x01\x81\x00\x00\x64"} {
			frame := append([]byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01"+tags+etherType), c.packet...)
			if passes(t, program(forward.LinkEthernet, tunnels, streams, nil), frame) == c.own {
				t.Errorf("%s, tags %x: excluded: %v", name, tags, !c.own)
			}
		}
		if len(c.packet) > 0 && passes(t, program(forward.LinkRaw, tunnels, streams, nil), c.packet) == c.own {
			t.Errorf("%s, no link layer: excluded: %v", name, !c.own)
		}
	}
	none := []bpf.RawInstruction{{Op: 6, K: 0}} // ret 0
	if frame := []byte("no frame at all, but longer than one's header"); passes(t, program(forward.LinkEthernet, tunnels, streams, none), frame) {
		t.Error("the filter behind is not run")
	}
}

func FuzzExclusionNeverReadsBeyond(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x00\x45"))
	p := program(forward.LinkEthernet, []Tunnel{{To: sensorAddress(4)}, {To: sensorAddress(6)}}, []netip.AddrPort{sensorAddress(4), sensorAddress(6)}, nil)
	f.Fuzz(func(t *testing.T, frame []byte) {
		// A load beyond the end refuses the frame: only UDP and ICMP to or about
		// the sensors may be refused at all.
		if !passes(t, p, frame) && len(frame) < 14+20 {
			t.Errorf("%x is refused", frame)
		}
	})
}

func sensorAddress(version int) netip.AddrPort {
	if version == 6 {
		return netip.MustParseAddrPort("[fd00::9]:4789")
	}
	return netip.MustParseAddrPort("10.0.0.9:4789")
}
