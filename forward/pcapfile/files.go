package pcapfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Options say how captures are read.
type Options struct {
	// Loop is how often the whole input is read: 0 and 1 mean once, a negative
	// number means forever.
	Loop int
	// Stdin is what the name "-" stands for; nil where there is none.
	Stdin io.Reader
	// Stop ends the waiting for standard input, a pipe (for its first writer,
	// too) or a device when it is closed: opening and Next then fail with an error that unwraps to
	// context.Canceled. It is meant for a context's Done channel, and nil where
	// nothing is to be stopped. Regular files do not look at it.
	Stop <-chan struct{}
	// SkipDamage goes on with the next capture where one is damaged: see
	// [Files.Damages]. Without it the first damage ends the reading with its
	// DamageError.
	SkipDamage bool
	// Opening bounds, unless it is 0, how long the beginnings of standard input,
	// pipes and devices are waited for. Where they do not come in time, no capture
	// yields a frame: it is for runs that are to last so long at most.
	Opening time.Duration
}

// Files is a run of captures, one after the other, several times over. Only
// Progress and Stop may be called from another goroutine.
//
// Segment grows by one with every file, and within one where another capture was
// appended to it, Loop with every pass. The frames of a
// later pass carry later times: those recorded plus as often as passes went
// before the span of the whole input, from the earliest time in any of its
// files to the latest. So if the times never go back in the input, they never
// go back from pass to pass. Where the sum would go beyond the year 2106, the
// last that a pcap file can hold, the recorded times are used again.
type Files struct {
	inputs []input
	loops  int // negative: forever
	stdin  io.Reader
	stop   waits
	halt   func() // closes the second of them

	now    *Reader // nil before the first frame and between two files
	parts  int     // captures that were opened so far, glued ones too
	index  int     // of now, or of the next to be opened
	loop   int
	frames bool // whether this pass yielded any
	err    error

	skipDamage bool
	damages    []*DamageError

	shift     int64 // of this pass, nanoseconds
	low, high int64 // earliest and latest recorded time
	last      int64 // time of the last frame of the inputs before now
	win       []byte

	done atomic.Int64
	base int64 // stored bytes of everything before now
	size int64 // of one pass, 0 where unknown
}

// input is one name in the list.
type input struct {
	name  string
	size  int64
	links []forward.LinkType
	held  *Reader // open since the check, because it cannot be opened twice

	damaged bool // and reported so
}

// OpenAll opens every capture and checks its headers, so that a file that is
// missing or no capture is found before the first frame. Files that can be
// opened again are closed until it is their turn. Standard input, pipes and
// devices can be read only once: they are refused with Options.Loop, and where
// standard input is named twice.
func OpenAll(names []string, opts Options) (*Files, error) {
	if len(names) == 0 {
		return nil, errors.New("open captures: no file given")
	}
	if n := slices.Index(names, "-"); n >= 0 && slices.Contains(names[n+1:], "-") {
		return nil, fmt.Errorf("read %s: it can be read only once", stdinName)
	}
	if slices.Contains(names, "-") && looping(opts.Loop) {
		return nil, fmt.Errorf("loop over %s: it can be read only once; save it to a file first", stdinName)
	}
	s := &Files{loops: opts.Loop, stdin: opts.Stdin, skipDamage: opts.SkipDamage, low: math.MaxInt64, high: math.MinInt64}
	halt := make(chan struct{})
	s.stop, s.halt = waits{opts.Stop, halt}, sync.OnceFunc(func() { close(halt) })
	if s.loops == 0 {
		s.loops = 1
	}
	inTime := s.limitOpening(opts.Opening)
	var err error
	for i := 0; err == nil && i < len(names); i++ {
		err = s.check(names[i])
	}
	late := !inTime()
	if err != nil && (!late || !errors.Is(err, context.Canceled)) {
		return nil, errors.Join(err, s.Close())
	}
	if late {
		err = s.Close()
		s.err = io.EOF
		return s, err
	}
	s.size = s.passSize()
	return s, nil
}

// limitOpening begins to stop s after a time. The function that it returns gives that
// up, and reports whether it had not happened.
func (s *Files) limitOpening(limit time.Duration) (inTime func() bool) {
	if limit <= 0 {
		return func() bool { return true }
	}
	timer := time.AfterFunc(limit, s.halt)
	return timer.Stop
}

func looping(loop int) bool { return loop < 0 || loop > 1 }

// check opens one capture and adds it to the inputs.
func (s *Files) check(name string) error {
	f, err := openFile(name, s.stdin, s.stop)
	if err != nil {
		return err
	}
	if !f.regular && looping(s.loops) {
		return errors.Join(fmt.Errorf("loop over %s: it is no regular file and can be read only once", f.name), f.close())
	}
	f.interruptible(s.stop)
	r := &Reader{done: &s.done}
	if f.regular {
		r.win.buf = s.win
	}
	if err := r.start(f); err != nil {
		return err
	}
	in := input{name: name, size: f.size, links: r.LinkTypes()}
	if f.regular {
		s.win = r.win.buf
		err = r.Close()
	} else {
		in.held = r
	}
	s.inputs = append(s.inputs, in)
	return err
}

// passSize is the number of stored bytes in one pass, 0 if any is unknown.
func (s *Files) passSize() int64 {
	var sum int64
	for _, in := range s.inputs {
		if in.held != nil {
			return 0
		}
		sum += in.size
	}
	return sum
}

// Next fills f with the next frame; see [forward.Source]. With Options.Loop < 0
// it never returns io.EOF unless a whole pass yields no frame.
func (s *Files) Next(f *forward.Frame) error {
	for s.err == nil {
		if s.now == nil {
			s.err = s.openNext()
			continue
		}
		err := s.now.Next(f)
		if err == nil {
			s.frames = true
			if s.loop == 0 && !f.Retimed {
				s.low, s.high = min(s.low, f.Time), max(s.high, f.Time)
			}
			return nil
		}
		if !isEOF(err) && !s.skip(err) {
			s.err = err
			break
		}
		s.err = s.closeNow()
	}
	return s.err
}

// skip notes the damage that err is, and reports whether the next capture is to be
// read. A wait that was stopped is no damage.
func (s *Files) skip(err error) bool {
	var damage *DamageError
	if !s.skipDamage || !errors.As(err, &damage) || errors.Is(err, context.Canceled) {
		return false
	}
	if in := &s.inputs[s.index]; !in.damaged {
		in.damaged = true
		s.damages = append(s.damages, damage)
	}
	return true
}

// Damages returns where captures could not be read any further, in the order in
// which that was met, each capture once however often it is played. It is empty
// without Options.SkipDamage.
func (s *Files) Damages() []*DamageError { return slices.Clone(s.damages) }

// openNext opens the input whose turn it is, io.EOF if there is none left.
func (s *Files) openNext() error {
	if s.index == len(s.inputs) {
		if err := s.nextLoop(); err != nil {
			return err
		}
	}
	in := &s.inputs[s.index]
	r := in.held
	if r == nil {
		f, err := openFile(in.name, s.stdin, s.stop)
		if err != nil {
			return err
		}
		r = &Reader{done: &s.done}
		r.win.buf = s.win
		if err := r.start(f); err != nil {
			return err
		}
		s.win = r.win.buf
	}
	in.held = nil
	r.base, r.shift, r.last = s.base, s.shift, s.last
	r.loop, r.segment = s.loop, s.parts
	s.now = r
	return nil
}

// closeNow closes the input that has ended.
func (s *Files) closeNow() error {
	err := s.now.Close()
	s.last, s.parts = s.now.last, s.now.segment+1
	s.now = nil
	s.base += s.inputs[s.index].size
	s.index++
	return err
}

// nextLoop begins another pass, or returns io.EOF.
func (s *Files) nextLoop() error {
	if s.loops > 0 && s.loop+1 >= s.loops || !s.frames {
		return io.EOF
	}
	s.loop++
	s.index = 0
	s.frames = false
	s.shift = nextShift(s.shift, s.low, s.high)
	return nil
}

// lastTime is the latest time that a pcap file's 32-bit seconds can hold, in
// nanoseconds since the Unix epoch.
const lastTime = math.MaxUint32*int64(1e9) + 999_999_999

// nextShift adds the span from low to high to a shift, and starts over where
// times would pass lastTime.
func nextShift(shift, low, high int64) int64 {
	span := high - low
	if span < 0 || span > lastTime || shift > lastTime-span {
		return 0
	}
	shift += span
	if high > 0 && shift > lastTime-high {
		return 0
	}
	return shift
}

// Stop does what closing Options.Stop does: see [forward.Stopper].
func (s *Files) Stop() { s.halt() }

// Ready reports whether Next would return at once: see [forward.Readier].
func (s *Files) Ready() bool {
	r := s.now
	if r == nil && s.index < len(s.inputs) {
		r = s.inputs[s.index].held
	}
	return r == nil || r.Ready()
}

// LinkTypes returns the link types of all captures that were known when they
// were opened, and of the one being read, each once.
func (s *Files) LinkTypes() []forward.LinkType {
	var all []forward.LinkType
	for _, in := range s.inputs {
		all = append(all, in.links...)
	}
	if s.now != nil {
		all = append(all, s.now.LinkTypes()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Progress returns the stored bytes consumed in all passes, and how many there
// will be: 0 where an input's size is unknown, or the passes never end.
func (s *Files) Progress() (done, total int64) {
	return s.done.Load(), s.size * int64(max(s.loops, 0))
}

// Close closes all captures. Data of frames is invalid afterwards.
func (s *Files) Close() error {
	var errs []error
	if s.now != nil {
		errs = append(errs, s.now.Close())
		s.now = nil
	}
	for i := range s.inputs {
		if held := s.inputs[i].held; held != nil {
			errs = append(errs, held.Close())
			s.inputs[i].held = nil
		}
	}
	if s.err == nil {
		s.err = errClosed
	}
	return errors.Join(errs...)
}
