// Package preload reads captures into memory before the first frame is asked for, so
// that neither a disk nor decompression nor a filter has a part in the pace.
package preload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

// Source yields frames that lie in memory, several times over. [Read] makes it. It
// allocates nothing once it is made, and belongs to one goroutine but for Progress.
type Source struct {
	frames   []frame
	segments int    // of one pass
	filtered uint64 // of one pass, left out before they came here
	bytes    int64  // of all frames of one pass
	err      error  // after the first pass: io.EOF, or what ended the reading

	loops  int // negative: forever
	loop   int
	next   int
	shift  int64 // of this pass, nanoseconds
	span   int64 // from the earliest time to the latest
	latest int64
	meter  meter
}

// frame is what is kept of one.
type frame struct {
	data    []byte
	length  int
	time    int64
	before  uint64 // frames filtered out before it
	segment int
	link    forward.LinkType
	retimed bool
}

var (
	_ forward.Source   = (*Source)(nil)
	_ forward.Progress = (*Source)(nil)
	_ forward.Filterer = (*Source)(nil)
)

const (
	chunk    = 4 << 20                                 // frames lie one behind the other in pieces of this size
	overhead = 96                                      // of a frame: its entry in a list that grows
	lastTime = math.MaxUint32*int64(1e9) + 999_999_999 // that a pcap file can hold
)

// Room is how many bytes may sensibly be read into memory: half of the machine's.
func Room() int64 { return sys.Memory() / 2 }

// Read reads src, which is opened for one pass, to its end, to be played loops times
// (negative: forever). It fails where that takes more than room bytes. An error of
// src is returned by Next, behind the frames that came before it.
func Read(ctx context.Context, src forward.Source, loops int, room int64) (*Source, error) {
	s := &Source{loops: loops}
	low, err := s.read(ctx, src, room)
	if err != nil {
		return nil, err
	}
	if errors.Is(s.err, context.Canceled) && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	s.span = max(0, s.latest-low)
	s.meter.set(0, s.bytes*int64(max(loops, 0)))
	return s, nil
}

// read keeps all frames, and returns the earliest time.
func (s *Source) read(ctx context.Context, src forward.Source, room int64) (low int64, err error) {
	filter, _ := src.(forward.Filterer)
	low, s.latest = math.MaxInt64, math.MinInt64
	var f forward.Frame
	var arena []byte
	for {
		s.err = src.Next(&f)
		if filter != nil {
			s.filtered = filter.Filtered()
		}
		if s.err != nil {
			return low, nil
		}
		if s.bytes+int64(len(f.Data)+overhead*len(s.frames)) > room {
			return 0, fmt.Errorf("preload: more than %d MB, which is half of this machine's memory", room>>20)
		}
		if cap(arena)-len(arena) < len(f.Data) {
			arena = make([]byte, 0, max(chunk, len(f.Data)))
		}
		arena = append(arena, f.Data...)
		s.keep(&f, arena[len(arena)-len(f.Data):len(arena):len(arena)])
		if !f.Retimed {
			low, s.latest = min(low, f.Time), max(s.latest, f.Time)
		}
		if len(s.frames)%4096 == 0 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
}

// keep notes a frame, whose data lies elsewhere now.
func (s *Source) keep(f *forward.Frame, data []byte) {
	s.bytes += int64(len(data))
	s.segments = f.Segment + 1
	s.frames = append(s.frames, frame{data: data, length: f.Length, time: f.Time, segment: f.Segment, link: f.LinkType, retimed: f.Retimed, before: s.filtered})
}

// Frames and Bytes are those of one pass.
func (s *Source) Frames() int { return len(s.frames) }

// Bytes is documented at Frames.
func (s *Source) Bytes() int64 { return s.bytes }

// Next implements [forward.Source]. Passes follow each other as those of
// pcapfile.Files do: Loop and Segment grow, times go on, by the span of the frames that
// are in memory.
func (s *Source) Next(f *forward.Frame) error {
	if s.next == len(s.frames) {
		if !s.again() {
			return s.err
		}
	}
	k := &s.frames[s.next]
	s.next++
	*f = forward.Frame{Data: k.data, Length: k.length, Time: k.time, LinkType: k.link, Retimed: k.retimed, Segment: s.loop*s.segments + k.segment, Loop: s.loop}
	if k.time <= lastTime-s.shift && !k.retimed {
		f.Time += s.shift
	}
	s.meter.add(int64(len(k.data)))
	return nil
}

// again begins another pass.
func (s *Source) again() bool {
	if !errors.Is(s.err, io.EOF) || len(s.frames) == 0 || s.loops >= 0 && s.loop+1 >= s.loops {
		return false
	}
	s.loop++
	s.next = 0
	s.shift += s.span
	if s.latest > lastTime-s.shift {
		s.shift = 0
	}
	return true
}

// Filtered implements [forward.Filterer].
func (s *Source) Filtered() uint64 {
	n := s.filtered // behind the last frame
	if s.next < len(s.frames) && s.next > 0 {
		n = s.frames[s.next-1].before
	}
	return uint64(s.loop)*s.filtered + n
}

// Progress implements [forward.Progress], in bytes of frames.
func (s *Source) Progress() (done, total int64) { return s.meter.get() }

// Close implements [forward.Source]. What was read from is not closed.
func (s *Source) Close() error { return nil }
