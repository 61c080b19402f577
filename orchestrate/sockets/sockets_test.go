package sockets

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
)

func TestTakes(t *testing.T) {
	tests := []struct {
		local, listen string
		want          bool
	}{
		{"0.0.0.0:4789", "172.18.0.2:4789", true},
		{"0.0.0.0:4789", "0.0.0.0:4789", true},
		{"127.0.0.1:4789", "0.0.0.0:4789", true},
		{"127.0.0.1:4789", "127.0.0.1:4789", true},
		{"127.0.0.1:4789", "127.0.0.2:4789", false},
		{"0.0.0.0:6081", "127.0.0.1:4789", false},
		{"[::]:4789", "127.0.0.1:4789", true},
		{"[::]:4789", "[fd00::2]:4789", true},
		{"0.0.0.0:4789", "[fd00::2]:4789", false},
		{"[::ffff:127.0.0.1]:4789", "127.0.0.1:4789", true},
	}
	for _, tt := range tests {
		if got := takes(netip.MustParseAddrPort(tt.local), netip.MustParseAddrPort(tt.listen)); got != tt.want {
			t.Errorf("a socket at %s takes what is sent to %s: %t", tt.local, tt.listen, got)
		}
	}
}

// What is assumed is never more than an untuned machine has.
func TestAssumed(t *testing.T) {
	tests := []struct {
		asking               Asking
		rmemMax, rmemDefault int
		want                 int
	}{
		{AsksForMuch, 0, 0, 425984},
		{AsksForMuch, 212992, 212992, 425984},
		{AsksForMuch, 64 << 20, 64 << 20, 425984},
		{AsksForMuch, 100_000, 50_000, 200_000},
		{AsksForNothing, 64 << 20, 212992, 212992},
		{AsksForNothing, 64 << 20, 50_000, 50_000},
	}
	for _, tt := range tests {
		if got := Assumed(tt.asking, tt.rmemMax, tt.rmemDefault); got != tt.want {
			t.Errorf("asking %d, rmem_max %d, rmem_default %d: %d, want %d", tt.asking, tt.rmemMax, tt.rmemDefault, got, tt.want)
		}
	}
}

func TestParseLine(t *testing.T) {
	tests := []struct {
		line string
		want Socket
		ok   bool
	}{
		{"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n", Socket{}, false},
		{" 4096: 0100007F:12B5 00000000:0000 07 00000000:00034080 00:00000000 00000000     0        0 54321 2 0000000000000000 32065        \n",
			Socket{ID: 54321, Inode: 54321, Local: netip.MustParseAddrPort("127.0.0.1:4789"), Queued: 213120, Drops: 32065}, true},
		{" 4096: 0100007F:12B5 0200007F:0001 01 00000000:00034080 00:00000000 00000000     0        0 54321 2 0000000000000000 32065        \n", Socket{}, false},
		{"  181: 00000000000000000000000001000000:17C1 00000000000000000000000000000000:0000 07 00000000:00000300 00:00000000 00000000     0        0 7 2 0000000000000000 0\n",
			Socket{ID: 7, Inode: 7, Local: netip.MustParseAddrPort("[::1]:6081"), Queued: 768}, true},
		{"  181: 00000000:12B5 00000000:0000 07 00000000:0\n", Socket{}, false},
		{"\n", Socket{}, false},
	}
	for _, tt := range tests {
		if got, ok := parseLine([]byte(tt.line)); ok != tt.ok || ok && got != tt.want {
			t.Errorf("%q:\ngot  %+v, %t\nwant %+v, %t", tt.line, got, ok, tt.want, tt.ok)
		}
	}
}

// Of whatever the kernel prints, the reader that allocates nothing says the same
// as the one that everybody else uses.
func FuzzSameAsProcfs(f *testing.F) {
	f.Add(uint32(0x0100007f), uint16(4789), uint8(7), uint32(213120), uint64(54321), uint32(32065), false)
	f.Add(uint32(0x01000000), uint16(6081), uint8(7), uint32(768), uint64(7), uint32(0), true)
	f.Add(uint32(0), uint16(53), uint8(1), uint32(0xffffffff), uint64(1<<63), uint32(1), false)
	f.Fuzz(func(t *testing.T, word uint32, port uint16, state uint8, queued uint32, inode uint64, drops uint32, six bool) {
		address, peer := fmt.Sprintf("%08X", word), "00000000:0000"
		if six {
			address, peer = "00000000000000000000000"+fmt.Sprintf("%09X", word), "00000000000000000000000000000000:0000"
		}
		line := fmt.Sprintf("%5d: %s:%04X %s %02X 00000000:%08X 00:00000000 00000000 %5d        0 %d 2 0000000000000000 %d        \n",
			port, address, port, peer, state, queued, 0, inode, drops)
		want := procfs.UDP(line, port)
		if len(want) != 1 {
			t.Fatalf("%q: procfs reads %+v", line, want)
		}
		got, ok := parseLine([]byte(line))
		same := got == (Socket{ID: want[0].Inode, Inode: want[0].Inode, Local: want[0].Local, Queued: int(want[0].Queued), Drops: want[0].Drops})
		if ok != want[0].Listens() || ok && !same {
			t.Errorf("%q:\ngot  %+v, %t\nwant %+v", line, got, ok, want[0])
		}
	})
}

// The datagrams taken are those that procfs counts, with IPv6 and without.
func TestCounterSameAsProcfs(t *testing.T) {
	const snmp = "Ip: Forwarding DefaultTTL InReceives\nIp: 1 64 48172\nIcmpMsg: InType3\nIcmpMsg: 1\n" +
		"Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\nUdp: 2374192 7 0 48 0\n" +
		"UdpLite: InDatagrams NoPorts\nUdpLite: 5 6\n"
	const snmp6 = "Ip6InReceives                   \t1\nUdp6InDatagrams                 \t42\nUdpLite6InDatagrams             \t9\n"
	dir := t.TempDir()
	for name, text := range map[string]string{"snmp": snmp, "snmp6": snmp6} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := openCounter(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	four, err := procfs.SNMP(snmp)
	if err != nil {
		t.Fatal(err)
	}
	six := procfs.SNMP6(snmp6)
	if got, err := c.read(); err != nil || got != four["UdpInDatagrams"]+six["Udp6InDatagrams"] || got != 2374234 {
		t.Errorf("both: %d, %v; procfs counts %v and %v", got, err, four, six)
	}
	c.without6()
	if got, err := c.read(); err != nil || got != four["UdpInDatagrams"] {
		t.Errorf("IPv4: %d, %v; procfs counts %v", got, err, four)
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte(" 4096: 0100007F:12B5 00000000:0000 07 00000000:00034080 00:00000000 00000000     0        0 54321 2 0000000000000000 32065        \n"))
	f.Add([]byte("1: :0 0:0 07 : 0 0 0 0 0 0 0 0"))
	f.Fuzz(func(_ *testing.T, line []byte) { parseLine(line) })
}

func TestColumns(t *testing.T) {
	snmp := []byte("Ip: Forwarding\nIp: 1\nUdp: InDatagrams NoPorts\nUdp: 2374192 7\nUdpLite: InDatagrams\nUdpLite: 5\n")
	if got := column(snmp, "\nUdp: ", 1); got != 2374192 {
		t.Errorf("InDatagrams %d", got)
	}
	if got := column(snmp, "\nUdp: ", 2); got != 7 {
		t.Errorf("NoPorts %d", got)
	}
	if got := column(snmp, "\nDccp: ", 1); got != 0 {
		t.Errorf("a protocol that is not there: %d", got)
	}
	if got := named([]byte("Udp6InDatagrams                 \t42\n"), "Udp6InDatagrams"); got != 42 {
		t.Errorf("Udp6InDatagrams %d", got)
	}
}
