package procfs

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// Both byte orders, as the kernel of a machine of each prints 127.0.0.1 and ::1.
func TestAddressInEitherByteOrder(t *testing.T) {
	for _, tt := range []struct {
		text  string
		order binary.ByteOrder
		want  string
	}{
		{"0100007F", binary.LittleEndian, "127.0.0.1"},
		{"7F000001", binary.BigEndian, "127.0.0.1"},
		{"00000000000000000000000001000000", binary.LittleEndian, "::1"},
		{"00000000000000000000000000000001", binary.BigEndian, "::1"},
		{"0000000000000000FFFF0000020012AC", binary.LittleEndian, "::ffff:172.18.0.2"},
		{"00000000000000000000FFFFAC120002", binary.BigEndian, "::ffff:172.18.0.2"},
		{"000080FE00000000FF00FCFE010000FE", binary.LittleEndian, "fe80::fefc:ff:fe00:1"},
	} {
		if got, ok := address(tt.text, tt.order); !ok || got != netip.MustParseAddr(tt.want) {
			t.Errorf("%s in %s: %v, %t, want %s", tt.text, tt.order, got, ok, tt.want)
		}
	}
	for _, text := range []string{"", "0100007", "0100007G", "-100007F", "0100007F0100007F", strings.Repeat("0", 31) + "x"} {
		if got, ok := address(text, binary.LittleEndian); ok {
			t.Errorf("%q is %v", text, got)
		}
	}
}

const udpText = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n" +
	" 4096: 0100007F:12B5 00000000:0000 07 00000000:00034080 00:00000000 00000000     0        0 54321 2 0000000000000000 32065        \n" +
	" 4097: 0100007F:12B5 0200007F:0001 01 00000000:00000300 00:00000000 00000000     0        0 54322 2 0000000000000000 5        \n" +
	"  182: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 8 2 0000000000000000 0\n"

const udp6Text = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n" +
	"  181: 00000000000000000000000001000000:17C1 00000000000000000000000000000000:0000 07 00000000:00000300 00:00000000 00000000     0        0 7 2 0000000000000000 0\n"

func TestUDP(t *testing.T) {
	any4, any6 := netip.MustParseAddrPort("0.0.0.0:0"), netip.MustParseAddrPort("[::]:0")
	listening := UDPSocket{netip.MustParseAddrPort("127.0.0.1:4789"), any4, Closed, 213120, 54321, 32065}
	connected := UDPSocket{netip.MustParseAddrPort("127.0.0.1:4789"), netip.MustParseAddrPort("127.0.0.2:1"), Established, 768, 54322, 5}
	domain := UDPSocket{netip.MustParseAddrPort("0.0.0.0:53"), any4, Closed, 0, 8, 0}
	geneve := UDPSocket{netip.MustParseAddrPort("[::1]:6081"), any6, Closed, 768, 7, 0}
	for name, tt := range map[string]struct {
		text  string
		ports []uint16
		want  []UDPSocket
	}{
		"all":             {udpText, nil, []UDPSocket{listening, connected, domain}},
		"a port":          {udpText, []uint16{4789}, []UDPSocket{listening, connected}},
		"ports":           {udpText, []uint16{6081, 53}, []UDPSocket{domain}},
		"no such port":    {udpText, []uint16{0}, nil},
		"IPv6":            {udp6Text, []uint16{6081}, []UDPSocket{geneve}},
		"both, one text":  {udpText + udp6Text, []uint16{53, 6081}, []UDPSocket{domain, geneve}},
		"cut in a line":   {udpText[:len(udpText)-len(" 0\n")], nil, []UDPSocket{listening, connected}},
		"cut in its port": {udpText[:150], nil, nil},
		"no table":        {"1 2 3\n: : :\n", nil, nil},
	} {
		got := udp(tt.text, binary.LittleEndian, tt.ports)
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n%+v\nwant %+v", name, got, tt.want)
		}
	}
	if !listening.Listens() || connected.Listens() {
		t.Error("a socket with a peer takes datagrams from anybody, or one without does not")
	}
}

const tcpText = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     \n" +
	"   0: 00000000:2707 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1049 1 00000000ef684a81 100 0 0 10 0                      \n" +
	"   1: 020200C0:B052 507100CB:01BB 01 00000000:00000000 02:000001F7 00000000     0        0 35305 2 00000000ecfddcf0 20 4 0 110 146                   \n" +
	"   2: 020012AC:2707 010012AC:A000 06 00000000:00000000 03:00001753 00000000     0        0 0 3 00000000a1b2c3d4                                      \n"

const tcp6Text = "   0: 0000000000000000FFFF0000020012AC:2707 0000000000000000FFFF0000010012AC:A001 01 00000000:00000000 00:00000000 00000000  1000        0 78 1 0000000000000000 20 4 30 10 -1\n"

func TestTCP(t *testing.T) {
	listening := TCPSocket{netip.MustParseAddrPort("0.0.0.0:9991"), netip.MustParseAddrPort("0.0.0.0:0"), 0x0a}
	open := TCPSocket{netip.MustParseAddrPort("192.0.2.2:45138"), netip.MustParseAddrPort("203.0.113.80:443"), Established}
	waits := TCPSocket{netip.MustParseAddrPort("172.18.0.2:9991"), netip.MustParseAddrPort("172.18.0.1:40960"), 6} // TCP_TIME_WAIT: a shorter line
	mapped := TCPSocket{netip.MustParseAddrPort("[::ffff:172.18.0.2]:9991"), netip.MustParseAddrPort("[::ffff:172.18.0.1]:40961"), Established}
	for name, tt := range map[string]struct {
		text  string
		ports []uint16
		want  []TCPSocket
	}{
		"all":           {tcpText, nil, []TCPSocket{listening, open, waits}},
		"a port":        {tcpText + tcp6Text, []uint16{9991}, []TCPSocket{listening, waits, mapped}},
		"a remote port": {tcpText, []uint16{443}, nil},
		"cut":           {tcpText[:175], nil, nil},
		"no table":      {"", nil, nil},
	} {
		if got := tcp(tt.text, binary.LittleEndian, tt.ports); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n%+v\nwant %+v", name, got, tt.want)
		}
	}
}

// asWords prints an address as the kernel of a machine of that byte order does.
func asWords(addr netip.Addr, order binary.ByteOrder) (text string) {
	for raw := addr.AsSlice(); len(raw) > 0; raw = raw[4:] {
		text += fmt.Sprintf("%08X", order.Uint32(raw))
	}
	return text
}

func eitherOrder(big bool) binary.ByteOrder {
	if big {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// What the kernel prints of a socket, by the format of udp4_format_sock, is read
// back, on machines of either byte order.
func FuzzUDP(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1}, uint16(4789), uint8(7), uint32(0x34080), uint64(54321), uint32(32065), false)
	f.Add([]byte("\xfe\x80............\x00\x01"), uint16(6081), uint8(1), uint32(0), uint64(7), uint32(1), true)
	f.Fuzz(func(t *testing.T, raw []byte, port uint16, state uint8, queued uint32, inode uint64, drops uint32, big bool) {
		addr, ok := netip.AddrFromSlice(raw)
		if !ok {
			t.Skip()
		}
		order := eitherOrder(big)
		line := fmt.Sprintf("%5d: %s:%04X %s:%04X %02X %08X:%08X %02X:%08X %08X %5d %8d %d %d %016x %d", 1, asWords(addr, order), port,
			asWords(addr, order), port+1, state, 17, queued, 0, 0, 0, 0, 0, inode, 2, 0, drops)
		want := UDPSocket{netip.AddrPortFrom(addr, port), netip.AddrPortFrom(addr, port+1), state, uint64(queued), inode, uint64(drops)}
		if got := udp(udpText+line+"\n", order, []uint16{port}); len(got) == 0 || got[len(got)-1] != want {
			t.Errorf("%q:\n%+v\nwant %+v", line, got, want)
		}
		connection := TCPSocket{want.Local, want.Remote, state}
		if got := tcp(line, order, nil); len(got) != 1 || got[0] != connection {
			t.Errorf("%q:\n%+v\nwant %+v", line, got, connection)
		}
	})
}
