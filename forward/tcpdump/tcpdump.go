// Package tcpdump captures where a system has no packet rings, as on macOS: its
// own tcpdump is allowed to, or asks to be, and writes a capture into a pipe.
//
// A [Capture] has one tcpdump for each interface. Their frames come as they
// arrive, by one source.
package tcpdump

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/afpacket"
)

// Error says why tcpdump does not capture.
type Error struct {
	Interface string
	Err       error
	Advice    string // what to do; may be empty
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("capture on %s: %v", e.Interface, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint returns what to do about it, in one line.
func (e *Error) Hint() string { return e.Advice }

// ahead is how many frames are held in memory.
const ahead = 4096

// Capture is what is being captured.
type Capture struct {
	dumps       []*dump
	frames      chan copied
	interrupted atomic.Bool
	woken       chan struct{}
	readers     sync.WaitGroup
}

var (
	_ forward.Source  = (*Capture)(nil)
	_ forward.Readier = (*Capture)(nil)
)

type copied struct {
	frame forward.Frame
	err   error
}

// Open starts to capture on the named interfaces what matches an expression; empty
// takes all. It returns once all of them do.
func Open(names []string, expression string) (*Capture, error) {
	c := &Capture{frames: make(chan copied, ahead), woken: make(chan struct{}, 1)}
	for _, name := range names {
		d, err := start(name, expression)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.dumps = append(c.dumps, d)
		c.readers.Go(func() { c.read(d) })
	}
	go func() {
		c.readers.Wait()
		c.frames <- copied{err: io.EOF}
	}()
	return c, nil
}

// Filter adds to an expression what keeps the tunnels' packets out, and those of
// the streams by which frames leave.
func Filter(expression string, tunnels []afpacket.Tunnel, streams []netip.AddrPort) string {
	var parts []string
	if expression != "" {
		parts = append(parts, "("+expression+")")
	}
	for _, t := range tunnels {
		parts = append(parts, fmt.Sprintf("not (udp and dst host %s and dst port %d)", t.To.Addr().Unmap().WithZone(""), t.To.Port()))
	}
	for _, s := range streams {
		parts = append(parts, fmt.Sprintf("not (tcp and host %s and port %d)", s.Addr().Unmap().WithZone(""), s.Port()))
	}
	return strings.Join(parts, " and ")
}

// read copies the frames of one tcpdump until it ends.
func (c *Capture) read(d *dump) {
	var f forward.Frame
	var err error
	for {
		if err = d.source.Next(&f); err != nil {
			break
		}
		d.packets.Add(1)
		d.bytes.Add(uint64(len(f.Data)))
		kept := f
		kept.Data = bytes.Clone(f.Data)
		c.frames <- copied{frame: kept}
	}
	if err = d.wait(err); err != nil {
		c.frames <- copied{err: err}
	}
	close(d.ended)
}

// Sources are where the frames come from: one source.
func (c *Capture) Sources() []forward.Source { return []forward.Source{c} }

// Next implements forward.Source. After Stop it yields what was captured before,
// and then io.EOF.
func (c *Capture) Next(f *forward.Frame) error {
	for {
		if c.interrupted.Load() {
			return context.Canceled
		}
		select {
		case next := <-c.frames:
			*f = next.frame
			return next.err
		case <-c.woken:
		}
	}
}

// Ready implements forward.Readier.
func (c *Capture) Ready() bool { return len(c.frames) > 0 || c.interrupted.Load() }

// Exclude does nothing: where tcpdump captures, the sensor is in a virtual machine
// or elsewhere, and the filter names all that it was to exclude at the start.
func (c *Capture) Exclude([]afpacket.Tunnel) error { return nil }

// Counts are by interface. What the kernel dropped is known at the end only.
func (c *Capture) Counts() (list []afpacket.Counts, err error) {
	for _, d := range c.dumps {
		list = append(list, d.counts())
	}
	return list, nil
}

// Stop ends capturing: tcpdump writes what it has and says what was dropped when
// it is interrupted.
func (c *Capture) Stop() error {
	var errs []error
	for _, d := range c.dumps {
		d.stopped.Store(true)
		if err := d.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, fmt.Errorf("stop tcpdump on %s: %w", d.name, err))
		}
	}
	return errors.Join(errs...)
}

// Interrupt makes the source fail with context.Canceled while it is on.
func (c *Capture) Interrupt(on bool) {
	c.interrupted.Store(on)
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// grace is how long tcpdump may take to end.
const grace = 2 * time.Second

// Close ends everything. Frames that nobody took are lost.
func (c *Capture) Close() error {
	_ = c.Stop() // it may have ended
	limit := time.After(grace)
	for _, d := range slices.Clone(c.dumps) {
		for open := true; open; {
			select {
			case <-c.frames: // nobody else takes them any more
			case <-d.ended:
				open = false
			case <-limit:
				_ = d.cmd.Process.Kill()
				limit = nil
			}
		}
	}
	return nil
}
