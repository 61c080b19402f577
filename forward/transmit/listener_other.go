//go:build !linux

package transmit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
)

// earshot never is: there is no socket that hears what is said to the kernel.
type earshot struct {
	troubles troubles
	deaf     error
}

func openEarshot(netip.AddrPort) (*earshot, error) {
	return nil, fmt.Errorf("packet sockets on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func (*earshot) hear(uint64)                    {}
func (*earshot) settle(context.Context, uint64) {}
func (*earshot) close() error                   { return nil }
