package cli

import (
	"errors"
	"io/fs"
	"slices"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
	"github.com/zeekdemo/zeekdemo/orchestrate/zeeklog"
)

// others is a counter of the whole machine, ours one of a socket on the way.
var (
	others = drops.Counter{Place: "sensor", Name: "Ip6InDiscards", Count: 2}
	ours   = drops.Counter{Place: "sensor", Name: "socket 0.0.0.0:4789", Count: 5}
)

// A person is shown other people's losses only where they may explain one.
func TestReportShowsCountersThatConcernTheRun(t *testing.T) {
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
			for _, row := range losslessRows(replayDocument{Lossless: &losslessDocument{Ledger: &tt.ledger}}) {
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

func TestGovernance(t *testing.T) {
	governed := losslessDocument{Governed: true, Feedback: "proc", Sockets: []watchedSocket{{Place: "sensor", BufferBytes: 2048}, {Place: "host", BufferBytes: 1024}}}
	for want, got := range map[string]string{
		"governed by the sensor's socket and docker-proxy's (sizes assumed), least buffer 1.02 kB; waited 1.5s for the sensor":      governed.governance(1.5),
		"governed by the sensor's socket and docker-proxy's (sizes assumed), least buffer 1.02 kB; the sensor was never waited for": governed.governance(0),
		"not governed: --lossless off": losslessDocument{Reason: "--lossless off"}.governance(1),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Without feedback a run goes on and says why, unless it must not.
func TestWithoutFeedback(t *testing.T) {
	for mode, fails := range map[losslessMode]bool{losslessAuto: false, losslessOff: false, losslessRequire: true} {
		reason, err := mode.without(fs.ErrPermission)
		if (err != nil) != fails || fails && !errors.Is(err, fs.ErrPermission) || !fails && reason != fs.ErrPermission.Error() {
			t.Errorf("%s: %q, %v", mode, reason, err)
		}
	}
}

// What the kernel counted explains what is missing, and nothing else.
func TestCountersExplainAPath(t *testing.T) {
	d := &losslessDocument{Sockets: []watchedSocket{{Place: "sensor", Dropped: 1}, {Place: "host", Dropped: 3}},
		Ledger: &drops.Ledger{Taken: 6, Counters: []drops.Counter{ours, others, {Place: "host", Name: "softnet time_squeeze", Count: 9}}}}
	missing := zeeklog.Path{Sent: 10, Counted: true, Received: 6}
	d.explain(&missing)
	if !missing.TakenKnown || missing.Taken != 6 || missing.ProxyDropped != 3 || !slices.Equal(missing.Elsewhere, []string{others.String()}) {
		t.Errorf("%+v", missing)
	}
	whole := zeeklog.Path{Sent: 6, Counted: true, Received: 6}
	d.explain(&whole)
	if whole.Elsewhere != nil {
		t.Errorf("%+v", whole)
	}
	nothing := zeeklog.Path{Sent: 6}
	(*losslessDocument)(nil).explain(&nothing)
	if nothing.TakenKnown {
		t.Errorf("%+v", nothing)
	}
}

// Damage of a capture ends a run early and is noted; whatever else went wrong
// still fails it.
func TestOnlyDamageOfTheCaptureIsForgiven(t *testing.T) {
	damage := damagedCapture(t)
	other := errors.New("the sensor has gone")
	for name, tt := range map[string]struct{ err, want error }{
		"nothing": {nil, nil}, "damage": {damage, nil}, "other": {other, other}, "both": {errors.Join(other, damage), other},
	} {
		x := sending{subject: &subject{}}
		if got := x.untilDamage(tt.err); (got != nil) != (tt.want != nil) || !errors.Is(got, tt.want) {
			t.Errorf("%s: %v", name, got)
		}
		if noted := x.row.PaceNote != ""; noted != errors.Is(tt.err, damage) {
			t.Errorf("%s: noted: %v", name, noted)
		}
	}
}

// damagedCapture is how reading one ends.
func damagedCapture(t *testing.T) error {
	t.Helper()
	name := cutSample(t)
	s := &subject{verification: &verification{}, name: name, plain: name}
	source, err := s.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	for f := (forward.Frame{}); err == nil; {
		err = source.Next(&f)
	}
	return err
}
