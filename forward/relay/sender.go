package relay

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Sender writes the stream. Feed belongs to one goroutine; the other methods
// may be called from any. Nothing but Feed ever waits long: what is written
// beyond the credit is a few bytes.
type Sender struct {
	mu      sync.Mutex // guards out and stopped
	out     *bufio.Writer
	stopped bool
	head    [headLen + frameLen]byte

	sent   int64 // bytes of frame records; Feed's alone
	window int64

	creditMu sync.Mutex
	taken    int64
	more     chan struct{} // has one element after taken grew
}

// NewSender returns a Sender that writes to w, beginning with the job, which is
// any document.
func NewSender(w io.Writer, job any) (*Sender, error) {
	s := &Sender{out: bufio.NewWriterSize(w, bufferLen), window: Window, more: make(chan struct{}, 1)}
	body, err := json.Marshal(job)
	if err == nil && len(body) > maxJob {
		err = fmt.Errorf("%d bytes are too many", len(body))
	}
	if err == nil {
		err = s.record(kindJob, body)
	}
	if err != nil {
		return nil, fmt.Errorf("send the job: %w", err)
	}
	return s, nil
}

// record writes a record and everything before it.
func (s *Sender) record(kind byte, body []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	head := [headLen]byte{kind}
	binary.LittleEndian.PutUint32(head[1:], uint32(len(body)))
	s.out.Write(head[:]) //nolint:errcheck // a bufio.Writer keeps its error for Flush
	s.out.Write(body)    //nolint:errcheck // likewise
	return s.out.Flush()
}

// Ping shows that the sender lives.
func (s *Sender) Ping() error { return s.record(kindPing, nil) }

// Stop asks the receiver to end now. Feed then fails with [ErrStopped] instead of
// writing another frame: nobody reads it.
func (s *Sender) Stop() error {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	return s.record(kindStop, nil)
}

// Credit says how many bytes of frame records the receiver has taken in all.
func (s *Sender) Credit(taken int64) {
	s.creditMu.Lock()
	s.taken = max(s.taken, taken)
	s.creditMu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// Feed writes every frame of src and then the end. It returns when that is
// done, when ctx ends, or when src or the stream fails; where src fails, the
// frames before have been written, and the end as well.
func (s *Sender) Feed(ctx context.Context, src forward.Source) error {
	ready, _ := src.(forward.Readier)
	var f forward.Frame
	for {
		if ready != nil && !ready.Ready() {
			if err := s.flush(); err != nil {
				return err
			}
		}
		if err := src.Next(&f); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if ended := s.record(kindEnd, nil); ended != nil && errors.Is(err, io.EOF) {
				return fmt.Errorf("hand frames over: %w: %w", ErrLost, ended)
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read frame: %w", err)
		}
		if err := s.frame(ctx, &f); err != nil {
			return err
		}
	}
}

// frame writes one frame as soon as there is credit for it.
func (s *Sender) frame(ctx context.Context, f *forward.Frame) error {
	if len(f.Data) > maxFrame {
		return fmt.Errorf("hand frame over: %d bytes are too many", len(f.Data))
	}
	size := int64(headLen + frameLen + len(f.Data))
	if err := s.await(ctx, size); err != nil {
		return err
	}
	s.sent += size
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return ErrStopped
	}
	putFrame(s.head[:], f)
	s.out.Write(s.head[:]) //nolint:errcheck // a bufio.Writer returns its error again
	if _, err := s.out.Write(f.Data); err != nil {
		return fmt.Errorf("hand frames over: %w: %w", ErrLost, err)
	}
	return nil
}

// await waits for credit. What has been written is on its way by then.
func (s *Sender) await(ctx context.Context, size int64) error {
	for !s.fits(size) {
		if err := s.flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.more:
		}
	}
	return nil
}

func (s *Sender) fits(size int64) bool {
	s.creditMu.Lock()
	defer s.creditMu.Unlock()
	return s.sent+size-s.taken <= s.window
}

func (s *Sender) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.out.Flush(); err != nil {
		return fmt.Errorf("hand frames over: %w: %w", ErrLost, err)
	}
	return nil
}
