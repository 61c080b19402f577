// Package record keeps what was sent. A monitor that reads that as a file sees
// what the monitor at the other end of the tunnel should have seen.
//
// A [Recorder] stands around a Sink. It either writes the inner Ethernet frame
// of every datagram that the Sink took into a pcap file ([New]): as it was sent
// (normalised, re-segmented, cut or padded), with the time at which it was sent.
// Or it keeps a journal ([NewJournal]): only the times, and checksums. Where
// frames are handed to another process that sends them, that one returns a
// journal, and [Rebuild] writes the file from the frames that are here: so what
// was lost, altered or swapped between the two is found, and not recorded as if
// it had to be so.
package record

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
)

// Recorder is a [forward.Sink] that passes everything on to another and records
// what that one took. Its methods are called by one goroutine; what they count
// may be read when the run is over.
type Recorder struct {
	sink forward.Sink
	book book
	now  func() time.Time

	last      int64 // time of the last frame, nanoseconds since the epoch
	datagrams uint64
	bytes     uint64
}

// book is where a Recorder writes.
type book interface {
	// enter writes down that the first n datagrams of b, at least one, were
	// taken between two times.
	enter(b *forward.Batch, n int, begin, end int64) error
	close() error
}

var (
	_ forward.Sink       = (*Recorder)(nil)
	_ forward.BatchSizer = (*Recorder)(nil)
)

// New records what sink takes to w as a pcap file, which messages call name. W
// is not closed. Close must be called, and its error looked at: only then has
// everything been written.
func New(sink forward.Sink, kind encap.Kind, w io.Writer, name string) (*Recorder, error) {
	f, err := newFrames(kind, w, name)
	if err != nil {
		return nil, err
	}
	return &Recorder{sink: sink, book: f, now: time.Now}, nil
}

// NewJournal keeps a journal of what sink takes, for [Rebuild]: each entry is
// one call of w.
func NewJournal(sink forward.Sink, w io.Writer) *Recorder {
	return &Recorder{sink: sink, book: &journal{out: w}, now: time.Now}
}

// Send passes the batch on and records as many datagrams as were taken. A Sink
// takes a batch as a whole, so the times of its frames are spread evenly over
// the time that took: they are in order and off by less than that. They never
// go back, even where the system's clock does.
func (r *Recorder) Send(b *forward.Batch) (int, error) {
	begin := max(r.now().UnixNano(), r.last)
	n, err := r.sink.Send(b)
	end := max(r.now().UnixNano(), begin)
	if n == 0 {
		return 0, err
	}
	r.last = end
	r.datagrams += uint64(n)
	for i := range n {
		r.bytes += uint64(b.Datagrams[i].Len)
	}
	if bookErr := r.book.enter(b, n, begin, end); bookErr != nil {
		err = errors.Join(err, fmt.Errorf("record what is sent: %w", bookErr))
	}
	return n, err
}

// frames is a pcap file of inner frames.
type frames struct {
	kind  encap.Kind
	file  *pcapfile.Writer
	inner forward.Batch
}

// bare is the outer header of a frame that is written without one.
type bare struct{}

func (bare) Len() int                   { return 0 }
func (bare) Put([]byte, []byte, uint16) {}

func newFrames(kind encap.Kind, w io.Writer, name string) (*frames, error) {
	file, err := pcapfile.NewWriter(w, name, bare{})
	return &frames{kind: kind, file: file}, err
}

func (f *frames) enter(b *forward.Batch, n int, begin, end int64) error {
	f.inner.Buf, f.inner.Datagrams = b.Buf, f.inner.Datagrams[:0]
	for i := range n {
		header, err := tunnelHeader(f.kind, b.Payload(i))
		if err != nil {
			return err
		}
		d := b.Datagrams[i]
		f.inner.Datagrams = append(f.inner.Datagrams, forward.Datagram{
			Off: d.Off + header, Len: d.Len - header, Time: begin + (end-begin)/int64(n)*int64(i)})
	}
	_, err := f.file.Send(&f.inner)
	return err
}

func (f *frames) close() error { return f.file.Close() }

// tunnelHeader returns the length of the header before the inner frame: RFC 7348
// section 5, RFC 8926 section 3.4.
func tunnelHeader(kind encap.Kind, payload []byte) (int, error) {
	n := 8
	if kind == encap.GENEVE && len(payload) > 0 {
		n += int(payload[0]&0x3f) * 4
	}
	if len(payload) < n {
		return 0, fmt.Errorf("%d bytes are too short for a %s header", len(payload), kind)
	}
	return n, nil
}

// Sent returns how many datagrams were taken and the bytes of their payloads,
// tunnel headers included.
func (r *Recorder) Sent() (datagrams, payload uint64) { return r.datagrams, r.bytes }

// BatchSize implements [forward.BatchSizer] as the Sink inside does.
func (r *Recorder) BatchSize() (datagrams, bytes int) {
	if sizer, ok := r.sink.(forward.BatchSizer); ok {
		return sizer.BatchSize()
	}
	return 0, 0
}

// Close closes the Sink and writes what is buffered.
func (r *Recorder) Close() error { return errors.Join(r.sink.Close(), r.book.close()) }
