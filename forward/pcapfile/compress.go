package pcapfile

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
	"github.com/pierrec/lz4/v4"
)

// maxDictionary is the largest window of zstd and dictionary of xz that is accepted, in
// bytes: what the zstd program itself accepts without being told to take more, and twice
// that of xz -9. Memory follows what the file was made with, usually 8 MiB or less.
const maxDictionary = 128 << 20

// Magic numbers: RFC 1952 section 2.3.1, RFC 8878 sections 3.1.1 and 3.1.2 (the lowest
// four bits of a skippable frame's first byte are free), the .xz format 1.2 section
// 2.1.1.1, the LZ4 frame format 1.6 (0x184C2102 is that of its legacy frames).
const (
	magicGzip      = "\x1f\x8b"
	magicZstd      = "\x28\xb5\x2f\xfd"
	magicSkippable = "\x2a\x4d\x18"
	magicXZ        = "\xfd7zXZ\x00"
	magicBzip2     = "BZh"
	magicLZ4       = "\x04\x22\x4d\x18"
	magicLZ4Legacy = "\x02\x21\x4c\x18"
)

// compressed reports whether head is the beginning of a compressed file.
func compressed(head []byte) bool { return isSkippable(head) || decoderOf(head) != nil }

// isSkippable reports whether head begins a frame that zstd and lz4 pass over; pzstd
// begins with one.
func isSkippable(head []byte) bool {
	return len(head) >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == magicSkippable
}

// decoder makes a reader of what r, which stands at its beginning, is compressed to.
type decoder func(r *bufio.Reader) (io.ReadCloser, error)

// decoderOf returns the decoder for what starts with head, nil if that is not
// compressed. All but gzip's read to the end of the file and know that several streams
// may follow each other.
func decoderOf(head []byte) decoder {
	for magic, d := range map[string]decoder{magicGzip: gunzip, magicZstd: unzstd, magicXZ: unxz, magicBzip2: bunzip2, magicLZ4: unlz4, magicLZ4Legacy: unlz4} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return d
		}
	}
	return nil
}

func gunzip(r *bufio.Reader) (io.ReadCloser, error) {
	d, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	d.Multistream(false)
	return d, nil
}

func unzstd(r *bufio.Reader) (io.ReadCloser, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxDictionary))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

func unxz(r *bufio.Reader) (io.ReadCloser, error) {
	d, err := xz.NewReader(r, maxDictionary)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(d), nil
}

func bunzip2(r *bufio.Reader) (io.ReadCloser, error) { return io.NopCloser(bzip2.NewReader(r)), nil }

func unlz4(r *bufio.Reader) (io.ReadCloser, error) { return io.NopCloser(lz4.NewReader(r)), nil }

// members reads what is compressed in a file: the members of a gzip file, and whatever
// else follows them, one after the other. Zeros between and behind them are padding.
type members struct {
	in   *bufio.Reader
	now  io.ReadCloser // nil at the end
	gzip *gzip.Reader  // now, if it is one, to be used again
}

// newMembers fails where the beginning of the first member is no good.
func newMembers(r io.Reader) (*members, error) {
	m := &members{in: bufio.NewReaderSize(r, 64<<10)}
	return m, m.next()
}

// Read reads on in the member, or in the next.
func (m *members) Read(p []byte) (int, error) {
	for m.now != nil {
		n, err := m.now.Read(p)
		if n > 0 || err == nil {
			if isEOF(err) {
				err = nil // it comes again
			}
			return n, err
		}
		if !isEOF(err) {
			return 0, err
		}
		if err := m.next(); err != nil {
			return 0, err
		}
	}
	return 0, io.EOF
}

// Close frees memory.
func (m *members) Close() error {
	if m.now == nil {
		return nil
	}
	return m.now.Close()
}

// next turns to the member that begins here.
func (m *members) next() error {
	first := m.now == nil
	head, err := m.head(first)
	if err != nil {
		return err
	}
	if len(head) == 0 {
		return m.end()
	}
	if bytes.HasPrefix(head, []byte(magicGzip)) && m.gzip != nil {
		if err := m.gzip.Reset(m.in); err != nil {
			return err
		}
		m.gzip.Multistream(false)
		return nil
	}
	return m.begin(head)
}

// end ends the reading.
func (m *members) end() error {
	err := m.Close()
	m.now = nil
	return err
}

// begin takes up what head begins: another kind of compression, or a capture that is
// not compressed.
func (m *members) begin(head []byte) error {
	d := decoderOf(head)
	switch {
	case d == nil && m.now != nil && len(head) >= 4 && (isPcap(head) || isPcapng(head)):
		m.now, m.gzip = io.NopCloser(m.in), nil
		return nil
	case d == nil && m.now != nil:
		return fmt.Errorf("what follows the compressed data is neither padding nor compressed%s", resembling(head))
	case d == nil:
		return errors.New("nothing follows its skippable frames that is compressed by zstd or lz4")
	}
	now, err := d(m.in)
	if err != nil {
		return err
	}
	m.now = now
	m.gzip, _ = now.(*gzip.Reader)
	return nil
}

// head returns the first bytes of the next member, none at the end. Skippable frames are
// passed over, and so is padding unless it would be the first.
func (m *members) head(first bool) ([]byte, error) {
	for {
		head, err := m.in.Peek(magicLen)
		if err != nil && !isEOF(err) {
			return nil, err
		}
		switch {
		case isSkippable(head) && len(head) == magicLen:
			size := int64(binary.LittleEndian.Uint32(head[4:]))
			if _, err := io.CopyN(io.Discard, m.in, magicLen+size); err != nil {
				return nil, fmt.Errorf("skippable frame cut short: %w", io.ErrUnexpectedEOF)
			}
		case len(head) > 0 && head[0] == 0 && !first:
			_, _ = m.in.Discard(1) // it is there
		default:
			return head, nil
		}
	}
}

// resembling is the end of a sentence that says what bytes look like, if they do.
func resembling(head []byte) string {
	if like := looksLike(head); like != "" {
		return "; it looks like " + like
	}
	return ""
}

// Uncompress returns what r holds without the compression that captures may have, which
// follows from its first bytes, and whether there was one. Closing it frees memory and
// leaves r open. Errors do not name r.
func Uncompress(r io.Reader) (plain io.ReadCloser, wasCompressed bool, err error) {
	head := make([]byte, magicLen)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, false, err
	}
	whole := io.MultiReader(bytes.NewReader(head[:n]), r)
	if !compressed(head[:n]) {
		return io.NopCloser(whole), false, nil
	}
	m, err := newMembers(whole)
	if err != nil {
		return nil, true, fmt.Errorf("decompress: %w", err)
	}
	return m, true, nil
}
