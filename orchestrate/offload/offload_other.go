//go:build !linux

package offload

import (
	"errors"
	"fmt"
	"runtime"
)

func unsupported() error {
	return fmt.Errorf("switch offloads on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// Hold is Linux's alone: see there.
type Hold struct{}

// Merging is Linux's alone.
func Merging(string) ([]string, error) { return nil, unsupported() }

// Off is Linux's alone.
func Off(_, _ string) (*Hold, error) { return nil, unsupported() }

// Detach is Linux's alone.
func (*Hold) Detach() error { return unsupported() }

// Release is Linux's alone.
func (*Hold) Release() error { return unsupported() }

// Restore does nothing where nothing can have been switched.
func Restore(_, _ string) ([]string, error) { return nil, nil }

// RestoreDetached does nothing where nothing can have been switched.
func RestoreDetached(_, _ string) ([]string, error) { return nil, nil }
