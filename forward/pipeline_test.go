package forward_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/selftest"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
)

// A fakeClock moves only when it is told to: by sleeping, by what the other
// fakes charge for their work.
type fakeClock struct {
	now       int64
	overshoot int64 // how late every sleep ends
	sleeps    int
	cancel    func() // called by the sleep number cancelAt
	cancelAt  int
}

func (c *fakeClock) Now() int64 { return c.now }

func (c *fakeClock) SleepUntil(ctx context.Context, t int64) error {
	c.sleeps++
	if c.cancel != nil && c.sleeps == c.cancelAt {
		c.cancel()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.now = max(c.now, t+c.overshoot)
	return nil
}

// A fakeSource yields frames, then err.
type fakeSource struct {
	frames []forward.Frame
	err    error
	before func(i int) // called before frame i is returned
	i      int
}

func (s *fakeSource) Next(f *forward.Frame) error {
	if s.i == len(s.frames) {
		return s.err
	}
	if s.before != nil {
		s.before(s.i)
	}
	*f = s.frames[s.i]
	s.i++
	return nil
}

func (s *fakeSource) Close() error { return nil }

// A fakeEncap puts a header of 8 bytes before each frame. It obeys orders that
// lie in the frame: 'r' refuses it, 'N' makes N datagrams of it, one per byte.
type fakeEncap struct{}

func (fakeEncap) Encapsulate(b *forward.Batch, f *forward.Frame) forward.Outcome {
	if f.Data[0] == 'r' {
		return forward.Outcome{Refusal: forward.RefusedLinkType}
	}
	parts := [][]byte{f.Data}
	out := forward.Outcome{Inner: len(f.Data)}
	if f.Data[0] == 'N' {
		parts, out.Flags = nil, forward.Resegmented
		for i := range f.Data {
			parts = append(parts, f.Data[i:i+1])
		}
	}
	for _, part := range parts {
		off := len(b.Buf)
		b.Buf = append(append(b.Buf, "headhead"...), part...)
		b.Datagrams = append(b.Datagrams, forward.Datagram{Off: off, Len: len(b.Buf) - off, Time: f.Time})
	}
	return out
}

// A fakeSink remembers what it got and when.
type fakeSink struct {
	clock   *fakeClock
	cost    int64 // of a call, on the clock
	sent    []string
	at      []int64
	batches []int
	failAt  int // fail before this datagram, counted from 1
	size    int // what BatchSize says
}

var errSink = errors.New("no route")

func (s *fakeSink) Send(b *forward.Batch) (int, error) {
	s.batches = append(s.batches, len(b.Datagrams))
	if n := len(b.Datagrams); n > 0 {
		if first, last := b.Datagrams[0], b.Datagrams[n-1]; last.Off+last.Len > len(b.Buf) || first.Off < 0 {
			return 0, fmt.Errorf("batch out of its buffer: %v", b.Datagrams)
		}
	}
	for i := range b.Datagrams {
		if s.failAt > 0 && len(s.sent)+1 == s.failAt {
			return i, errSink
		}
		s.sent = append(s.sent, string(b.Payload(i)[8:]))
		if s.clock != nil {
			s.at = append(s.at, s.clock.now)
		}
	}
	if s.clock != nil {
		s.clock.now += s.cost
	}
	return len(b.Datagrams), nil
}

func (s *fakeSink) BatchSize() (datagrams, bytes int) { return s.size, 0 }
func (s *fakeSink) Close() error                      { return nil }

// frames makes frames with the given contents, gap apart.
func frames(gap time.Duration, contents ...string) []forward.Frame {
	var list []forward.Frame
	for i, c := range contents {
		list = append(list, forward.Frame{Data: []byte(c), Length: len(c), LinkType: forward.LinkEthernet, Time: 1e18 + int64(i)*int64(gap)})
	}
	return list
}

// numbered makes n contents, all different.
func numbered(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%06d", i)
	}
	return list
}

func recorded(tb testing.TB, speed float64) forward.Pacer {
	tb.Helper()
	p, err := pace.Recorded(speed)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// setup returns a pipeline of fakes, and its sink and clock.
func setup(source forward.Source, pacer forward.Pacer) (*forward.Pipeline, *fakeSink, *fakeClock) {
	clock := &fakeClock{now: 12345}
	sink := &fakeSink{clock: clock}
	return &forward.Pipeline{
		Source: source, Encapsulator: fakeEncap{}, Sink: sink, Clock: clock, Pacer: pacer, Stats: new(forward.Stats),
	}, sink, clock
}

func TestEveryFrameIsSentInOrder(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 65, 1000, 10000} {
		want := numbered(n)
		p, sink, _ := setup(&fakeSource{frames: frames(time.Second, want...), err: io.EOF}, nil)
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(sink.sent, want) {
			t.Errorf("%d frames: sent %d, or others", n, len(sink.sent))
		}
		if rep := p.Stats.Snapshot(); !rep.Finished || rep.DatagramsSent != uint64(n) || rep.FramesRead != uint64(n) ||
			rep.InnerBytes != uint64(6*n) || rep.PayloadBytes != uint64(14*n) {
			t.Errorf("%d frames: report %+v", n, rep)
		}
	}
}

func TestBatchSizes(t *testing.T) {
	tests := []struct {
		name             string
		sink, size, byts int
		contents         []string
		want             []int
	}{
		{"default", 0, 0, 0, numbered(130), []int{64, 64, 2}},
		{"the sink's", 100, 0, 0, numbered(130), []int{100, 30}},
		{"the pipeline's, if smaller", 100, 50, 0, numbered(130), []int{50, 50, 30}},
		{"not the pipeline's, if larger", 100, 500, 0, numbered(130), []int{100, 30}},
		{"bytes", 0, 0, 30, numbered(7), []int{3, 3, 1}},
		{"a super-frame does not exceed it", 4, 0, 0, []string{"a", "b", "N123456"}, []int{4, 4, 1}},
	}
	for _, tt := range tests {
		p, sink, _ := setup(&fakeSource{frames: frames(0, tt.contents...), err: io.EOF}, nil)
		sink.size, p.BatchDatagrams, p.BatchBytes = tt.sink, tt.size, tt.byts
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(sink.batches, tt.want) {
			t.Errorf("%s: batches of %v, want %v", tt.name, sink.batches, tt.want)
		}
	}
}

func TestRecordedPace(t *testing.T) {
	const ms = int64(time.Millisecond)
	p, sink, clock := setup(&fakeSource{frames: frames(time.Millisecond, "a", "b", "c", "d"), err: io.EOF}, recorded(t, 0.5))
	start := clock.now
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []int64{start, start + 2*ms, start + 4*ms, start + 6*ms}; !slices.Equal(sink.at, want) {
		t.Errorf("sent at %v, want %v", sink.at, want)
	}
	if rep := p.Stats.Snapshot(); rep.LateMaxNS != 0 || rep.ElapsedSeconds != 0.006 {
		t.Errorf("late %d ns, took %v s", rep.LateMaxNS, rep.ElapsedSeconds)
	}
}

// A burst leaves as one batch; what is due later does not leave with it.
func TestBurstsAreBatched(t *testing.T) {
	list := frames(0, numbered(10)...)
	list = append(list, frames(0, "later")...)
	list[10].Time += int64(time.Second)
	p, sink, _ := setup(&fakeSource{frames: list, err: io.EOF}, recorded(t, 1))
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(sink.batches, []int{10, 1}) {
		t.Errorf("batches of %v", sink.batches)
	}
}

// Whatever the clock and the sink do, nothing leaves before it is due, and the
// lateness that is reported is the one that was.
func TestNothingLeavesEarly(t *testing.T) {
	for _, overshoot := range []int64{0, 1000, 60_000, 2_000_000} {
		p, sink, clock := setup(&fakeSource{frames: frames(37*time.Microsecond, numbered(5000)...), err: io.EOF}, recorded(t, 1))
		clock.overshoot, sink.cost = overshoot, 5000
		start := clock.now
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		var latest int64
		for i, at := range sink.at {
			due := start + int64(i)*37_000
			if at < due {
				t.Fatalf("overshoot %d: frame %d left %d ns early", overshoot, i, due-at)
			}
			latest = max(latest, at-due)
		}
		if rep := p.Stats.Snapshot(); rep.LateMaxNS != latest || rep.LateP99NS > latest || rep.LateP50NS > rep.LateP99NS {
			t.Errorf("overshoot %d: reported at most %d ns late (99 %%: %d), it was %d", overshoot, rep.LateMaxNS, rep.LateP99NS, latest)
		}
		if limit := overshoot + 64*37_000; latest > limit {
			t.Errorf("overshoot %d: %d ns late", overshoot, latest)
		}
	}
}

// A super-frame's segments are paced one by one.
func TestSegmentsArePaced(t *testing.T) {
	pps, err := pace.PPS(1000)
	if err != nil {
		t.Fatal(err)
	}
	p, sink, clock := setup(&fakeSource{frames: frames(0, "a", "N12", "b"), err: io.EOF}, pps)
	start := clock.now
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "N", "1", "2", "b"}; !slices.Equal(sink.sent, want) {
		t.Errorf("sent %q, want %q", sink.sent, want)
	}
	for i, at := range sink.at {
		if want := start + int64(i)*int64(time.Millisecond); at != want {
			t.Errorf("datagram %d sent at %d, want %d", i, at, want)
		}
	}
	if rep := p.Stats.Snapshot(); rep.FramesResegmented != 1 || rep.Segments != 3 || rep.InnerBytes != 5 {
		t.Errorf("report %+v", rep)
	}
}

func TestSourceErrorComesAfterEverythingBefore(t *testing.T) {
	damage := errors.New("a.pcap: packet 101 at byte 4711: cut")
	p, sink, _ := setup(&fakeSource{frames: frames(0, numbered(100)...), err: damage}, nil)
	if err := p.Run(t.Context()); !errors.Is(err, damage) {
		t.Errorf("error %v", err)
	}
	if len(sink.sent) != 100 {
		t.Errorf("sent %d", len(sink.sent))
	}
	if rep := p.Stats.Snapshot(); rep.DatagramsSent != 100 || rep.DatagramsUnsent != 0 {
		t.Errorf("report %+v", rep)
	}
}

func TestSinkErrorCountsWhatWasSent(t *testing.T) {
	p, sink, _ := setup(&fakeSource{frames: frames(0, numbered(100)...), err: io.EOF}, nil)
	sink.failAt = 70
	err := p.Run(t.Context())
	if !errors.Is(err, errSink) || err.Error() != "send datagram 70: no route" {
		t.Errorf("error %v", err)
	}
	if rep := p.Stats.Snapshot(); rep.DatagramsSent != 69 || rep.DatagramsUnsent != 31 || rep.FramesRead != 100 || rep.InnerBytes != 69*6 {
		t.Errorf("report %+v", rep)
	}
}

type shortSink struct{ fakeSink }

func (s *shortSink) Send(b *forward.Batch) (int, error) { return len(b.Datagrams) - 1, nil }

func TestSinkThatSendsLessWithoutErrorIsAnError(t *testing.T) {
	p, _, _ := setup(&fakeSource{frames: frames(0, "a"), err: io.EOF}, nil)
	p.Sink = &shortSink{}
	if err := p.Run(t.Context()); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("error %v", err)
	}
}

func TestInterruptFinishesTheBatch(t *testing.T) {
	cause := errors.New("interrupt")
	ctx, cancel := context.WithCancelCause(t.Context())
	source := &fakeSource{frames: frames(0, numbered(1000)...), err: io.EOF}
	source.before = func(i int) {
		if i == 100 {
			cancel(cause)
		}
	}
	p, sink, _ := setup(source, nil)
	err := p.Run(ctx)
	if !errors.Is(err, cause) || err.Error() != "interrupted after 128 datagrams: interrupt" {
		t.Errorf("error %v", err)
	}
	if !slices.Equal(sink.sent, numbered(128)) {
		t.Errorf("sent %d datagrams", len(sink.sent))
	}
	if rep := p.Stats.Snapshot(); rep.DatagramsSent != 128 || rep.FramesRead != 128 || rep.DatagramsUnsent != 0 {
		t.Errorf("report %+v", rep)
	}
}

func TestInterruptWhileWaiting(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p, sink, clock := setup(&fakeSource{frames: frames(time.Hour, numbered(10)...), err: io.EOF}, recorded(t, 1))
	clock.cancel, clock.cancelAt = cancel, 3
	if err := p.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if len(sink.sent) != 3 {
		t.Errorf("sent %q", sink.sent)
	}
	if rep := p.Stats.Snapshot(); rep.DatagramsSent != 3 || rep.FramesRead != 4 || rep.DatagramsUnsent != 1 {
		t.Errorf("report %+v", rep)
	}
}

// A run in which nothing passes still notices that it is to end.
func TestInterruptWhereEveryFrameIsRefused(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	source := &fakeSource{frames: frames(0, slices.Repeat([]string{"r"}, 100_000)...), err: io.EOF}
	source.before = func(i int) {
		if i == 1000 {
			cancel()
		}
	}
	p, _, _ := setup(source, nil)
	if err := p.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if rep := p.Stats.Snapshot(); rep.FramesRead > 10_000 || rep.FramesRead != rep.FramesRefused {
		t.Errorf("read %d, refused %d", rep.FramesRead, rep.FramesRefused)
	}
}

func TestLimit(t *testing.T) {
	p, sink, _ := setup(&fakeSource{frames: frames(0, numbered(100)...), err: io.EOF}, nil)
	p.Limit = 7
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(sink.sent, numbered(7)) {
		t.Errorf("sent %q", sink.sent)
	}
}

func TestDuration(t *testing.T) {
	p, sink, _ := setup(&fakeSource{frames: frames(time.Second, numbered(100)...), err: io.EOF}, recorded(t, 1))
	p.Duration = 5 * time.Second
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(sink.sent) != 6 {
		t.Errorf("at recorded pace sent %d frames", len(sink.sent))
	}
	if rep := p.Stats.Snapshot(); rep.DatagramsUnsent != 0 {
		t.Errorf("what lies beyond the end counts as unsent: %d", rep.DatagramsUnsent)
	}

	p, sink, _ = setup(&fakeSource{frames: frames(time.Second, numbered(100_000)...), err: io.EOF}, nil)
	sink.cost = int64(time.Second)
	p.Duration = 5 * time.Second
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(sink.sent) != 5*64 {
		t.Errorf("without a pace sent %d frames", len(sink.sent))
	}
}

// A leavingSource counts what it leaves out.
type leavingSource struct {
	fakeSource
	left uint64
}

func (s *leavingSource) Filtered() uint64 { return s.left }

// The report names the first frame without a time by its number in the input.
func TestBadTimesAreNamed(t *testing.T) {
	list := frames(time.Second, numbered(100)...)
	for _, i := range []int{70, 71, 90} {
		list[i].Time, list[i].Retimed = list[69].Time, true
	}
	for _, filtered := range []uint64{0, 1000} {
		p, sink, _ := setup(nil, recorded(t, 1))
		p.Source = &leavingSource{fakeSource{frames: list, err: io.EOF}, filtered}
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rep := p.Stats.Snapshot(); len(sink.sent) != 100 || rep.FramesRetimed != 3 || rep.FirstRetimed != int64(71+filtered) {
			t.Errorf("sent %d frames, %d retimed, the first is %d", len(sink.sent), rep.FramesRetimed, rep.FirstRetimed)
		}
	}
}

// waitingSource has to wait before every tenth frame.
type waitingSource struct{ fakeSource }

func (s *waitingSource) Ready() bool { return s.i%10 != 0 }

func TestNothingPendingWhileTheSourceWaits(t *testing.T) {
	source := &waitingSource{fakeSource{frames: frames(0, numbered(35)...), err: io.EOF}}
	p, sink, _ := setup(source, nil)
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(sink.batches, []int{10, 10, 10, 5}) {
		t.Errorf("batches of %v", sink.batches)
	}
}

// budgetGate grants bytes; an exhausted budget is renewed by a wait.
type budgetGate struct {
	t       *testing.T
	clock   *fakeClock
	budget  int
	left    int
	granted int
	ends    error // returned when the budget is exhausted, if not nil
}

const gateWait = 50 * time.Microsecond

func (g *budgetGate) Reserve(ctx context.Context, b *forward.Batch) (forward.Grant, error) {
	var grant forward.Grant
	if b.Datagrams[0].Len > g.left {
		if ctx.Err() != nil {
			return grant, ctx.Err()
		}
		if g.ends != nil {
			return grant, g.ends
		}
		g.clock.now += int64(gateWait)
		g.left, grant.Stalled = g.budget, gateWait
	}
	free := g.left
	for _, d := range b.Datagrams {
		if free -= d.Len; free < 0 {
			break
		}
		grant.Datagrams++
	}
	g.granted = grant.Datagrams
	return grant, nil
}

func (g *budgetGate) Sent(b *forward.Batch, n int) {
	if len(b.Datagrams) != g.granted {
		g.t.Errorf("told of %d datagrams, granted %d", len(b.Datagrams), g.granted)
	}
	for i := range n {
		g.left -= b.Datagrams[i].Len
	}
}

func TestGateCutsBatches(t *testing.T) {
	p, sink, clock := setup(&fakeSource{frames: frames(0, numbered(100)...), err: io.EOF}, nil)
	p.Gate = &budgetGate{t: t, clock: clock, budget: 10 * 14}
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(sink.sent, numbered(100)) {
		t.Errorf("sent %d, or others", len(sink.sent))
	}
	if slices.Max(sink.batches) != 10 {
		t.Errorf("batches of %v", sink.batches)
	}
	if rep := p.Stats.Snapshot(); rep.Stalls != 10 || rep.StalledSeconds != (10*gateWait).Seconds() {
		t.Errorf("%d stalls, %v s", rep.Stalls, rep.StalledSeconds)
	}
}

func TestGateErrorEndsTheRun(t *testing.T) {
	gone := errors.New("socket has gone")
	p, sink, clock := setup(&fakeSource{frames: frames(0, numbered(100)...), err: io.EOF}, nil)
	p.Gate = &budgetGate{t: t, clock: clock, budget: 1, left: 30 * 14, ends: gone}
	if err := p.Run(t.Context()); !errors.Is(err, gone) {
		t.Errorf("error %v", err)
	}
	if rep := p.Stats.Snapshot(); len(sink.sent) != 30 || rep.DatagramsSent != 30 || rep.DatagramsUnsent != 64 {
		t.Errorf("sent %d, report %+v", len(sink.sent), rep)
	}
}

// An interrupted run does not overrun a receiver that takes no more: what the
// gate does not grant at once is given up, and counted.
func TestInterruptWhileTheGateHolds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	source := &fakeSource{frames: frames(0, numbered(100)...), err: io.EOF}
	source.before = func(i int) {
		if i == 50 {
			cancel()
		}
	}
	p, sink, clock := setup(source, nil)
	p.Gate = &budgetGate{t: t, clock: clock, budget: 1, left: 30 * 14}
	err := p.Run(ctx)
	if !errors.Is(err, context.Canceled) || err.Error() != "interrupted after 30 datagrams: context canceled" {
		t.Errorf("error %v", err)
	}
	if rep := p.Stats.Snapshot(); len(sink.sent) != 30 || rep.DatagramsUnsent != 34 {
		t.Errorf("sent %d, report %+v", len(sink.sent), rep)
	}
}

type brokenGate int

func (g brokenGate) Reserve(context.Context, *forward.Batch) (forward.Grant, error) {
	return forward.Grant{Datagrams: int(g)}, nil
}
func (brokenGate) Sent(*forward.Batch, int) {}

func TestGateThatGrantsNonsenseIsAnError(t *testing.T) {
	for _, n := range []brokenGate{0, -1, 2} {
		p, sink, _ := setup(&fakeSource{frames: frames(0, "a"), err: io.EOF}, nil)
		p.Gate = n
		if err := p.Run(t.Context()); err == nil || len(sink.sent) != 0 {
			t.Errorf("grant of %d: error %v, sent %q", n, err, sink.sent)
		}
	}
}

func TestMissingPartIsNamed(t *testing.T) {
	p := &forward.Pipeline{}
	if err := p.Run(t.Context()); err == nil || err.Error() != "run pipeline: it has no source" {
		t.Errorf("error %v", err)
	}
}

// discard is a Sink that costs nothing.
type discard struct{ datagrams int }

func (s *discard) Send(b *forward.Batch) (int, error) {
	s.datagrams += len(b.Datagrams)
	return len(b.Datagrams), nil
}

func (*discard) BatchSize() (datagrams, bytes int) { return 256, 0 }
func (*discard) Close() error                      { return nil }

// mean350 are frames of 350 bytes mean, TCP over IPv4 of 64 flows.
func mean350() []forward.Frame {
	var list []forward.Frame
	for i := range 256 {
		data := bytes.Repeat([]byte{byte(i)}, 100+i%2*500)
		copy(data[12:], []byte{8, 0, 0x45, 0})
		binary.BigEndian.PutUint16(data[16:], uint16(len(data)-14))
		copy(data[22:], []byte{64, 6, 0, 0, 10, 0, 0, byte(i % 64), 10, 0, 1, 1, 0x9c, byte(i % 64), 0, 80})
		list = append(list, forward.Frame{Data: data, Length: len(data), LinkType: forward.LinkEthernet, Time: int64(i)})
	}
	return list
}

// pipelineOf puts the real encapsulation between memory and nothing.
func pipelineOf(tb testing.TB, count int, pacer forward.Pacer) *forward.Pipeline {
	tb.Helper()
	e, err := encap.New(encap.Config{VNI: 1})
	if err != nil {
		tb.Fatal(err)
	}
	return &forward.Pipeline{Source: selftest.NewMemory(mean350(), uint64(count)), Encapsulator: e,
		Sink: &discard{}, Clock: pace.NewClock(), Pacer: pacer, Stats: new(forward.Stats)}
}

// Ten times the frames cost no allocation more: none is per frame.
func TestSteadyStateDoesNotAllocate(t *testing.T) {
	for name, pacer := range map[string]func() forward.Pacer{
		"max":      pace.Max,
		"recorded": func() forward.Pacer { return recorded(t, 1e6) },
		"pps": func() forward.Pacer {
			p, _ := pace.PPS(1e9)
			return p
		},
	} {
		run := func(count int) float64 {
			return testing.AllocsPerRun(5, func() {
				if err := pipelineOf(t, count, pacer()).Run(t.Context()); err != nil {
					t.Fatal(err)
				}
			})
		}
		if few, many := run(2000), run(20_000); many > few+1 { // the runtime may allocate once itself
			t.Errorf("%s: %v allocations for 2 000 frames, %v for 20 000", name, few, many)
		}
	}
}

// BenchmarkPipeline is the speed of everything but the kernel. Run with:
// go test -run '^$' -bench Pipeline -benchmem -cpu 1 ./forward
func BenchmarkPipeline(b *testing.B) {
	for _, pacer := range []struct {
		name string
		make func() forward.Pacer
	}{
		{"max", pace.Max},
		{"recorded", func() forward.Pacer { return recorded(b, 1) }},
		{"pps", func() forward.Pacer {
			p, _ := pace.PPS(1e9)
			return p
		}},
	} {
		b.Run(pacer.name, func(b *testing.B) {
			b.ReportAllocs()
			p := pipelineOf(b, b.N, pacer.make())
			b.SetBytes(350)
			b.ResetTimer()
			if err := p.Run(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mpps")
		})
	}
}

// BenchmarkLateness measures how late frames leave on this machine: 10 000 a
// second, and sparse ones. The numbers are the machine's, so nothing is checked.
func BenchmarkLateness(b *testing.B) {
	for _, rate := range []float64{100, 10_000} {
		b.Run(fmt.Sprintf("pps=%.0f", rate), func(b *testing.B) {
			pps, err := pace.PPS(rate)
			if err != nil {
				b.Fatal(err)
			}
			p := pipelineOf(b, b.N, pps)
			if err := transmit.Pinned(transmit.CPUAuto, func() error { return p.Run(b.Context()) }); err != nil {
				b.Fatal(err)
			}
			rep := p.Stats.Snapshot()
			b.ReportMetric(float64(rep.LateMaxNS), "late-max-ns")
			b.ReportMetric(float64(rep.LateP99NS), "late-p99-ns")
			b.ReportMetric(float64(rep.LateP50NS), "late-p50-ns")
			if b.N > 1 {
				should := float64(b.N-1) / rate
				b.ReportMetric(math.Abs(rep.ElapsedSeconds-should)/should*1e6, "rate-error-ppm")
			}
		})
	}
}
