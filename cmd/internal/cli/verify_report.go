package cli

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/verify"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
	"github.com/zeekdemo/zeekdemo/orchestrate/zeeklog"
)

// verifyDocument is what `verify --json` prints.
type verifyDocument struct {
	Verdict       verify.Verdict `json:"verdict"` // equal, or the worst of the captures
	Encapsulation string         `json:"encapsulation"`
	Image         string         `json:"image,omitempty"`
	Captures      []verify.Row   `json:"captures"`
}

// report prints the rows and turns them into the command's result.
func (o verifyOptions) report(ctx context.Context, app *App, v verify.Options, rows []verify.Row) error {
	doc := verifyDocument{Verdict: verify.Equal, Encapsulation: v.Kind.String(), Image: v.Settings.Images["zeek"], Captures: rows}
	for _, r := range rows {
		if r.Verdict.Worse(doc.Verdict) {
			doc.Verdict = r.Verdict
		}
	}
	var err error
	if o.junit != "" {
		err = writeJUnit(app, o.junit, doc, o.all)
	}
	switch {
	case o.json:
		err = errors.Join(err, ui.JSON(app.Out, doc))
	case o.junit != "-":
		writeVerify(app.Out, rows, o.all)
	}
	return errors.Join(verifyResult(ctx, rows), err)
}

func verifyResult(ctx context.Context, rows []verify.Row) error {
	if ctx.Err() != nil {
		return fmt.Errorf("verify: %w", delivery.ErrInterrupted)
	}
	count := map[verify.Verdict]int{}
	for _, r := range rows {
		count[r.Verdict]++
	}
	bad := len(rows) - count[verify.Equal]
	switch {
	case count[verify.Failed] > 0:
		return fmt.Errorf("verify: %d of %d captures could not be verified", count[verify.Failed], len(rows))
	case bad > 0:
		return watch.Lossf("verify: %d of %d captures are not as they should be", bad, len(rows))
	}
	return nil
}

// writeVerify prints a table with one row for each capture, then what is to be
// said about single ones.
func writeVerify(w io.Writer, rows []verify.Row, all bool) {
	table := [][]string{{"CAPTURE", "VERDICT", "CONNECTIONS", "LOG LINES", "PACKETS", "RATE", "VIA", "BY PACE", "EXPECTED"}}
	for _, r := range rows {
		expected := "-"
		if r.Expected > 0 {
			expected = fmt.Sprintf("%d of %d", r.Expected-len(r.Unmet), r.Expected)
		}
		table = append(table, []string{filepath.Base(r.Capture), string(r.Verdict), units.Count(uint64(r.Connections)), units.Count(uint64(r.Lines)),
			units.Count(r.Path.Sent), units.PacketRate(r.Report.DatagramsPerSecond), cmp.Or(string(r.Via), "-"), paceCell(r), expected})
	}
	ui.Table(w, table)
	writeReasons(w, rows)
	for _, r := range rows {
		if lines := details(r, all); len(lines) > 0 {
			fmt.Fprintf(w, "\n%s:\n  %s\n", filepath.Base(r.Capture), strings.Join(lines, "\n  "))
		}
	}
}

// writeReasons says once why captures did not go by a better way.
func writeReasons(w io.Writer, rows []verify.Row) {
	var said []string
	for _, r := range rows {
		if line := fmt.Sprintf("Sent %s: %s", r.Via.Phrase(), r.ViaReason); r.ViaReason != "" && !slices.Contains(said, line) {
			said = append(said, line)
		}
	}
	if len(said) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(said, "\n"))
	}
}

func paceCell(r verify.Row) string {
	switch {
	case r.PaceNote != "":
		return "see below"
	case r.ByPace == 0:
		return "-"
	}
	return units.Count(uint64(r.ByPace)) + " lines"
}

// shown is how many faults a person is shown; --all shows all.
const shown = 5

// live is what the side is called whose differences are faults of the path.
const live = "live"

// details tell what is wrong with a capture, the reason first, and what the
// pace changed.
func details(r verify.Row, all bool) []string {
	var lines []string
	if r.Error != "" {
		lines = append(lines, "failed: "+r.Error)
	}
	if r.Hint != "" {
		lines = append(lines, "hint: "+r.Hint)
	}
	for _, f := range r.Findings {
		lines = append(lines, fmt.Sprintf("%s at %s: %s", f.Cause, f.Hop, f.Text))
	}
	lines = append(lines, describeFaults(r, all)...)
	if n := delivery.LostFrames(r.Report); n > 0 {
		lines = append(lines, fmt.Sprintf("%s frames could not be sent:", units.Count(n)))
		for _, refused := range r.Report.Refused {
			lines = append(lines, fmt.Sprintf("  %s: %s (%s)", units.Count(refused.Frames), refused.Reason, refused.LinkType))
		}
	}
	for _, u := range r.Unmet {
		lines = append(lines, "not as expected: "+u)
	}
	for _, note := range []string{r.PaceNote, r.TypesNote} {
		if note != "" {
			lines = append(lines, "note: "+note)
		}
	}
	if l := r.Lossless; l != nil && !l.Governed {
		lines = append(lines, "note: "+l.Governance(0))
	}
	if all {
		lines = append(lines, describeAll("zeek itself: ", "one process", "another", r.Own)...)
		return append(lines, describeAll("by pace or snap length: ", "as sent", "as captured", r.Pace)...)
	}
	lines = append(lines, describeKinds("zeek itself: ", "one process", "another", r.OwnKinds)...)
	return append(lines, describeKinds("by pace or snap length: ", "as sent", "as captured", r.PaceKinds)...)
}

func describeFaults(r verify.Row, all bool) []string {
	list := r.Differences
	if !all {
		list = list[:min(len(list), shown)]
	}
	lines := describeAll("", live, "offline", list)
	if more := r.Different - len(list); more > 0 {
		lines = append(lines, fmt.Sprintf("and %s more", units.Count(uint64(more))))
	}
	return lines
}

func describeAll(prefix, got, want string, list []zeeklog.Difference) []string {
	var lines []string
	for _, d := range list {
		lines = append(lines, prefix+describeDifference(got, want, d))
	}
	return lines
}

// describeKinds gives each kind one line.
func describeKinds(prefix, got, want string, kinds []zeeklog.Kind) []string {
	var lines []string
	for _, k := range kinds {
		text := fmt.Sprintf("%s.log: %s lines: %s", k.Log, units.Count(uint64(k.Lines)), k.Reason)
		if k.Lines == 1 {
			text = describeDifference(got, want, k.Example)
		}
		if k.Why != "" {
			text += " (" + k.Why + ")"
		}
		lines = append(lines, prefix+text)
	}
	return lines
}

func describeDifference(got, want string, d zeeklog.Difference) string {
	head := d.Log + ".log"
	if d.Connection != "" {
		head += " " + d.Connection
	}
	if d.Cause != zeeklog.Unexplained && got == live {
		head += " (" + string(d.Cause) + ")"
	}
	switch {
	case d.Want == "":
		return fmt.Sprintf("%s: only %s: %s", head, got, short(d.Got))
	case d.Got == "":
		return fmt.Sprintf("%s: only %s: %s", head, want, short(d.Want))
	}
	var fields []string
	for _, f := range d.Fields {
		fields = append(fields, fmt.Sprintf("%s %s %q, %s %q", f.Field, got, short(f.Got), want, short(f.Want)))
	}
	return head + ": " + strings.Join(fields, "; ")
}

// short keeps a line readable.
func short(s string) string {
	const most = 200
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// The parts of JUnit's XML that continuous integration reads.
type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitProblem `xml:"failure,omitempty"`
	Error   *junitProblem `xml:"error,omitempty"`
	Out     string        `xml:"system-out,omitempty"`
}

type junitProblem struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// junit turns rows into test cases: a capture that could not be verified is an
// error, one that is not as it should be a failure.
func junit(kind string, rows []verify.Row, all bool) junitSuites {
	suite := junitSuite{Name: "zeekdemo verify " + kind, Tests: len(rows)}
	var total time.Duration
	for _, r := range rows {
		c := junitCase{Class: "zeekdemo.verify." + kind, Name: filepath.Base(r.Capture), Time: fmt.Sprintf("%.3f", r.ElapsedSeconds)}
		total += seconds(r.ElapsedSeconds)
		text := strings.Join(details(r, all), "\n")
		switch r.Verdict {
		case verify.Equal:
			c.Out = text
		case verify.Failed:
			suite.Errors++
			c.Error = &junitProblem{Message: r.Error, Text: text}
		default:
			suite.Failures++
			c.Failure = &junitProblem{Message: string(r.Verdict), Text: text}
		}
		suite.Cases = append(suite.Cases, c)
	}
	suite.Time = fmt.Sprintf("%.3f", total.Seconds())
	return junitSuites{Suites: []junitSuite{suite}}
}

func writeJUnit(app *App, name string, doc verifyDocument, all bool) error {
	document, err := xml.MarshalIndent(junit(doc.Encapsulation, doc.Captures, all), "", "  ")
	if err != nil {
		return fmt.Errorf("write JUnit XML: %w", err)
	}
	document = append([]byte(xml.Header), append(document, '\n')...)
	if name == "-" {
		_, err = app.Out.Write(document)
	} else {
		err = os.WriteFile(name, document, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write JUnit XML: %w", err)
	}
	return nil
}
