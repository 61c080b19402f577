package pcapfile

import "io"

// A window's buffer starts small, because most captures are, and doubles while
// reading fills it, up to a size at which the system call hardly matters, the
// buffer stays in a core's own cache beside the batch that is made of it, and a
// read is no pause that lets a fast receiver fall asleep: waking it costs the
// sender more (measured: 64 KiB sends 5 % faster than 1 MiB). In bytes.
const (
	windowStart = 32 << 10
	windowSize  = 64 << 10
)

// stream is an uncompressed capture being read.
type stream interface {
	io.Reader
	// Stored is how many bytes as stored (compressed, if they are) it took to
	// produce everything that Read has returned.
	Stored() int64
}

// window is the piece of a stream that is in memory: buf[r:w] is not consumed
// yet. What peek returns is valid until the next peek or skip.
type window struct {
	src  stream
	buf  []byte
	r, w int
	off  int64 // offset of buf[0] in the stream
	err  error // what ended the stream; io.EOF if it just ended

	// Stored bytes before the last fill and after it, and where in the stream
	// that was: between the two, progress is interpolated.
	lo, hi mark
}

// mark pairs an offset in the stream with the bytes stored up to there.
type mark struct{ off, stored int64 }

// reset makes the window read src, whose first bytes are in head already.
func (w *window) reset(src stream, head []byte) {
	if w.buf == nil {
		w.buf = make([]byte, windowStart)
	}
	at := mark{int64(len(head)), int64(len(head))}
	*w = window{src: src, buf: w.buf, w: copy(w.buf, head), hi: at}
}

// offset is that of the first byte not consumed.
func (w *window) offset() int64 { return w.off + int64(w.r) }

// empty reports whether everything in memory is consumed.
func (w *window) empty() bool { return w.r == w.w }

// peek returns the next n bytes without consuming them. Where the stream ends
// before, the error says how: io.EOF, or what reading it failed with.
func (w *window) peek(n int) ([]byte, error) {
	if w.w-w.r < n {
		if err := w.fill(n); err != nil {
			return nil, err
		}
	}
	return w.buf[w.r : w.r+n], nil
}

// inMemory returns what is in memory and not consumed, without reading.
func (w *window) inMemory() []byte { return w.buf[w.r:w.w] }

// advance consumes n bytes that peek has returned.
func (w *window) advance(n int) { w.r += n }

// fill reads until n bytes are there, and never waits for more than those: the
// stream may be a pipe whose other end is in no hurry.
func (w *window) fill(n int) error {
	w.makeRoom(n)
	for w.w-w.r < n {
		if w.err != nil {
			return w.err
		}
		k, err := w.src.Read(w.buf[w.w:])
		w.w += k
		w.err = err
		w.lo, w.hi = w.hi, mark{w.off + int64(w.w), w.src.Stored()}
	}
	return nil
}

// makeRoom moves what is not consumed to the front, into a larger buffer if
// reading filled this one or n bytes would not fit. Callers bound n.
func (w *window) makeRoom(n int) {
	buf, size := w.buf, len(w.buf)
	if w.w == size && size < windowSize {
		size *= 2
	}
	if size = max(size, n); size > len(buf) {
		buf = make([]byte, size)
	}
	rest := copy(buf, w.buf[w.r:w.w])
	w.off += int64(w.r)
	w.buf, w.r, w.w = buf, 0, rest
}

// skip consumes n bytes, however many.
func (w *window) skip(n int64) error {
	for n > int64(w.w-w.r) {
		n -= int64(w.w - w.r)
		w.r = w.w
		if err := w.fill(1); err != nil {
			return err
		}
	}
	w.r += int(n)
	return nil
}

// stored estimates how many stored bytes the consumed part of the stream took:
// exact for plain captures, interpolated within a buffer for compressed ones.
func (w *window) stored() int64 {
	at := w.offset()
	switch {
	case at <= w.lo.off:
		return w.lo.stored
	case at >= w.hi.off:
		return w.hi.stored
	}
	share := float64(at-w.lo.off) / float64(w.hi.off-w.lo.off)
	return w.lo.stored + int64(share*float64(w.hi.stored-w.lo.stored))
}
