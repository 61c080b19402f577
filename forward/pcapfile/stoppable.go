package pcapfile

import (
	"context"
	"io"
	"os"
	"sync/atomic"
	"time"
)

const (
	// lastWords is how long a write may go on when it is wanted no more: who reads
	// takes what is left within this time.
	lastWords = 300 * time.Millisecond
	// wholePiece is what a pipe of Linux takes as a whole or not at all, in bytes:
	// PIPE_BUF, see pipe(7). So it is known what of a write that waits has been taken.
	wholePiece = 4096
)

// stoppable is an output whose Write does not wait for its reader for longer than it
// is wanted.
type stoppable struct {
	out  io.Writer
	stop <-chan struct{}
}

// untilStopped makes waiting for the reader of out end with stop: writes then fail with
// context.Canceled. Files have no reader.
func untilStopped(out io.Writer, stop <-chan struct{}) io.Writer {
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			return out
		}
	}
	if stop == nil {
		return out
	}
	return &stoppable{out, stop}
}

// Write writes p, of which it returns how much was taken. Where it gives up p must not
// be changed any more: the write that it leaves behind ends with the reader's next
// read, or when the output is closed.
func (s *stoppable) Write(p []byte) (int, error) {
	var taken atomic.Int64
	var abandoned atomic.Bool
	ended := make(chan error, 1)
	go func() {
		for at := 0; at < len(p) && !abandoned.Load(); {
			n, err := s.out.Write(p[at:min(at+wholePiece, len(p))])
			at += n
			taken.Store(int64(at))
			if err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	err := s.await(ended)
	abandoned.Store(true)
	return int(taken.Load()), err
}

// await returns how a write has ended, or that it was waited for long enough.
func (s *stoppable) await(ended <-chan error) error {
	select {
	case err := <-ended:
		return err
	case <-s.stop:
	}
	limit := time.NewTimer(lastWords)
	defer limit.Stop()
	select {
	case err := <-ended:
		return err
	case <-limit.C:
		return context.Canceled
	}
}
