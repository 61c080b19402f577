package pcapfile

import (
	"context"
	"io"
)

// Chunks that a readAhead has in flight, and their size in bytes.
const (
	aheadChunks = 4
	aheadSize   = 128 << 10
)

// readAhead runs a decoder in a goroutine of its own, some chunks ahead of its
// reader, so that decompression and sending share the work of two cores. It
// also serves to stop waiting for a pipe.
type readAhead struct {
	free, full chan chunk
	quit       chan struct{}
	cancel     waits // end the waiting of Read

	now  chunk  // being read
	rest []byte // of it
}

// chunk is a piece of the decoder's output.
type chunk struct {
	buf    []byte
	n      int
	stored int64 // bytes read from the file by then
	err    error // what ended the decoder after these bytes
}

// startReadAhead starts the goroutine, which owns decoder and raw from now on
// and closes decoder when it ends.
func startReadAhead(decoder io.ReadCloser, raw *counted, cancel waits) *readAhead {
	a := &readAhead{
		free:   make(chan chunk, aheadChunks),
		full:   make(chan chunk, aheadChunks),
		quit:   make(chan struct{}),
		cancel: cancel,
	}
	for range aheadChunks {
		a.free <- chunk{buf: make([]byte, aheadSize)}
	}
	go a.run(decoder, raw)
	return a
}

// run fills free chunks until the decoder ends or nobody wants any more.
func (a *readAhead) run(decoder io.ReadCloser, raw *counted) {
	defer decoder.Close() // which only frees memory
	for {
		var c chunk
		select {
		case c = <-a.free:
		case <-a.quit:
			return
		}
		c.n, c.err = decoder.Read(c.buf)
		c.stored = raw.n
		a.full <- c // never blocks: it has room for every chunk there is
		if c.err != nil {
			return
		}
	}
}

// Read copies from the oldest full chunk, waiting for one if need be.
func (a *readAhead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.buf != nil {
			a.free <- chunk{buf: a.now.buf}
			a.now.buf = nil
		}
		select {
		case a.now = <-a.full:
		case <-a.cancel[0]:
			return 0, context.Canceled
		case <-a.cancel[1]:
			return 0, context.Canceled
		}
		a.rest = a.now.buf[:a.now.n]
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Stored is the position in the file when the chunk being read was made.
func (a *readAhead) Stored() int64 { return a.now.stored }

// stop ends the goroutine as soon as its read of the file returns. It does not
// wait for that: the file may be a pipe whose other end is silent.
func (a *readAhead) stop() { close(a.quit) }
