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

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/verify"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/orchestrate/zeeklog"
)

func TestResultOfManyRows(t *testing.T) {
	rows := func(verdicts ...verify.Verdict) (list []verify.Row) {
		for _, v := range verdicts {
			list = append(list, verify.Row{Verdict: v})
		}
		return list
	}
	var loss *delivery.LossError
	if err := verifyResult(t.Context(), rows(verify.Equal, verify.Equal)); err != nil {
		t.Errorf("all equal: %v", err)
	}
	for _, v := range []verify.Verdict{verify.Differs, verify.Unmet, verify.Incomplete} {
		if err := verifyResult(t.Context(), rows(verify.Equal, v)); !errors.As(err, &loss) {
			t.Errorf("%s: %v, want a loss", v, err)
		}
	}
	if err := verifyResult(t.Context(), rows(verify.Differs, verify.Failed)); err == nil || errors.As(err, &loss) {
		t.Errorf("failed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := verifyResult(ctx, rows(verify.Equal)); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("interrupted: %v", err)
	}
}

// What a person reads and what JUnit reads say the same.
func TestReportOfVerify(t *testing.T) {
	difference := zeeklog.Difference{Log: "conn", Connection: "tcp a → b", Got: "x", Want: "y", Cause: zeeklog.Lost,
		Fields: []zeeklog.FieldChange{{Field: "orig_pkts", Got: "7", Want: "8"}}}
	rows := []verify.Row{
		{Capture: "in/good.pcap", Verdict: verify.Equal, Connections: 3, ByPace: 1, ElapsedSeconds: 1.5,
			PaceKinds: []zeeklog.Kind{{Log: "dns", Lines: 1, Example: zeeklog.Difference{Log: "dns", Got: "only this", Cause: zeeklog.Doubled}},
				{Log: "conn", Reason: "connections divided otherwise", Lines: 58572}},
			OwnKinds: []zeeklog.Kind{{Log: "ftp", Reason: "data_channel.resp_p", Lines: 2}}, TypesNote: "types unknown"},
		{Capture: "bad.pcap", Verdict: verify.Differs, Different: 7, Differences: slices.Repeat([]zeeklog.Difference{difference}, 7),
			Findings: []zeeklog.Finding{{Cause: zeeklog.Lost, Hop: "sensor's socket", Text: "1 datagrams were dropped"}}},
		{Capture: "poor.pcap", Verdict: verify.Unmet, Expected: 2, Unmet: []string{"line 3: dns.log >= 1: there are 0"}},
		{Capture: "none.pcap", Verdict: verify.Failed, Error: "open capture: no such file", Hint: "look for it"},
		{Capture: "far.pcap", Verdict: verify.Equal, Via: way.Sidecar, ViaReason: "not direct: too far", Lossless: &delivery.Account{Governed: true}},
		{Capture: "away.pcap", Verdict: verify.Equal, Via: way.Sidecar, ViaReason: "not direct: too far", Lossless: &delivery.Account{Reason: "nobody knows"}},
	}
	var b strings.Builder
	writeVerify(&b, rows, false)
	for _, want := range []string{
		"good.pcap", "1 lines", `by pace or snap length: dns.log: only as sent: only this`,
		"by pace or snap length: conn.log: 58 572 lines: connections divided otherwise", "zeek itself: ftp.log: 2 lines: data_channel.resp_p", "note: types unknown",
		"lost at sensor's socket: 1 datagrams were dropped", `conn.log tcp a → b (lost): orig_pkts live "7", offline "8"`, "and 2 more",
		"1 of 2", "not as expected: line 3", "failed: open capture", "hint: look for it",
		"Sent by sidecar: not direct: too far\n\n", "note: not governed: nobody knows",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	document, err := xml.Marshal(junit("vxlan", rows, false))
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
	list, err := pcapfile.List([]string{dir, "-", filepath.Join(dir, "notes.txt")}, pcapfile.AsGiven)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(dir, "D.PCAP.zst"), filepath.Join(dir, "a.pcap.gz"), filepath.Join(dir, "b.pcapng"), filepath.Join(dir, "c.cap"), "-", filepath.Join(dir, "notes.txt")}
	if !slices.Equal(list, want) {
		t.Errorf("got %q, want %q", list, want)
	}
	if _, err := pcapfile.List([]string{filepath.Join(dir, "empty.pcap")}, pcapfile.AsGiven); err == nil {
		t.Error("a folder without captures was taken")
	}
}
