package watch

import (
	"errors"
	"fmt"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// Patience is how long a sensor may take nothing at the end of a run until it
// counts as stuck, unless something else is asked for. Zeek stops reading for
// seconds where a script keeps it.
const Patience = 10 * time.Second

// DefaultPatience is the same in the middle of a run: whoever looks at a sensor
// with a debugger, or has a script that blocks, needs longer.
const DefaultPatience = time.Minute

const (
	hurry  = 500 * time.Millisecond // Patience where the run was interrupted
	answer = 800 * time.Millisecond // until an interrupt is answered, whatever the sensor does
)

// Waiting is how long a sensor is waited for that takes nothing.
type Waiting struct {
	Run time.Duration `json:"run"` // while there is something to send; 0 for ever
	End time.Duration `json:"end"` // once everything was sent
}

// Waits is the Waiting of a run for which nothing else was asked.
func Waits() Waiting { return Waiting{Run: DefaultPatience, End: Patience} }

// Wait sets how long the sensor is waited for; an End of 0 is [Patience]. Say is told
// when it has taken nothing for some seconds, and when it takes again; nil is for
// nobody. It is to be called before anything is sent.
func (w *Watch) Wait(limits Waiting, say func(line string)) {
	if limits.End == 0 {
		limits.End = Patience
	}
	w.waiting = limits
	w.governor.Patience(limits.Run, func(s pace.Stall) {
		w.stalled.Store(!s.Over)
		if say != nil {
			say(stalled(s))
		}
	})
}

// Stalled reports whether the sensor has taken nothing for some seconds though
// something waits for it. It may be called from any goroutine.
func (w *Watch) Stalled() bool { return w.stalled.Load() }

// stalled says it in a line.
func stalled(s pace.Stall) string {
	spent := units.Duration(s.For.Round(time.Second / 10))
	switch {
	case s.Over:
		return fmt.Sprintf("%s takes packets again, after %s", s.Socket, spent)
	case s.Limit == 0:
		return fmt.Sprintf("%s has taken nothing for %s; waiting until it does", s.Socket, spent)
	}
	return fmt.Sprintf("%s has taken nothing for %s; waiting up to %s", s.Socket, spent, units.Duration(s.Limit))
}

// GaveUp makes of the end of a run whose sensor was waited for in vain a
// [LossError]: what was not sent has not passed. Other errors stay what they are.
func GaveUp(err error) error {
	var stuck *pace.StuckError
	var loss *LossError
	if !errors.As(err, &stuck) || errors.As(err, &loss) {
		return err
	}
	return &LossError{orchestrate.WithHint(fmt.Errorf("wait for the sensor: %w", err),
		"`zeekdemo logs` and `zeekdemo status` tell how it is; --patience waits longer")}
}
