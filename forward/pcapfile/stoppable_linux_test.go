package pcapfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// answerLimit bounds what is to come within a second, on a machine that is busy.
const answerLimit = 20 * time.Second

// within returns what f returns, which must not take for ever.
func within[T any](t *testing.T, f func() T) T {
	t.Helper()
	done := make(chan T, 1)
	go func() { done <- f() }()
	select {
	case v := <-done:
		return v
	case <-time.After(answerLimit):
		t.Fatal("still waiting")
		panic("unreachable")
	}
}

// over is a channel that is closed.
func over() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// stalled are outputs whose reader, which is returned too, does not read yet: a named
// pipe, and a pipe that is standard output. Finish closes what Close leaves open.
func stalled(t *testing.T, stop <-chan struct{}, pipe bool) (w *Writer, in *os.File, finish func() error) {
	t.Helper()
	header := outer(t, "192.0.2.1", "192.0.2.2")
	finish = func() error { return nil }
	var err error
	if pipe {
		var out *os.File
		if in, out, err = os.Pipe(); err != nil {
			t.Fatal(err)
		}
		finish = out.Close
		w, err = Create("-", out, header, stop)
	} else {
		name := fifo(t)
		if in, err = os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
			t.Fatal(err)
		}
		w, err = Create(name, nil, header, stop)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return w, in, finish
}

// A reader that stalls is not waited for longer than it is wanted, and the writer knows
// what the pipe has taken.
func TestAReaderThatStalls(t *testing.T) {
	for name, pipe := range map[string]bool{"named pipe": false, "standard output": true} {
		t.Run(name, func(t *testing.T) {
			stop := make(chan struct{})
			w, in, finish := stalled(t, stop, pipe)
			close(stop)
			err := within(t, func() error {
				for {
					if _, err := w.Send(batchOf(packet(1400, 1), packet(90, 2))); err != nil {
						return errors.Join(err, w.Close(), finish())
					}
				}
			})
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			b, err := io.ReadAll(in)
			if held := packetsIn(b); err != nil || held == 0 || held != w.Packets() {
				t.Errorf("the pipe held %d packets, the writer says %d: %v", held, w.Packets(), err)
			}
		})
	}
}

// A reader that reads gets everything, also when the writing is to stop.
func TestAReaderThatReadsGetsAll(t *testing.T) {
	for name, pipe := range map[string]bool{"named pipe": false, "standard output": true} {
		for _, stopped := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, stopped %v", name, stopped), func(t *testing.T) {
				stop := make(chan struct{})
				w, in, finish := stalled(t, stop, pipe)
				read := make(chan []byte, 1)
				go func() {
					b, _ := io.ReadAll(in)
					read <- b
				}()
				if stopped {
					close(stop)
				}
				const batches = 300 // more than a pipe holds
				for range batches {
					if n, err := w.Send(batchOf(packet(1400, 1), packet(90, 2))); n != 2 || err != nil {
						t.Fatalf("sent %d, %v", n, err)
					}
				}
				if err := errors.Join(w.Close(), finish()); err != nil {
					t.Fatal(err)
				}
				if got := packetsIn(within(t, func() []byte { return <-read })); got != 2*batches || w.Packets() != got {
					t.Errorf("read %d packets, the writer says %d", got, w.Packets())
				}
			})
		}
	}
}

// A named pipe waits for its reader, who gets all: but not longer than it is wanted.
func TestAReaderThatComesLate(t *testing.T) {
	name, header := fifo(t), outer(t, "192.0.2.1", "192.0.2.2")
	err := within(t, func() error { _, err := Create(name, nil, header, over()); return err })
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("without a reader: %v", err)
	}
	written := make(chan error, 1)
	go func() {
		w, err := Create(name, nil, header, make(chan struct{}))
		if err == nil {
			_, err = w.Send(batchOf(packet(60, 1)))
			err = errors.Join(err, w.Close())
		}
		written <- err
	}()
	b := within(t, func() []byte { b, _ := os.ReadFile(name); return b })
	if err := <-written; err != nil || packetsIn(b) != 1 {
		t.Errorf("read %d bytes: %v", len(b), err)
	}
}

// What is read as it is stored is so to the byte, and ends like other inputs.
func TestOpenStored(t *testing.T) {
	content := gzipped(newPcapSpec().file(packet(60, 1)))
	for name, opts := range map[string]Options{writeFile(t, "x.gz", content): {}, "-": {Stdin: bytes.NewReader(content)}} {
		r, err := OpenStored(name, opts)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); !bytes.Equal(b, content) || err != nil {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := OpenStored(filepath.Join(t.TempDir(), "no"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	err := within(t, func() error { _, err := OpenStored(fifo(t), Options{Stop: over()}); return err })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("without a writer: %v", err)
	}
	silent, out := io.Pipe()
	defer out.Close()
	r, err := OpenStored("-", Options{Stdin: silent, Stop: over()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := within(t, func() error { _, err := r.Read(make([]byte, 1)); return err }); !errors.Is(err, context.Canceled) {
		t.Errorf("silent input: %v", err)
	}
}
