//go:build !linux

package nsenter

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// nowhere is the Machine of systems that run no containers themselves.
type nowhere struct{}

func local() Machine { return nowhere{} }

func unsupported(what string) error {
	return fmt.Errorf("%s the kernel's files on %s: %w", what, runtime.GOOS, errors.ErrUnsupported)
}

func (nowhere) Read(context.Context, Namespace, ...string) (map[string]string, error) {
	return nil, unsupported("read")
}

func (nowhere) Write(context.Context, Namespace, string, string) error { return unsupported("write") }

func (nowhere) Lock(context.Context, string) (func(), error) { return nil, unsupported("lock") }

func (nowhere) Close() error { return nil }

// isThisMachine is never true here: containers run on Linux.
func isThisMachine(orchestrate.EngineHost) error { return unsupported("change") }
