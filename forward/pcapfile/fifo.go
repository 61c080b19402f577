package pcapfile

import (
	"context"
	"io/fs"
	"os"
)

// waits are channels that end the waiting for an input when they are closed. A nil
// channel ends nothing.
type waits [2]<-chan struct{}

// openStoppable is os.Open, whose wait for the writer of a named pipe ends with
// context.Canceled when one of the channels is closed.
func openStoppable(name string, w waits) (*os.File, error) {
	if !isNamedPipe(name) {
		return os.Open(name)
	}
	return openPipe(name, w, os.O_RDONLY, openAsWriter)
}

// createStoppable is os.Create, whose wait for the reader of a named pipe ends
// likewise. The pipe is opened to write alone: whoever could read from it, too, would
// not wait for a reader, nor notice that it goes.
func createStoppable(name string, w waits) (*os.File, error) {
	if !isNamedPipe(name) {
		return os.Create(name)
	}
	return openPipe(name, w, os.O_WRONLY, openAsReader)
}

func isNamedPipe(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode()&fs.ModeNamedPipe != 0
}

// openPipe opens a named pipe. Other opens its other end without waiting.
func openPipe(name string, w waits, flag int, other func(name string) (*os.File, error)) (*os.File, error) {
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened, 1)
	go func() {
		f, err := os.OpenFile(name, flag, 0)
		done <- opened{f, err}
	}()
	select {
	case o := <-done:
		return o.f, o.err
	case <-w[0]:
	case <-w[1]:
	}
	go func() {
		// Whoever waits for the other end gets one.
		if f, err := other(name); err == nil {
			f.Close()
		}
		if o := <-done; o.err == nil {
			o.f.Close()
		}
	}()
	return nil, &fs.PathError{Op: "open", Path: name, Err: context.Canceled}
}
