package cli

import (
	"slices"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
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
