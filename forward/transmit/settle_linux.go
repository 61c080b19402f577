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
	deadline := w.lastSent + int64(settleTime(f))
	for {
		now := w.now()
		if w.troubles.lost() || ctx.Err() != nil || now >= deadline {
			break
		}
		_ = w.path.listen(min(settlePiece, time.Duration(deadline-now)), false)
	}
	if f != nil && !w.troubles.lost() && ctx.Err() == nil && !f.settleNeighbour(ctx, neighbourLast) {
		w.troubles.note(NeighbourSilent, netip.Addr{})
	}
	_ = w.path.listen(0, false) // it may be read together with what told of it
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
