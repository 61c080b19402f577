package sockets

import (
	"net/netip"
	"testing"
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
			Socket{ID: 54321, Local: netip.MustParseAddrPort("127.0.0.1:4789"), Queued: 213120, Drops: 32065}, true},
		{" 4096: 0100007F:12B5 0200007F:0001 01 00000000:00034080 00:00000000 00000000     0        0 54321 2 0000000000000000 32065        \n", Socket{}, false},
		{"  181: 00000000000000000000000001000000:17C1 00000000000000000000000000000000:0000 07 00000000:00000300 00:00000000 00000000     0        0 7 2 0000000000000000 0\n",
			Socket{ID: 7, Local: netip.MustParseAddrPort("[::1]:6081"), Queued: 768}, true},
		{"  181: 00000000:12B5 00000000:0000 07 00000000:0\n", Socket{}, false},
		{"\n", Socket{}, false},
	}
	for _, tt := range tests {
		if got, ok := parseLine([]byte(tt.line)); ok != tt.ok || ok && got != tt.want {
			t.Errorf("%q:\ngot  %+v, %t\nwant %+v, %t", tt.line, got, ok, tt.want, tt.ok)
		}
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
