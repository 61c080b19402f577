package cli

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/mirror"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
)

// What was said about the kernel's packets is shown as it is of the forwarder's.
func TestMirrorReportShowsWhatWasSaidOfTheKernelsPackets(t *testing.T) {
	doc := mirror.Document{How: mirror.Kernel, Troubles: []transmit.Trouble{{Kind: transmit.PortUnreachable, Count: 2, From: netip.MustParseAddr("192.0.2.1")}}}
	doc.Verdict, doc.Error = delivery.Incomplete, "packets did not arrive"
	rows := mirrorOptions{}.rows(doc)
	if got := rowsOf(rows, "trouble"); !slices.Equal(got, []string{"nobody listens at the port, or a firewall rejects the datagrams (said 2 times by 192.0.2.1)"}) {
		t.Errorf("trouble: %q", got)
	}
	if got := rowsOf(rows, "verdict"); !slices.Equal(got, []string{"incomplete: packets did not arrive"}) {
		t.Errorf("verdict: %q", got)
	}
}
