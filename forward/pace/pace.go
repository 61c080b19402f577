// Package pace says when packets are due: at their recorded times, at a fixed
// rate, after a fixed delay, or as soon as possible; and it has the clock that
// waits for these times.
//
// Due times are computed from the start of the run in integers, never from
// when the packet before really left, so nothing drifts: being late once makes
// no later packet late.
//
// What happens to a packet that is late depends on the pace. At recorded pace
// it leaves at once, and so do those behind it that are due by then: the gaps
// of the recording count, not its rate. At a fixed rate a backlog is not sent
// as one burst: see [PPS].
//
// On top of every pace a [Governor] can hold sending back, so that the
// receiver's queues never overflow.
package pace

import "github.com/zeekdemo/zeekdemo/forward"

// Max is the pace of a sender that never waits: no datagram has a due time.
func Max() forward.Pacer { return unpaced{} }

type unpaced struct{}

func (unpaced) Due(*forward.Frame, int, int64) (due, earliest int64) {
	return forward.AtOnce, forward.AtOnce
}
