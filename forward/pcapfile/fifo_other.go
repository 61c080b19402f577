//go:build !unix

package pcapfile

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

func openAsWriter(string) (*os.File, error) {
	return nil, fmt.Errorf("open a named pipe on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func openAsReader(name string) (*os.File, error) { return openAsWriter(name) }
