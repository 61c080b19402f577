package ui

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

type advised struct{ error }

func (advised) Hint() string { return "do this" }

func TestAnErrorIsPrintedOnceWithItsHint(t *testing.T) {
	var out bytes.Buffer
	Error(&out, fmt.Errorf("open the door: %w", advised{errors.New("locked")}))
	if want := "zeekdemo: open the door: locked\nhint: do this\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestTableAlignsColumns(t *testing.T) {
	var out bytes.Buffer
	Table(&out, [][]string{{"SERVICE", "STATE"}, {"zeek", "running"}, {"zeek-geneve", "…"}})
	want := "SERVICE      STATE\nzeek         running\nzeek-geneve  …\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestPlainProgressSaysEachChangeOnce(t *testing.T) {
	var out bytes.Buffer
	p := NewProgress(&out, Terminal{})
	p.Update(Step{ID: "Image zeek", Text: "Pulling"})
	p.Update(Step{ID: "layer", Parent: "Image zeek", Text: "Downloading", Current: 1, Total: 2})
	p.Update(Step{ID: "Image zeek", Text: "Pulling"})
	p.Update(Step{ID: "Image zeek", Text: "Pulled", State: StepDone})
	p.Close()
	if want := "Image zeek: Pulling\nImage zeek: Pulled\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

// screen plays what a terminal of the given width shows: enough of one for the
// sequences that Progress uses.
func screen(text string) []string {
	lines := []string{""}
	for len(text) > 0 {
		var up int
		switch {
		case strings.HasPrefix(text, "\x1b["):
			end := strings.IndexAny(text, "AJKm")
			if text[end] == 'A' {
				fmt.Sscanf(text[2:end], "%d", &up)
				lines = lines[:len(lines)-up]
				lines[len(lines)-1] = ""
			}
			text = text[end+1:]
		case text[0] == '\n':
			lines = append(lines, "")
			text = text[1:]
		case text[0] == '\r':
			text = text[1:]
		default:
			lines[len(lines)-1] += text[:1]
			text = text[1:]
		}
	}
	return lines[:len(lines)-1]
}

func TestLiveProgressKeepsFinishedStepsAboveRunningOnes(t *testing.T) {
	var out bytes.Buffer
	p := &Progress{w: &out, term: Terminal{Live: true, Size: func() (int, int) { return 61, 24 }},
		steps: map[string]*Step{}, parts: map[string]map[string]Step{}, said: map[string]string{}}
	p.Update(Step{ID: "Image a", Text: "Pulling"})
	p.Update(Step{ID: "l1", Parent: "Image a", Text: "Downloading", Current: 5_000_000, Total: 20_000_000})
	p.Update(Step{ID: "Image b", Text: "Pulling"})
	p.draw()
	p.Update(Step{ID: "Image b", Text: "Pulled", State: StepDone})
	p.draw()
	p.Update(Step{ID: "Image a", Text: "failed for a reason that is much longer than the line", State: StepFailed})
	p.Close()
	got := screen(out.String())
	want := []string{"✔ Image b  Pulled", "✘ Image a  failed for a reason that is much longer than the…"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the screen shows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !strings.Contains(out.String(), "[#####...............] 5.00 MB of 20.0") {
		t.Errorf("no bar for the layers in %q", out.String())
	}
	if strings.Contains(out.String(), "\x1b[3") {
		t.Error("colours although none were wanted")
	}
}

func TestMeterLine(t *testing.T) {
	for name, tc := range map[string]struct {
		r    Reading
		want string
	}{
		"known length":   {Reading{Packets: 1203456, Bytes: 421e6, Elapsed: 9 * time.Second, Now: 168e3, Mean: 165e3, Done: 42, Total: 100}, " 42 %  1 203 456 packets, 421 MB, 168 kpps (mean 165 kpps), 12s left"},
		"standard input": {Reading{Packets: 10, Bytes: 1000, Elapsed: 61 * time.Second, Now: 1, Mean: 2}, "10 packets, 1.00 kB, 1 pps (mean 2 pps), 1m1s"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := meterLine(tc.r); got != tc.want {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}
