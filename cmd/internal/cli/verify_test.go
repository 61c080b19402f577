package cli

import (
	"context"
	"encoding/xml"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
		want    string
	}{
		{"all is well", with(counted(10, 100), "conn", conn), zeeklog.Logs{"conn": {conn}}, forward.Report{}, nil, verdictEqual},
		{"a line differs", counted(10, 100), zeeklog.Logs{"conn": {conn}}, forward.Report{}, nil, verdictDiffers},
		{"a count differs", counted(9, 90), zeeklog.Logs{}, forward.Report{}, nil, verdictDiffers},
		{"not as expected", counted(10, 100), zeeklog.Logs{}, forward.Report{}, expect, verdictUnmet},
		{"as expected", with(counted(10, 100), "dns", conn), zeeklog.Logs{"dns": {conn}}, forward.Report{}, expect, verdictEqual},
		{"some could not be sent", counted(10, 100), zeeklog.Logs{}, refused, nil, verdictIncomplete},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &subject{verification: &verification{expected: c.expect}, name: "x.pcap"}
			s.row.Path, s.row.Report = path, c.report
			s.judge(c.live, c.offline)
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

func TestResultOfManyRows(t *testing.T) {
	rows := func(verdicts ...string) (list []verifyRow) {
		for _, v := range verdicts {
			list = append(list, verifyRow{Verdict: v})
		}
		return list
	}
	var loss lossError
	if err := verifyResult(t.Context(), rows(verdictEqual, verdictEqual)); err != nil {
		t.Errorf("all equal: %v", err)
	}
	for _, v := range []string{verdictDiffers, verdictUnmet, verdictIncomplete} {
		if err := verifyResult(t.Context(), rows(verdictEqual, v)); !errors.As(err, &loss) {
			t.Errorf("%s: %v, want a loss", v, err)
		}
	}
	if err := verifyResult(t.Context(), rows(verdictDiffers, verdictFailed)); err == nil || errors.As(err, &loss) {
		t.Errorf("failed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := verifyResult(ctx, rows(verdictEqual)); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("interrupted: %v", err)
	}
}

// What a person reads and what JUnit reads say the same.
func TestReportOfVerify(t *testing.T) {
	difference := zeeklog.Difference{Log: "conn", Connection: "tcp a → b", Got: "x", Want: "y", Cause: zeeklog.Lost,
		Fields: []zeeklog.FieldChange{{Field: "orig_pkts", Got: "7", Want: "8"}}}
	rows := []verifyRow{
		{Capture: "in/good.pcap", Verdict: verdictEqual, Connections: 3, ByPace: 1, ElapsedSeconds: 1.5,
			Pace: []zeeklog.Difference{{Log: "dns", Got: "only this", Cause: zeeklog.Doubled}}},
		{Capture: "bad.pcap", Verdict: verdictDiffers, Different: 7, Differences: slices.Repeat([]zeeklog.Difference{difference}, 7),
			Findings: []zeeklog.Finding{{Cause: zeeklog.Lost, Hop: "sensor's socket", Text: "1 datagrams were dropped"}}},
		{Capture: "poor.pcap", Verdict: verdictUnmet, Expected: 2, Unmet: []string{"line 3: dns.log >= 1: there are 0"}},
		{Capture: "none.pcap", Verdict: verdictFailed, Error: "open capture: no such file", Hint: "look for it"},
		{Capture: "far.pcap", Verdict: verdictEqual, Via: viaSidecar, ViaReason: "not direct: too far", Lossless: &losslessDocument{Governed: true}},
		{Capture: "away.pcap", Verdict: verdictEqual, Via: viaSidecar, ViaReason: "not direct: too far", Lossless: &losslessDocument{Reason: "nobody knows"}},
	}
	var b strings.Builder
	writeVerify(&b, rows)
	for _, want := range []string{
		"good.pcap", "1 lines", `by pace or snap length: dns.log: only as sent: only this`,
		"lost at sensor's socket: 1 datagrams were dropped", `conn.log tcp a → b (lost): orig_pkts live "7", offline "8"`, "and 2 more",
		"1 of 2", "not as expected: line 3", "failed: open capture", "hint: look for it",
		"Sent by sidecar: not direct: too far\n\n", "note: not governed: nobody knows",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	document, err := xml.Marshal(junit("vxlan", rows))
	if err != nil {
		t.Fatal(err)
	}
	var suites junitSuites
	if err := xml.Unmarshal(document, &suites); err != nil {
		t.Fatal(err)
	}
	s := suites.Suites[0]
	if s.Tests != 6 || s.Failures != 2 || s.Errors != 1 || s.Cases[0].Failure != nil || s.Cases[0].Time != "1.500" ||
		s.Cases[1].Failure == nil || !strings.Contains(s.Cases[1].Failure.Text, "lost at") || s.Cases[3].Error == nil {
		t.Errorf("JUnit: %s", document)
	}
}

func TestFoldersStandForTheirCaptures(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.pcapng", "a.pcap.gz", "c.cap", "D.PCAP.zst", "notes.txt", "x.gz"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "empty.pcap"), 0o700); err != nil {
		t.Fatal(err)
	}
	list, err := listCaptures([]string{dir, "-", filepath.Join(dir, "notes.txt")})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(dir, "D.PCAP.zst"), filepath.Join(dir, "a.pcap.gz"), filepath.Join(dir, "b.pcapng"), filepath.Join(dir, "c.cap"), "-", filepath.Join(dir, "notes.txt")}
	if !slices.Equal(list, want) {
		t.Errorf("got %q, want %q", list, want)
	}
	if _, err := listCaptures([]string{filepath.Join(dir, "empty.pcap")}); err == nil {
		t.Error("a folder without captures was taken")
	}
}
