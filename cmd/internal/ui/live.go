package ui

import (
	"context"
	"errors"
	"io"
	"time"

	tea "github.com/charmbracelet/bubbletea"
)

// Watched is what a live screen shows. Next and Look are called by one
// goroutine, Take and Draw by another: only the news passes between them.
type Watched[News any] interface {
	// Next is when to look again.
	Next() time.Time
	// Look finds out what is new.
	Look(ctx context.Context) (News, error)
	// Take takes the news in, and reports whether more is wanted.
	Take(news News) (more bool)
	// Draw returns the screen: at most height lines of at most width cells.
	Draw(width, height int) string
}

// Watch shows a screen of its own on a terminal until a person presses q, Esc or
// Ctrl-C, nothing more is wanted, or the context ends. None of these is an error;
// that of a look is.
func Watch[News any](ctx context.Context, in io.Reader, out io.Writer, w Watched[News]) error {
	s := &live[News]{watched: w, width: 80, height: 24}
	program := tea.NewProgram(s, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out), tea.WithAltScreen(), tea.WithoutSignalHandler())
	looking, stop := context.WithCancel(ctx)
	b := startBeat(func() time.Duration { return time.Until(w.Next()) }, func() bool {
		news, err := w.Look(looking)
		program.Send(looked[News]{news, err})
		return err == nil
	})
	_, err := program.Run()
	stop() // a look that goes on has no reader any more
	b.end()
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(err, s.err)
}

// live is a [Watched] as bubbletea wants one.
type live[News any] struct {
	watched       Watched[News]
	width, height int
	err           error
}

// looked is what a look brought.
type looked[News any] struct {
	news News
	err  error
}

// Init implements tea.Model.
func (s *live[News]) Init() tea.Cmd { return nil }

// Update implements tea.Model.
func (s *live[News]) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = msg.Width, msg.Height
	case tea.KeyMsg:
		if k := msg.String(); k == "q" || k == "ctrl+c" || k == "esc" {
			return s, tea.Quit
		}
	case looked[News]:
		if s.err = msg.err; s.err != nil || !s.watched.Take(msg.news) {
			return s, tea.Quit
		}
	}
	return s, nil
}

// View implements tea.Model.
func (s *live[News]) View() string { return s.watched.Draw(s.width, s.height) }
