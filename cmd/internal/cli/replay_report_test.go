package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
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

// The last line says what is known of the packets, and claims no more.
func TestVerdictSaysWhatIsKnown(t *testing.T) {
	known := &delivery.Account{Ledger: &drops.Ledger{}}
	for want, doc := range map[string]delivery.Document{
		"every frame that holds a packet was sent into the file":                                                  {Verdict: delivery.Complete, Via: way.File},
		"every frame that holds a packet was sent, and all that was sent was taken by the sensor":                 {Verdict: delivery.Complete, Via: way.Direct, Delivery: watch.AllTaken, Lossless: known},
		"every frame that holds a packet was sent; nobody here can see whether it was taken":                      {Verdict: delivery.Complete, Via: way.To, Delivery: watch.OnlySent, Lossless: &delivery.Account{}},
		"every frame that holds a packet was sent; whether all of it was taken the sensor's counters cannot tell": {Verdict: delivery.Complete, Via: way.Direct, Delivery: watch.OnlySent, Lossless: known},
		"interrupted after 3 packets, and all that was sent was taken by the sensor":                              {Verdict: delivery.Interrupted, Error: "interrupted after 3 packets", Delivery: watch.AllTaken},
		"interrupted after 3 packets; some of it still waits to be taken by the sensor": {Verdict: delivery.Interrupted, Error: "interrupted after 3 packets", Delivery: watch.OnlySent,
			Lossless: &delivery.Account{Ledger: &drops.Ledger{Sent: 3, QueuedBytes: 900}}},
		"interrupted after 3 packets; some of them did not arrive": {Verdict: delivery.Interrupted, Error: "interrupted after 3 packets", Delivery: watch.SomeLost},
		"incomplete: 5 of 9 packets lost":                          {Verdict: delivery.Incomplete, Error: "5 of 9 packets lost", Delivery: watch.SomeLost},
	} {
		if got := verdictLine(doc); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// What was met on the way is called overcome only where the run went on to its end.
func TestTroubleIsOvercomeOrNot(t *testing.T) {
	met := transmit.Trouble{Kind: transmit.Filtered, Count: 1}
	for verdict, overcome := range map[delivery.Verdict]bool{
		delivery.Complete: true, delivery.Incomplete: true, delivery.Failed: false, delivery.Interrupted: false,
	} {
		if got := troubleLine(met, verdict); strings.Contains(got, "overcome") != overcome {
			t.Errorf("%s: %s", verdict, got)
		}
	}
	lost := transmit.Trouble{Kind: transmit.PortUnreachable, Count: 2}
	if got := troubleLine(lost, delivery.Incomplete); got != lost.String() {
		t.Errorf("what was lost: %s", got)
	}
}
