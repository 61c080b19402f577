package pcapfile

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/filter"
	"github.com/zeekdemo/zeekdemo/forward/pace"
)

// fifo makes a named pipe.
func fifo(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// readerWaits returns when somebody has the pipe open to read, or waits for that.
func readerWaits(t *testing.T, name string) *os.File {
	t.Helper()
	for t.Context().Err() == nil {
		f, err := openAsWriter(name)
		if err == nil {
			return f
		}
		if !errors.Is(err, unix.ENXIO) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// A named pipe is opened without waiting for longer than it is wanted: before the
// open and within it.
func TestStopBeforeThereIsAWriter(t *testing.T) {
	name := fifo(t)
	stop := make(chan struct{})
	failed := make(chan error)
	go func() {
		_, err := OpenAll([]string{name}, Options{Stop: stop})
		failed <- err
	}()
	close(stop)
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("OpenAll: %v", err)
	}
	if _, err := OpenAll([]string{name}, Options{Stop: stop}); !errors.Is(err, context.Canceled) {
		t.Errorf("OpenAll when it is stopped already: %v", err)
	}
}

// A writer that comes late is read from, and one that falls silent is not waited for
// longer than it is wanted.
func TestAWriterThatComesLate(t *testing.T) {
	name := fifo(t)
	stop := make(chan struct{})
	written := make(chan *os.File, 1)
	go func() {
		w := readerWaits(t, name)
		if _, err := w.Write(newPcapSpec().file(packet(60, 1), packet(60, 2))); err != nil {
			t.Error(err)
		}
		written <- w
	}()
	src, err := OpenAll([]string{name}, Options{Stop: stop})
	if err != nil {
		t.Fatal(err)
	}
	var f forward.Frame
	for i := range 2 {
		if err := src.Next(&f); err != nil || !bytes.Equal(f.Data, packet(60, byte(i+1))) {
			t.Fatalf("frame %d: %x, %v", i, f.Data, err)
		}
	}
	close(stop)
	if err := src.Next(&f); !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v", err)
	}
	if err := errors.Join(src.Close(), (<-written).Close()); err != nil {
		t.Error(err)
	}
}

// Inputs that do not begin in time yield nothing; those that do are read, also when
// the time is over.
func TestOpeningHasALimit(t *testing.T) {
	silent, out := io.Pipe()
	defer out.Close()
	good := writeFile(t, "good.pcap", newPcapSpec().file(packet(60, 1)))
	for _, names := range [][]string{{"-"}, {fifo(t)}, {good, "-"}} {
		src, err := OpenAll(names, Options{Stdin: silent, Opening: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		var f forward.Frame
		if err := src.Next(&f); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", names, err)
		}
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}
	src, err := OpenAll([]string{"-"}, Options{Stdin: bytes.NewReader(newPcapSpec().file(packet(60, 1))), Opening: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(src); len(got) != 1 || err != nil {
		t.Errorf("%d frames, %v", len(got), err)
	}
	stop := make(chan struct{})
	close(stop)
	if _, err := OpenAll([]string{"-"}, Options{Stdin: silent, Stop: stop, Opening: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped before its time: %v", err)
	}
}

// pipelineFrom is one that forwards to nowhere what comes from a source.
func pipelineFrom(t *testing.T, src forward.Source) *forward.Pipeline {
	t.Helper()
	e, err := encap.New(encap.Config{})
	if err != nil {
		t.Fatal(err)
	}
	header, err := encap.NewOuter(encap.OuterConfig{Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2")})
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(io.Discard, "nowhere", header)
	if err != nil {
		t.Fatal(err)
	}
	return &forward.Pipeline{Source: src, Encapsulator: e, Sink: w, Clock: pace.NewClock(), Stats: new(forward.Stats)}
}

// A run over an input that falls silent ends when it is interrupted, and when its
// duration is over: also behind a filter.
func TestARunOverASilentInputEnds(t *testing.T) {
	for _, filtered := range []bool{false, true} {
		for _, interrupted := range []bool{false, true} {
			in, out := io.Pipe()
			go out.Write(newPcapSpec().file(packet(60, 1)))
			files, err := OpenAll([]string{"-"}, Options{Stdin: in})
			if err != nil {
				t.Fatal(err)
			}
			var src forward.Source = files
			if filtered {
				if src, err = filter.Source(t.Context(), files, "len > 0"); err != nil {
					t.Fatal(err)
				}
			}
			p := pipelineFrom(t, src)
			ctx, cancel := context.WithCancel(t.Context())
			if interrupted {
				p.Sink = then{p.Sink, cancel}
			} else {
				p.Duration = 20 * time.Millisecond
			}
			err = p.Run(ctx)
			cancel()
			if rep := p.Stats.Snapshot(); rep.DatagramsSent != 1 || interrupted != errors.Is(err, context.Canceled) || !interrupted && err != nil {
				t.Errorf("filtered %v, interrupted %v: sent %d, %v", filtered, interrupted, rep.DatagramsSent, err)
			}
			if err := errors.Join(src.Close(), out.Close()); err != nil {
				t.Error(err)
			}
		}
	}
}

// The duration is over, too, where not even a first frame comes.
func TestARunWithoutAFrameEnds(t *testing.T) {
	in, out := io.Pipe()
	defer out.Close()
	go out.Write(newPcapSpec().header())
	src, err := OpenAll([]string{"-"}, Options{Stdin: in})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	p := pipelineFrom(t, src)
	p.Duration = 20 * time.Millisecond
	if err := p.Run(t.Context()); err != nil || p.Stats.Snapshot().FramesRead != 0 {
		t.Errorf("%v, %+v", err, p.Stats.Snapshot())
	}
}

// then does something after each batch.
type then struct {
	forward.Sink
	after func()
}

func (s then) Send(b *forward.Batch) (int, error) {
	defer s.after()
	return s.Sink.Send(b)
}
