package pcapfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
)

// memoryLimit is what reading may add to the memory of the process, in bytes.
const memoryLimit = 64 << 20

// resident returns the peak resident memory of the process, and 0 where the
// system does not tell.
func resident() (peak int64) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &peak); err == nil {
			return peak << 10
		}
	}
	return 0
}

// growth runs f and returns by how much it made heap and peak resident memory
// grow.
func growth(tb testing.TB, f func()) (heap, rss int64) {
	tb.Helper()
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		tb.Logf("peak resident memory cannot be reset, it counts from the start: %v", err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	base := resident()
	f()
	runtime.ReadMemStats(&after)
	return int64(after.HeapSys) - int64(before.HeapSys), resident() - base
}

// endless is a capture of n bytes at least, made while it is read.
type endless struct {
	piece []byte // whole records
	rest  []byte
	left  int64
}

func (e *endless) Read(p []byte) (int, error) {
	if len(e.rest) == 0 {
		if e.left <= 0 {
			return 0, io.EOF
		}
		e.rest = e.piece
		e.left -= int64(len(e.piece))
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// TestMemory reads captures that are much larger than what it may use.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: reads gigabytes; -short forbids it")
	}
	const stream, stored = 4 << 30, 300 << 20
	spec := newPcapSpec()
	var piece []byte
	for i := range 3000 {
		piece = append(piece, spec.record(start+int64(i), packet(60+i*7%1454, byte(i)))...)
	}
	check := func(name string, least int64, open func() (forward.Source, error)) {
		var frames, size int64
		heap, rss := growth(t, func() {
			src, err := open()
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			var f forward.Frame
			for err = src.Next(&f); err == nil; err = src.Next(&f) {
				frames++
				size += int64(len(f.Data)) + recordHeaderLen
			}
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		})
		t.Logf("%s: %d frames, %d MiB, heap grew by %d KiB, resident memory by %d KiB", name, frames, size>>20, heap>>10, rss>>10)
		if size < least || heap > memoryLimit || rss > memoryLimit {
			t.Errorf("%s: read %d of %d bytes; heap grew by %d, resident memory by %d bytes, %d are allowed", name, size, least, heap, rss, memoryLimit)
		}
	}

	check("stream", stream, func() (forward.Source, error) {
		return Open("-", io.MultiReader(bytes.NewReader(spec.header()), &endless{piece: piece, left: stream}))
	})
	name := filepath.Join(t.TempDir(), "large.pcap")
	writeLarge(t, name, io.MultiReader(bytes.NewReader(spec.header()), &endless{piece: piece, left: stored}))
	check("file", stored, func() (forward.Source, error) { return OpenAll([]string{name}, Options{}) })

	compressed := zstded(t, bytes.Repeat(piece, 8))
	check("zstd", 40*8*int64(len(piece)), func() (forward.Source, error) {
		head := zstded(t, spec.header())
		return Open("-", io.MultiReader(bytes.NewReader(head), &endless{piece: compressed, left: 40 * int64(len(compressed))}))
	})
}

// writeLarge copies r to a file without holding it in memory.
func writeLarge(tb testing.TB, name string, r io.Reader) {
	tb.Helper()
	f, err := os.Create(name)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	if _, err = io.Copy(w, r); err == nil {
		err = w.Flush()
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// TestNoAllocations reads without allocating per frame. The gzip decoder
// allocates tables for every block of some ten thousand bytes.
func TestNoAllocations(t *testing.T) {
	n := ng{newPcapSpec().order}
	classic := newPcapSpec().header()
	blocks := append(n.section(), n.iface(1, 0)...)
	for i := range 20_000 {
		data := packet(60+i%1000, byte(i))
		classic = append(classic, newPcapSpec().record(start+int64(i), data)...)
		blocks = append(blocks, n.enhanced(0, uint64(i), data, len(data))...)
	}
	for name, content := range map[string][]byte{
		"pcap": classic, "pcapng": blocks, "gzip": gzipped(classic), "zstd": zstded(t, blocks),
	} {
		src, err := OpenAll([]string{writeFile(t, name, content)}, Options{Loop: -1})
		if err != nil {
			t.Fatal(err)
		}
		var f forward.Frame
		const perRun = 1000
		allocs := testing.AllocsPerRun(10, func() {
			for range perRun {
				if err := src.Next(&f); err != nil {
					t.Fatal(err)
				}
			}
		})
		allowed := 0.0
		if name == "gzip" {
			allowed = perRun / 10
		}
		if allocs > allowed {
			t.Errorf("%s: %v allocations per %d frames, want %v at most", name, allocs, perRun, allowed)
		}
		src.Close()
	}
}
