package transmit

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// What was asked of the outer header stands in every datagram on the wire, fragments
// and segmented ones too, by both transmissions; tshark reads it.
func TestOuterHeaderIsAsAskedFor(t *testing.T) {
	tshark, tcpdump := testenv.NeedTool(t, "tshark"), testenv.NeedTool(t, "tcpdump")
	net := newNetwork(t, 1500)
	for _, line := range []string{"addr add 10.9.0.77/24 dev br0", "addr add fd09::77/64 dev br0 nodad"} {
		testenv.IP(t, "-n "+net.tx+" "+line)
	}
	b := tunnelled(t)
	for _, dst := range []netip.AddrPort{dst4, dst6} {
		outer := Outer{TTL: 7, DSCP: 46, DontFragment: true, Source: netip.MustParseAddr("10.9.0.77"), Device: "br0"}
		wrong := "ip && (ip.ttl != 7 || ip.dsfield.dscp != 46 || ip.src != 10.9.0.77 || ip.len <= 1500 && !ip.flags.mf && ip.frag_offset == 0 && !ip.flags.df)"
		if dst.Addr().Is6() {
			outer.Source = netip.MustParseAddr("fd09::77")
			wrong = "udp && (ipv6.hlim != 7 || ipv6.tclass.dscp != 46 || ipv6.src != fd09::77)"
		}
		for _, mode := range []Mode{Packet, UDP} {
			t.Run(fmt.Sprintf("%s,%v", mode, dst.Addr()), func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "wire.pcap")
				fd := listen(t, net.rx, dst)
				stop := capture(t, net.rx, tcpdump, file)
				send(t, net.tx, Options{Destination: dst, Mode: mode, Outer: outer}, b)
				if got := receive(t, fd); len(got) != len(b.Datagrams) {
					t.Errorf("received %d of %d", len(got), len(b.Datagrams))
				}
				stop()
				out, err := exec.Command(tshark, "-n", "-r", file, "-Y", wrong, "-T", "fields", "-e", "frame.number", "-e", "_ws.col.Info").Output()
				if err != nil {
					t.Fatal(err)
				}
				if len(out) > 0 {
					t.Errorf("otherwise than asked for:\n%s", out)
				}
			})
		}
	}
}

// A device that is not there, and a source of another family, are refused.
func TestOuterHeaderThatCannotBe(t *testing.T) {
	net := newNetwork(t, 1500)
	for want, o := range map[string]Outer{
		"eth77":                        {Device: "eth77"},
		"fd09::1 is of another family": {Source: netip.MustParseAddr("fd09::1")},
		"DSCP 64":                      {DSCP: 64},
	} {
		for _, mode := range []Mode{Packet, UDP} {
			testenv.Inside(t, net.tx, func() error {
				tx, err := Open(t.Context(), Options{Destination: dst4, Mode: mode, Outer: o})
				if err == nil {
					tx.Close()
				}
				if err == nil || !strings.Contains(err.Error(), want) && o.Device == "" {
					t.Errorf("%s, %s: error %v", mode, want, err)
				}
				return nil
			})
		}
	}
}
