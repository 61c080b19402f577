package selftest

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
)

// sender stands around the parts under test, at both sides: as Encapsulator
// around the real one it checks that the inner frame is the captured one, as
// Sink around the real one it enters in the ledger what is to arrive.
type sender struct {
	forward.Encapsulator
	forward.Sink
	config encap.Config
	ledger *ledger
	seed   maphash.Seed

	frames  uint64
	altered finding
	hashes  []uint64
}

var (
	_ forward.Encapsulator = (*sender)(nil)
	_ forward.Sink         = (*sender)(nil)
)

// Encapsulate implements [forward.Encapsulator].
func (s *sender) Encapsulate(b *forward.Batch, f *forward.Frame) forward.Outcome {
	s.frames++
	before := len(b.Datagrams)
	out := s.Encapsulator.Encapsulate(b, f)
	asItIs := out.Refusal == forward.RefusedNot && out.Flags&^forward.CutBySnap == 0 && !s.config.RawIP
	if asItIs && !s.carries(b, before, f.Data) {
		s.altered.note(s.frames)
	}
	return out
}

// carries reports whether exactly one datagram has been added to b, and its
// inner frame is the given one.
func (s *sender) carries(b *forward.Batch, before int, frame []byte) bool {
	if len(b.Datagrams) != before+1 {
		return false
	}
	inner, err := decapsulate(s.config.Kind, b.Payload(before))
	return err == nil && bytes.Equal(inner, frame)
}

// Send implements [forward.Sink].
func (s *sender) Send(b *forward.Batch) (int, error) {
	s.hashes = s.hashes[:0]
	for i := range b.Datagrams {
		s.hashes = append(s.hashes, maphash.Bytes(s.seed, b.Payload(i)))
	}
	s.ledger.mu.Lock()
	for i, hash := range s.hashes {
		s.ledger.expect(hash, b.Datagrams[i].Port)
	}
	s.ledger.mu.Unlock()
	n, err := s.Sink.Send(b)
	s.ledger.mu.Lock()
	for i := len(s.hashes) - 1; i >= n; i-- {
		s.ledger.retract(s.hashes[i])
	}
	s.ledger.mu.Unlock()
	return n, err
}

// BatchSize implements [forward.BatchSizer] as the Sink inside does.
func (s *sender) BatchSize() (datagrams, bytes int) {
	if sizer, ok := s.Sink.(forward.BatchSizer); ok {
		return sizer.BatchSize()
	}
	return 0, 0
}

// decapsulate returns the inner frame. It is written from the RFCs, not from
// package encap, which it checks.
func decapsulate(kind encap.Kind, payload []byte) ([]byte, error) {
	if len(payload) < 8 {
		return nil, errors.New("shorter than a tunnel header")
	}
	switch {
	case kind == encap.VXLAN: // RFC 7348 section 5
		if payload[0] != 0x08 {
			return nil, fmt.Errorf("vxlan flags %#02x", payload[0])
		}
		return payload[8:], nil
	case payload[0]>>6 != 0: // RFC 8926 section 3.4
		return nil, fmt.Errorf("geneve version %d", payload[0]>>6)
	}
	options := int(payload[0]&0x3f) * 4
	if len(payload) < 8+options {
		return nil, errors.New("shorter than its geneve options")
	}
	return payload[8+options:], nil
}

// receiver is the other end.
type receiver struct {
	socket socket
	ledger *ledger
	window *window // nil: nobody waits for what arrives
	seed   maphash.Seed

	received atomic.Uint64
	last     atomic.Int64 // wall-clock time of the last arrival, ns
	stop     atomic.Bool
	err      error // of run; to be read when it has returned
	hashes   [receiverBatch]uint64
}

// run receives until it is told to stop.
func (r *receiver) run() {
	for !r.stop.Load() {
		n, err := r.socket.receive()
		if err != nil {
			r.err = fmt.Errorf("receive: %w", err)
			return
		}
		if n > 0 {
			r.take(n)
		}
	}
}

// take enters n datagrams in the ledger.
func (r *receiver) take(n int) {
	size := 0
	for i := range n {
		payload, _ := r.socket.datagram(i)
		r.hashes[i] = maphash.Bytes(r.seed, payload)
		size += kernelMemory(len(payload))
	}
	if r.window != nil {
		r.window.arrived(n, size)
	}
	r.ledger.mu.Lock()
	for i := range n {
		payload, from := r.socket.datagram(i)
		r.ledger.arrive(r.hashes[i], from.Port(), len(payload))
	}
	r.ledger.mu.Unlock()
	r.last.Store(time.Now().UnixNano())
	r.received.Add(uint64(n))
}

// Waiting for the end.
const (
	defaultSilence = 2 * time.Second        // with something missing
	settle         = 100 * time.Millisecond // with nothing missing: for second copies
)

// drain waits until everything has arrived, or nothing more for as long as
// silence, and then for second copies.
func (r *receiver) drain(silence time.Duration) {
	tick := time.NewTicker(settle / 5)
	defer tick.Stop()
	for since := time.Now(); ; <-tick.C {
		r.ledger.mu.Lock()
		missing := len(r.ledger.onWay) > 0
		r.ledger.mu.Unlock()
		if last := time.Unix(0, r.last.Load()); last.After(since) {
			since = last
		}
		if quiet := time.Since(since); quiet >= silence || !missing && quiet >= settle {
			return
		}
	}
}
