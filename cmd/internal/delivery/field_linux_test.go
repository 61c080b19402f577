package delivery

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// monitorAt is a receiver as --to names it.
func monitorAt(t *testing.T, at netip.AddrPort) Monitor {
	t.Helper()
	host, err := way.ParseTo(at.String(), at.Port())
	if err != nil {
		t.Fatal(err)
	}
	return Monitor{Host: host}
}

// Where nobody listens packets are lost, however many flows share them: on this
// machine, over both address families, and in a container, by both transmissions.
func TestWhereNobodyListensPacketsAreLost(t *testing.T) {
	ten := testenv.Shared(t, "field", "ten.pcap")
	// A host answers a few datagrams, and then one a second: each run has its own.
	first, second := testenv.NewContainer(t, 9000), testenv.NewContainer(t, 9000)
	for name, tt := range map[string]struct {
		at netip.AddrPort
		tx transmit.Mode
	}{
		"loopback":          {netip.MustParseAddrPort("127.0.0.1:45099"), transmit.Auto},
		"loopback, IPv6":    {netip.MustParseAddrPort("[::1]:45099"), transmit.Auto},
		"a container":       {netip.AddrPortFrom(first.Addr, 45099), transmit.UDP},
		"a container, ours": {netip.AddrPortFrom(second.Addr, 45099), transmit.Packet},
	} {
		r := replay(t, ten)
		r.Tx = tt.tx
		doc, err := sent(t, r, monitorAt(t, tt.at))
		var loss *LossError
		if !errors.As(err, &loss) || doc.Verdict != Incomplete || doc.Delivery != watch.SomeLost || !strings.Contains(doc.Error, "nobody listens") || doc.Report.DatagramsSent != 10 {
			t.Errorf("%s: %v: %+v", name, err, doc)
		}
	}
}

// Frames of the path's own size do not fit once they are in a tunnel: they leave in
// fragments, by both transmissions, and the report says so and of what size the path
// is. Nobody here can see more of a foreign monitor.
func TestFragmentsAreSaid(t *testing.T) {
	mtu := testenv.Shared(t, "field", "mtu.pcap")
	c := testenv.NewContainer(t, 1500)
	c.Inside(t, func() error { testenv.ListenUDP(t, "0.0.0.0:4789", 1<<20); return nil })
	frames := uint64(len(readCapture(t, mtu)))
	for _, tx := range []transmit.Mode{transmit.Packet, transmit.UDP} {
		r := replay(t, mtu)
		r.Tx = tx
		doc, err := sent(t, r, monitorAt(t, netip.AddrPortFrom(c.Addr, 4789)))
		if err != nil || doc.Delivery != watch.OnlySent || doc.Kernel.Fragmented != frames || doc.Transmission.MTU != 1500 {
			t.Errorf("%s: %v, %d of %d in fragments, %+v", tx, err, doc.Kernel.Fragmented, frames, doc)
		}
	}
}
