package relay

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

var (
	_ forward.Source  = (*Source)(nil)
	_ forward.Readier = (*Source)(nil)
	_ forward.Stopper = (*Source)(nil)
)

// Source is the receiver's end: a [forward.Source] of the frames. Next, Ready
// and Close belong to one goroutine; Stop, Ended, Err and Taken to any.
//
// A ring lies between the goroutine that reads the stream and the one that
// takes frames: bytes in[0] up to in were put in, of which those up to out were
// taken. Only the reader moves in, only the taker moves out.
type Source struct {
	ring    []byte
	in, out atomic.Int64
	arrived chan struct{} // has one element after in grew or the stream ended
	taken   chan struct{} // has one element after a quarter of the window was taken
	told    int64         // out as last told by that
	scratch []byte        // the body of the frame that is lent

	complete atomic.Bool // every frame has come
	halted   atomic.Bool // Stop was called

	once  sync.Once
	err   error         // why no frame is wanted any more, valid once ended is closed
	ended chan struct{} // closed then
	over  bool          // Close was called
}

// Receive reads the job from r into job and then returns the frames that
// follow. Where nothing at all comes for longer than silence, the sender counts
// as gone; 0 waits for ever. The goroutine that reads r ends with the stream.
func Receive(r io.Reader, job any, silence time.Duration) (*Source, error) {
	in := bufio.NewReaderSize(r, bufferLen)
	var head [headLen]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, fmt.Errorf("receive the job: %w", err)
	}
	length := binary.LittleEndian.Uint32(head[1:])
	if head[0] != kindJob || length > maxJob {
		return nil, errors.New("receive the job: this is not a stream of frames")
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(in, body); err != nil {
		return nil, fmt.Errorf("receive the job: %w", err)
	}
	if err := json.Unmarshal(body, job); err != nil {
		return nil, fmt.Errorf("receive the job: %w", err)
	}
	s := &Source{ring: make([]byte, Window), arrived: make(chan struct{}, 1), taken: make(chan struct{}, 1), ended: make(chan struct{})}
	quiet := watch(silence, func() { s.end(fmt.Errorf("%w: nothing came for %s", ErrLost, silence)) })
	go func() {
		err := s.read(in, quiet.alive)
		quiet.stop()
		s.end(err)
	}()
	return s, nil
}

// wakeBytes is how much may come before a taker that waits is woken even though
// more is there to be read.
const wakeBytes = 32 << 10

// watchdog calls expired unless alive is called again and again.
type watchdog struct {
	timer *time.Timer
	limit time.Duration
}

func watch(limit time.Duration, expired func()) watchdog {
	if limit <= 0 {
		limit = math.MaxInt64
	}
	return watchdog{time.AfterFunc(limit, expired), limit}
}

func (w watchdog) alive() { w.timer.Reset(w.limit) }

func (w watchdog) stop() { w.timer.Stop() }

// end notes why no frame is wanted any more; the first reason counts.
func (s *Source) end(err error) {
	s.once.Do(func() {
		s.err = err
		close(s.ended)
		signal(s.arrived)
	})
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// read takes the stream apart until it ends, and says how.
func (s *Source) read(in *bufio.Reader, alive func()) error {
	var head [headLen]byte
	for {
		if in.Buffered() < headLen { // about to wait
			signal(s.arrived)
			alive()
		}
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return lost(err)
		}
		length := int(binary.LittleEndian.Uint32(head[1:]))
		switch {
		case head[0] == kindFrame && length >= frameLen && length <= frameLen+maxFrame && !s.complete.Load():
			if err := s.store(in, head[:], length, alive); err != nil {
				return err
			}
		case head[0] == kindPing && length == 0:
		case head[0] == kindStop && length == 0:
			return ErrStopped
		case head[0] == kindEnd && length == 0:
			s.complete.Store(true)
			signal(s.arrived)
		default:
			return fmt.Errorf("receive frames: record %q of %d bytes makes no sense", head[0], length)
		}
	}
}

// lost is the error of a stream that broke off. It does not wrap the cause, which
// may be io.EOF: that would be taken for a proper end.
func lost(cause error) error { return fmt.Errorf("%w: %v", ErrLost, cause) } //nolint:errorlint // see above

// store puts a frame record into the ring. The credit makes sure that there is
// room.
func (s *Source) store(in *bufio.Reader, head []byte, length int, alive func()) error {
	at, size := s.in.Load(), int64(headLen+length)
	if at+size-s.out.Load() > int64(len(s.ring)) {
		return errors.New("receive frames: the sender does not keep to its credit")
	}
	s.put(at, head)
	for at += headLen; length > 0; {
		if in.Buffered() == 0 {
			alive()
		}
		first := int(at % int64(len(s.ring)))
		n, err := in.Read(s.ring[first:min(len(s.ring), first+length)])
		if err != nil {
			return lost(err)
		}
		at += int64(n)
		length -= n
	}
	before := s.in.Swap(at)
	if at/wakeBytes != before/wakeBytes {
		signal(s.arrived)
	}
	return nil
}

// put and get copy to and from the ring, around its end.
func (s *Source) put(at int64, b []byte) {
	n := copy(s.ring[at%int64(len(s.ring)):], b)
	copy(s.ring, b[n:])
}

func (s *Source) get(at int64, b []byte) {
	n := copy(b, s.ring[at%int64(len(s.ring)):])
	copy(b[n:], s.ring)
}

// Next waits for the next frame; see [forward.Source]. After the last it returns
// io.EOF. [ErrStopped] and [ErrLost] come at once, before frames that have not
// been taken.
func (s *Source) Next(f *forward.Frame) error {
	for {
		complete := s.complete.Load() // before the ring is looked at: nothing comes after it
		switch ended, err := s.state(); {
		case s.over:
			return errors.New("receive frames: closed")
		case ended:
			return err
		case s.in.Load() > s.out.Load():
			s.take(f)
			return nil
		case complete:
			return io.EOF
		case s.halted.Load():
			return context.Canceled
		}
		s.tell() // what was taken, or a sender without credit would never come
		<-s.arrived
	}
}

// state reports whether no frame is wanted any more, and why.
func (s *Source) state() (bool, error) {
	select {
	case <-s.ended:
		return true, s.err
	default:
		return false, nil
	}
}

// take lends the frame at out.
func (s *Source) take(f *forward.Frame) {
	var head [headLen]byte
	at := s.out.Load()
	s.get(at, head[:])
	length := int(binary.LittleEndian.Uint32(head[1:]))
	if cap(s.scratch) < length {
		s.scratch = make([]byte, length, 2*length)
	}
	body := s.scratch[:length]
	s.get(at+headLen, body)
	frame(body, f)
	s.out.Store(at + int64(headLen+length))
	if at-s.told >= int64(len(s.ring))/4 {
		s.tell()
	}
}

func (s *Source) tell() {
	if at := s.out.Load(); at > s.told {
		s.told = at
		signal(s.taken)
	}
}

// Stop ends the waiting of Next; see [forward.Stopper]. The stream is read on.
func (s *Source) Stop() {
	s.halted.Store(true)
	signal(s.arrived)
}

// Ready reports whether Next would return at once; see [forward.Readier].
func (s *Source) Ready() bool {
	ended, _ := s.state()
	return ended || s.complete.Load() || s.halted.Load() || s.in.Load() > s.out.Load()
}

// Taken returns how many bytes of frame records were taken: the sender's
// credit. The channel has an element whenever it is worth telling.
func (s *Source) Taken() (bytes int64, changed <-chan struct{}) { return s.out.Load(), s.taken }

// Ended is closed when no frame is wanted any more: the sender stopped the run
// or is lost, which it may do and be also when every frame has come.
func (s *Source) Ended() <-chan struct{} { return s.ended }

// Err says why no frame is wanted any more: an error that wraps [ErrStopped] or
// [ErrLost], another one where the stream makes no sense or Close was called; nil
// before.
func (s *Source) Err() error {
	_, err := s.state()
	return err
}

// Close ends the taking. It does not end the reading of the stream, which only
// its other end, or whoever closes it, can.
func (s *Source) Close() error {
	s.over = true
	s.end(errors.New("receive frames: closed"))
	return nil
}
