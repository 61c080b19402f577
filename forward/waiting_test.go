package forward_test

import (
	"io"
	"slices"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

// timeSink remembers the times of what it got.
type timeSink struct{ times []int64 }

func (s *timeSink) Send(b *forward.Batch) (int, error) {
	for _, d := range b.Datagrams {
		s.times = append(s.times, d.Time)
	}
	return len(b.Datagrams), nil
}

func (s *timeSink) Close() error { return nil }

// everySecond has each datagram due a second after the one before.
type everySecond struct{ next int64 }

func (p *everySecond) Due(*forward.Frame, int, int64) (due, earliest int64) {
	due = p.next
	p.next += int64(time.Second)
	return due, due
}

func written(t *testing.T, p forward.Pipeline) (times []int64, rep forward.Report) {
	t.Helper()
	clock, sink := &fakeClock{}, &timeSink{}
	p.Encapsulator, p.Sink, p.Clock, p.Stats = fakeEncap{}, sink, clock, &forward.Stats{}
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if clock.sleeps != 0 {
		t.Errorf("%d sleeps", clock.sleeps)
	}
	return sink.times, p.Stats.Snapshot()
}

func source(frames ...forward.Frame) *fakeSource { return &fakeSource{frames: frames, err: io.EOF} }

const day = int64(24 * time.Hour)

// What is written into a file is not waited for, and keeps its times.
func TestNoWait(t *testing.T) {
	times, rep := written(t, forward.Pipeline{Source: source(frames(time.Hour, "a", "b", "c")...), Pacer: &everySecond{}, Waiting: forward.NoWait})
	recorded := frames(time.Hour, "a", "b", "c")
	if want := []int64{recorded[0].Time, recorded[1].Time, recorded[2].Time}; !slices.Equal(times, want) {
		t.Errorf("times %v, want %v", times, want)
	}
	if rep.LateMaxNS != 0 || rep.ElapsedSeconds != 0 {
		t.Errorf("report %+v", rep)
	}
}

// With a pace of its own the file has the times of the schedule, from the first
// frame's on; a frame without a time is no beginning.
func TestNoWaitStamp(t *testing.T) {
	f := frames(time.Hour, "a", "bb", "Nxyz", "c")
	f[0].Retimed, f[0].Time, f[1].Time = true, 5, day
	times, _ := written(t, forward.Pipeline{Source: source(f...), Pacer: &everySecond{}, Waiting: forward.NoWaitStamp})
	want := []int64{5, day}
	for i := range int64(5) { // "Nxyz" is four datagrams
		want = append(want, day+(i+1)*int64(time.Second))
	}
	if !slices.Equal(times, want) {
		t.Errorf("times %v, want %v", times, want)
	}
}

// Without a schedule there is nothing to stamp.
func TestNoWaitStampWithoutSchedule(t *testing.T) {
	f := frames(time.Hour, "a", "b")
	times, _ := written(t, forward.Pipeline{Source: source(f...), Waiting: forward.NoWaitStamp})
	if want := []int64{f[0].Time, f[1].Time}; !slices.Equal(times, want) {
		t.Errorf("times %v, want %v", times, want)
	}
}

// The duration is that of the schedule, to the datagram.
func TestNoWaitDuration(t *testing.T) {
	for _, tt := range []struct {
		contents []string
		want     int
	}{{[]string{"a", "b", "c", "d"}, 3}, {[]string{"a", "Nxyz", "d"}, 3}} {
		times, rep := written(t, forward.Pipeline{Source: source(frames(time.Hour, tt.contents...)...), Pacer: &everySecond{},
			Waiting: forward.NoWait, Duration: 2 * time.Second})
		if len(times) != tt.want || rep.DatagramsUnsent != 0 {
			t.Errorf("%v: %d datagrams, want %d; %d unsent", tt.contents, len(times), tt.want, rep.DatagramsUnsent)
		}
	}
}
