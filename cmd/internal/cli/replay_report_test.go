package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
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
		"cut":       "3 frames were cut by the capture's snap length and sent as they are: Zeek leaves out a packet that is shorter than its IP header says, or stops at it unless it ignores checksums (--pad-cut fills them with zeros)",
	} {
		if got := rowsOf(rows, name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if rows := frameRows(forward.Report{}); len(rows) > 0 {
		t.Errorf("nothing was lacking: %q", rows)
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
	doubtful := transmit.Trouble{Kind: transmit.SharedQueue, Count: 2, Device: "eth0"}
	if got := troubleLine(doubtful, delivery.Complete); got != "the queue of eth0 dropped 2 packets meanwhile, ours or others'" {
		t.Errorf("what may be lost: %s", got)
	}
}
