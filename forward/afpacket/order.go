package afpacket

import "time"

// order decides which of several rings a frame is taken from next, so that frames
// come out in the order of their time stamps.
//
// A frame waits until every other ring has a later one to show, or is known to have
// none that is older, but not longer than a bound after its time stamp: a ring shows
// frames only when their block is full or its time is up. What a ring shows after
// later frames of others have gone is passed on at once, and is late. The order within
// a ring is never changed.
type order struct {
	bound int64        // nanoseconds
	clock func() int64 // the clock of the time stamps, nanoseconds
	now   int64        // what it last said
	lanes []lane
}

// lane is what is known of one ring.
type lane struct {
	has    bool  // it has a frame in hand
	time   int64 // the time stamp of that
	seen   int64 // all of its frames that are older than this have been in hand
	passed int64 // the latest time stamp that it has passed on
	over   bool  // nothing more comes from it
}

// show takes note of the frame that a ring has in hand.
func (o *order) show(i int, at int64) { o.lanes[i].has, o.lanes[i].time = true, at }

// empty takes note that a ring had no frame that was older than a time.
func (o *order) empty(i int, at int64) { o.lanes[i].seen = max(o.lanes[i].seen, at) }

// choose returns the ring whose frame is to be passed on; if there is none, -1 and
// how long the next frame may be held yet: 0 if no ring has one.
func (o *order) choose() (ring int, hold time.Duration) {
	first, last := -1, -1
	for i := range o.lanes {
		l := &o.lanes[i]
		if !l.has {
			continue
		}
		if first < 0 || l.time < o.lanes[first].time {
			first = i
		}
		if last < 0 || l.time > o.lanes[last].time {
			last = i
		}
	}
	if first < 0 {
		return -1, 0
	}
	if o.lanes[last].time > o.now {
		if o.now = o.clock(); o.lanes[last].time > o.now {
			return last, 0 // the clock was set back: its time may never come
		}
	}
	if !o.blocked(o.lanes[first].time) {
		return first, 0
	}
	o.now = o.clock()
	if held := o.now - o.lanes[first].time; held < o.bound {
		return -1, time.Duration(o.bound - max(held, 0))
	}
	return first, 0
}

// blocked reports whether a ring may yet show a frame from before a time.
func (o *order) blocked(at int64) bool {
	for i := range o.lanes {
		if l := &o.lanes[i]; !l.has && !l.over && l.seen < at {
			return true
		}
	}
	return false
}

// pass takes note that a ring's frame is passed on, and reports whether a later one
// of another ring was before it.
func (o *order) pass(ring int) (late bool) {
	l := &o.lanes[ring]
	for i := range o.lanes {
		late = late || i != ring && o.lanes[i].passed > l.time
	}
	l.has = false
	l.passed, l.seen = max(l.passed, l.time), max(l.seen, l.time)
	return late
}
