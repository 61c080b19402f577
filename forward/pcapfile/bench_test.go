package pcapfile

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
)

// benchCapture is about 64 MiB of 350-byte frames whose bytes compress about as
// well as traffic does.
func benchCapture(pcapng bool) []byte {
	const frames = 180_000
	spec, n := newPcapSpec(), ng{newPcapSpec().order}
	b := spec.header()
	if pcapng {
		b = append(n.section(), n.iface(1, 0)...)
	}
	random := uint32(1)
	data := make([]byte, 350)
	for i := range frames {
		for j := 0; j < len(data); j += 2 {
			random = random*1664525 + 1013904223
			data[j] = byte(random >> 24)
		}
		if pcapng {
			b = append(b, n.enhanced(0, uint64(start/1000)+uint64(i), data, len(data))...)
		} else {
			b = append(b, spec.record(start+int64(i)*1000, data)...)
		}
	}
	return b
}

// cpuTime is what the process has used, in nanoseconds: it tells more than the
// clock does on a machine that has other things to do.
func cpuTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// benchRead reads a file again and again; touch reads every cache line of every
// frame as well, as encapsulation will.
func benchRead(b *testing.B, content []byte, touch bool) {
	name := filepath.Join(b.TempDir(), "bench")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		b.Fatal(err)
	}
	files, err := OpenAll([]string{name}, Options{Loop: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer files.Close()
	var (
		f   forward.Frame
		sum byte
	)
	b.SetBytes(350 + recordHeaderLen)
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		if err := files.Next(&f); err != nil {
			b.Fatal(err)
		}
		if touch {
			for i := 0; i < len(f.Data); i += 64 {
				sum += f.Data[i]
			}
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mframes/s")
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
	_ = sum
}

func BenchmarkReadPlain(b *testing.B)   { benchRead(b, benchCapture(false), false) }
func BenchmarkReadTouched(b *testing.B) { benchRead(b, benchCapture(false), true) }
func BenchmarkReadPcapng(b *testing.B)  { benchRead(b, benchCapture(true), false) }
func BenchmarkReadGzip(b *testing.B)    { benchRead(b, gzipped(benchCapture(false)), false) }
func BenchmarkReadZstd(b *testing.B)    { benchRead(b, zstded(b, benchCapture(false)), false) }

// BenchmarkReadMemory is the reader without the file system.
func BenchmarkReadMemory(b *testing.B) {
	content := benchCapture(false)
	var f forward.Frame
	b.SetBytes(350 + recordHeaderLen)
	r := &Reader{}
	for b.Loop() {
		if errors.Is(r.err, io.EOF) || r.format == nil {
			r, _ = NewReader(bytes.NewReader(content), "memory")
		}
		r.Next(&f)
	}
}
