package ui

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Ticker shows some lines once a second for as long as something goes on: on a
// terminal in place of those before, elsewhere one after the other. Say prints
// between them.
type Ticker struct {
	w     io.Writer
	term  Terminal
	mu    sync.Mutex
	drawn int // live lines on the screen
	beat  *beat
}

// tickInterval is the pause between two showings.
const tickInterval = time.Second

// NewTicker starts to show what lines returns. Close ends it.
func NewTicker(w io.Writer, term Terminal, lines func() []string) *Ticker {
	t := &Ticker{w: w, term: term}
	t.beat = every(tickInterval, func() { t.show(lines()) })
	return t
}

// Close takes the live lines away.
func (t *Ticker) Close() {
	t.beat.end()
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprint(t.w, t.erase())
}

// Say prints a line that stays.
func (t *Ticker) Say(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprint(t.w, t.erase()+line+"\n")
}

func (t *Ticker) show(lines []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.term.Live {
		for _, line := range lines {
			fmt.Fprintln(t.w, line)
		}
		return
	}
	width, height := t.term.Size()
	out := t.erase()
	lines = lines[:min(len(lines), max(1, height-1))]
	for _, line := range lines {
		out += Cut(line, width-1) + "\n"
	}
	t.drawn = len(lines)
	fmt.Fprint(t.w, out)
}

// erase returns what takes the live lines off the screen.
func (t *Ticker) erase() string {
	if t.drawn == 0 {
		return ""
	}
	up := strings.Repeat("\x1b[A", t.drawn)
	t.drawn = 0
	return up + "\r\x1b[J"
}
