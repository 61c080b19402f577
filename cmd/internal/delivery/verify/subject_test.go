package verify

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/assets/samples"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/orchestrate/zeeklog"
)

func TestVerdictOfARow(t *testing.T) {
	counted := func(packets, payload uint64) zeeklog.Logs {
		return zeeklog.Logs{"stats": {{"pkts_proc": number(packets), "bytes_recv": number(payload)}}}
	}
	with := func(l zeeklog.Logs, log string, records ...zeeklog.Record) zeeklog.Logs {
		l[log] = records
		return l
	}
	conn := zeeklog.Record{"id.orig_h": "10.0.0.1", "id.resp_h": "10.0.0.2", "orig_pkts": number(1)}
	path := zeeklog.Path{Sent: 10, SentBytes: 100, DropsKnown: true}
	refused := forward.Report{Refused: []forward.RefusedCount{{Reason: forward.RefusedTooLong.String(), Frames: 1}}}
	expect, err := zeeklog.ParseExpectations(strings.NewReader("dns.log >= 1\nother.pcap: dns.log >= 1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		live    zeeklog.Logs
		offline zeeklog.Logs
		report  forward.Report
		expect  []zeeklog.Expectation
		want    Verdict

		controls []zeeklog.Logs
	}{
		{"all is well", with(counted(10, 100), "conn", conn), zeeklog.Logs{"conn": {conn}}, forward.Report{}, nil, Equal, nil},
		{"a line differs", counted(10, 100), zeeklog.Logs{"conn": {conn}}, forward.Report{}, nil, Differs, nil},
		{"a line differs, in a control too", counted(10, 100), zeeklog.Logs{"conn": {conn}}, forward.Report{}, nil, Equal, []zeeklog.Logs{{}}},
		{"a line differs, in no control", counted(10, 100), zeeklog.Logs{"conn": {conn}}, forward.Report{}, nil, Differs, []zeeklog.Logs{{"conn": {conn}}}},
		{"a count differs", counted(9, 90), zeeklog.Logs{}, forward.Report{}, nil, Differs, nil},
		{"not as expected", counted(10, 100), zeeklog.Logs{}, forward.Report{}, expect, Unmet, nil},
		{"as expected", with(counted(10, 100), "dns", conn), zeeklog.Logs{"dns": {conn}}, forward.Report{}, expect, Equal, nil},
		{"some could not be sent", counted(10, 100), zeeklog.Logs{}, refused, nil, Incomplete, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &subject{run: &run{Options: Options{Expected: c.expect}}, name: "x.pcap"}
			s.row.Path, s.row.Report = path, c.report
			s.judge(zeeklog.Rules{}, c.live, c.offline, c.controls...)
			if s.row.Verdict != c.want {
				t.Errorf("verdict %s, want %s: %v %v", s.row.Verdict, c.want, s.row.Findings, s.row.Unmet)
			}
			if s.row.Expected > 1 {
				t.Error("an expectation for another capture was counted")
			}
		})
	}
}

func number(n uint64) any {
	records, err := zeeklog.Parse(strings.NewReader(`{"n":` + uintText(n) + `}`))
	if err != nil {
		panic(err)
	}
	return records[0]["n"]
}

func uintText(n uint64) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return uintText(n/10) + uintText(n%10)
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
	name := filepath.Join(t.TempDir(), "cut.pcap")
	if err := os.WriteFile(name, samples.Sample()[:2000], 0o600); err != nil {
		t.Fatal(err)
	}
	s := &subject{run: &run{}, name: name, plain: name}
	source, err := s.capture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	for f := (forward.Frame{}); err == nil; {
		err = source.Next(&f)
	}
	return err
}
