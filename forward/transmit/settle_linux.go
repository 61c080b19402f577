package transmit

import (
	"context"
	"net/netip"
	"time"
)

// settlePiece bounds each wait, so that the end of a context is noticed.
const settlePiece = 20 * time.Millisecond

// neighbourLast is how long a neighbour may take to say that it is there: two
// requests of the kernel's.
const neighbourLast = 1200 * time.Millisecond

// settle waits for what may still be said about what was sent. The follower is
// nil where the way is not followed.
func (w *writer) settle(ctx context.Context, f *follower) {
	if w.counts.datagrams.Load() == 0 {
		return
	}
	s := settlement{troubles: &w.troubles, follower: f, now: w.now, listen: func(most time.Duration) { _ = w.path.listen(most, false) }}
	s.await(ctx, w.firstSent, w.lastSent)
}

// settlement is the wait for what may still be said.
type settlement struct {
	troubles *troubles
	follower *follower // nil where the way is not followed
	now      func() int64
	listen   func(most time.Duration) // takes in what is said, and waits at most so long for it
}

// await waits; the datagrams left from first to last.
func (s settlement) await(ctx context.Context, first, last int64) {
	for {
		now, deadline := s.now(), settleUntil(s.follower, first, last)
		if s.troubles.lost() || ctx.Err() != nil || now >= deadline {
			break
		}
		s.listen(min(settlePiece, time.Duration(deadline-now)))
	}
	if f := s.follower; f != nil && !s.troubles.lost() && ctx.Err() == nil && !f.settleNeighbour(ctx, neighbourLast) {
		s.troubles.note(NeighbourSilent, netip.Addr{})
	}
	s.listen(0) // it may be read together with what told of it
}

// settleUntil is until when an answer may come to datagrams that left from first to
// last.
func settleUntil(f *follower, first, last int64) int64 {
	end := last + int64(settleTime(f))
	if f != nil && f.exit.gateway() && !f.heardOf() {
		end = max(end, first+int64(settleSilent))
	}
	return end
}

// settleTime is how long after the last datagram an answer may come.
func settleTime(f *follower) time.Duration {
	switch {
	case f == nil || f.exit.gateway():
		return settleFar
	case f.exit.local():
		return settleHere
	}
	return settleNear
}
