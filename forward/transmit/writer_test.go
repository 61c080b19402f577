package transmit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

// sent is one datagram as it left, or should leave.
type sent struct {
	port    int // source port, or number of the socket
	payload []byte
}

// makeBatch returns a batch of datagrams with the given lengths, four in a row
// having one port, with contents that tell them apart.
func makeBatch(seed uint64, lengths ...int) *forward.Batch {
	rng := rand.New(rand.NewPCG(seed, 0))
	b := new(forward.Batch)
	b.Buf = append(b.Buf, "not part of the first datagram"...)
	for i, n := range lengths {
		d := forward.Datagram{Off: len(b.Buf), Len: n, Port: DefaultPortMin + uint16(i/4%7)}
		for range n {
			b.Buf = append(b.Buf, byte(rng.Uint32()))
		}
		b.Datagrams = append(b.Datagrams, d)
	}
	return b
}

// rest is the part of b behind the first n datagrams.
func rest(b *forward.Batch, n int) *forward.Batch {
	return &forward.Batch{Buf: b.Buf, Datagrams: b.Datagrams[n:]}
}

// fakeKernel is a path whose system call does what a script says: how many
// messages are taken, and which errno comes. At the script's end it takes all.
type fakeKernel struct {
	path
	script []answer
	calls  int
	take   func(socket int, m *sys.Message) // a message was taken
	broken error                            // what check says
	heard  func() error                     // what listen says; nil: nothing
	clock  int64
}

type answer struct {
	taken int // at most; -1: all
	errno syscall.Errno
}

func (f *fakeKernel) send(socket int, msgs []sys.Message) (int, error) {
	a := answer{taken: -1}
	if f.calls < len(f.script) {
		a = f.script[f.calls]
	}
	f.calls++
	n := len(msgs)
	if a.taken >= 0 {
		n = min(n, a.taken)
	}
	for i := range n {
		f.take(socket, &msgs[i])
	}
	if n < len(msgs) && a.errno != 0 {
		return n, a.errno
	}
	return n, nil
}

func (f *fakeKernel) check() error { return f.broken }

func (f *fakeKernel) listen(time.Duration, bool) error {
	if f.heard != nil {
		return f.heard()
	}
	return nil
}

// install puts the fake under w, with a clock that only sleeping moves.
func (f *fakeKernel) install(w *writer, p path) {
	f.path = p
	f.clock = 1
	w.path = f
	w.now = func() int64 { return f.clock }
	w.sleep = func(until int64) { f.clock = max(f.clock, until) }
}

// newFakeUDP returns a writer that plans as the UDP transmission with four
// sockets does, for an MTU of 1500, and what its fake kernel got.
func newFakeUDP(messages int, script []answer) (*writer, *fakeKernel, *[]sent) {
	plan := &fakePlan{udpPlan: udpPlan{
		coalescer:  coalescer{sockets: 4, maxSegment: 1472, maxTotal: 65507},
		maxPayload: 65507,
	}}
	got := new([]sent)
	fake := &fakeKernel{script: script, take: func(socket int, m *sys.Message) { *got = append(*got, split(socket, m)...) }}
	w := new(writer)
	w.prepare(context.Background(), nil, messages)
	w.gso = true
	fake.install(w, plan)
	return w, fake, got
}

// fakePlan is the portable part of the UDP transmission.
type fakePlan struct {
	udpPlan
	noCalls
}

// noCalls fills the part of path that the fake replaces.
type noCalls struct{}

func (noCalls) send(int, []sys.Message) (int, error) { panic("not faked") }
func (noCalls) check() error                         { panic("not faked") }
func (noCalls) listen(time.Duration, bool) error     { panic("not faked") }

// split does to a message what the kernel does.
func split(socket int, m *sys.Message) []sent {
	size := m.Segment
	if size == 0 {
		size = max(1, len(m.Payload))
	}
	var out []sent
	for part := range slices.Chunk(m.Payload, size) {
		out = append(out, sent{socket, bytes.Clone(part)})
	}
	return out
}

// want lists what of b should have left by the UDP transmission.
func want(b *forward.Batch, sockets uint16) []sent {
	var out []sent
	for i := range b.Datagrams {
		out = append(out, sent{int(b.Datagrams[i].Port % sockets), b.Payload(i)})
	}
	return out
}

func diff(got, want []sent) error {
	for i := range min(len(got), len(want)) {
		if got[i].port != want[i].port || !bytes.Equal(got[i].payload, want[i].payload) {
			return fmt.Errorf("datagram %d: got %d bytes from port %d, want %d bytes from port %d",
				i, len(got[i].payload), got[i].port, len(want[i].payload), want[i].port)
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("got %d datagrams, want %d", len(got), len(want))
	}
	return nil
}

// sendAll sends b, starting again behind what was sent after each error, and
// checks that Send's count is the truth every time.
func sendAll(w *writer, b *forward.Batch, verify func(n int) error) error {
	for done, tries := 0, 0; done < len(b.Datagrams); tries++ {
		n, err := w.Send(rest(b, done))
		if err == nil && done+n != len(b.Datagrams) {
			return fmt.Errorf("took %d of %d without an error", n, len(b.Datagrams)-done)
		}
		done += n
		if wrong := verify(done); wrong != nil {
			return fmt.Errorf("after %d datagrams (Send: %v): %w", done, err, wrong)
		}
		if tries > 10000 {
			return fmt.Errorf("no end: %w", err)
		}
	}
	return nil
}

// errnos are what a script's byte may stand for: everything that the writer
// knows, and some it does not.
var errnos = []syscall.Errno{
	0, syscall.EINTR, syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNREFUSED, syscall.EIO, syscall.EINVAL,
	syscall.EMSGSIZE, syscall.EOPNOTSUPP, syscall.EPERM, syscall.ENETDOWN, syscall.ENXIO, syscall.EHOSTUNREACH,
}

// parseScript makes answers of bytes: two for each.
func parseScript(data []byte) []answer {
	var script []answer
	for pair := range slices.Chunk(data, 2) {
		if len(pair) == 2 {
			script = append(script, answer{taken: int(pair[0]) % 9, errno: errnos[int(pair[1])%len(errnos)]})
		}
	}
	return script
}

// parseLengths makes datagram lengths of bytes: runs of one size, shorter
// tails, and some beyond the MTU.
func parseLengths(data []byte) []int {
	var lengths []int
	for _, c := range data {
		n := 8 + 50*int(c&31)
		for range 1 + c>>5 {
			lengths = append(lengths, n)
		}
	}
	return lengths
}

// FuzzWriter checks the one promise: whatever sequence of partial counts and
// errnos the kernel answers with, what it takes is the batch, once, in order.
func FuzzWriter(f *testing.F) {
	f.Add([]byte{0x61, 0x21, 0x1f, 0xe3}, []byte{0, 3, 1, 5, 2, 7, 0, 9, 1, 10}, uint8(16))
	f.Add([]byte{0xff, 0xff, 0xe0}, []byte{3, 0, 0, 6}, uint8(2))
	f.Add([]byte{0x1f}, []byte{0, 8}, uint8(1))
	f.Fuzz(func(t *testing.T, sizes, script []byte, messages uint8) {
		sizes, script = sizes[:min(len(sizes), 64)], script[:min(len(script), 256)] // all is checked again after each error
		b := makeBatch(1, parseLengths(sizes)...)
		w, _, got := newFakeUDP(1+int(messages), parseScript(script))
		expected := want(b, 4)
		err := sendAll(w, b, func(n int) error { return diff(*got, expected[:n]) })
		if err != nil {
			t.Fatal(err)
		}
		if n := w.Stats().Datagrams; n != uint64(len(b.Datagrams)) {
			t.Errorf("counted %d datagrams of %d", n, len(b.Datagrams))
		}
	})
}

// TestWriterErrors lists what each refusal leads to, met by a batch of two
// super-packets on one socket.
func TestWriterErrors(t *testing.T) {
	kinds := func(k TroubleKind) func(Stats) uint64 {
		return func(s Stats) uint64 {
			if len(s.Troubles) == 1 && s.Troubles[0].Kind == k && !s.Troubles[0].Lost() {
				return s.Troubles[0].Count
			}
			return 0
		}
	}
	forever := func(e syscall.Errno) []answer { return slices.Repeat([]answer{{0, e}}, 100000) }
	for _, test := range []struct {
		name     string
		script   []answer
		broken   error
		wantErr  error // nil: everything is sent
		contains string
		taken    int
		fallback bool
		stats    func(Stats) uint64 // must not be 0
	}{
		{name: "interrupted", script: []answer{{0, syscall.EINTR}}, stats: func(s Stats) uint64 { return s.Retries }},
		{name: "partial", script: []answer{{1, 0}}, stats: func(s Stats) uint64 { return s.Datagrams }},
		{name: "partial with cause", script: []answer{{1, syscall.ENOBUFS}}, stats: func(s Stats) uint64 { return s.Waits }},
		{name: "queue full for a moment", script: slices.Repeat([]answer{{0, syscall.ENOBUFS}}, 5), stats: func(s Stats) uint64 { return s.Waits }},
		{name: "nothing taken, nothing said", script: []answer{{0, 0}}, stats: func(s Stats) uint64 { return s.Waits }},
		{name: "port closed", script: []answer{{0, syscall.ECONNREFUSED}}, stats: func(s Stats) uint64 { return s.Refused }},
		{name: "port closed for ever", script: forever(syscall.ECONNREFUSED), wantErr: syscall.ECONNREFUSED, stats: func(s Stats) uint64 { return s.Refused }},
		{name: "super-packet invalid", script: []answer{{0, syscall.EINVAL}}, fallback: true},
		{name: "second super-packet invalid", script: []answer{{1, syscall.EINVAL}}, fallback: true},
		{name: "super-packet without offload", script: []answer{{0, syscall.EIO}}, fallback: true},
		{name: "super-packet never fits the queue", script: slices.Repeat([]answer{{0, syscall.ENOBUFS}}, 150), fallback: true},
		{name: "single invalid", script: []answer{{0, syscall.EINVAL}, {0, syscall.EINVAL}}, wantErr: syscall.EINVAL, fallback: true},
		{name: "queue full for ever", script: forever(syscall.ENOBUFS), wantErr: syscall.ENOBUFS, contains: "queue full for 10s", fallback: true},
		{name: "carrier lost for ever", script: forever(syscall.ENOBUFS), broken: errors.New("device x is down"), contains: "nothing taken for 10s: device x is down",
			stats: kinds(LinkDown)},
		{name: "carrier lost for a moment", script: slices.Repeat([]answer{{0, syscall.ENOBUFS}}, 1000), broken: errors.New("device x is down"), stats: kinds(LinkDown)},
		{name: "device down for ever", script: forever(syscall.ENETDOWN), wantErr: syscall.ENETDOWN, contains: "nothing taken for 10s", stats: kinds(LinkDown)},
		{name: "device down for a moment", script: slices.Repeat([]answer{{0, syscall.ENETDOWN}}, 200), stats: kinds(LinkDown)},
		{name: "device gone", script: append([]answer{{1, syscall.ENXIO}}, forever(syscall.ENXIO)...), broken: errors.New("device x is gone"), wantErr: syscall.ENXIO, contains: "nothing taken for 1s: device x is gone", taken: 4, stats: kinds(WayLost)},
		{name: "packet filter", script: forever(syscall.EPERM), wantErr: syscall.EPERM, contains: "packet filter", stats: kinds(Filtered)},
		{name: "packet filter being reloaded", script: slices.Repeat([]answer{{0, syscall.EPERM}}, 50), stats: kinds(Filtered)},
		{name: "no route for ever", script: forever(syscall.ENETUNREACH), wantErr: syscall.ENETUNREACH, contains: "nothing taken for 10s", stats: kinds(NoRoute)},
		{name: "no route for a moment", script: slices.Repeat([]answer{{0, syscall.EHOSTUNREACH}}, 100), stats: kinds(NoRoute)},
		{name: "an answer for an earlier datagram", script: []answer{{0, syscall.EHOSTUNREACH}}, stats: func(s Stats) uint64 { return uint64(1 - len(s.Troubles)) }}, // what it is, the queue says
		{name: "a path's news", script: []answer{{0, syscall.EMSGSIZE}, {0, syscall.EMSGSIZE}}, fallback: true},
		{name: "single too long", script: forever(syscall.EMSGSIZE), contains: "too long for the way", fallback: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := makeBatch(2, 100, 100, 100, 100, 200, 200, 200, 200)
			for i := range b.Datagrams {
				b.Datagrams[i].Port = 50000
			}
			w, fake, got := newFakeUDP(64, test.script)
			fake.broken = test.broken
			n, err := w.Send(b)
			fails := test.wantErr != nil || test.contains != ""
			if !fails {
				test.taken = len(b.Datagrams)
			}
			switch {
			case !fails && err != nil, fails && err == nil:
				t.Fatalf("error %v", err)
			case test.wantErr != nil && !errors.Is(err, test.wantErr):
				t.Errorf("error %v does not wrap %v", err, test.wantErr)
			case fails && !strings.Contains(err.Error(), test.contains):
				t.Errorf("error %q does not say %q", err, test.contains)
			case n != test.taken:
				t.Errorf("took %d, want %d", n, test.taken)
			}
			if err := diff(*got, want(b, 4)[:n]); err != nil {
				t.Error(err)
			}
			s := w.Stats()
			if test.stats != nil && test.stats(s) == 0 {
				t.Errorf("not counted: %+v", s)
			}
			if (len(s.Fallbacks) == 1) != test.fallback || w.gso == test.fallback {
				t.Errorf("fallbacks %v, gso %v", s.Fallbacks, w.gso)
			}
		})
	}
}

// TestPathMTUIsNews lets the path get narrower under a plan, and wider again: no
// datagram is lost, the order is kept, super-packets go on in the size that fits,
// and what needs fragments is counted.
func TestPathMTUIsNews(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EMSGSIZE, syscall.EINVAL} {
		t.Run(errno.Error(), func(t *testing.T) {
			b := makeBatch(6, 1000, 1000, 1000, 1000, 300, 300, 300, 300, 1000, 1000)
			for i := range b.Datagrams {
				b.Datagrams[i].Port = 50000
			}
			w, fake, got := newFakeUDP(2, []answer{{0, errno}})
			plan := fake.path.(*fakePlan)
			plan.fit(1500, 28)
			fake.heard = func() error {
				if plan.fit(828, 28) {
					return errReplan
				}
				return nil
			}
			if n, err := w.Send(b); n != len(b.Datagrams) || err != nil {
				t.Fatalf("took %d: %v", n, err)
			}
			if err := diff(*got, want(b, 4)); err != nil {
				t.Error(err)
			}
			if s := w.Stats(); s.Fragmented != 6 || s.SuperPackets != 1 || len(s.Fallbacks) > 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestWriterWaitEndsWithContext(t *testing.T) {
	w, fake, _ := newFakeUDP(8, slices.Repeat([]answer{{0, syscall.EAGAIN}}, 1000))
	ctx, cancel := context.WithCancel(context.Background())
	w.ctx = ctx
	cancel()
	n, err := w.Send(makeBatch(3, 100))
	if n != 0 || !errors.Is(err, context.Canceled) || fake.calls != 1 {
		t.Errorf("took %d after %d calls: %v", n, fake.calls, err)
	}
}

func TestWriterPausesGrowToALimit(t *testing.T) {
	w, fake, _ := newFakeUDP(8, slices.Repeat([]answer{{0, syscall.EAGAIN}}, 20))
	var pauses []time.Duration
	w.sleep = func(until int64) {
		pauses = append(pauses, time.Duration(until-fake.clock))
		fake.clock = until
	}
	if _, err := w.Send(makeBatch(3, 100)); err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(pauses) || pauses[0] != firstPause || pauses[len(pauses)-1] != longestPause {
		t.Errorf("pauses %v", pauses)
	}
}

func TestTooLongDatagramStopsAtIt(t *testing.T) {
	b := makeBatch(4, 100, 65507, 65508, 100)
	w, _, got := newFakeUDP(8, nil)
	n, err := w.Send(b)
	var tooLong *TooLongError
	if n != 2 || !errors.As(err, &tooLong) || *tooLong != (TooLongError{Length: 65508, Limit: 65507}) {
		t.Fatalf("took %d: %v", n, err)
	}
	if n, err := w.Send(rest(b, 3)); n != 1 || err != nil {
		t.Fatalf("behind it: took %d: %v", n, err)
	}
	expected := want(b, 4)
	if err := diff(*got, append(expected[:2:2], expected[3])); err != nil {
		t.Error(err)
	}
}

func TestSpan(t *testing.T) {
	c := coalescer{maxSegment: 1000, maxTotal: 5000}
	type d struct {
		port uint16
		len  int
	}
	for _, test := range []struct {
		name    string
		sockets uint16
		ds      []d
		want    int
	}{
		{"alone", 0, []d{{1, 500}}, 1},
		{"one flow, one size", 0, []d{{1, 500}, {1, 500}, {1, 500}}, 3},
		{"last one shorter", 0, []d{{1, 500}, {1, 500}, {1, 499}, {1, 500}}, 3},
		{"next one longer", 0, []d{{1, 500}, {1, 501}}, 1},
		{"other port", 0, []d{{1, 500}, {2, 500}}, 1},
		{"other port, same socket", 4, []d{{1, 500}, {5, 500}, {6, 500}}, 2},
		{"as long as segments may be", 0, []d{{1, 1000}, {1, 1000}}, 2},
		{"longer than segments may be", 0, []d{{1, 1001}, {1, 1001}}, 1},
		{"as long as a packet may be", 0, []d{{1, 1000}, {1, 1000}, {1, 1000}, {1, 1000}, {1, 1000}, {1, 1000}}, 5},
		{"tail that does not fit", 0, []d{{1, 999}, {1, 999}, {1, 999}, {1, 999}, {1, 999}, {1, 6}}, 5},
		{"empty", 0, []d{{1, 0}, {1, 0}}, 1},
		{"empty tail", 0, []d{{1, 500}, {1, 0}}, 1},
		{"as many as segments may be", 0, slices.Repeat([]d{{1, 10}}, 100), maxSegments},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.sockets = test.sockets
			var ds []forward.Datagram
			off := 77
			for _, d := range test.ds {
				ds = append(ds, forward.Datagram{Off: off, Len: d.len, Port: d.port})
				off += d.len
			}
			if got := c.span(ds); got != test.want {
				t.Errorf("span of %d, want %d", got, test.want)
			}
		})
	}
}

func TestSpanNeedsContiguousPayloads(t *testing.T) {
	c := coalescer{maxSegment: 1000, maxTotal: 5000}
	ds := []forward.Datagram{{Off: 0, Len: 100}, {Off: 104, Len: 100}}
	if got := c.span(ds); got != 1 {
		t.Errorf("span of %d over a gap", got)
	}
}

func TestSendDoesNotAllocate(t *testing.T) {
	b := makeBatch(5, 100, 100, 100, 100, 200, 200, 60, 2000)
	w, fake, _ := newFakeUDP(64, nil)
	fake.take = func(int, *sys.Message) {}
	if allocs := testing.AllocsPerRun(100, func() { w.Send(b) }); allocs != 0 {
		t.Errorf("%v allocations per batch", allocs)
	}
}
