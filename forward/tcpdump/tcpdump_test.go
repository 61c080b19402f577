package tcpdump

import (
	"net/netip"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward/afpacket"
)

func TestWhatTcpdumpIsTold(t *testing.T) {
	tunnels := []afpacket.Tunnel{{To: netip.MustParseAddrPort("192.0.2.1:4789")}}
	streams := []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:22")}
	got := Filter("tcp or udp", tunnels, streams)
	want := "(tcp or udp) and not (udp and dst host 192.0.2.1 and dst port 4789) and not (tcp and host 2001:db8::1 and port 22)"
	if got != want || Filter("", nil, nil) != "" {
		t.Errorf("got %s, want %s", got, want)
	}
	said := "12 packets captured\n14 packets received by filter\n2 packets dropped by kernel\n1 packet dropped by interface\n"
	if n := droppedBy(said); n != 3 {
		t.Errorf("%d packets dropped of 3", n)
	}
}
