package pcapfile

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Reader is one capture, read from its beginning to its end. Only Progress may
// be called from another goroutine.
type Reader struct {
	name       string
	size       int64 // stored bytes, 0 where unknown
	win        window
	regular    bool // never waits for a writer
	compressed bool
	stop       func()       // ends decompression
	close      func() error // closes the file

	format  format
	known   []forward.LinkType // of captures before, in the same file
	packets int64              // returned so far
	err     error              // sticky, io.EOF included

	segment, loop int
	shift         int64 // added to every time, nanoseconds
	last          int64 // time of the frame before, with its shift

	base      int64         // stored bytes of the inputs before this one
	done      *atomic.Int64 // base and what is consumed, for Progress
	published int64         // frame time at which done was last set
}

// format is one of the two file formats, reading records from a window.
type format interface {
	// next fills Data, Length, Time and LinkType. Errors are io.EOF, those of cut
	// and corrupt, and errGlued.
	next(f *forward.Frame) error
	// at is where the record that next failed on begins.
	at() int64
	// ready reports whether next needs nothing but what is in memory. It may
	// err on the side of false.
	ready() bool
	// links appends the link types known so far, each once.
	links(to []forward.LinkType) []forward.LinkType
}

// Open opens a capture and checks its headers. The name "-" stands for stdin,
// which may be nil where there is none; it is not closed. Errors name the file,
// and unwrap to fs.ErrNotExist and fs.ErrPermission where that is the cause.
func Open(name string, stdin io.Reader) (*Reader, error) {
	f, err := openFile(name, stdin, waits{})
	if err != nil {
		return nil, err
	}
	r := &Reader{done: new(atomic.Int64)}
	return r, r.start(f)
}

// NewReader reads a capture from r, which messages call name and which is not
// closed.
func NewReader(r io.Reader, name string) (*Reader, error) {
	reader := &Reader{done: new(atomic.Int64)}
	return reader, reader.start(&file{name: name, r: r, close: func() error { return nil }})
}

// start makes r read f from its beginning; f is closed where that fails.
func (r *Reader) start(f *file) error {
	src, head, stop, err := uncompress(f)
	if err != nil {
		return errors.Join(err, f.close())
	}
	r.name, r.size, r.regular = f.name, f.size, f.regular
	r.close, r.stop, r.compressed = f.close, stop, head == nil
	r.win.reset(src, head)
	if err := r.readHeader(); err != nil {
		return errors.Join(err, r.Close())
	}
	return nil
}

// readHeader recognises the format and reads what comes before the packets.
func (r *Reader) readHeader() error {
	magic, err := r.win.peek(4)
	if err != nil {
		return r.notACapture(err)
	}
	switch {
	case isPcap(magic):
		r.format, err = newPcap(&r.win)
	case isPcapng(magic):
		r.format, err = newPcapng(&r.win)
	default:
		return r.notACapture(nil)
	}
	if err != nil {
		return r.headerError(err)
	}
	return nil
}

// notACapture says what the input is instead, given what reading its first
// bytes ended in.
func (r *Reader) notACapture(err error) error {
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", r.name, err)
	}
	if r.regular {
		_, _ = r.win.peek(foreignLen) // a shorter file is as good
	}
	rest := r.win.inMemory()
	if len(rest) == 0 {
		return fmt.Errorf("read %s: empty, not a pcap or pcapng capture", r.name)
	}
	if like := looksLike(rest[:min(len(rest), foreignLen)]); like != "" {
		return fmt.Errorf("read %s: not a pcap or pcapng capture; it looks like %s", r.name, like)
	}
	return fmt.Errorf("read %s: not a pcap or pcapng capture", r.name)
}

// headerError says that the header of the file is damaged.
func (r *Reader) headerError(err error) error {
	if damage, ok := err.(*DamageError); ok && damage.Err == nil { //nolint:errorlint // of cut and corrupt, never wrapped
		return fmt.Errorf("read %s: %s", r.name, damage.What)
	} else if ok {
		return fmt.Errorf("read %s: %s: %w", r.name, damage.What, damage.Err)
	}
	return fmt.Errorf("read %s: %w", r.name, err)
}

// Next fills f with the next frame; see [forward.Source].
func (r *Reader) Next(f *forward.Frame) error {
	if r.err != nil {
		return r.err
	}
	err := r.format.next(f)
	for err == errGlued { //nolint:errorlint // made by this package, never wrapped
		if err = r.turn(); err == nil {
			err = r.format.next(f)
		}
	}
	if err != nil {
		return r.fail(err)
	}
	r.packets++
	r.time(f)
	f.Segment, f.Loop = r.segment, r.loop
	if r.packets%publishFrames == 0 || f.Time-r.published >= publishTime {
		r.publish(f.Time)
	}
	return nil
}

// turn begins with another capture in the same file.
func (r *Reader) turn() error {
	r.known = r.LinkTypes()
	magic, err := r.win.peek(4)
	if err != nil {
		return cut("file header", err)
	}
	var next format
	if isPcap(magic) {
		next, err = newPcap(&r.win)
	} else {
		next, err = newPcapng(&r.win)
	}
	if err == nil {
		r.format = next
		r.segment++
	}
	return err
}

// noTime is what a format gives a frame for which the capture has no time.
const noTime = -1

// time moves the frame's time as the loop wants it. What no pcap file could hold
// is no time: a fault of the capture that would stand still for years when it is
// replayed, and could not be written. The frame counts as recorded together with
// the one before.
func (r *Reader) time(f *forward.Frame) {
	if uint64(f.Time) > uint64(lastTime) {
		f.Time, f.Retimed = r.last, true
		return
	}
	f.Retimed = false
	f.Time += r.shift
	r.last = f.Time
}

// Ready reports whether Next would return at once: see [forward.Readier]. Files
// never make it wait; pipes may, so false is returned unless the whole packet
// is in memory already.
func (r *Reader) Ready() bool { return r.regular || r.err != nil || r.format.ready() }

// How often progress is published: often enough for the eye whatever the pace,
// rarely enough that the atomic store does not matter.
const (
	publishFrames = 64
	publishTime   = int64(10 * time.Millisecond)
)

func (r *Reader) publish(now int64) {
	r.published = now
	r.done.Store(r.base + r.win.stored())
}

// fail ends the reading with err, adding the place if it is damage.
func (r *Reader) fail(err error) error {
	if damage, ok := err.(*DamageError); ok { //nolint:errorlint // made by this package, never wrapped
		damage.Name, damage.Compressed = r.name, r.compressed
		damage.Packet, damage.Offset = r.packets+1, r.format.at()
	}
	r.err = err
	r.publish(r.published)
	return err
}

// LinkTypes returns the link types known so far, each once: the only one of a
// pcap file, and those of the interfaces that a pcapng file describes before
// the packets read so far.
func (r *Reader) LinkTypes() []forward.LinkType {
	all := r.format.links(slices.Clone(r.known))
	slices.Sort(all)
	return slices.Compact(all)
}

// Progress returns the bytes of the file that are consumed and its size, 0 for
// what is not a regular file.
func (r *Reader) Progress() (done, total int64) { return r.done.Load(), r.size }

// Close closes the file. Data of frames is invalid afterwards.
func (r *Reader) Close() error {
	if r.close == nil {
		return nil
	}
	r.stop()
	err := r.close()
	r.close = nil
	if r.err == nil {
		r.err = errClosed
	}
	return err
}
