//go:build !linux

package transmit

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

func openPacket(context.Context, Options) (Transmitter, error) {
	return nil, fmt.Errorf("packet sockets on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
