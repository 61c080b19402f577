package ui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
)

// counting is a screen that shows how often it has looked.
type counting struct {
	looks int   // so far
	taken int   // of these, what the screen knows
	most  int   // nothing more is wanted then; 0 for no end
	fault error // of every look
	last  time.Time
	drawn chan int
}

var _ Watched[int] = (*counting)(nil)

func (c *counting) Next() time.Time { return c.last }

func (c *counting) Look(ctx context.Context) (int, error) {
	c.looks++
	c.last = time.Now().Add(time.Millisecond)
	return c.looks, errors.Join(ctx.Err(), c.fault)
}

func (c *counting) Take(n int) bool { c.taken = n; return c.most == 0 || n < c.most }

func (c *counting) Draw(width, height int) string {
	select {
	case c.drawn <- c.taken:
	default:
	}
	return fmt.Sprintf("%d looks on %d x %d", c.taken, width, height)
}

// nothing is a keyboard on which nobody presses a key.
func nothing(t *testing.T) (io.Reader, *io.PipeWriter) {
	t.Helper()
	r, w := io.Pipe()
	t.Cleanup(func() { w.Close() })
	return r, w
}

func TestALiveScreenLooksUntilNoMoreIsWanted(t *testing.T) {
	t.Parallel()
	var out locked
	in, _ := nothing(t)
	c := &counting{most: 5}
	if err := Watch(t.Context(), in, &out, c); err != nil || c.taken != 5 {
		t.Errorf("%d looks, %v", c.taken, err)
	}
	if !strings.Contains(out.String(), "looks on 80 x 24") {
		t.Errorf("nothing was drawn: %q", out.String())
	}
}

func TestALiveScreenEndsByAKey(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{"q": "q", "ctrl+c": "\x03", "esc": "\x1b"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out locked
			in, keyboard := nothing(t)
			c := &counting{drawn: make(chan int)}
			go func() {
				<-c.drawn
				_, _ = io.WriteString(keyboard, key)
			}()
			if err := Watch(t.Context(), in, &out, c); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestALiveScreenEndsByAnInterrupt(t *testing.T) {
	t.Parallel()
	var out locked
	in, _ := nothing(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := &counting{drawn: make(chan int)}
	go func() { <-c.drawn; cancel() }()
	if err := Watch(ctx, in, &out, c); err != nil {
		t.Error(err)
	}
}

func TestALookThatFailsEndsALiveScreen(t *testing.T) {
	t.Parallel()
	var out locked
	in, _ := nothing(t)
	c := &counting{fault: errors.New("no light")}
	if err := Watch(t.Context(), in, &out, c); !errors.Is(err, c.fault) || c.looks != 1 || c.taken != 0 {
		t.Errorf("%d looks, %d taken: %v", c.looks, c.taken, err)
	}
}

func TestALiveScreenKnowsItsSizeAndItsKeys(t *testing.T) {
	c := &counting{most: 3}
	s := &live[int]{watched: c}
	quits := func(msg tea.Msg) bool {
		_, cmd := s.Update(msg)
		if cmd == nil {
			return false
		}
		_, quit := cmd().(tea.QuitMsg)
		return quit
	}
	for _, key := range []tea.KeyMsg{{Type: tea.KeyRunes, Runes: []rune("q")}, {Type: tea.KeyCtrlC}, {Type: tea.KeyEsc}} {
		if !quits(key) {
			t.Errorf("%s does not quit", key)
		}
	}
	if quits(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("x")}) || quits(tea.WindowSizeMsg{Width: 60, Height: 12}) || quits(looked[int]{news: 2}) {
		t.Error("quits although more is wanted")
	}
	if got := s.View(); got != "2 looks on 60 x 12" {
		t.Error(got)
	}
	if !quits(looked[int]{news: 3}) {
		t.Error("goes on although no more is wanted")
	}
}
