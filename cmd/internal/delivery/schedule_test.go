package delivery

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// seconds are the times of a capture's packets after its first one, as tshark sees
// them: "0,5".
func tsharkSeconds(t *testing.T, capture string) string {
	t.Helper()
	cmd := exec.Command(testenv.NeedTool(t, "tshark"), "-n", "-r", capture, "-T", "fields", "-e", "frame.time_relative")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, line := range strings.Fields(string(out)) {
		s, err := strconv.ParseFloat(line, 64)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, strconv.FormatFloat(s, 'g', -1, 64))
	}
	return strings.Join(list, ",")
}

// A file is written at once, whatever lies between its packets. Its times are the
// recorded ones, or those of the pace that was asked for.
func TestAFileIsWrittenAtOnce(t *testing.T) {
	for _, tt := range []struct {
		capture string
		change  func(*pace.Spec)
		want    string
	}{
		{"gap5.pcap", func(*pace.Spec) {}, "0,5"},
		{"gap5.pcap", func(s *pace.Spec) { s.Speed, s.Given["speed"] = "2x", true }, "0,2.5"},
		{"gap5.pcap", func(s *pace.Spec) { s.PPS, s.Given["pps"] = 10, true }, "0,0.1"},
		{"gap5.pcap", func(s *pace.Spec) { s.Pace, s.Given["pace"] = pace.AtOnce, true }, "0,5"},
		{"future.pcap", func(*pace.Spec) {}, "0,65536.000028,4.9e-05,9.2e-05"},
		{"future.pcap", func(s *pace.Spec) { s.MaxGap = 3 * time.Second }, "0,3,3,3"},
	} {
		r := replay(t, testenv.Shared(t, "field", tt.capture))
		r.Pace = pace.Spec{Pace: pace.AsRecorded, Speed: "1x", Given: map[string]bool{}}
		tt.change(&r.Pace)
		out := filepath.Join(t.TempDir(), "out.pcap")
		if _, err := sent(t, r, File{Path: out}); err != nil {
			t.Fatal(err)
		}
		if got := tsharkSeconds(t, out); got != tt.want {
			t.Errorf("%s with %+v: packets at %s, want %s", tt.capture, r.Pace, got, tt.want)
		}
	}
}

// What is to take a certain time takes it, measured over what is really played: all
// loops and the pauses between them, or as much as the limit lets pass.
func TestFit(t *testing.T) {
	ten := testenv.Shared(t, "field", "ten.pcap")
	for _, tt := range []struct {
		name        string
		limit       uint64
		open, loops int
	}{{"once", 0, 1, 1}, {"three loops", 0, 1, 3}, {"to the middle of the second loop", 15, 3, 0}} {
		spec := pace.Spec{Pace: pace.AsRecorded, Speed: "3x", MaxGap: 300 * time.Millisecond, Fit: time.Minute, LoopDelay: time.Second}
		measured, err := OpenCaptures(t.Context(), []string{ten}, tt.open, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		defer measured.Close()
		if spec, err = Fit(t.Context(), measured, spec, tt.limit, tt.loops); err != nil {
			t.Fatal(err)
		}
		played, err := OpenCaptures(t.Context(), []string{ten}, max(tt.open, tt.loops), nil, "")
		if err != nil {
			t.Fatal(err)
		}
		defer played.Close()
		if got := lasts(t, spec, played, tt.limit); (got - time.Minute).Abs() > time.Millisecond {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// lasts is when the last frame is due.
func lasts(t *testing.T, spec pace.Spec, source forward.Source, limit uint64) time.Duration {
	t.Helper()
	pacer, err := spec.Pacer()
	if err != nil {
		t.Fatal(err)
	}
	var f forward.Frame
	var due int64
	for n := uint64(0); (n < limit || limit == 0) && source.Next(&f) == nil; n++ {
		due, _ = pacer.Due(&f, 0, due)
	}
	return time.Duration(due)
}

// A fit that is interrupted says so, and one that loops' pauses fill is refused.
func TestFitFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	spec := pace.Spec{Pace: pace.AsRecorded, Speed: "1x", Fit: time.Second, LoopDelay: time.Second}
	for _, c := range []context.Context{ctx, t.Context()} {
		if _, err := Fit(c, replay(t).Captures, spec, 0, 2); err == nil {
			t.Error("no error")
		}
	}
}

// stillClock stands still; what sleeps on it passes the time.
type stillClock struct{ now int64 }

func (c *stillClock) Now() int64                                  { return c.now }
func (c *stillClock) SleepUntil(_ context.Context, t int64) error { c.now = t; return nil }

// A pause of more than a minute is told of, with its length and how to shorten it.
func TestLongPausesAreAnnounced(t *testing.T) {
	var said []string
	c := announcingClock{Clock: &stillClock{}, say: func(line string) { said = append(said, line) }}
	for _, second := range []int64{1, 61, 121, 121 + 65536} { // the first three are a minute or less apart
		if err := c.SleepUntil(t.Context(), second*1e9); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{pauseNews(65536*time.Second, "the next packet")}; !slices.Equal(said, want) || !strings.Contains(said[0], "18h12m") || !strings.Contains(said[0], "--max-gap") {
		t.Errorf("said %q, want %q", said, want)
	}
}

// A pause between loops was asked for.
func TestLoopDelayIsNoNews(t *testing.T) {
	told := sayer{&strings.Builder{}}
	r := &Replay{Observer: told, Pace: pace.Spec{Pace: pace.AsRecorded, Speed: "1x", LoopDelay: time.Hour}}
	c := r.clock().(announcingClock)
	c.Clock = &stillClock{}
	if err := c.SleepUntil(t.Context(), int64(time.Hour)); err != nil || told.said.Len() > 0 {
		t.Errorf("told %q, error %v", told.said, err)
	}
}

// A sidecar waits elsewhere, so the pause is told of where it is read.
func TestLongPausesAreAnnouncedForASidecar(t *testing.T) {
	told := sayer{&strings.Builder{}}
	r := replay(t, testenv.Shared(t, "field", "future.pcap"))
	r.Observer, r.Pace = told, pace.Spec{Pace: pace.AsRecorded, Speed: "2x"}
	source, err := r.announcing(r.Captures.Source)
	if err != nil {
		t.Fatal(err)
	}
	var f forward.Frame
	for err == nil {
		err = source.Next(&f)
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	if got, want := told.said.String(), pauseNews(32768*time.Second, "packet 2")+"\n"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	if r.Pace = pace.MaxSpec(); r.clock() == nil {
		t.Error("no clock")
	}
	if source, _ = r.announcing(r.Captures.Source); source != r.Captures.Source {
		t.Error("a run without pauses has something between")
	}
}
