package record

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
)

// A journal is a sequence of entries, one for each time that a Sink took
// something. The numbers of an entry are varints (encoding/binary, unsigned):
//
//	datagrams taken, at least one
//	begin: nanoseconds after the end of the entry before; of the first after the epoch
//	end: nanoseconds after begin
//	bytes of their payloads together
//
// and last, in four bytes, little-endian, the CRC-32C (RFC 3720 section 12.1)
// of the payloads.

// castagnoli is the polynomial for which processors have an instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// journal writes entries.
type journal struct {
	out   io.Writer
	last  int64
	entry []byte
}

func (j *journal) enter(b *forward.Batch, n int, begin, end int64) error {
	size, sum := digest(b, n)
	e := binary.AppendUvarint(j.entry[:0], uint64(n))
	e = binary.AppendUvarint(e, uint64(begin-j.last))
	e = binary.AppendUvarint(e, uint64(end-begin))
	e = binary.AppendUvarint(e, size)
	j.entry, j.last = binary.LittleEndian.AppendUint32(e, sum), end
	_, err := j.out.Write(j.entry)
	return err
}

func (j *journal) close() error { return nil }

// digest returns the size and checksum of the first n payloads.
func digest(b *forward.Batch, n int) (size uint64, sum uint32) {
	for i := range n {
		payload := b.Payload(i)
		size += uint64(len(payload))
		sum = crc32.Update(sum, castagnoli, payload)
	}
	return size, sum
}

// ErrAltered says that a journal is not of the frames that are here.
var ErrAltered = errors.New("what was sent is not what was handed over")

// maxTaken is more datagrams than any Sink takes at once.
const maxTaken = 1 << 16

// Rebuild writes the pcap file that a Recorder beside the sender would have
// written to w. Source and encapsulator are made as for the sender, so they
// yield the same datagrams once more; that they are the same is checked, and an
// error that wraps [ErrAltered] says where they are not. The source is read no
// further than was sent. It returns how many datagrams that were, and the bytes
// of their payloads, as [Recorder.Sent] does.
func Rebuild(ctx context.Context, in io.Reader, source forward.Source, e forward.Encapsulator, kind encap.Kind, w io.Writer, name string) (datagrams, payload uint64, err error) {
	file, err := newFrames(kind, w, name)
	if err != nil {
		return 0, 0, err
	}
	r := rebuild{entries: bufio.NewReader(in), source: source, encapsulator: e}
	for err == nil && ctx.Err() == nil {
		var n int
		if n, err = r.next(); err == nil {
			err = file.enter(&r.batch, n, r.begin, r.end)
			r.drop(n)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err = errors.Join(err, context.Cause(ctx), file.close()); err != nil {
		err = fmt.Errorf("record what was sent: %w", err)
	}
	return r.datagrams, r.bytes, err
}

// rebuild goes through a journal.
type rebuild struct {
	entries      *bufio.Reader
	source       forward.Source
	encapsulator forward.Encapsulator

	batch      forward.Batch // datagrams that no entry has been read for
	datagrams  uint64        // that entries were read for
	bytes      uint64        // of their payloads
	begin, end int64         // of the entry at hand
}

// next reads an entry, makes its datagrams the first n of the batch and checks
// them. After the last entry it returns io.EOF.
func (r *rebuild) next() (n int, err error) {
	if _, err := r.entries.Peek(1); err != nil {
		return 0, err
	}
	var numbers [4]uint64
	for i := range numbers {
		if numbers[i], err = binary.ReadUvarint(r.entries); err != nil {
			return 0, fmt.Errorf("read the journal: %w", noEnd(err))
		}
	}
	var sum [4]byte
	if _, err := io.ReadFull(r.entries, sum[:]); err != nil {
		return 0, fmt.Errorf("read the journal: %w", noEnd(err))
	}
	taken, after, took, size := numbers[0], numbers[1], numbers[2], numbers[3]
	if taken < 1 || taken > maxTaken || after > math.MaxInt64-uint64(r.end) || took > math.MaxInt64-uint64(r.end)-after {
		return 0, errors.New("read the journal: it makes no sense")
	}
	r.begin = r.end + int64(after)
	r.end = r.begin + int64(took)
	n = int(taken)
	if err := r.fill(n); err != nil {
		return 0, err
	}
	gotSize, gotSum := digest(&r.batch, n)
	if gotSize != size || gotSum != binary.LittleEndian.Uint32(sum[:]) {
		return 0, fmt.Errorf("%w: packets %d to %d differ", ErrAltered, r.datagrams+1, r.datagrams+taken)
	}
	r.datagrams += taken
	r.bytes += size
	return n, nil
}

// noEnd makes an end within an entry an error.
func noEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// fill encapsulates frames until the batch has n datagrams.
func (r *rebuild) fill(n int) error {
	var f forward.Frame
	for len(r.batch.Datagrams) < n {
		if err := r.source.Next(&f); err != nil {
			return fmt.Errorf("%w: more than %d packets: %w", ErrAltered, r.datagrams+uint64(len(r.batch.Datagrams)), noEnd(err))
		}
		r.encapsulator.Encapsulate(&r.batch, &f)
	}
	return nil
}

// drop removes the first n datagrams. A frame becomes few datagrams, so what is
// left to be moved is little.
func (r *rebuild) drop(n int) {
	left := r.batch.Datagrams[n:]
	if len(left) == 0 {
		r.batch.Reset()
		return
	}
	off := left[0].Off
	r.batch.Buf = r.batch.Buf[:copy(r.batch.Buf, r.batch.Buf[off:])]
	r.batch.Datagrams = r.batch.Datagrams[:copy(r.batch.Datagrams, left)]
	for i := range r.batch.Datagrams {
		r.batch.Datagrams[i].Off -= off
	}
}
