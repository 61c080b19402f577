package pcapfile

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
)

// writeFile makes a file in a fresh folder.
func writeFile(tb testing.TB, name string, content []byte) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// threeInputs are a pcap file, a compressed pcapng file without any packet and
// a pcapng file of two link types that is older than the first.
func threeInputs(tb testing.TB) []string {
	n := ng{newPcapSpec().order}
	older := uint64(start/1000) - 5_000_000
	return []string{
		writeFile(tb, "one.pcap", newPcapSpec().file(packet(60, 1), packet(61, 2))),
		writeFile(tb, "two.pcapng.gz", gzipped(append(n.section(), n.iface(276, 0)...))),
		writeFile(tb, "three.pcapng", bytes.Join([][]byte{n.section(), n.iface(1, 0), n.iface(101, 0),
			n.enhanced(0, older, packet(62, 3), 62), n.enhanced(1, older+1, packet(63, 4), 63)}, nil)),
	}
}

// TestFilesAndLoops reads several files several times: times never go back from
// pass to pass, segments and loops are counted.
func TestFilesAndLoops(t *testing.T) {
	src, err := OpenAll(threeInputs(t), Options{Loop: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if got, want := src.LinkTypes(), []forward.LinkType{1, 101, 276}; !slices.Equal(got, want) {
		t.Errorf("link types %v, want %v", got, want)
	}
	got, err := readAll(src)
	if err != nil {
		t.Fatal(err)
	}
	older := start - 5e9
	span := start + 1e6 - older
	var want []forward.Frame
	for loop := range 3 {
		shift := int64(loop) * span
		for i, f := range []forward.Frame{
			frame(packet(60, 1), 60, start, 1), frame(packet(61, 2), 61, start+1e6, 1),
			frame(packet(62, 3), 62, older, 1), frame(packet(63, 4), 63, older+1000, 101),
		} {
			f.Time += shift
			f.Loop, f.Segment = loop, 3*loop+[]int{0, 0, 2, 2}[i]
			want = append(want, f)
		}
	}
	equalFrames(t, got, want)
	var f forward.Frame
	if err := src.Next(&f); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	if done, total := src.Progress(); done != total || total == 0 {
		t.Errorf("progress at the end: %d of %d", done, total)
	}
}

// TestLoopForever goes on, and ends where there is nothing to go on with.
func TestLoopForever(t *testing.T) {
	src, err := OpenAll([]string{writeFile(t, "x.pcap", newPcapSpec().file(packet(60, 1), packet(60, 2)))}, Options{Loop: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var f forward.Frame
	last := int64(0)
	for i := range 1000 {
		if err := src.Next(&f); err != nil || f.Loop != i/2 || f.Segment != i/2 || f.Time < last {
			t.Fatalf("frame %d: %+v, %v", i, f, err)
		}
		last = f.Time
	}
	if _, total := src.Progress(); total != 0 {
		t.Errorf("total %d of an endless run", total)
	}

	empty, err := OpenAll([]string{writeFile(t, "empty.pcap", newPcapSpec().file())}, Options{Loop: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	if err := empty.Next(&f); !errors.Is(err, io.EOF) {
		t.Errorf("nothing to loop over: %v, want io.EOF", err)
	}
}

// TestShift starts the times over before they overflow.
func TestShift(t *testing.T) {
	tests := []struct{ shift, low, high, want int64 }{
		{0, 100, 150, 50},
		{50, 100, 150, 100},
		{0, 100, 100, 0},
		{lastTime - 200, 100, 150, lastTime - 150},
		{lastTime - 199, 100, 150, 0},
		{lastTime - 10, 0, 11, 0},
		{0, math.MinInt64, math.MaxInt64, 0},
	}
	for _, test := range tests {
		if got := nextShift(test.shift, test.low, test.high); got != test.want {
			t.Errorf("nextShift(%d, %d, %d) = %d, want %d", test.shift, test.low, test.high, got, test.want)
		}
	}
}

// TestProgress follows the stored bytes, packet by packet where packets are far
// apart in time.
func TestProgress(t *testing.T) {
	content := newPcapSpec().header()
	for i := range 50 {
		content = append(content, newPcapSpec().record(start+int64(i)*1e9, packet(200, byte(i)))...)
	}
	for name, stored := range map[string][]byte{"plain": content, "gzip": gzipped(content)} {
		src, err := OpenAll([]string{writeFile(t, name, stored)}, Options{Loop: 2})
		if err != nil {
			t.Fatal(err)
		}
		var f forward.Frame
		var last int64
		for i := range 100 {
			if err := src.Next(&f); err != nil {
				t.Fatal(err)
			}
			done, total := src.Progress()
			if total != 2*int64(len(stored)) {
				t.Fatalf("%s: total %d", name, total)
			}
			share, want := float64(done)/float64(total), float64(i+1)/100
			if done < last || math.Abs(share-want) > 0.02 {
				t.Errorf("%s: after packet %d of 100: %d of %d, before that %d", name, i+1, done, total, last)
			}
			last = done
		}
		src.Close()
	}
}

// TestOpenAllRefuses finds what is wrong before the first frame.
func TestOpenAllRefuses(t *testing.T) {
	good := writeFile(t, "good.pcap", newPcapSpec().file(packet(60, 1)))
	text := writeFile(t, "notes.txt", []byte("just some notes"))
	missing := filepath.Join(t.TempDir(), "missing.pcap")
	tests := []struct {
		name  string
		names []string
		loop  int
		want  string
	}{
		{"nothing", nil, 0, "no file given"},
		{"a missing second file", []string{good, missing}, 0, "no such file"},
		{"a second file that is none", []string{good, text}, 0, "not a pcap or pcapng capture; it looks like text"},
		{"standard input twice", []string{"-", good, "-"}, 0, "read standard input: it can be read only once"},
		{"standard input in a loop", []string{good, "-"}, 2, "loop over standard input: it can be read only once"},
		{"standard input forever", []string{"-"}, -1, "loop over standard input: it can be read only once"},
		{"a device in a loop", []string{os.DevNull}, 2, "it is no regular file and can be read only once"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			stdin := &touched{}
			src, err := OpenAll(test.names, Options{Loop: test.loop, Stdin: stdin})
			if err == nil {
				src.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q lacks %q", err, test.want)
			}
			if stdin.reads > 0 {
				t.Error("standard input was read")
			}
		})
	}
	if _, err := OpenAll([]string{missing}, Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not unwrap to fs.ErrNotExist", err)
	}
}

// touched counts reads.
type touched struct{ reads int }

func (r *touched) Read([]byte) (int, error) { r.reads++; return 0, io.EOF }

// TestStop ends the wait for a silent pipe, before its first byte and between
// two packets, plain and compressed.
func TestStop(t *testing.T) {
	whole := newPcapSpec().file(packet(60, 1))
	stop := make(chan struct{})
	in, out := io.Pipe()
	go out.Write(append(whole, 0))
	src, err := OpenAll([]string{"-"}, Options{Stdin: in, Stop: stop})
	if err != nil {
		t.Fatal(err)
	}
	var f forward.Frame
	if err := src.Next(&f); err != nil || !bytes.Equal(f.Data, packet(60, 1)) {
		t.Fatalf("%x, %v", f.Data, err)
	}
	close(stop)
	if err := src.Next(&f); !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v", err)
	}
	if err := src.Close(); err != nil {
		t.Error(err)
	}

	silent, _ := io.Pipe()
	if _, err := OpenAll([]string{"-"}, Options{Stdin: silent, Stop: stop}); !errors.Is(err, context.Canceled) {
		t.Errorf("OpenAll: %v", err)
	}
	compressed, writer := io.Pipe()
	go writer.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff})
	if _, err := OpenAll([]string{"-"}, Options{Stdin: compressed, Stop: stop}); !errors.Is(err, context.Canceled) {
		t.Errorf("OpenAll of a compressed one: %v", err)
	}
}

// TestStdinBetweenFiles takes its turn.
func TestStdinBetweenFiles(t *testing.T) {
	names := []string{
		writeFile(t, "a.pcap", newPcapSpec().file(packet(60, 1))), "-",
		writeFile(t, "b.pcap", newPcapSpec().file(packet(60, 3))),
	}
	src, err := OpenAll(names, Options{Stdin: bytes.NewReader(gzipped(newPcapSpec().file(packet(60, 2))))})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, total := src.Progress(); total != 0 {
		t.Errorf("total %d although standard input's length is unknown", total)
	}
	got, err := readAll(src)
	if err != nil || len(got) != 3 {
		t.Fatalf("%d frames, %v", len(got), err)
	}
	for i, f := range got {
		if f.Segment != i || f.Data[0] != byte(i+1) {
			t.Errorf("frame %d: segment %d, first byte %d", i, f.Segment, f.Data[0])
		}
	}
}

// TestDamageEndsTheRun does not go on with the file after a damaged one.
func TestDamageEndsTheRun(t *testing.T) {
	whole := newPcapSpec().file(packet(60, 1), packet(60, 2))
	src, err := OpenAll([]string{writeFile(t, "cut.pcap", whole[:len(whole)-1]), writeFile(t, "b.pcap", whole)}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	got, err := readAll(src)
	if len(got) != 1 || !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "cut.pcap: packet 2 at byte 100: packet data cut short") {
		t.Errorf("%d frames, then %v", len(got), err)
	}
}

// TestClose makes later calls fail, and may be called twice.
func TestClose(t *testing.T) {
	src, err := OpenAll(threeInputs(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var f forward.Frame
	if err := src.Next(&f); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := src.Next(&f); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Next after Close: %v", err)
	}
}
