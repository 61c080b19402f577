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
	if info, err := os.Stat(name); err != nil || info.Mode()&fs.ModeNamedPipe == 0 {
		return os.Open(name)
	}
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened, 1)
	go func() {
		f, err := os.Open(name)
		done <- opened{f, err}
	}()
	select {
	case o := <-done:
		return o.f, o.err
	case <-w[0]:
	case <-w[1]:
	}
	go func() {
		// Whoever waits for a writer gets one.
		if f, err := openAsWriter(name); err == nil {
			f.Close()
		}
		if o := <-done; o.err == nil {
			o.f.Close()
		}
	}()
	return nil, &fs.PathError{Op: "open", Path: name, Err: context.Canceled}
}
