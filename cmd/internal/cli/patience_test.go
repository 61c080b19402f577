package cli

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
)

// One flag says how long a sensor is waited for: in the middle of a run and, if it
// is given, at its end as well.
func TestPatience(t *testing.T) {
	for line, want := range map[string]watch.Waiting{
		"":              {Run: watch.DefaultPatience, End: watch.Patience},
		"--patience 5m": {Run: 5 * time.Minute, End: 5 * time.Minute},
		"--patience 2s": {Run: 2 * time.Second, End: 2 * time.Second},
		"--patience 0":  {Run: 0, End: watch.Patience},
	} {
		var o sendOptions
		f := pflag.NewFlagSet("", pflag.ContinueOnError)
		o.flags(f, watch.DefaultPatience)
		if err := f.Parse(strings.Fields(line)); err != nil {
			t.Fatal(err)
		}
		if s, err := o.parse(); err != nil || s.waiting != want {
			t.Errorf("%q: %+v, %v", line, s.waiting, err)
		}
	}
}

// A person is told what limited the run, which sockets went, and how many of what
// was taken may be others'.
func TestReportOfWhatHappenedToSockets(t *testing.T) {
	account := delivery.Account{Governed: true,
		Sockets: []watch.Socket{{Place: "sensor", Address: "0.0.0.0:4789 #1", BufferBytes: 425984, HeldBytes: 170000, BelievedBytes: 148750},
			{Place: "sensor", Address: "0.0.0.0:4789 #2", BufferBytes: 425984, Gone: true}},
		Ledger: &drops.Ledger{Sent: 432, Taken: 430, Doubt: 1, Others: 5, Lost: 2, InGone: 2, Gone: []string{"0.0.0.0:4789 #2 of the sensor"}}}
	got := losslessRows(delivery.Document{Lossless: &account})
	for _, want := range [][]string{
		{"limited", "0.0.0.0:4789 #1 of the sensor dropped packets while it held no more than 170 kB of its 426 kB: " +
			"a memory limit below the buffer (of its cgroup, or net.ipv4.udp_mem), or another sender; 149 kB were counted on from then on"},
		{"taken", "429 to 430 packets; and 5 of others, which the sensor's system counts alike"},
		{"gone", "0.0.0.0:4789 #2 of the sensor, in the middle of the run; others of its port went on"},
	} {
		if !slices.ContainsFunc(got, func(row []string) bool { return slices.Equal(row, want) }) {
			t.Errorf("no row %q in %q", want, got)
		}
	}
}
