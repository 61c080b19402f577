package pcapfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/zeekdemo/zeekdemo/forward"
)

var _ forward.Sink = (*Writer)(nil)

// Header writes the outer headers of a datagram; encap.Outer is one.
type Header interface {
	// Len is the length of the Ethernet, IP and UDP headers together, in bytes.
	Len() int
	// Put writes them into hdr, Len bytes, for a payload and a UDP source port.
	Put(hdr, payload []byte, srcPort uint16)
}

// Snap length in the file header, and size of the write buffer, in bytes.
const (
	writtenSnapLen = 262144
	writeBuffer    = 256 << 10
)

// Writer writes datagrams as complete packets, outer Ethernet, IP and UDP
// header first, into a pcap file with nanosecond times in little-endian order.
// The time of a packet is Datagram.Time; where that is none that pcap can hold, it
// is the time of the packet before ([Writer.Retimed]). It is a [forward.Sink].
type Writer struct {
	name    string
	out     io.Writer
	buf     []byte // whole records (and first of all the file header), not yet written
	first   int    // where the first record in it begins
	close   func() error
	header  Header
	packets int64
	written int64 // of them, those that are in the file as a whole
	last    int64 // time of the last packet
	retimed uint64
	err     error  // sticky
	head    []byte // record header and outer headers of one packet
}

// Create makes the capture file name, replacing one that exists. The name "-"
// stands for stdout, which is not closed. Close must be called, and its error
// looked at: only then has everything been written.
//
// When stop is closed, a wait for whoever reads a pipe ends within a second: opening
// it, writing to it and closing it then fail with an error that unwraps to
// context.Canceled. Nil ends no wait.
func Create(name string, stdout io.Writer, h Header, stop <-chan struct{}) (*Writer, error) {
	if name == "-" {
		if stdout == nil {
			return nil, errors.New("write standard output: none is connected")
		}
		return newWriter(untilStopped(stdout, stop), "standard output", h, func() error { return nil })
	}
	f, err := createStoppable(name, waits{stop})
	if err != nil {
		return nil, fmt.Errorf("create capture: %w", err)
	}
	return newWriter(untilStopped(f, stop), name, h, f.Close)
}

// NewWriter writes a capture to w, which messages call name and which is not
// closed.
func NewWriter(w io.Writer, name string, h Header) (*Writer, error) {
	return newWriter(w, name, h, func() error { return nil })
}

func newWriter(w io.Writer, name string, h Header, closeOut func() error) (*Writer, error) {
	writer := &Writer{
		name: name, out: w, close: closeOut, buf: make([]byte, pcapHeaderLen, writeBuffer), first: pcapHeaderLen,
		header: h, head: make([]byte, recordHeaderLen+h.Len()),
	}
	head, le := writer.buf, binary.LittleEndian
	le.PutUint32(head, magicNanos)
	le.PutUint16(head[4:], 2)
	le.PutUint16(head[6:], 4)
	le.PutUint32(head[16:], writtenSnapLen)
	le.PutUint32(head[20:], uint32(forward.LinkEthernet))
	return writer, nil
}

// Send writes the batch. Where it fails, the file holds a part of it, and the
// error says how many packets had been written.
func (w *Writer) Send(b *forward.Batch) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	for i := range b.Datagrams {
		if err := w.write(&b.Datagrams[i], b.Payload(i)); err != nil {
			return i, w.fail(err)
		}
		w.packets++
	}
	return len(b.Datagrams), nil
}

// Retimed is how many packets had a time that pcap cannot hold, which has 32 bits
// for the seconds since 1970. They are in the file with the time of the packet
// before.
func (w *Writer) Retimed() uint64 { return w.retimed }

// Packets is how many packets are in the file as a whole. It is final when the Writer
// is closed, and then less than were sent if writing failed: what was buffered, and
// perhaps a part of one packet, is lost.
func (w *Writer) Packets() uint64 { return uint64(w.written) }

// write writes one packet.
func (w *Writer) write(d *forward.Datagram, payload []byte) error {
	at := d.Time
	if at < 0 || at > lastTime {
		w.retimed++
		at = w.last
	}
	w.last = at
	le := binary.LittleEndian
	length := uint32(len(w.head) - recordHeaderLen + len(payload))
	le.PutUint32(w.head, uint32(at/1e9))
	le.PutUint32(w.head[4:], uint32(at%1e9))
	le.PutUint32(w.head[8:], length)
	le.PutUint32(w.head[12:], length)
	w.header.Put(w.head[recordHeaderLen:], payload, d.Port)
	if len(w.buf)+len(w.head)+len(payload) > cap(w.buf) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.buf = append(append(w.buf, w.head...), payload...)
	return nil
}

// flush writes what is buffered, and counts the records that are in the file.
func (w *Writer) flush() error {
	n, err := w.out.Write(w.buf)
	if err == nil && n < len(w.buf) {
		err = io.ErrShortWrite
	}
	for at := w.first; at < n; w.written++ {
		if at += recordHeaderLen + int(binary.LittleEndian.Uint32(w.buf[at+8:])); at > n {
			break
		}
	}
	w.buf, w.first = w.buf[:0], 0
	return err
}

// fail keeps the first error. What was buffered may not have reached the file.
func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = fmt.Errorf("write %s: packet %d (the file is incomplete): it holds %d packets: %w", w.name, w.packets+1, w.written, err)
	}
	return w.err
}

// Close writes what is buffered and closes the file. It returns the first error
// of all.
func (w *Writer) Close() error {
	if w.close == nil {
		return w.err
	}
	if w.err == nil {
		if err := w.flush(); err != nil {
			w.err = fmt.Errorf("write %s: the file is incomplete: it holds %d packets: %w", w.name, w.written, err)
		}
	}
	err := w.close()
	w.close = nil
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("close %s: %w", w.name, err)
	}
	return w.err
}
