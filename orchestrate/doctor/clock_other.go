//go:build !linux

package doctor

import (
	"errors"
	"fmt"
	"runtime"
)

func synchronised() (bool, error) {
	return false, fmt.Errorf("ask whether the clock is synchronised on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
