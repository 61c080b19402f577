//go:build !linux

package mirror

import (
	"errors"
	"fmt"
	"runtime"
)

func hostEnds(int) ([]string, error) {
	return nil, fmt.Errorf("find its interface on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
