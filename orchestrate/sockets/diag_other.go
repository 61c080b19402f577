//go:build !linux

package sockets

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
)

func open(Place, netip.AddrPort, Asking) (*Watch, error) {
	return nil, fmt.Errorf("receive queues of %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
