package transmit

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

// How long a writer waits for a queue that is full.
const (
	firstPause   = 20 * time.Microsecond // then twice as long each time
	longestPause = time.Millisecond
	// superPatience is after how long a super-packet for which there seems to
	// be no room goes out as single datagrams: a device that cannot take
	// super-packets may look as if its queue were full (net/core/dev.c,
	// __dev_direct_xmit drops what has to be segmented).
	superPatience = 100 * time.Millisecond
	// stallLimit is after how long without any progress the writer gives up.
	stallLimit = 10 * time.Second
	// maxRefused bounds how often in a row an answer for earlier datagrams
	// may keep one from leaving. The kernel reports each answer once.
	maxRefused = 1000
)

// path is one transmission as the writer sees it: what to send next, and the
// system call that sends it.
type path interface {
	// plan fills w with messages for b's datagrams from first on, at least
	// one and all for one socket, and returns the socket's number. It uses
	// super-packets only if w.gso is set. A datagram that cannot be sent at
	// all ends the plan; as first one it is an error.
	plan(w *writer, b *forward.Batch, first int) (socket int, err error)
	// send offers msgs to a socket in one call. It returns how many were
	// taken and, if it knows, the errno that kept the next one from it.
	send(socket int, msgs []sys.Message) (int, error)
	// check returns why waiting for the socket's queue is in vain, or nil.
	check() error
}

// writer drives a path so that whatever the kernel answers, each datagram is
// taken once and in order. Its memory is allocated once.
type writer struct {
	path     path
	ctx      context.Context
	now      func() int64 // monotonic, nanoseconds
	sleep    func(until int64)
	messages []sys.Message // the plan
	ends     []int         // parallel: datagrams of the batch that are out with the message
	gso      bool
	counts   counts
	stall    stall
}

// counts is what Stats are made of. One goroutine writes, any may read.
type counts struct {
	syscalls, datagrams, bytes, superPackets, segments atomic.Uint64
	fragmented, retries, waits, refused                atomic.Uint64
	fallback                                           atomic.Pointer[Fallback] // there is one path to turn off
}

// stall is how long the message in turn has been kept waiting.
type stall struct {
	since   int64 // when the waiting began; 0 if it did not
	pause   time.Duration
	refused int // in a row
}

// errReplan ends a flush whose remaining messages are to be planned anew.
var errReplan = errors.New("plan anew")

// prepare allocates what the writer needs, for plans of so many messages.
func (w *writer) prepare(ctx context.Context, p path, messages int) {
	w.path, w.ctx, w.now, w.sleep = p, ctx, sys.Monotonic, sys.SleepUntil
	w.messages = make([]sys.Message, 0, messages)
	w.ends = make([]int, 0, messages)
}

// Send implements forward.Sink.
func (w *writer) Send(b *forward.Batch) (int, error) {
	done := 0
	for done < len(b.Datagrams) {
		w.messages, w.ends = w.messages[:0], w.ends[:0]
		socket, err := w.path.plan(w, b, done)
		if err == nil {
			done, err = w.flush(socket, done)
		}
		if err != nil && !errors.Is(err, errReplan) {
			w.countBytes(b, done)
			return done, err
		}
	}
	w.countBytes(b, done)
	return done, nil
}

// add appends a message to the plan. end is the number of datagrams of the
// batch that are out once it has been taken.
func (w *writer) add(m sys.Message, end int) {
	w.messages = append(w.messages, m)
	w.ends = append(w.ends, end)
}

// room returns how many messages the plan still takes.
func (w *writer) room() int { return cap(w.messages) - len(w.messages) }

// flush offers the plan until all of it is taken. It returns the number of
// datagrams of the batch that are out, which were done before.
func (w *writer) flush(socket, done int) (int, error) {
	for sent := 0; sent < len(w.messages); {
		n, err := w.path.send(socket, w.messages[sent:])
		w.counts.syscalls.Add(1)
		if n > 0 {
			w.countMessages(w.ends[sent:sent+n], done)
			sent += n
			done = w.ends[sent-1]
			w.stall = stall{}
		}
		if sent == len(w.messages) || n > 0 && err == nil {
			continue
		}
		if err := w.overcome(err, &w.messages[sent]); err != nil {
			return done, err
		}
		w.counts.retries.Add(1)
	}
	return done, nil
}

// overcome does what makes it sensible to offer message m again, which the
// kernel refused with err (nil if it did not say why), or says why that is not
// sensible.
func (w *writer) overcome(err error, m *sys.Message) error {
	super := isSuper(m)
	switch {
	case errors.Is(err, syscall.EINTR):
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return w.noteRefused(err)
	case err == nil, isFull(err):
		return w.wait(err, super)
	case super && isUnfit(err):
		return w.giveUpGSO(err)
	case errors.Is(err, syscall.EMSGSIZE):
		return &TooLongError{Length: m.Len()}
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("send: %w (a packet filter's rule?)", err)
	}
	if cause := w.path.check(); cause != nil {
		return fmt.Errorf("send: %w: %w", cause, err)
	}
	return fmt.Errorf("send: %w", err)
}

// isFull recognises a queue or buffer without room: EAGAIN is the socket's
// buffer, ENOBUFS a device's or a processor's queue, ENOMEM
// and ENOBUFS the kernel's memory.
func isFull(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// isUnfit recognises the refusals of a super-packet that each of its datagrams
// alone would not meet: EINVAL (too many segments, no checksum, header
// unknown to the kernel), EIO (device without checksum offload, IPsec),
// EMSGSIZE (segment longer than the path's MTU, in newer kernels), EOPNOTSUPP.
func isUnfit(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EINVAL, syscall.EIO, syscall.EMSGSIZE, syscall.EOPNOTSUPP, syscall.ENOPROTOOPT} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// noteRefused counts an ICMP "port unreachable" for an earlier datagram. The
// kernel has delivered it now, in place of sending.
func (w *writer) noteRefused(err error) error {
	w.counts.refused.Add(1)
	if w.stall.refused++; w.stall.refused > maxRefused {
		return fmt.Errorf("send: %d answers in a row that the port is closed: %w", maxRefused, err)
	}
	return nil
}

// wait pauses for a full queue, as long as there is hope.
func (w *writer) wait(cause error, super bool) error {
	now := w.now()
	if w.stall.since == 0 {
		w.stall.since, w.stall.pause = now, firstPause
	}
	waited := time.Duration(now - w.stall.since)
	switch {
	case w.ctx.Err() != nil:
		return fmt.Errorf("send: wait for a full queue: %w", context.Cause(w.ctx))
	case super && waited >= superPatience:
		return w.giveUpGSO(cause)
	case waited >= stallLimit:
		return fmt.Errorf("send: queue full for %v without progress: %w", stallLimit, orFull(cause))
	case waited >= superPatience:
		if err := w.path.check(); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	w.counts.waits.Add(1)
	w.sleep(now + int64(w.stall.pause))
	w.stall.pause = min(2*w.stall.pause, longestPause)
	return nil
}

// orFull names the cause of a wait that the kernel did not explain.
func orFull(err error) error {
	if err == nil {
		return syscall.EAGAIN
	}
	return err
}

// giveUpGSO turns super-packets off for good.
func (w *writer) giveUpGSO(cause error) error {
	w.gso = false
	w.stall = stall{}
	w.counts.fallback.Store(&Fallback{Path: "segmentation offload", Cause: orFull(cause).Error()})
	return errReplan
}

// countMessages counts messages that have been taken; before is the number of
// datagrams that were out before the first of them.
func (w *writer) countMessages(ends []int, before int) {
	var supers, segments uint64
	last := before
	for _, end := range ends {
		if end-last > 1 {
			supers++
			segments += uint64(end - last)
		}
		last = end
	}
	w.counts.datagrams.Add(uint64(last - before))
	if supers > 0 {
		w.counts.superPackets.Add(supers)
		w.counts.segments.Add(segments)
	}
}

// countBytes counts the payload of the first n datagrams, which are contiguous.
func (w *writer) countBytes(b *forward.Batch, n int) {
	if n == 0 {
		return
	}
	last := &b.Datagrams[n-1]
	w.counts.bytes.Add(uint64(last.Off + last.Len - b.Datagrams[0].Off))
}

// Stats implements Transmitter.
func (w *writer) Stats() Stats {
	c := &w.counts
	s := Stats{
		Syscalls: c.syscalls.Load(), Datagrams: c.datagrams.Load(), Bytes: c.bytes.Load(),
		SuperPackets: c.superPackets.Load(), Segments: c.segments.Load(), Fragmented: c.fragmented.Load(),
		Retries: c.retries.Load(), Waits: c.waits.Load(), Refused: c.refused.Load(),
	}
	if f := c.fallback.Load(); f != nil {
		s.Fallbacks = []Fallback{*f}
	}
	return s
}

// coalescer is the rule for super-packets.
type coalescer struct {
	sockets    uint16 // datagrams leave by the socket port%sockets; 0: each port is its own
	maxSegment int    // longest payload that may be part of one, bytes
	maxTotal   int    // longest super-packet's payload, bytes
}

// maxSegments is UDP_MAX_SEGMENTS of the kernel's linux/udp.h in older kernels.
// Newer ones allow 128, which makes no measurable difference on real captures.
const maxSegments = 64

// span returns how many of the leading datagrams form one message: consecutive
// ones of one source port and one length, the last of which may be shorter. At
// least 1.
func (c coalescer) span(ds []forward.Datagram) int {
	first := &ds[0]
	if first.Len > c.maxSegment || first.Len == 0 {
		return 1
	}
	end, limit := first.Off+first.Len, first.Off+c.maxTotal
	n := 1
	for ; n < len(ds) && n < maxSegments; n++ {
		d := &ds[n]
		if d.Len > first.Len || d.Len == 0 || d.Off != end || end+d.Len > limit || !c.same(first.Port, d.Port) {
			break
		}
		end += d.Len
		if d.Len < first.Len {
			return n + 1
		}
	}
	return n
}

// same reports whether two source ports leave by the same socket.
func (c coalescer) same(a, b uint16) bool {
	return a == b || c.sockets > 0 && a%c.sockets == b%c.sockets
}
