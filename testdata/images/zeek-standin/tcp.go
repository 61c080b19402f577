package main

// tcpState is Zeek's state of one end of a TCP connection.
type tcpState uint8

const (
	tcpInactive tcpState = iota
	tcpSynSent
	tcpSynAckSent
	tcpPartial
	tcpEstablished
	tcpClosed
	tcpReset
)

// stream follows one direction's sequence numbers. Positions are relative to
// the first payload byte, so that they do not wrap.
type stream struct {
	state   tcpState
	started bool
	start   uint32 // sequence number of position 0
	last    int64  // highest position sent
	next    int64  // everything before it was seen or given up
	fin     int64  // position of the FIN, valid if finSeen
	finSeen bool
	ahead   []span // payload seen beyond next, sorted, not touching
	missed  uint64
	gaps    uint64
	repeats uint64
	zeroWin uint64
}

// span is a range of positions, to is exclusive.
type span struct{ from, to int64 }

// position translates a sequence number near the highest one seen.
func (st *stream) position(seq uint32) int64 {
	return st.last + int64(int32(seq-st.start-uint32(st.last)))
}

// size is the number of payload bytes between the first and the last.
func (st *stream) size() uint64 { return uint64(max(st.last, 0)) }

// segment notes payload [from, to). It returns whether it is in order (all of
// it follows what was seen) and whether all of it was seen before.
func (st *stream) segment(from, to int64) (inOrder, repeated bool) {
	st.last = max(st.last, to)
	if to <= st.next {
		return false, true
	}
	if from > st.next {
		st.hold(span{from, to})
		return false, false
	}
	inOrder = from == st.next
	st.next = to
	st.catchUp()
	return inOrder, from < to && !inOrder
}

// hold keeps a span that is ahead of a hole.
func (st *stream) hold(s span) {
	i := 0
	for i < len(st.ahead) && st.ahead[i].to < s.from {
		i++
	}
	j := i
	for j < len(st.ahead) && st.ahead[j].from <= s.to {
		s.from, s.to = min(s.from, st.ahead[j].from), max(s.to, st.ahead[j].to)
		j++
	}
	st.ahead = append(st.ahead[:i], append([]span{s}, st.ahead[j:]...)...)
}

// catchUp moves next over the held spans that it reached.
func (st *stream) catchUp() {
	for len(st.ahead) > 0 && st.ahead[0].from <= st.next {
		st.next = max(st.next, st.ahead[0].to)
		st.ahead = st.ahead[1:]
	}
}

// acked gives up the holes before the acknowledged position and returns their
// bytes.
func (st *stream) acked(to int64) uint64 {
	if st.finSeen {
		to = min(to, st.fin)
	}
	var hole uint64
	for st.next < to {
		end := to
		if len(st.ahead) > 0 {
			end = min(end, st.ahead[0].from)
		}
		hole += uint64(end - st.next)
		st.next = end
		st.catchUp()
	}
	st.last = max(st.last, st.next)
	return hole
}

// addTCP follows the state machine and the sequence numbers of both ends.
func (f *flow) addTCP(s *sensor, p *packet, dir int) {
	st, peer := &f.sides[dir].tcp, &f.sides[1-dir].tcp
	f.tcpFlags(s, p, dir, st, peer)
	if !st.started {
		st.started, st.start = true, p.seq
		if p.flags&flagSYN != 0 {
			st.start++
		}
	}
	f.tcpHistory(p, dir)
	if p.flags&flagRST == 0 {
		f.tcpData(s, p, dir, st)
	}
	if p.flags&flagACK != 0 && peer.started {
		f.tcpAck(p, dir, st, peer)
	}
	if p.flags&(flagSYN|flagFIN|flagRST) == 0 && p.window == 0 {
		st.zeroWin++
		f.history.scaled('W', dir, st.zeroWin)
	}
}

// tcpFlags moves the sender's state.
func (f *flow) tcpFlags(s *sensor, p *packet, dir int, st, peer *stream) {
	switch {
	case p.flags&flagRST != 0:
		if st.finSeen && st.position(p.seq) < st.fin {
			return // from before the FIN, and late
		}
		if st.state != tcpClosed || peer.state != tcpClosed {
			st.state = tcpReset
			if f.resetAt == 0 {
				f.resetAt = p.time
			}
		}
	case p.flags&flagFIN != 0:
		if st.state != tcpReset {
			st.state = tcpClosed
		}
		if peer.state == tcpClosed && f.closedAt == 0 {
			f.closedAt = p.time
		}
	case p.flags&flagSYN != 0:
		f.tcpSYN(s, p, dir, st, peer)
	case st.state == tcpInactive:
		st.state = tcpPartial
	case st.state == tcpSynSent && dir == fromOrig:
		st.state = tcpEstablished
	}
}

func (f *flow) tcpSYN(s *sensor, p *packet, dir int, st, peer *stream) {
	if st.state != tcpInactive {
		return
	}
	switch {
	case p.flags&flagACK == 0:
		st.state = tcpSynSent
	case dir == fromResp && peer.state != tcpInactive:
		st.state = tcpEstablished
		if peer.state == tcpSynSent {
			peer.state = tcpEstablished
		}
		s.counts.established++
	default:
		st.state = tcpSynAckSent
	}
}

func (f *flow) tcpHistory(p *packet, dir int) {
	switch {
	case p.flags&(flagSYN|flagACK) == flagSYN|flagACK:
		f.history.once(letterSYNACK, 'H', dir)
	case p.flags&flagSYN != 0:
		f.history.once(letterSYN, 'S', dir)
	case p.flags&(flagFIN|flagRST) == 0 && p.flags&flagACK != 0 && p.dataLen == 0:
		f.history.once(letterACK, 'A', dir)
	}
	if p.dataLen > 0 && p.flags&flagRST == 0 {
		f.history.once(letterData, 'D', dir)
	}
	if p.flags&flagFIN != 0 {
		f.history.once(letterFIN, 'F', dir)
	}
	if p.flags&flagRST != 0 {
		f.history.once(letterRST, 'R', dir)
	}
}

// tcpData notes the payload and hands it on where it is in order.
func (f *flow) tcpData(s *sensor, p *packet, dir int, st *stream) {
	seq := p.seq
	if p.flags&flagSYN != 0 {
		seq++
	}
	from := st.position(seq)
	to := from + int64(p.dataLen)
	if p.flags&flagFIN != 0 {
		st.fin, st.finSeen = to, true
	}
	if p.dataLen <= 0 {
		return
	}
	inOrder, repeated := st.segment(from, to)
	if repeated {
		st.repeats++
		f.history.scaled('T', dir, st.repeats)
	}
	if inOrder {
		f.tcpPayload(s, p, dir)
	}
}

// tcpAck lets the acknowledgement close the other end's holes. Zeek counts
// them only where it knows the connection from its start.
func (f *flow) tcpAck(p *packet, dir int, st, peer *stream) {
	hole := peer.acked(peer.position(p.ack))
	if hole == 0 || !known(st.state) || !known(peer.state) {
		return
	}
	peer.missed += hole
	peer.gaps++
	f.history.scaled('G', 1-dir, peer.gaps)
}

func known(state tcpState) bool { return state == tcpEstablished || state == tcpClosed }

// reusedBy tells whether p, a SYN, starts another connection on f's ports.
func (f *flow) reusedBy(p *packet) bool {
	if p.proto != protoTCP || p.flags&(flagSYN|flagACK|flagRST) != flagSYN {
		return false
	}
	return f.resetAt != 0 || f.closedAt != 0
}

// tcpConnState is the table of Zeek's base/protocols/conn/main.zeek.
func tcpConnState(orig, resp *stream) string {
	o, r := orig.state, resp.state
	oInactive := o == tcpInactive || o == tcpPartial
	rInactive := r == tcpInactive || r == tcpPartial
	switch {
	case r == tcpReset && (o == tcpSynSent || o == tcpSynAckSent || o == tcpReset && orig.size() == 0 && resp.size() == 0):
		return "REJ"
	case r == tcpReset && oInactive:
		return "RSTRH"
	case r == tcpReset:
		return "RSTR"
	case o == tcpReset && rInactive:
		return "RSTOS0"
	case o == tcpReset:
		return "RSTO"
	case o == tcpClosed && r == tcpClosed:
		return "SF"
	case o == tcpClosed && rInactive:
		return "SH"
	case o == tcpClosed:
		return "S2"
	case r == tcpClosed && oInactive:
		return "SHR"
	case r == tcpClosed:
		return "S3"
	case o == tcpSynSent && r == tcpInactive:
		return "S0"
	case o == tcpEstablished && r == tcpEstablished:
		return "S1"
	}
	return "OTH"
}
