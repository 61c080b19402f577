package tcmirror

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// ether is a frame of that type.
func ether(kind uint16, payload ...byte) []byte {
	return append(append(make([]byte, 12), byte(kind>>8), byte(kind)), payload...)
}

// tagged puts a VLAN tag among the bytes.
func tagged(kind, tag uint16, frame []byte) []byte {
	out := append([]byte{}, frame[:12]...)
	out = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(out, kind), tag)
	return append(out, frame[12:]...)
}

// udp4 and udp6 are frames to a receiver; fragment is the offset in 8 bytes.
func udp4(to netip.AddrPort, fragment uint16, payload int) []byte {
	b := make([]byte, 20, 28+payload)
	b[0], b[9] = 0x45, protoUDP
	binary.BigEndian.PutUint16(b[6:], fragment)
	copy(b[16:], to.Addr().AsSlice())
	b = append(b, make([]byte, 2)...)
	b = binary.BigEndian.AppendUint16(b, to.Port())
	return ether(etherIPv4, append(b, make([]byte, 4+payload)...)...)
}

func udp6(to netip.AddrPort, fragment bool, payload int) []byte {
	b := make([]byte, 40)
	b[0], b[6] = 0x60, protoUDP
	copy(b[24:], to.Addr().AsSlice())
	if fragment {
		b[6] = protoFrag6
		b = append(b, protoUDP, 0, 0, 8, 0, 0, 0, 1)
	}
	b = binary.BigEndian.AppendUint16(append(b, 0, 0), to.Port())
	return ether(etherIPv6, append(b, make([]byte, 4+payload)...)...)
}

// runs interprets a program; tag is beside the frame, if there is one.
func runs(tb testing.TB, code []bpf.RawInstruction, frame []byte, kind, tag uint16) bool {
	tb.Helper()
	present := uint32(0)
	if kind != 0 {
		present = 1
	}
	var filter []bpf.Instruction
	for _, raw := range code {
		ins := raw.Disassemble()
		if load, ok := ins.(bpf.LoadExtension); ok {
			// The interpreter does not know what is beside a frame.
			if v, ok := map[bpf.Extension]uint32{bpf.ExtVLANTagPresent: present, bpf.ExtVLANTag: uint32(tag), bpf.ExtVLANProto: uint32(kind)}[load.Num]; ok {
				ins = bpf.LoadConstant{Val: v}
			}
		}
		filter = append(filter, ins)
	}
	vm, err := bpf.NewVM(filter)
	if err != nil {
		tb.Fatal(err)
	}
	n, err := vm.Run(frame)
	if err != nil {
		tb.Fatal(err)
	}
	return n != 0
}

// Tunnels to the receivers are passed by, however they are tagged or cut; all
// else is taken, also what is too short to be anything.
func TestPassBy(t *testing.T) {
	sensor, six := netip.MustParseAddrPort("172.20.0.2:4789"), netip.MustParseAddrPort("[fd00::2]:6081")
	receivers := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:4789"), sensor, six}
	for range 40 { // so that jumps have to go far
		receivers = append(receivers, netip.MustParseAddrPort("192.0.2.1:1"))
	}
	code, err := program(receivers, nil)
	if err != nil {
		t.Fatal(err)
	}
	port := func(a netip.AddrPort, p uint16) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), p) }
	for name, test := range map[string]struct {
		frame []byte
		taken bool
	}{
		"tunnel":                    {udp4(sensor, 0, 50), false},
		"tunnel with a tag":         {tagged(etherVLAN, 5, udp4(sensor, 0, 50)), false},
		"tunnel with a service tag": {tagged(etherQinQ, 5, udp4(sensor, 0, 50)), false},
		"first fragment":            {udp4(sensor, 0x2000, 50), false},
		"later fragment":            {udp4(port(sensor, 77), 185, 0), false},
		"last fragment, one byte":   {udp4(sensor, 185, 0)[:35], false},
		"published port":            {udp4(receivers[0], 0, 50), false},
		"the last receiver":         {udp4(receivers[len(receivers)-1], 0, 50), false},
		"tunnel over IPv6":          {udp6(six, false, 50), false},
		"tagged tunnel over IPv6":   {tagged(etherVLAN, 5, udp6(six, false, 50)), false},
		"fragment over IPv6":        {udp6(six, true, 50), false},
		"another port":              {udp4(port(sensor, 53), 0, 50), true},
		"another address":           {udp4(netip.MustParseAddrPort("172.20.0.3:4789"), 0, 50), true},
		"its fragment":              {udp4(netip.MustParseAddrPort("172.20.0.3:4789"), 185, 50), true},
		"another port over IPv6":    {udp6(port(six, 53), false, 50), true},
		"another address over IPv6": {udp6(netip.MustParseAddrPort("[fd00::3]:6081"), true, 50), true},
		"ARP":                       {ether(0x0806, make([]byte, 28)...), true},
		"a header alone":            {ether(etherIPv4), true},
		"a tag alone":               {ether(etherVLAN), true},
		"a cut IPv6 header":         {ether(etherIPv6, make([]byte, 30)...), true},
		"a cut IPv4 header":         {tagged(etherVLAN, 5, udp4(sensor, 0, 50)[:33]), true},
	} {
		if got := runs(t, code, test.frame, 0, 0); got != test.taken {
			t.Errorf("%s: taken %t", name, got)
		}
	}
}

// compile is tcpdump's answer for an expression.
func compile(tb testing.TB, expression string) (code []bpf.RawInstruction) {
	tb.Helper()
	testenv.NeedTool(tb, "tcpdump")
	cmd := exec.Command("tcpdump", "-ddd", "-r", "-", "--", expression)
	cmd.Stdin = strings.NewReader("\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00\x01\x00\x00\x00")
	out, err := cmd.Output()
	if err != nil {
		tb.Fatal(expression, err)
	}
	for i, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		var r bpf.RawInstruction
		if _, err := fmt.Sscan(line, &r.Op, &r.Jt, &r.Jf, &r.K); err == nil && i > 0 {
			code = append(code, r)
		}
	}
	return code
}

// An expression decides about a frame whose tag is beside it as it does about
// the frame with the tag among its bytes.
func TestTagBeside(t *testing.T) {
	dns, vxlan := netip.MustParseAddrPort("10.1.2.3:53"), netip.MustParseAddrPort("10.9.9.9:4789")
	six := netip.MustParseAddrPort("[fd00::2]:53")
	frames := map[string][]byte{
		"dns": udp4(dns, 0, 20), "fragment": udp4(dns, 3, 20), "vxlan": udp4(vxlan, 0, 900), "six": udp6(six, false, 9),
		"arp": ether(0x0806, make([]byte, 46)...), "inner tag": tagged(etherVLAN, 9, udp4(dns, 0, 20)), "mpls": ether(0x8847, 0, 1, 2, 3, 4),
	}
	for _, expression := range []string{"udp port 53", "vlan", "vlan 5", "vlan 5 and udp port 53", "vlan and vlan 9 and udp", "not vlan",
		"vlan and ip6", "ip or (vlan and host 10.1.2.3)", "udp portrange 50-60 or vlan 7", "greater 100", "less 66", "ether[12] = 0x81", "ether[14:2] & 0xfff = 5",
		"ether[13] = 0 and ether[15] = 5", "ether dst 00:00:00:00:00:00", "net 10.1.0.0/16", "vlan and udp[4:2] > 30", "len > 90", "ether proto 0x88a8", "mpls"} {
		raw := compile(t, expression)
		code, err := matching(raw)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		for name, frame := range frames {
			if runs(t, code, frame, 0, 0) != runs(t, raw, frame, 0, 0) {
				t.Errorf("%s: %s without a tag beside it is decided otherwise", expression, name)
			}
			for _, tag := range [][2]uint16{{etherVLAN, 5}, {etherVLAN, 0x6007}, {etherQinQ, 5}} {
				want := runs(t, raw, tagged(tag[0], tag[1], frame), 0, 0)
				if got := runs(t, code, frame, tag[0], tag[1]); got != want {
					t.Errorf("%s: %s with %#x beside it: %t, among its bytes %t", expression, name, tag, got, want)
				}
			}
		}
	}
}

// What cannot be asked beside a frame is said, never answered wrongly.
func TestProgramRefuses(t *testing.T) {
	for _, expression := range []string{"ether[12:4] = 0x81000005", "ip6 protochain 17"} {
		_, err := program(nil, compile(t, expression))
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", expression, err)
		}
	}
	for name, op := range map[string]uint16{"the length into the index register": 0x81, "half a length": 0x88, "no instruction": 0xff} {
		_, err := program(nil, []bpf.RawInstruction{{Op: op}, {Op: 0x16}})
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "is not known") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Jumps further than 255 instructions are laid out as jumps that reach.
func TestAssembleFar(t *testing.T) {
	var parts []string
	for i := range 200 {
		parts = append(parts, fmt.Sprintf("host 10.0.%d.1", i))
	}
	code, err := program([]netip.AddrPort{netip.MustParseAddrPort("10.9.9.9:4789")}, compile(t, "udp and ("+strings.Join(parts, " or ")+")"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := divert(code, []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:9"), netip.MustParseAddrPort("10.0.1.1:9")})
	if err != nil {
		t.Fatal(err)
	}
	if runs(t, other, udp4(netip.MustParseAddrPort("10.0.0.1:9"), 0, 9), 0, 0) {
		t.Error("a new receiver is not passed by")
	}
	for addr, want := range map[string]bool{"10.0.2.1:9": true, "10.0.199.1:9": true, "10.0.200.1:9": false} {
		frame := udp4(netip.MustParseAddrPort(addr), 0, 9)
		if runs(t, code, frame, 0, 0) != want || runs(t, other, frame, 0, 0) != want {
			t.Errorf("%s: want %t", addr, want)
		}
	}
}
