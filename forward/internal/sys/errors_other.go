//go:build !linux

package sys

import (
	"errors"
	"fmt"
	"runtime"
)

// unsupported says what cannot be done here.
func unsupported(what string) error {
	return fmt.Errorf("%s on %s: %w", what, runtime.GOOS, errors.ErrUnsupported)
}
