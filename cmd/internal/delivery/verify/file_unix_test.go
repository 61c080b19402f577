//go:build unix

package verify

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
)

// fifo makes a named pipe.
func fifo(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A named pipe without a writer is not waited for any longer than it is wanted.
func TestAPipeWithoutAWriterIsGivenUp(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	s := &subject{run: &run{folder: t.TempDir()}, name: fifo(t), number: "1"}
	done := make(chan error, 1)
	go func() { done <- s.unpack(ctx) }()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("still waiting")
	}
}

// Nor is one whose writer is silent, before its first byte or within it.
func TestASilentPipeIsGivenUp(t *testing.T) {
	temporary(t)
	for name, said := range map[string]string{"nothing": "", "something": "\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00"} {
		t.Run(name, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			pipe, opened := fifo(t), make(chan *os.File, 1)
			go func() {
				f, err := os.OpenFile(pipe, os.O_WRONLY, 0)
				if err == nil {
					_, err = f.WriteString(said)
				}
				if err != nil {
					t.Error(err)
				}
				opened <- f
				interrupt()
			}()
			e := newFake(t)
			done := make(chan Row, 1)
			go func() { done <- verified(t, ctx, e, e, pipe, options()) }()
			select {
			case row := <-done:
				if row.Verdict != Failed || row.Error != delivery.ErrInterrupted.Error() {
					t.Errorf("%s: %q", row.Verdict, row.Error)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("still waiting")
			}
			(<-opened).Close()
		})
	}
}
