package cli

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
)

// A person is shown other people's losses only where they may explain one.
func TestReportShowsCountersThatConcernTheRun(t *testing.T) {
	// others is a counter of the whole machine, ours one of a socket on the way.
	others := drops.Counter{Place: "sensor", Kind: drops.OfProtocol, Name: "Ip6InDiscards", Count: 2}
	ours := drops.Counter{Place: "sensor", Kind: drops.OfSocket, Name: "socket 0.0.0.0:4789", Count: 5}
	for name, tt := range map[string]struct {
		ledger drops.Ledger
		want   []string
	}{
		"nothing lost": {drops.Ledger{Sent: 9, Taken: 9, Counters: []drops.Counter{others}}, nil},
		"lost": {drops.Ledger{Sent: 9, Taken: 4, Lost: 5, Counters: []drops.Counter{ours, others}},
			[]string{"socket 0.0.0.0:4789 of the sensor (5)", "Ip6InDiscards of the sensor (2)"}},
		"dropped, though as many were taken": {drops.Ledger{Sent: 9, Taken: 9, Counters: []drops.Counter{ours}}, []string{"socket 0.0.0.0:4789 of the sensor (5)"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, row := range losslessRows(delivery.Document{Lossless: &delivery.Account{Ledger: &tt.ledger}}) {
				if row[0] == "counted" {
					got = append(got, row[1])
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Packets that had to be fragmented are named, with what avoids it on this way.
func TestReportNamesFragments(t *testing.T) {
	for want, doc := range map[string]delivery.Document{
		"7 packets left in IP fragments; --resegment --mtu 1450 (of TCP) or a larger MTU on veth1 avoids it": {Encapsulation: "vxlan",
			Transmission: &transmit.Description{Destination: netip.MustParseAddrPort("10.0.0.1:4789"), Device: "veth1", MTU: 1500}},
		"7 packets left in IP fragments; --resegment --mtu 1330 (of TCP) or a larger MTU on the way avoids it": {Encapsulation: "vxlan",
			Transmission: &transmit.Description{Destination: netip.MustParseAddrPort("[fd00::1]:4789"), MTU: 1400}},
		"7 packets left in IP fragments; --resegment --mtu M (of TCP) or a larger MTU on veth1 avoids it": {Encapsulation: "geneve",
			Transmission: &transmit.Description{Destination: netip.MustParseAddrPort("10.0.0.1:6081"), Device: "veth1", MTU: 1500}},
	} {
		if rows := sendRows(doc); len(rowsOf(rows, "fragmented")) > 0 {
			t.Errorf("without fragments: %q", rows)
		}
		doc.Kernel = &transmit.Stats{Fragmented: 7}
		if got := rowsOf(sendRows(doc), "fragmented"); !slices.Equal(got, []string{want}) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// rowsOf are the texts of the rows of that name.
func rowsOf(rows [][]string, name string) (texts []string) {
	for _, row := range rows {
		if row[0] == name {
			texts = append(texts, row[1])
		}
	}
	return texts
}

// What was done to frames, or would have had to be, is said once each, and what a cut
// frame is to Zeek.
func TestReportSaysWhatFramesLacked(t *testing.T) {
	rows := frameRows(forward.Report{FramesLengthRepaired: 1, FramesChecksumsOpen: 2, FramesCut: 3})
	for name, want := range map[string]string{
		"repaired":  "1 frames had no IP length, for the capturing host left it to its network card: they got one, and checksums",
		"checksums": "2 frames have checksums that their host never completed; a monitor that checks them discards them (--fix-checksums computes them)",
		"cut":       "3 frames were cut by the capture's snap length and sent as they are: Zeek drops a packet that is shorter than its IP header says (--pad-cut fills them with zeros)",
	} {
		if got := rowsOf(rows, name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if rows := frameRows(forward.Report{}); len(rows) > 0 {
		t.Errorf("nothing was lacking: %q", rows)
	}
}
