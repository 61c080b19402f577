package ui

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
)

// redraw is the pause between two pictures of the live lines.
const redraw = 100 * time.Millisecond

// Step is the news of one thing under way.
type Step struct {
	ID      string // what, e.g. "Container zeekdemo-zeek-1"
	Parent  string // the step it is a part of, e.g. an image for its layers
	Text    string // what happens to it, e.g. "Starting"
	Detail  string
	State   StepState
	Current int64 // bytes, with Total
	Total   int64
}

// StepState is how far a step has come.
type StepState int

// The states of a step.
const (
	StepWorking StepState = iota
	StepDone
	StepWarning
	StepFailed
)

// Progress shows steps: on a terminal the running ones as live lines below the
// finished ones, elsewhere one plain line per change. Its methods may be
// called from several goroutines.
type Progress struct {
	w    io.Writer
	term Terminal

	mu      sync.Mutex
	order   []string
	steps   map[string]*Step
	parts   map[string]map[string]Step // layers by image
	said    map[string]string          // the last line of each finished step
	plainly map[string]bool            // every plain line so far
	drawn   int                        // live lines on the screen
	beat    *beat                      // none where nothing moves
}

// NewProgress starts showing on w. Close ends it.
func NewProgress(w io.Writer, term Terminal) *Progress {
	p := &Progress{w: w, term: term, steps: map[string]*Step{}, parts: map[string]map[string]Step{},
		said: map[string]string{}, plainly: map[string]bool{}}
	if term.Live {
		p.beat = every(redraw, p.redraw)
	}
	return p
}

// Close draws the last picture and leaves every line on the screen.
func (p *Progress) Close() {
	p.beat.end()
	if p.term.Live {
		p.redraw()
	}
}

func (p *Progress) redraw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draw()
}

// Update takes the news of one step.
func (p *Progress) Update(s Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.Parent != "" {
		p.updatePart(s)
		return
	}
	if !p.term.Live {
		p.plain(s)
		return
	}
	if _, known := p.steps[s.ID]; !known {
		p.order = append(p.order, s.ID)
	}
	p.steps[s.ID] = &s
}

func (p *Progress) updatePart(s Step) {
	if p.parts[s.Parent] == nil {
		p.parts[s.Parent] = map[string]Step{}
	}
	if s.Total == 0 { // a part that is done no longer says its size
		s.Total = p.parts[s.Parent][s.ID].Total
	}
	if s.State == StepDone {
		s.Current = s.Total
	}
	p.parts[s.Parent][s.ID] = s
}

// plain prints a change. A step that goes back and forth, such as a container
// that dies again and again, says so once.
func (p *Progress) plain(s Step) {
	line := strings.TrimSpace(s.ID + ": " + s.Text + detail(s))
	if !p.plainly[line] {
		p.plainly[line] = true
		fmt.Fprintln(p.w, line)
	}
}

func detail(s Step) string {
	if s.Detail == "" {
		return ""
	}
	return " (" + s.Detail + ")"
}

// draw replaces the live lines: finished steps become permanent lines above
// the ones that still run.
func (p *Progress) draw() {
	width, height := p.term.Size()
	var out strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&out, "\x1b[%dA\r\x1b[J", p.drawn)
	}
	var running []string
	for _, id := range p.order {
		s := p.steps[id]
		if s.State == StepWorking {
			running = append(running, id)
			continue
		}
		if line := p.line(s, width); p.said[id] != line {
			p.said[id] = line
			out.WriteString(line + "\n")
		}
	}
	shown := running[:min(len(running), max(1, height-2))]
	for _, id := range shown {
		out.WriteString(p.line(p.steps[id], width) + "\n")
	}
	p.order, p.drawn = running, len(shown)
	p.forget(running)
	_, _ = io.WriteString(p.w, out.String())
}

// forget drops the steps that were printed for good. A step that comes to life
// again is a new line.
func (p *Progress) forget(running []string) {
	keep := make(map[string]*Step, len(running))
	for _, id := range running {
		keep[id] = p.steps[id]
	}
	p.steps = keep
}

func (p *Progress) line(s *Step, width int) string {
	marks := map[StepState]string{StepWorking: "…", StepDone: "✔", StepWarning: "!", StepFailed: "✘"}
	colors := map[StepState]string{StepWorking: "36", StepDone: "32", StepWarning: "33", StepFailed: "31"}
	text := Cut(s.ID+"  "+s.Text+detail(*s)+p.bar(s), max(width-3, 10))
	if p.term.Color {
		return "\x1b[" + colors[s.State] + "m" + marks[s.State] + "\x1b[0m " + text
	}
	return marks[s.State] + " " + text
}

// bar shows how much of a step's parts is done: [#####.....] 12.0 MB of 24.0 MB.
func (p *Progress) bar(s *Step) string {
	current, total := s.Current, s.Total
	for _, part := range p.parts[s.ID] {
		current, total = current+part.Current, total+part.Total
	}
	if total <= 0 || s.State != StepWorking {
		return ""
	}
	const cells = 20
	full := int(min(max(current, 0), total) * cells / total)
	return fmt.Sprintf("  [%s%s] %s of %s", strings.Repeat("#", full), strings.Repeat(".", cells-full), units.Bytes(current), units.Bytes(total))
}
