package pcapfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/zeekdemo/zeekdemo/forward"
)

// DamageError says where a capture could not be read any further. Every frame
// before that place has been returned. It unwraps to io.ErrUnexpectedEOF where
// the capture ends too early, to the cause where reading or decompressing
// failed, and to nothing where the capture contradicts itself.
type DamageError struct {
	Name       string // of the file, "standard input" for that
	Packet     int64  // the first packet that could not be read, from 1
	Offset     int64  // of its record or block in the uncompressed capture, in bytes
	Compressed bool   // whether Offset differs from the offset in the file
	What       string // what is wrong there
	Err        error  // the cause, or nil
}

// Error gives all of it, for example
// "read big.pcap: packet 693 at byte 104211: record header cut short".
func (e *DamageError) Error() string {
	where := ""
	if e.Compressed {
		where = " of the uncompressed capture"
	}
	cause := ""
	if e.Err != nil && !errors.Is(e.Err, io.ErrUnexpectedEOF) {
		cause = ": " + e.Err.Error()
	}
	return fmt.Sprintf("read %s: packet %d at byte %d%s: %s%s", e.Name, e.Packet, e.Offset, where, e.What, cause)
}

// Report is e as reports have it.
func (e *DamageError) Report() forward.Damage {
	return forward.Damage{File: e.Name, Packet: e.Packet, Offset: e.Offset, What: strings.TrimPrefix(e.Error(), "read ")}
}

// Unwrap returns the cause.
func (e *DamageError) Unwrap() error { return e.Err }

// cut describes what was missing when a read ended in err.
func cut(what string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &DamageError{What: what + " cut short", Err: io.ErrUnexpectedEOF}
	}
	return &DamageError{What: what + " not readable", Err: err}
}

// corrupt describes a contradiction in the capture.
func corrupt(format string, args ...any) error {
	return &DamageError{What: fmt.Sprintf(format, args...)}
}

// errGlued is what a format's next returns where another capture begins.
var errGlued = errors.New("another capture begins here")

// isEOF reports whether err is the plain end of a stream. A truncated
// compressed stream ends in io.ErrUnexpectedEOF instead.
func isEOF(err error) bool { return err == io.EOF } //nolint:errorlint // io.Reader's contract is io.EOF itself

// errClosed is what reading returns after Close.
var errClosed = fmt.Errorf("read captures: %w", os.ErrClosed)
