// Package record keeps what was sent: a [Recorder] stands around a Sink and
// writes the inner Ethernet frame of every datagram that the Sink took into a
// pcap file, as it was sent (normalised, re-segmented, cut or padded), with the
// time at which it was sent. A monitor that reads that file offline sees what
// the monitor at the other end of the tunnel should have seen.
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
	kind encap.Kind
	file *pcapfile.Writer
	now  func() time.Time

	inner     forward.Batch
	last      int64 // time of the last frame, nanoseconds since the epoch
	datagrams uint64
	bytes     uint64
}

var (
	_ forward.Sink       = (*Recorder)(nil)
	_ forward.BatchSizer = (*Recorder)(nil)
)

// New records what sink takes to w, which messages call name. w is not closed.
// Close must be called, and its error looked at: only then has everything been
// written.
func New(sink forward.Sink, kind encap.Kind, w io.Writer, name string) (*Recorder, error) {
	file, err := pcapfile.NewWriter(w, name, bare{})
	if err != nil {
		return nil, err
	}
	return &Recorder{sink: sink, kind: kind, file: file, now: time.Now}, nil
}

// bare is the outer header of a frame that is written without one.
type bare struct{}

func (bare) Len() int                   { return 0 }
func (bare) Put([]byte, []byte, uint16) {}

// Send passes the batch on and records as many datagrams as were taken. A Sink
// takes a batch as a whole, so the times of its frames are spread evenly over
// the time that took: they are in order and off by less than that. They never
// go back, even where the system's clock does.
func (r *Recorder) Send(b *forward.Batch) (int, error) {
	begin := max(r.now().UnixNano(), r.last)
	n, err := r.sink.Send(b)
	end := max(r.now().UnixNano(), begin)
	if n > 0 {
		r.last = end
	}
	return n, errors.Join(err, r.record(b, n, begin, end))
}

func (r *Recorder) record(b *forward.Batch, n int, begin, end int64) error {
	r.inner.Buf, r.inner.Datagrams = b.Buf, r.inner.Datagrams[:0]
	for i := range n {
		payload := b.Payload(i)
		header, err := tunnelHeader(r.kind, payload)
		if err != nil {
			return fmt.Errorf("record datagram %d: %w", r.datagrams+1, err)
		}
		d := b.Datagrams[i]
		r.inner.Datagrams = append(r.inner.Datagrams, forward.Datagram{
			Off: d.Off + header, Len: d.Len - header, Time: begin + (end-begin)/int64(n)*int64(i)})
		r.datagrams++
		r.bytes += uint64(len(payload))
	}
	_, err := r.file.Send(&r.inner)
	return err
}

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
func (r *Recorder) Close() error { return errors.Join(r.sink.Close(), r.file.Close()) }
