package selftest

import (
	"sync"
)

// historySize is how many datagrams after its arrival a second copy of one is
// still known as such, and not taken for an unknown one.
const historySize = 1 << 16

// ledger matches what arrives with what was sent. A datagram carries no number
// that a receiver could check, so it is known by the hash of its payload.
// Memory is bounded by what is on the way, what was lost, and the history.
type ledger struct {
	mu      sync.Mutex
	onWay   map[uint64]waiting // by hash of the payload
	newest  [1 << 16]uint64    // highest position that arrived, by source port chosen
	source  [1 << 16]uint16    // source port seen on the wire, by source port chosen
	history history

	sent, received, bytes          uint64
	duplicated, reordered, unknown finding
	split                          finding
}

// waiting are the datagrams with one payload that have not arrived. There is
// nearly always one; retransmissions and keep-alives make more.
type waiting struct {
	first uint64 // position in what was sent, from 1
	more  []uint64
	port  uint16 // source port chosen by the flow hash: it stands for the flow
}

// finding counts one kind of fault.
type finding struct {
	count uint64
	first uint64 // packet at which it was first seen: its position in what was sent or, if unknown, in what was received
}

func (f *finding) note(at uint64) {
	if f.count == 0 {
		f.first = at
	}
	f.count++
}

func newLedger() *ledger {
	return &ledger{onWay: make(map[uint64]waiting), history: newHistory(historySize)}
}

// expect enters a datagram that is about to be sent. The caller holds mu.
func (l *ledger) expect(hash uint64, port uint16) {
	l.sent++
	w, ok := l.onWay[hash]
	if ok {
		w.more = append(w.more, l.sent)
	} else {
		w = waiting{first: l.sent, port: port}
	}
	l.onWay[hash] = w
}

// retract takes back the datagrams that were entered last and then not sent.
// The caller holds mu.
func (l *ledger) retract(hash uint64) {
	w, ok := l.onWay[hash]
	if !ok {
		return
	}
	l.sent--
	if n := len(w.more); n > 0 {
		w.more = w.more[:n-1]
		l.onWay[hash] = w
		return
	}
	delete(l.onWay, hash)
}

// arrive enters a datagram of n bytes that came from source port from. The
// caller holds mu.
func (l *ledger) arrive(hash uint64, from uint16, n int) {
	l.received++
	l.bytes += uint64(n)
	w, ok := l.onWay[hash]
	switch {
	case !ok && l.history.has(hash):
		l.duplicated.note(l.received)
	case !ok:
		l.unknown.note(l.received)
	default:
		l.match(hash, w, from)
	}
}

// match decides which of the waiting datagrams it is: the oldest that is newer
// than everything of its flow that has arrived, for then nothing is out of
// order, else the oldest.
func (l *ledger) match(hash uint64, w waiting, from uint16) {
	newest := l.newest[w.port]
	at := w.first
	chosen := -1
	for i := 0; at < newest && i < len(w.more); i++ {
		if w.more[i] > newest {
			at, chosen = w.more[i], i
		}
	}
	switch {
	case len(w.more) == 0:
		delete(l.onWay, hash)
	case chosen >= 0:
		w.more = append(w.more[:chosen], w.more[chosen+1:]...)
		l.onWay[hash] = w
	default:
		w.first, w.more = w.more[0], w.more[1:]
		l.onWay[hash] = w
	}
	l.history.add(hash)
	l.order(at, w.port, from)
}

// order checks a datagram against those of its flow that came before. It is
// reordered if one that was sent after it is already there (RFC 4737 section
// 3.3).
func (l *ledger) order(at uint64, port, from uint16) {
	if at < l.newest[port] {
		l.reordered.note(at)
	}
	l.newest[port] = max(l.newest[port], at)
	switch l.source[port] {
	case 0:
		l.source[port] = from
	case from:
	default:
		l.split.note(at)
		l.source[port] = from
	}
}

// missing counts the datagrams that have not arrived.
func (l *ledger) missing() finding {
	var f finding
	for _, w := range l.onWay {
		f.count += 1 + uint64(len(w.more))
		if f.first == 0 || w.first < f.first {
			f.first = w.first
		}
	}
	return f
}

// flows counts the source ports that were used.
func (l *ledger) flows() int {
	n := 0
	for _, at := range l.newest {
		if at > 0 {
			n++
		}
	}
	return n
}

// history is a set of the last hashes added.
type history struct {
	ring  []uint64
	next  int
	count map[uint64]int
}

func newHistory(size int) history {
	return history{ring: make([]uint64, 0, size), count: make(map[uint64]int, size)}
}

func (h *history) has(hash uint64) bool { return h.count[hash] > 0 }

func (h *history) add(hash uint64) {
	h.count[hash]++
	if len(h.ring) < cap(h.ring) {
		h.ring = append(h.ring, hash)
		return
	}
	old := h.ring[h.next]
	if h.count[old]--; h.count[old] == 0 {
		delete(h.count, old)
	}
	h.ring[h.next] = hash
	h.next = (h.next + 1) % len(h.ring)
}
