package pcapfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// stdinName is how messages call the file "-".
const stdinName = "standard input"

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

// OpenStored opens a file to be read as it is stored, or takes opts.Stdin for the name
// "-". A wait for a pipe ends with opts.Stop: reads then fail with context.Canceled.
// Other options mean nothing here.
func OpenStored(name string, opts Options) (io.ReadCloser, error) {
	w := waits{opts.Stop}
	f, err := openFile(name, opts.Stdin, w)
	if err != nil {
		return nil, err
	}
	f.interruptible(w)
	return stored{f}, nil
}

// stored is a file as it is stored.
type stored struct{ *file }

func (s stored) Read(p []byte) (int, error) { return s.r.Read(p) }
func (s stored) Close() error               { return s.close() }

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
	if !compressed(head) {
		return raw, head, func() {}, nil
	}
	// The bytes in head are counted before they are decoded; at eight bytes
	// nobody sees that.
	decoder, err := newMembers(io.MultiReader(bytes.NewReader(head), raw))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("decompress %s: %w", f.name, err)
	}
	ahead := startReadAhead(decoder, raw, waits{})
	return ahead, nil, ahead.stop, nil
}
