//go:build !linux

package afpacket

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/zeekdemo/zeekdemo/forward"
)

func unsupported(what string) error {
	return fmt.Errorf("%s on %s: %w", what, runtime.GOOS, errors.ErrUnsupported)
}

func find(name string) (Interface, error) {
	return Interface{}, unsupported("capture on " + name)
}

func open(Options) (*Capture, error) { return nil, unsupported("capture") }

// Capture is Linux's alone: see there.
type Capture struct{}

// Worker is Linux's alone: see there.
type Worker struct{}

// Exclude is Linux's alone.
func (*Capture) Exclude([]Tunnel) error { return unsupported("capture") }

// Workers is Linux's alone.
func (*Capture) Workers() []*Worker { return nil }

// Merging is Linux's alone.
func (*Capture) Merging() bool { return false }

// News is Linux's alone.
func (*Capture) News() <-chan News { return nil }

// Stop is Linux's alone.
func (*Capture) Stop() error { return unsupported("capture") }

// Interrupt is Linux's alone.
func (*Capture) Interrupt(bool) {}

// Counts is Linux's alone.
func (*Capture) Counts() ([]Counts, error) { return nil, unsupported("capture") }

// Close is Linux's alone.
func (*Capture) Close() error { return nil }

// Next is Linux's alone.
func (*Worker) Next(*forward.Frame) error { return unsupported("capture") }

// Ready is Linux's alone.
func (*Worker) Ready() bool { return true }

// LinkTypes is Linux's alone.
func (*Worker) LinkTypes() []forward.LinkType { return nil }

// Close is Linux's alone.
func (*Worker) Close() error { return nil }
