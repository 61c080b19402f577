package pace

import (
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Looped waits for delay between one pass over the input (Frame.Loop) and the next,
// on top of the schedule of p. A schedule of p goes on behind the pause as if
// time had stood still; without one, the pause begins when the first frame of the
// pass is at hand.
func Looped(p forward.Pacer, delay time.Duration) forward.Pacer {
	if delay <= 0 {
		return p
	}
	return &looped{pacer: p, delay: int64(delay)}
}

type looped struct {
	pacer forward.Pacer
	delay int64
	loop  int
	shift int64 // the pauses so far
	until int64 // without a schedule: the end of the last pause
}

// Due implements [forward.Pacer].
func (p *looped) Due(f *forward.Frame, inner int, now int64) (due, earliest int64) {
	next := f.Loop != p.loop
	if next {
		p.loop = f.Loop
		p.shift = min(p.shift+p.delay, farAway)
	}
	due, earliest = p.pacer.Due(f, inner, now-p.shift)
	if due != forward.AtOnce {
		return due + p.shift, earliest + p.shift
	}
	if next {
		p.until = now + p.delay
	}
	if p.until > now {
		return p.until, p.until
	}
	return forward.AtOnce, forward.AtOnce
}
