package pcapfile

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
)

// FuzzReader reads anything: it ends, never panics, never lends more than it
// was given, and gives the same whatever the size of the reads.
func FuzzReader(f *testing.F) {
	seedReader(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, err := NewReader(bytes.NewReader(b), "fuzz")
		inBits, errInBits := NewReader(&dribble{b}, "fuzz")
		if (err == nil) != (errInBits == nil) {
			t.Fatalf("whole: %v, in bits: %v", err, errInBits)
		}
		if err != nil {
			return
		}
		defer whole.Close()
		defer inBits.Close()
		if whole.compressed {
			return // how much a decoder yields before it fails is its own affair
		}
		for n := 0; ; n++ {
			var one, other forward.Frame
			err, errInBits := whole.Next(&one), inBits.Next(&other)
			if (err == nil) != (errInBits == nil) || err != nil && err.Error() != errInBits.Error() {
				t.Fatalf("packet %d: whole: %v, in bits: %v", n+1, err, errInBits)
			}
			if err != nil {
				checkEnd(t, err, int64(n), int64(len(b)))
				return
			}
			checkFrame(t, &one, len(b))
			if !bytes.Equal(one.Data, other.Data) || one.Time != other.Time || one.Length != other.Length || one.LinkType != other.LinkType {
				t.Fatalf("packet %d: whole %+v, in bits %+v", n+1, one, other)
			}
			if n*recordHeaderLen > len(b) {
				t.Fatalf("more packets than bytes for them")
			}
		}
	})
}

// FuzzUncompress decompresses anything: it ends, never panics, and what is not compressed
// stays as it is.
func FuzzUncompress(f *testing.F) {
	const most = 1 << 20 // of what a bomb makes
	plain := newPcapSpec().file(packet(60, 1))
	for _, b := range [][]byte{plain, gzipped(plain), append(gzipped(plain), make([]byte, 9)...), zstded(f, plain), append(skippable(7, "abc"), zstded(f, plain)...)} {
		f.Add(b)
	}
	for _, text := range []string{ // "a capture" by xz, bzip2 and lz4
		"fd377a585a000004e6d6b4460200210116000000742fe5a301000861206361707475726500000000018bfc4a57684318000121096c18c5d51fb6f37d010000000004595a",
		"425a6839314159265359ad323ab6000000918040002a0056002000221a7a8610c084076bf705dc914e14242b4c8ead80",
		"04224d186440a709000080612063617074757265000000009af00310",
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, was, err := Uncompress(bytes.NewReader(b))
		if err != nil {
			return
		}
		defer r.Close()
		got, err := io.ReadAll(io.LimitReader(r, most))
		if !was && (err != nil || !bytes.Equal(got, b)) {
			t.Fatalf("%x became %x: %v", b, got, err)
		}
	})
}

// checkFrame checks what holds for every frame.
func checkFrame(t *testing.T, f *forward.Frame, size int) {
	t.Helper()
	if len(f.Data) > f.Length || len(f.Data) > size || len(f.Data) > maxFrame {
		t.Fatalf("%d bytes of data, length %d, in a capture of %d", len(f.Data), f.Length, size)
	}
	if cap(f.Data) != len(f.Data) && cap(f.Data) > maxFrame {
		t.Fatalf("data of %d bytes can be extended to %d", len(f.Data), cap(f.Data))
	}
}

// checkEnd checks the error after n packets of a capture of size bytes.
func checkEnd(t *testing.T, err error, n, size int64) {
	t.Helper()
	var damage *DamageError
	if !errors.Is(err, io.EOF) && (!errors.As(err, &damage) || damage.Packet != n+1 || damage.Offset < 0 || damage.Offset >= size) {
		t.Fatalf("after %d packets in %d bytes: %v", n, size, err)
	}
}

// dribble reads at most 13 bytes at a time.
type dribble struct{ b []byte }

func (r *dribble) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 13)], r.b)
	r.b = r.b[n:]
	return n, nil
}

// seedReader seeds made captures and, where they are, the small shared ones.
func seedReader(f *testing.F) {
	a, b := packet(60, 1), packet(99, 2)
	for _, order := range []byteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, magic := range []uint32{magicMicros, magicNanos, magicModified} {
			spec := newPcapSpec()
			spec.order, spec.magic = order, magic
			f.Add(spec.file(a, b))
		}
		n := ng{order}
		f.Add(bytes.Join([][]byte{
			n.section(), n.iface(1, 0, n.option(optTSResol, 9), n.option(optFCSLen, 32)), n.block(5, a), n.iface(113, 50),
			n.enhanced(0, 7, a, 60), n.enhanced(1, 7, a, 60, n.option(optFlags, n.u32(4<<5)...), n.option(optEnd)), n.obsolete(1, 8, b, 99), n.section(), n.iface(101, 10), n.simple(a[:10], 60),
		}, nil))
	}
	f.Add(gzipped(newPcapSpec().file(a)))
	f.Add(zstded(f, newPcapSpec().file(a)))
	f.Add(append(newPcapSpec().file(a), newPcapSpec().file(b)...))
	for _, b := range realSeeds() {
		f.Add(b)
	}
}

// realSeeds are the beginnings of the shared captures, none where those are not
// at hand: fuzzing needs them less than it needs to run.
func realSeeds() (seeds [][]byte) {
	root := os.Getenv("ZEEKDEMO_SHARED")
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared")
	}
	names, _ := filepath.Glob(filepath.Join(root, "pcaps", "*.pcap*"))
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil {
			seeds = append(seeds, b[:min(len(b), 2000)])
		}
	}
	return seeds
}
