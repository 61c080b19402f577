package preload

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/assets/samples"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
)

const plenty = 1 << 30

// files opens the sample twice in a row.
func files(t *testing.T, loop int) *pcapfile.Files {
	t.Helper()
	name := filepath.Join(t.TempDir(), "sample")
	if err := os.WriteFile(name, samples.Sample(), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := pcapfile.OpenAll([]string{name, name}, pcapfile.Options{Loop: loop})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// all are the frames of a source, and how it ended.
func all(src forward.Source) (list []forward.Frame, err error) {
	for {
		var f forward.Frame
		if err = src.Next(&f); err != nil {
			return list, err
		}
		f.Data = slices.Clone(f.Data)
		list = append(list, f)
	}
}

// What comes from memory is what comes from the files, pass for pass.
func TestPreloadedFramesAreThoseOfTheFiles(t *testing.T) {
	for _, loops := range []int{1, 3} {
		want, _ := all(files(t, loops))
		s, err := Read(t.Context(), files(t, 1), loops, plenty)
		if err != nil {
			t.Fatal(err)
		}
		got, err := all(s)
		if err != io.EOF || !reflect.DeepEqual(got, want) {
			t.Errorf("%d loops: %d frames, want %d; error %v", loops, len(got), len(want), err)
		}
		if done, total := s.Progress(); done != total || done != s.Bytes()*int64(loops) || s.Frames()*loops != len(want) {
			t.Errorf("%d loops: progress %d of %d, %d frames", loops, done, total, s.Frames())
		}
	}
}

// sparse leaves out every second frame, and ends as it is told to.
type sparse struct {
	n   int
	err error
}

func (s *sparse) Next(f *forward.Frame) error {
	if s.n == 6 {
		return s.err
	}
	s.n++
	*f = forward.Frame{Data: make([]byte, 100), Length: 100, Time: int64(s.n)}
	return nil
}
func (s *sparse) Close() error     { return nil }
func (s *sparse) Filtered() uint64 { return uint64(s.n) }

// Frames that a filter left out count in every pass, each before those behind it.
func TestFilteredFramesCount(t *testing.T) {
	s, err := Read(t.Context(), &sparse{err: io.EOF}, 2, plenty)
	if err != nil {
		t.Fatal(err)
	}
	var f forward.Frame
	for i := range uint64(12) {
		if err := s.Next(&f); err != nil || s.Filtered() != i+1 {
			t.Fatalf("frame %d: %d filtered, error %v", i, s.Filtered(), err)
		}
	}
}

// Damage comes where it was, and ends the first pass.
func TestDamageComesBehindTheFrames(t *testing.T) {
	damage := errors.New("damage")
	s, err := Read(t.Context(), &sparse{err: damage}, 3, plenty)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := all(s); len(list) != 6 || err != damage {
		t.Errorf("%d frames, error %v", len(list), err)
	}
}

func TestPreloadHasLimits(t *testing.T) {
	if _, err := Read(t.Context(), &sparse{err: io.EOF}, 1, 1000); err == nil || !strings.Contains(err.Error(), "memory") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(ctx, &sparse{err: context.Canceled}, 1, plenty); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if Room() < 64<<20 {
		t.Errorf("room for %d bytes", Room())
	}
}

func TestNextDoesNotAllocate(t *testing.T) {
	s, err := Read(t.Context(), files(t, 1), -1, plenty)
	if err != nil {
		t.Fatal(err)
	}
	var f forward.Frame
	if n := testing.AllocsPerRun(100, func() {
		for range 100 {
			_ = s.Next(&f)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
