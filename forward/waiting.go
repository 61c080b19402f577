package forward

// Waiting says what a Pipeline does until a datagram is due.
type Waiting uint8

// The possibilities. The last two are for a Sink that is a capture file, where nobody
// receives: what is due later than the Duration is left out as ever, and datagrams
// are never late.
const (
	// Wait waits.
	Wait Waiting = iota
	// NoWait takes the time as having come.
	NoWait
	// NoWaitStamp does so, and makes Datagram.Time the time of the schedule: the
	// capture time of the first frame that has one, and from there on as the Pacer
	// says. Where it says AtOnce, the capture time stays.
	NoWaitStamp
)

// pass lets the time of the schedule pass until datagram i, the last in the batch,
// is due.
func (r *run) pass(i, inner int) error {
	due, earliest := r.pacer.Due(&r.frame, inner, r.virtual)
	if due == AtOnce {
		return nil
	}
	r.virtual = max(r.virtual, earliest)
	if r.virtual > r.deadline {
		r.batch.Datagrams = r.batch.Datagrams[:i] // lies beyond the end, as what follows it
		return errEnd
	}
	if r.waiting != NoWaitStamp {
		return nil
	}
	if !r.stamped && !r.frame.Retimed {
		r.stamped, r.stampZero = true, r.frame.Time-r.virtual
	}
	if r.stamped {
		r.batch.Datagrams[i].Time = r.stampZero + r.virtual
	}
	return nil
}
