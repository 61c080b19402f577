package verify

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// unpack makes the capture a plain file, which Zeek and libpcap can read: they
// know no compression, and standard input can be read only once. A file that is
// plain already is used where it lies.
func (s *subject) unpack() error {
	s.sent, s.journal = filepath.Join(s.folder, s.number+"-sent.pcap"), filepath.Join(s.folder, s.number+"-journal")
	in := s.Stdin
	if s.name != "-" {
		f, err := os.Open(s.name)
		if err != nil {
			return fmt.Errorf("open capture: %w", err)
		}
		defer f.Close()
		in = f
	}
	var magic [4]byte
	n, err := io.ReadFull(in, magic[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read capture %s: %w", s.name, err)
	}
	plain, compressed, err := decompress(io.MultiReader(bytes.NewReader(magic[:n]), in), magic)
	if err != nil {
		return fmt.Errorf("read capture %s: %w", s.name, err)
	}
	if info, err := os.Stat(s.name); !compressed && err == nil && info.Mode().IsRegular() {
		s.plain = s.name
		return nil
	}
	s.plain = filepath.Join(s.folder, s.number+"-plain.pcap")
	if err := spool(s.plain, plain); err != nil {
		return fmt.Errorf("unpack capture %s: %w", s.name, err)
	}
	return nil
}

// decompress tells gzip (RFC 1952) and zstd (RFC 8878) by their first bytes.
func decompress(in io.Reader, magic [4]byte) (plain io.Reader, compressed bool, err error) {
	switch {
	case magic[0] == 0x1f && magic[1] == 0x8b:
		plain, err = gzip.NewReader(in)
		return plain, true, err
	case magic == [4]byte{0x28, 0xb5, 0x2f, 0xfd}:
		d, err := zstd.NewReader(in)
		if err != nil {
			return nil, true, err
		}
		return d.IOReadCloser(), true, nil
	}
	return in, false, nil
}

func spool(name string, in io.Reader) error {
	if closer, ok := in.(io.Closer); ok {
		defer closer.Close()
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, in); err != nil {
		return err
	}
	return f.Close()
}

// discard removes the capture's temporary files, which may be large.
func (s *subject) discard() {
	os.Remove(s.sent)
	os.Remove(s.journal)
	if s.plain != s.name {
		os.Remove(s.plain)
	}
}
