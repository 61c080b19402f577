package pcapfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// stdinName is how messages call the file "-".
const stdinName = "standard input"

// maxZstdWindow is the largest zstd window that is accepted, in bytes: what the
// zstd program itself accepts without being told to take more. Memory follows
// the window that the file was made with, usually 8 MiB or less.
const maxZstdWindow = 128 << 20

// file is an opened input before it is known what it holds.
type file struct {
	name    string // for messages
	r       io.Reader
	close   func() error
	size    int64 // bytes as stored, 0 where unknown
	regular bool  // may be opened and read once more
}

// openFile opens a file, or takes stdin for the name "-". A wait for the writer of a
// named pipe ends with w.
func openFile(name string, stdin io.Reader, w waits) (*file, error) {
	if name == "-" {
		if stdin == nil {
			return nil, fmt.Errorf("read %s: none is connected: %w", stdinName, fs.ErrNotExist)
		}
		return &file{name: stdinName, r: stdin, close: func() error { return nil }}, nil
	}
	f, err := openStoppable(name, w)
	if err != nil {
		return nil, err // "open NAME: cause" already
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("is a directory")}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	opened := &file{name: name, r: f, close: f.Close, regular: info.Mode().IsRegular()}
	if opened.regular {
		opened.size = info.Size()
	}
	return opened, nil
}

// interruptible makes waiting for f end with w: reads then fail with
// context.Canceled. Files never make anybody wait.
func (f *file) interruptible(w waits) {
	if f.regular {
		return
	}
	ahead := startReadAhead(io.NopCloser(f.r), &counted{}, w)
	closeFile := f.close
	f.r = ahead
	f.close = func() error { ahead.stop(); return closeFile() }
}

// counted counts what is read from a file.
type counted struct {
	r io.Reader
	n int64
}

// Read reads and counts.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// Stored is the count.
func (c *counted) Stored() int64 { return c.n }

// magicLen is how many bytes it takes to know what an input is.
const magicLen = 8

// uncompress looks at the first bytes of f and returns the stream of the
// uncompressed capture, the bytes of it that were read to find out (plain
// captures only), and what stops a decompression that is under way.
func uncompress(f *file) (s stream, head []byte, stop func(), err error) {
	raw := &counted{r: f.r}
	head = make([]byte, magicLen)
	n, err := io.ReadFull(raw, head)
	head = head[:n]
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, nil, nil, fmt.Errorf("read %s: %w", f.name, err)
	}
	newDecoder := decoderOf(head)
	if newDecoder == nil {
		return raw, head, func() {}, nil
	}
	// The bytes in head are counted before they are decoded; at eight bytes
	// nobody sees that.
	decoder, err := newDecoder(bufio.NewReaderSize(io.MultiReader(bytes.NewReader(head), raw), 64<<10))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("decompress %s: %w", f.name, err)
	}
	ahead := startReadAhead(decoder, raw, waits{})
	return ahead, nil, ahead.stop, nil
}

// decoderOf returns the constructor of the decoder for a stream that starts
// with head, nil if it is not compressed: RFC 1952 section 2.3.1, RFC 8878
// section 3.1.1.
func decoderOf(head []byte) func(io.Reader) (io.ReadCloser, error) {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return func(r io.Reader) (io.ReadCloser, error) {
			d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1),
				zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
			if err != nil {
				return nil, err
			}
			return d.IOReadCloser(), nil
		}
	}
	return nil
}

// looksLike names what is no capture, if its first bytes give it away.
func looksLike(head []byte) string {
	known := []struct{ magic, name string }{
		{"\xfd7zXZ\x00", "xz-compressed data: decompress it first"},
		{"BZh", "bzip2-compressed data: decompress it first"},
		{"\x04\x22\x4d\x18", "lz4-compressed data: decompress it first"},
		{"PK\x03\x04", "a ZIP archive: unpack it first"},
		{"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"},
		{"\x7fELF", "an ELF program"},
		{"snoop\x00\x00\x00", "a snoop capture: convert it with editcap -F pcapng"},
		{"GMBU", "a Network Monitor capture: convert it with editcap -F pcapng"},
		{"RTSS", "a Network Monitor capture: convert it with editcap -F pcapng"},
		{"TRSNIFF", "a Sniffer capture: convert it with editcap -F pcapng"},
	}
	for _, k := range known {
		if bytes.HasPrefix(head, []byte(k.magic)) {
			return k.name
		}
	}
	if isText(head) {
		return "text"
	}
	return ""
}

// isText reports whether head is printable ASCII.
func isText(head []byte) bool {
	for _, c := range head {
		if (c < ' ' || c > '~') && c != '\n' && c != '\r' && c != '\t' {
			return false
		}
	}
	return len(head) > 0
}
