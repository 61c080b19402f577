package pace

import (
	"context"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

// blocking is how long a wait may block the thread, and with it ignore that
// its context ends.
const blocking = 20 * time.Millisecond

// Clock is the real clock: CLOCK_MONOTONIC. [NewClock] makes it. SleepUntil
// may be used by one goroutine at a time, Now by any.
type Clock struct {
	timer *time.Timer
}

var _ forward.Clock = (*Clock)(nil)

// NewClock returns the real clock.
func NewClock() *Clock {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &Clock{timer}
}

// Now implements [forward.Clock].
func (c *Clock) Now() int64 { return sys.Monotonic() }

// SleepUntil implements [forward.Clock]. It waits in two steps: coarsely by a
// timer of the Go runtime, which ctx can interrupt, then precisely by the
// kernel.
func (c *Clock) SleepUntil(ctx context.Context, t int64) error {
	if coarse := time.Duration(t-sys.Monotonic()) - blocking/2; coarse > blocking/2 {
		c.timer.Reset(coarse)
		select {
		case <-c.timer.C:
		case <-ctx.Done():
			c.timer.Stop()
			return ctx.Err()
		}
	}
	sys.SleepUntil(t)
	return ctx.Err()
}
