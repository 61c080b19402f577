package transmit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
	// stallLimit is after how long without any progress the writer gives up:
	// a queue is full, a link is down, a neighbour does not answer.
	stallLimit = 10 * time.Second
	// filterPatience is the same for a packet filter that refuses: one that is
	// being reloaded does so for some ten milliseconds.
	filterPatience = 2 * time.Second
	// gonePatience is the same for a device that does not exist any more: what
	// replaces it, if anything does, does so at once.
	gonePatience = time.Second
	// maxRefused bounds how often in a row an answer for earlier datagrams
	// may keep one from leaving. The kernel reports each answer once.
	maxRefused = 1000
	// maxResized bounds how often in a row the path's MTU may be news.
	maxResized = 100
)

// listenEvery is how often a writer that has something to send listens, at most.
const listenEvery = 2 * time.Millisecond

// Waits of [Transmitter.Settle] for an answer to the last datagram.
const (
	settleHere = 20 * time.Millisecond  // for this machine itself
	settleNear = 100 * time.Millisecond // for a neighbour
	settleFar  = 300 * time.Millisecond // for a host behind a router
	// settleSilent is the same after the first datagram, for a host behind a router
	// that has not answered an echo request: the last router asks three times, a
	// second apart, before it says that the host is not there (mcast_solicit and
	// retrans_time_ms of ip-sysctl, MAX_MULTICAST_SOLICIT of RFC 4861).
	settleSilent = 3300 * time.Millisecond
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
	// listen takes in what has been said about earlier datagrams, and what has
	// changed on the way, since it was called last; it waits at most so long
	// for something to come. With look it looks at the way again even if
	// nobody says that it has changed. It returns errReplan if what was planned
	// does not fit the way any more, and another error if there is no going on.
	listen(wait time.Duration, look bool) error
	// check returns what is wrong with the way, or nil if nothing is: a full
	// queue is only full.
	check() error
}

// Causes that path.send and path.check may wrap.
var (
	errGone = errors.New("no such device") // the device does not exist any more
	errLost = errors.New("way lost")       // for the moment it is not known how to get there
)

// writer drives a path so that whatever the kernel answers, each datagram is
// taken once and in order. Its memory is allocated once.
type writer struct {
	path     path
	ctx      context.Context
	now      func() int64 // monotonic, nanoseconds
	sleep    func(until int64)
	messages []sys.Message // the plan
	ends     []int         // parallel: datagrams of the batch that are out with the message
	intact   []bool        // parallel: false where the datagram goes in IP fragments
	gso      bool
	counts   counts
	troubles troubles
	stall    stall
	limit    time.Duration // stallLimit
	heard    int64         // when listen was called last
	// When the first and the last datagrams were taken; 0 for none.
	firstSent, lastSent int64
}

// counts is what Stats are made of. One goroutine writes, any may read.
type counts struct {
	syscalls, datagrams, bytes, superPackets, segments atomic.Uint64
	fragmented, retries, waits                         atomic.Uint64
	fallback                                           atomic.Pointer[Fallback] // there is one path to turn off
}

// stall is how long the message in turn has been kept waiting.
type stall struct {
	since   int64 // when the waiting began; 0 if it did not
	pause   time.Duration
	refused int  // in a row
	resized int  // in a row
	noted   bool // it is in the list of troubles
}

// errReplan ends a flush whose remaining messages are to be planned anew.
var errReplan = errors.New("plan anew")

// prepare allocates what the writer needs, for plans of so many messages.
func (w *writer) prepare(ctx context.Context, p path, messages int) {
	w.path, w.ctx, w.now, w.sleep, w.limit = p, ctx, sys.Monotonic, sys.SleepUntil, stallLimit
	w.messages = make([]sys.Message, 0, messages)
	w.ends = make([]int, 0, messages)
	w.intact = make([]bool, 0, messages)
}

// Send implements forward.Sink.
func (w *writer) Send(b *forward.Batch) (int, error) {
	if err := w.listenNow(); err != nil {
		return 0, err
	}
	done := 0
	for done < len(b.Datagrams) {
		w.messages, w.ends, w.intact = w.messages[:0], w.ends[:0], w.intact[:0]
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
	if w.lastSent = w.now(); w.firstSent == 0 {
		w.firstSent = w.lastSent
	}
	return done, nil
}

// listenNow listens before something is sent, if it is time to.
func (w *writer) listenNow() error {
	now := w.now()
	if now-w.heard < int64(listenEvery) {
		return nil
	}
	w.heard = now
	if err := w.path.listen(0, false); err != nil && !errors.Is(err, errReplan) {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// add appends a message to the plan. end is the number of datagrams of the
// batch that are out once it has been taken; intact is false if the datagram goes
// in IP fragments, of which this may be one.
func (w *writer) add(m sys.Message, end int, intact bool) {
	w.messages = append(w.messages, m)
	w.ends = append(w.ends, end)
	w.intact = append(w.intact, intact)
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
			w.countMessages(sent, n, done)
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
	case w.isNews(err, super):
		return w.resize(err, m)
	case super && isUnfit(err):
		return w.giveUpGSO(err)
	case errors.Is(err, syscall.EMSGSIZE):
		return &TooLongError{Length: m.Len()}
	}
	if kind, passes := passing(err); passes {
		return w.endure(err, kind)
	}
	if cause := w.path.check(); cause != nil {
		return fmt.Errorf("send: %w: %w", cause, err)
	}
	return fmt.Errorf("send: %w", err)
}

// isNews recognises a refusal that may be the path's news: that its MTU is
// another one now. The kernel reports it in place of sending, and refuses
// super-packets whose segments do not fit any more.
func (w *writer) isNews(err error, super bool) bool {
	if w.stall.resized >= maxResized {
		return false
	}
	return errors.Is(err, syscall.EMSGSIZE) || super && errors.Is(err, syscall.EINVAL)
}

// resize looks at the path again. If nothing has changed there, a single
// datagram is offered again all the same, once: the refusal may have been an
// answer for an earlier one.
func (w *writer) resize(cause error, m *sys.Message) error {
	w.stall.resized++
	err := w.path.listen(0, true)
	switch {
	case err != nil:
		return err
	case isSuper(m):
		return w.giveUpGSO(cause)
	case w.stall.resized > 1:
		return &TooLongError{Length: m.Len()}
	}
	return nil
}

// passing recognises what may pass: a link that is down, a route that is being
// replaced, a neighbour that is not known, a packet filter that is being
// reloaded. Several of them may as well be the answer for an earlier datagram.
func passing(err error) (TroubleKind, bool) {
	for _, p := range []struct {
		cause error
		kind  TroubleKind
	}{
		{errLost, WayLost}, {syscall.ENXIO, WayLost}, {syscall.ENODEV, WayLost},
		{syscall.ENETDOWN, LinkDown},
		{syscall.EHOSTUNREACH, NoRoute}, {syscall.ENETUNREACH, NoRoute}, {syscall.EHOSTDOWN, NoRoute}, {syscall.EADDRNOTAVAIL, NoRoute},
		{syscall.EPERM, Filtered}, {syscall.EACCES, Filtered},
		{syscall.EPROTO, WayLost}, {syscall.ENOPROTOOPT, WayLost}, {syscall.EOPNOTSUPP, WayLost}, // only ever answers
	} {
		if errors.Is(err, p.cause) {
			return p.kind, true
		}
	}
	return "", false
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

// noteRefused takes in an ICMP "port unreachable" for an earlier datagram. The
// kernel has delivered it now, in place of sending.
func (w *writer) noteRefused(err error) error {
	before := w.troubles.count(PortUnreachable)
	if err := w.path.listen(0, false); err != nil {
		return err
	}
	if w.troubles.count(PortUnreachable) == before {
		w.troubles.note(PortUnreachable, netip.Addr{}) // its details are lost
	}
	if w.stall.refused++; w.stall.refused > maxRefused {
		return fmt.Errorf("send: %d answers in a row that the port is closed: %w", maxRefused, err)
	}
	return nil
}

// begin notes that the waiting begins, if it has not begun.
func (s *stall) begin(now int64) (waited time.Duration) {
	if s.since == 0 {
		s.since, s.pause = now, firstPause
	}
	return time.Duration(now - s.since)
}

// wait pauses for a full queue, as long as there is hope.
func (w *writer) wait(cause error, super bool) error {
	waited := w.stall.begin(w.now())
	if waited >= superPatience {
		broken := w.path.check()
		switch {
		case broken != nil && (waited >= w.limit || errors.Is(broken, errGone) && waited >= gonePatience):
			return fmt.Errorf("send: nothing taken for %v: %w", waited.Round(longestPause), broken)
		case broken == nil && super:
			return w.giveUpGSO(cause)
		case waited >= w.limit:
			return fmt.Errorf("send: queue full for %v without progress: %w", w.limit, orFull(cause))
		}
		if broken != nil && !w.stall.noted {
			w.stall.noted = true
			w.troubles.note(LinkDown, netip.Addr{})
		}
	}
	return w.pause("wait for a full queue")
}

// endure pauses for what may pass. The first time it does not: what kept the
// message from leaving may have been an answer for an earlier one, which listen
// counts.
func (w *writer) endure(cause error, kind TroubleKind) error {
	if w.stall.since == 0 {
		w.stall.begin(w.now())
		return w.path.listen(0, false)
	}
	waited := w.stall.begin(w.now())
	if patience := w.patience(cause, kind); waited >= patience {
		if broken := w.path.check(); broken != nil && !errors.Is(cause, errLost) {
			cause = fmt.Errorf("%w: %w", broken, cause)
		}
		if kind == Filtered {
			cause = fmt.Errorf("%w (a packet filter's rule?)", cause)
		}
		return fmt.Errorf("send: nothing taken for %v: %w", patience, cause)
	}
	if !w.stall.noted {
		w.stall.noted = true
		w.troubles.note(kind, netip.Addr{})
	}
	return w.pause(cause.Error())
}

// patience is how long a cause is endured.
func (w *writer) patience(cause error, kind TroubleKind) time.Duration {
	switch {
	case kind == Filtered:
		return filterPatience
	case errors.Is(cause, errGone), errors.Is(cause, syscall.ENXIO), errors.Is(cause, syscall.ENODEV):
		return gonePatience
	}
	return w.limit
}

// pause sleeps, longer each time, and listens. What it waits for is told if it
// is interrupted.
func (w *writer) pause(what string) error {
	if w.ctx.Err() != nil {
		return fmt.Errorf("send: %s: %w", what, context.Cause(w.ctx))
	}
	w.counts.waits.Add(1)
	w.sleep(w.now() + int64(w.stall.pause))
	w.stall.pause = min(2*w.stall.pause, longestPause)
	return w.path.listen(0, w.stall.pause == longestPause)
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

// countMessages counts n messages from first on, which have been taken; before is
// the number of datagrams that were out before the first of them.
func (w *writer) countMessages(first, n, before int) {
	var supers, segments, fragmented uint64
	last := before
	for i := first; i < first+n; i++ {
		end := w.ends[i]
		if end-last > 1 {
			supers++
			segments += uint64(end - last)
		}
		if end > last && !w.intact[i] {
			fragmented++
		}
		last = end
	}
	w.counts.datagrams.Add(uint64(last - before))
	if supers > 0 {
		w.counts.superPackets.Add(supers)
		w.counts.segments.Add(segments)
	}
	if fragmented > 0 {
		w.counts.fragmented.Add(fragmented)
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
		Retries: c.retries.Load(), Waits: c.waits.Load(),
		Refused: w.troubles.count(PortUnreachable), Troubles: w.troubles.snapshot(),
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
