//go:build !linux

package tcmirror

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
)

func unsupported() error {
	return fmt.Errorf("mirror in the kernel on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func supports(Spec) error                                           { return unsupported() }
func start(context.Context, Spec) (Mirror, error)                   { return Mirror{}, unsupported() }
func list() ([]Mirror, error)                                       { return nil, unsupported() }
func stop(Mirror) error                                             { return unsupported() }
func pause(Mirror) error                                            { return unsupported() }
func follow(Mirror, netip.AddrPort, []netip.AddrPort) (bool, error) { return false, unsupported() }
