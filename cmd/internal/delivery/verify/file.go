package verify

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
)

// unpack makes the capture a plain file, which Zeek and libpcap can read: they
// know no compression, and standard input can be read only once. A file that is
// plain already is used where it lies.
func (s *subject) unpack(ctx context.Context) error {
	s.sent, s.journal = filepath.Join(s.folder, s.number+"-sent.pcap"), filepath.Join(s.folder, s.number+"-journal")
	in, err := pcapfile.OpenStored(s.name, pcapfile.Options{Stdin: s.Stdin, Stop: ctx.Done()})
	if err != nil {
		return fmt.Errorf("open capture: %w", err)
	}
	defer in.Close()
	plain, compressed, err := pcapfile.Uncompress(in)
	if err != nil {
		return fmt.Errorf("read capture %s: %w", s.name, err)
	}
	defer plain.Close()
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

func spool(name string, in io.Reader) error {
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
