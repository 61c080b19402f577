package pcapfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/zeekdemo/zeekdemo/forward"
)

// frame is what a test expects of one frame.
func frame(data []byte, length int, at int64, link forward.LinkType) forward.Frame {
	return forward.Frame{Data: data, Length: length, Time: at, LinkType: link}
}

// retimed is a frame of which the capture has no time.
func retimed(f forward.Frame) forward.Frame {
	f.Retimed = true
	return f
}

func equalFrames(tb testing.TB, got, want []forward.Frame) {
	tb.Helper()
	if len(got) != len(want) {
		tb.Fatalf("got %d frames, want %d", len(got), len(want))
	}
	for i := range want {
		g, w := got[i], want[i]
		if !bytes.Equal(g.Data, w.Data) {
			tb.Errorf("frame %d: data %x, want %x", i, g.Data, w.Data)
		}
		g.Data, w.Data = nil, nil
		if fmt.Sprint(g) != fmt.Sprint(w) {
			tb.Errorf("frame %d: %+v, want %+v", i, g, w)
		}
	}
}

// TestPcapVariants reads every variant of the classic format.
func TestPcapVariants(t *testing.T) {
	micros := start / 1000 * 1000
	a, b := packet(60, 1), packet(1514, 2)
	usual := []forward.Frame{frame(a, 60, start, 1), frame(b, 1514, start+1e6, 1)}
	coarse := []forward.Frame{frame(a, 60, micros, 1), frame(b, 1514, micros+1e6, 1)}
	tests := []struct {
		name string
		make func(*pcapSpec)
		want []forward.Frame
	}{
		{"nanoseconds", func(*pcapSpec) {}, usual},
		{"microseconds", func(s *pcapSpec) { s.magic = magicMicros }, coarse},
		{"modified", func(s *pcapSpec) { s.magic = magicModified }, coarse},
		{"lengths always swapped before 2.3", func(s *pcapSpec) { s.version[1] = 2; s.swapped = true; s.original = 9 },
			[]forward.Frame{frame(a, 69, start, 1), frame(b, 1523, start+1e6, 1)}},
		{"lengths swapped in 2.3", func(s *pcapSpec) { s.version[1] = 3; s.swapped = true; s.original = 9 },
			[]forward.Frame{frame(a, 69, start, 1), frame(b, 1523, start+1e6, 1)}},
		{"lengths not swapped in 2.3", func(s *pcapSpec) { s.version[1] = 3; s.original = 9 },
			[]forward.Frame{frame(a, 69, start, 1), frame(b, 1523, start+1e6, 1)}},
		{"cut by the snap length", func(s *pcapSpec) { s.original = 100 },
			[]forward.Frame{frame(a, 160, start, 1), frame(b, 1614, start+1e6, 1)}},
		{"length smaller than what was captured", func(s *pcapSpec) { s.original = -20 }, usual},
		{"link type", func(s *pcapSpec) { s.link = 276 },
			[]forward.Frame{frame(a, 60, start, 276), frame(b, 1514, start+1e6, 276)}},
		{"reserved bits beside the link type", func(s *pcapSpec) { s.link = 0xf3ff0071 },
			[]forward.Frame{frame(a, 60, start, 113), frame(b, 1514, start+1e6, 113)}},
		{"frame check sequence of 4 bytes", func(s *pcapSpec) { s.link = 0x24000001 },
			[]forward.Frame{frame(a[:56], 56, start, 1), frame(b[:1510], 1510, start+1e6, 1)}},
		{"frame check sequence cut already", func(s *pcapSpec) { s.link = 0x24000001; s.original = 3 },
			[]forward.Frame{frame(a[:59], 59, start, 1), frame(b[:1513], 1513, start+1e6, 1)}},
	}
	for _, test := range tests {
		for _, order := range []byteOrder{binary.LittleEndian, binary.BigEndian} {
			t.Run(fmt.Sprint(test.name, "/", order), func(t *testing.T) {
				spec := newPcapSpec()
				spec.order = order
				test.make(&spec)
				got, err := readBytes(t, spec.file(a, b))
				if err != nil {
					t.Fatal(err)
				}
				equalFrames(t, got, test.want)
			})
		}
	}
}

// ngCase is a file of blocks and the packets in it.
type ngCase struct {
	name   string
	blocks func(n ng) [][]byte
	want   []forward.Frame
}

func ngCases() []ngCase {
	a, b := packet(61, 1), packet(1514, 2)
	const stamp = uint64(0x0006_0a24_1234_5678) // microseconds
	at := int64(stamp) * 1000
	return []ngCase{
		{"no packet", func(n ng) [][]byte { return [][]byte{n.section(), n.iface(1, 0)} }, nil},
		{"no interface", func(n ng) [][]byte { return [][]byte{n.section()} }, nil},
		{"enhanced", func(n ng) [][]byte {
			return [][]byte{n.section(), n.iface(1, 0), n.enhanced(0, stamp, a, 61), n.enhanced(0, stamp+1, b, 9000)}
		}, []forward.Frame{frame(a, 61, at, 1), frame(b, 9000, at+1000, 1)}},
		{"enhanced with options", func(n ng) [][]byte {
			comment := n.option(1, []byte("hello")...)
			return [][]byte{n.section(), n.iface(1, 0, comment), n.enhanced(0, stamp, a, 61, comment, n.option(0))}
		}, []forward.Frame{frame(a, 61, at, 1)}},
		{"obsolete", func(n ng) [][]byte {
			return [][]byte{n.section(), n.iface(1, 0), n.iface(113, 0), n.obsolete(1, stamp, a, 70)}
		}, []forward.Frame{frame(a, 70, at, 113)}},
		{"simple keeps the time", func(n ng) [][]byte {
			return [][]byte{n.section(), n.iface(1, 100), n.simple(a, 61), n.enhanced(0, stamp, a, 61), n.simple(b[:100], 1514)}
		}, []forward.Frame{retimed(frame(a, 61, 0, 1)), frame(a, 61, at, 1), frame(b[:100], 1514, at, 1)}},
		{"impossible times are those of the frame before", func(n ng) [][]byte {
			nanos := n.option(optTSResol, 9)
			return [][]byte{
				n.section(), n.iface(1, 0), n.iface(1, 0, nanos), n.iface(1, 0, n.option(optTSOffset, n.u64(1<<64-1)...)),
				n.enhanced(0, math.MaxUint64, a, 61), n.enhanced(0, stamp, a, 61), n.enhanced(0, math.MaxUint64, b, 1514), n.simple(a, 61),
				n.enhanced(1, uint64(lastTime), a, 61), n.enhanced(1, uint64(lastTime)+1, a, 61), n.enhanced(0, stamp+1, b, 1514), n.enhanced(2, 7, a, 61),
			}
		}, []forward.Frame{
			retimed(frame(a, 61, 0, 1)), frame(a, 61, at, 1), retimed(frame(b, 1514, at, 1)), frame(a, 61, at, 1),
			frame(a, 61, lastTime, 1), retimed(frame(a, 61, lastTime, 1)), frame(b, 1514, at+1000, 1), retimed(frame(a, 61, at+1000, 1)),
		}},
		{"interfaces of different kinds", func(n ng) [][]byte {
			return [][]byte{
				n.section(),
				n.iface(1, 0, n.option(optTSResol, 9)),
				n.iface(101, 0, n.option(optTSResol, 0x80|10), n.option(0)),
				n.iface(276, 0, n.option(2, 'e', 't', 'h'), n.option(optTSOffset, n.u64(1000)...)),
				n.iface(1, 0, n.option(optFCSLen, 32)),
				n.enhanced(2, 5, a, 61), n.enhanced(0, 5, b, 1514), n.enhanced(1, 5<<10|1<<9, a, 61), n.enhanced(3, 5, a, 61),
			}
		}, []forward.Frame{frame(a, 61, 1000e9+5000, 276), frame(b, 1514, 5, 1), frame(a, 61, 5.5e9, 101), frame(a[:57], 57, 5000, 1)}},
		{"unknown blocks are skipped, large ones too", func(n ng) [][]byte {
			return [][]byte{
				n.section(), n.block(0x0bad, make([]byte, 3<<20)), n.iface(1, 0), n.block(4), n.enhanced(0, stamp, a, 61),
				n.block(0x80000001, make([]byte, windowSize)), n.block(5, a), n.enhanced(0, stamp, b, 1514), n.block(0x0bad, b),
			}
		}, []forward.Frame{frame(a, 61, at, 1), frame(b, 1514, at, 1)}},
		{"an interface described between packets", func(n ng) [][]byte {
			return [][]byte{n.section(), n.iface(1, 0), n.enhanced(0, stamp, a, 61), n.iface(101, 0), n.enhanced(1, stamp, a, 61)}
		}, []forward.Frame{frame(a, 61, at, 1), frame(a, 61, at, 101)}},
		{"frame check sequences by interface and by packet", func(n ng) [][]byte {
			flags := func(fcs uint32) []byte { return n.option(optFlags, n.u32(fcs<<5|1)...) }
			comment, cutShort := n.option(1, []byte("hello")...), n.u32(0xffff0002)
			return [][]byte{
				n.section(), n.iface(1, 0), n.iface(1, 0, n.option(optFCSLen, 4)), n.iface(1, 0, n.option(optFCSLen, 16)),
				n.enhanced(0, stamp, a, 61, comment, flags(4), n.option(0)), n.enhanced(0, stamp, a, 61, flags(0)), n.enhanced(1, stamp, a, 61),
				n.enhanced(1, stamp, a, 61, flags(2)), n.enhanced(2, stamp, a, 61, flags(0)), n.enhanced(1, stamp, a, 61, cutShort),
				n.enhanced(2, stamp, a, 61, n.option(0), flags(4)), n.enhanced(0, stamp, a[:60], 61, flags(4)),
			}
		}, []forward.Frame{
			frame(a[:57], 57, at, 1), frame(a, 61, at, 1), frame(a[:57], 57, at, 1), frame(a[:59], 59, at, 1),
			frame(a[:59], 59, at, 1), frame(a[:57], 57, at, 1), frame(a[:59], 59, at, 1), frame(a[:57], 57, at, 1),
		}},
		{"what is no packet is passed over", func(n ng) [][]byte {
			names, journal, secrets, custom, fixed := n.block(4, b), n.block(9, b), n.block(10, b), n.block(0xbad, b), n.block(0x40000bad, b)
			return [][]byte{n.section(), secrets, n.iface(1, 0), names, journal, n.enhanced(0, stamp, a, 61), custom, fixed, n.enhanced(0, stamp, a, 61), secrets}
		}, []forward.Frame{frame(a, 61, at, 1), frame(a, 61, at, 1)}},
		{"sections of both byte orders", func(n ng) [][]byte {
			other := ng{binary.BigEndian}
			if n.order.String() == binary.BigEndian.String() {
				other = ng{binary.LittleEndian}
			}
			return [][]byte{
				n.section(), n.iface(1, 0), n.enhanced(0, stamp, a, 61),
				other.section(), other.iface(228, 0), other.enhanced(0, stamp, b, 1514),
				n.section(), n.iface(229, 0), n.enhanced(0, stamp, a, 61),
			}
		}, []forward.Frame{frame(a, 61, at, 1), frame(b, 1514, at, 228), frame(a, 61, at, 229)}},
	}
}

// TestPcapng reads every kind of block, with interfaces that differ.
func TestPcapng(t *testing.T) {
	for _, test := range ngCases() {
		for _, order := range []byteOrder{binary.LittleEndian, binary.BigEndian} {
			t.Run(fmt.Sprint(test.name, "/", order), func(t *testing.T) {
				got, err := readBytes(t, bytes.Join(test.blocks(ng{order}), nil))
				if err != nil {
					t.Fatal(err)
				}
				equalFrames(t, got, test.want)
			})
		}
	}
}

// TestClock converts timestamps of every kind of resolution, at its borders.
func TestClock(t *testing.T) {
	tests := []struct {
		resolution byte
		offset     int64
		stamp      uint64
		want       int64
	}{
		{6, 0, 1_700_000_000_123_456, 1_700_000_000_123_456_000},
		{0, 0, 1_700_000_000, 1_700_000_000e9},
		{3, 0, 1_700_000_000_123, 1_700_000_000_123e6},
		{9, 0, 1_700_000_000_123_456_789, 1_700_000_000_123_456_789},
		{12, 0, 5_000_000_000_999, 5_000_000_000},
		{28, 0, math.MaxUint64, 1},
		{29, 0, math.MaxUint64, 0},
		{127, 0, math.MaxUint64, 0},
		{0x80, 0, 7, 7e9},
		{0x80 | 32, 0, 1_700_000_000<<32 | 1<<31, 1_700_000_000_500_000_000},
		{0x80 | 63, 0, 1 << 63, 1e9},
		{0x80 | 64, 0, 1 << 63, 5e8},
		{0x80 | 93, 0, 1 << 63, 0},
		{0x80 | 127, 0, math.MaxUint64, 0},
		{6, 0, math.MaxUint64, math.MaxInt64},
		{9, 0, math.MaxUint64, math.MaxInt64},
		{6, -1, 3_000_000, 2e9},
		{9, math.MaxInt64, 1, math.MaxInt64},
		{9, math.MinInt64, 1, math.MinInt64},
		{9, 9_223_372_036, math.MaxInt64, math.MaxInt64},
	}
	for _, test := range tests {
		c := clock{offset: test.offset}.resolution(test.resolution)
		if got := c.nanoseconds(test.stamp); got != test.want {
			t.Errorf("resolution %#x, offset %d: %d became %d, want %d", test.resolution, test.offset, test.stamp, got, test.want)
		}
	}
}

// wholePackets is how many packets of a capture lie before offset n, given
// where each ends.
func wholePackets(ends []int, n int) int {
	count := 0
	for _, end := range ends {
		if end <= n {
			count++
		}
	}
	return count
}

// TestTruncation cuts captures at every byte: exactly the whole packets before
// the cut come out, and the error names the packet after them and its offset.
func TestTruncation(t *testing.T) {
	spec := newPcapSpec()
	classic := spec.header()
	n := ng{binary.BigEndian}
	blocks := bytes.Join([][]byte{n.section(), n.iface(1, 0)}, nil)
	firstBlock := len(n.section())
	var classicEnds, blockEnds []int
	for i := range 5 {
		data := packet(40+13*i, byte(i))
		classic = append(classic, spec.record(start, data)...)
		classicEnds = append(classicEnds, len(classic))
		blocks = append(blocks, n.enhanced(0, 1, data, len(data))...)
		blockEnds = append(blockEnds, len(blocks))
	}
	t.Run("pcap", func(t *testing.T) { truncations(t, classic, pcapHeaderLen, pcapHeaderLen, classicEnds) })
	t.Run("pcapng", func(t *testing.T) { truncations(t, blocks, firstBlock, firstBlock+len(n.iface(1, 0)), blockEnds) })
}

// truncations cuts b everywhere behind its header; packets start at first and
// end at ends.
func truncations(t *testing.T, b []byte, header, first int, ends []int) {
	borders := append([]int{header, first}, ends...)
	for size := range len(b) {
		got, err := readBytes(t, b[:size])
		if size < header {
			if err == nil || size >= 4 && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("cut to %d bytes: error %v", size, err)
			}
			continue
		}
		whole := wholePackets(ends, size)
		if len(got) != whole {
			t.Fatalf("cut to %d bytes: %d packets, want %d", size, len(got), whole)
		}
		begin := borders[0]
		for _, border := range borders {
			if border <= size {
				begin = border
			}
		}
		if begin == size {
			if err != nil {
				t.Errorf("cut between packets at %d: %v", size, err)
			}
			continue
		}
		var damage *DamageError
		if !errors.As(err, &damage) || !errors.Is(err, io.ErrUnexpectedEOF) ||
			damage.Packet != int64(whole+1) || damage.Offset != int64(begin) || damage.Name != "made.pcap" {
			t.Fatalf("cut to %d bytes: error %v (%+v), want packet %d at byte %d", size, err, damage, whole+1, begin)
		}
	}
}

// TestDamage checks the words of every kind of damage. The packets before it
// are returned.
func TestDamage(t *testing.T) {
	n := ng{binary.LittleEndian}
	a := packet(64, 1)
	good := newPcapSpec().file(a, a)
	blocks := bytes.Join([][]byte{n.section(), n.iface(1, 0), n.enhanced(0, 1, a, 64)}, nil)
	change := func(b []byte, at int, v uint32) []byte {
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	damaged := n.enhanced(0, 1, a, 64)
	tests := []struct {
		name    string
		content []byte
		packets int
		want    string
	}{
		{"record header", good[:24+80+5], 1, "packet 2 at byte 104: record header cut short"},
		{"data", good[:24+80+16+63], 1, "packet 2 at byte 104: packet data cut short"},
		{"implausible", change(good, 24+80+8, 300_000), 1, "packet 2 at byte 104: captured length 300000 is implausible"},
		{"trailer", append(blocks, change(damaged, len(damaged)-4, 7)...), 1,
			"packet 2 at byte 144: block length is 96 at its start and 7 at its end"},
		{"trailer of a skipped block", append(blocks, change(n.block(5, a), 72, 7)...), 1,
			"packet 2 at byte 144: block length is 76 at its start and 7 at its end"},
		{"odd length", append(blocks, change(damaged, 4, 97)...), 1, "packet 2 at byte 144: block of type 0x6 with the impossible length 97"},
		{"short length", append(blocks, change(damaged, 4, 8)...), 1, "packet 2 at byte 144: block of type 0x6 with the impossible length 8"},
		{"huge length", append(blocks, change(damaged, 4, 0x7ffffff0)...), 1, "packet 2 at byte 144: packet block with the implausible length 2147483632"},
		{"captured more than the block", append(blocks, change(damaged, 20, 65)...), 1, "packet 2 at byte 144: captured length 65 in a block of 96 bytes"},
		{"no such interface", append(blocks, n.enhanced(1, 1, a, 64)...), 1, "packet 2 at byte 144: packet of interface 1, of which there are 1"},
		{"simple without interface", append(n.section(), n.simple(a, 64)...), 0, "packet 1 at byte 28: packet of interface 0, of which there are 0"},
		{"simple longer than its block", append(blocks, n.simple(a, 99)...), 1, "packet 2 at byte 144: captured length 99 in a block of 80 bytes"},
		{"option", append(n.section(), change(n.iface(1, 0, n.option(9, 6)), 16, 99<<16|9)...), 0,
			"packet 1 at byte 28: option 9 of an interface reaches beyond its block"},
		{"second section", append(blocks, change(n.section(), 8, 0)...), 1, "packet 2 at byte 144: section header block without a byte-order magic"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := readBytes(t, test.content)
			// 64 bytes of data, 32 around them: the first packet ends at 144.
			if err == nil || err.Error() != "read made.pcap: "+test.want {
				t.Errorf("error %v\nwant  read made.pcap: %s", err, test.want)
			}
			if len(got) != test.packets {
				t.Errorf("%d packets before the damage, want %d", len(got), test.packets)
			}
			if cut := strings.Contains(test.want, "cut short"); errors.Is(err, io.ErrUnexpectedEOF) != cut {
				t.Errorf("unwraps to io.ErrUnexpectedEOF: %v, want %v", !cut, cut)
			}
		})
	}
}

// TestCompressed reads compressed captures, whole, cut and damaged.
func TestCompressed(t *testing.T) {
	var packets [][]byte
	for i := range 3000 {
		packets = append(packets, packet(200+i%1000, byte(i*i>>3)))
	}
	content := newPcapSpec().file(packets...)
	want, err := readBytes(t, content)
	if err != nil {
		t.Fatal(err)
	}
	for name, stored := range map[string][]byte{
		"gzip": gzipped(content), "zstd": zstded(t, content),
		"two gzip members": append(gzipped(content[:100_000]), gzipped(content[100_000:])...),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readBytes(t, stored)
			if err != nil {
				t.Fatal(err)
			}
			equalFrames(t, got, want)

			got, err = readBytes(t, stored[:len(stored)*2/3])
			var damage *DamageError
			if !errors.As(err, &damage) || !errors.Is(err, io.ErrUnexpectedEOF) || !damage.Compressed ||
				damage.Packet != int64(len(got)+1) || !strings.Contains(err.Error(), " of the uncompressed capture: ") {
				t.Errorf("cut: %d packets, then %v", len(got), err)
			}
			if len(got) == 0 {
				t.Error("cut: no packet before the damage")
			}
			equalFrames(t, got, want[:len(got)])

			broken := bytes.Clone(stored)
			for i := range 64 {
				broken[len(broken)*2/3+i] ^= 0x5a
			}
			if got, err = readBytes(t, broken); err == nil {
				t.Errorf("damaged: no error after %d packets", len(got))
			}
		})
	}
}

// TestOpenRefuses says what is wrong with what is no capture.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	files := 0
	write := func(content string) string {
		files++
		name := filepath.Join(dir, fmt.Sprintf("%d.pcap", files))
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	header := string(newPcapSpec().header())
	old := newPcapSpec()
	old.version = [2]uint16{1, 2}
	tests := []struct {
		name, file, want string
		is               error
	}{
		{"missing", filepath.Join(dir, "missing.pcap"), "no such file", fs.ErrNotExist},
		{"directory", dir, "is a directory", nil},
		{"empty", write(""), "empty, not a pcap or pcapng capture", nil},
		{"three bytes", write("\xd4\xc3\xb2"), "not a pcap or pcapng capture", nil},
		{"text", write("hello world, what is this"), "it looks like text", nil},
		{"xz", write("\xfd7zXZ\x00and so on"), "decompress", nil},
		{"binary", write("\x00\x01\x02\x03\x04\x05\x06\x07\x08"), "not a pcap or pcapng capture", nil},
		{"header cut", write(header[:20]), "file header cut short", io.ErrUnexpectedEOF},
		{"version", write(string(old.header())), "pcap version 1.2, only 2.x is known", nil},
		{"gzip of nothing", write(string(gzipped(nil))), "empty, not a pcap or pcapng capture", nil},
		{"gzip of text", write(string(gzipped([]byte("some other text")))), "it looks like text", nil},
		{"gzip cut in its header", write("\x1f\x8b\x08"), "decompress ", io.ErrUnexpectedEOF},
		{"no standard input", "-", "read standard input: none is connected", fs.ErrNotExist},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, err := Open(test.file, nil)
			if err == nil {
				r.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q lacks %q", err, test.want)
			}
			if test.file != "-" && !strings.Contains(err.Error(), test.file) {
				t.Errorf("error %q does not name the file", err)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("error %v does not unwrap to %v", err, test.is)
			}
		})
	}
}

// TestReadErrorIsKept passes on what reading failed with.
func TestReadErrorIsKept(t *testing.T) {
	content := newPcapSpec().file(packet(60, 1), packet(60, 2))
	broken := errors.New("disk on fire")
	r, err := NewReader(io.MultiReader(bytes.NewReader(content[:150]), iotest.ErrReader(broken)), "x")
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAll(r)
	const want = "read x: packet 2 at byte 100: packet data not readable: disk on fire"
	if len(got) != 1 || !errors.Is(err, broken) || err.Error() != want {
		t.Errorf("%d packets, then %v, want %s", len(got), err, want)
	}
	var f forward.Frame
	if again := r.Next(&f); again != err {
		t.Errorf("the next call gives %v", again)
	}
}

// TestSlowPipe gets every packet as soon as it has arrived, and knows when it
// would have to wait.
func TestSlowPipe(t *testing.T) {
	in, out := io.Pipe()
	spec := newPcapSpec()
	go out.Write(spec.header())
	r, err := Open("-", in)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range 3 {
		if r.Ready() {
			t.Error("ready before the packet was written")
		}
		two := append(spec.record(start, packet(60, byte(i))), spec.record(start, packet(70, byte(i)))...)
		go out.Write(two)
		var f forward.Frame
		if err := r.Next(&f); err != nil || !bytes.Equal(f.Data, packet(60, byte(i))) {
			t.Fatalf("packet %d: %x, %v", i, f.Data, err)
		}
		if !r.Ready() {
			t.Error("not ready although the second packet is in memory")
		}
		if err := r.Next(&f); err != nil || !bytes.Equal(f.Data, packet(70, byte(i))) {
			t.Fatalf("second packet %d: %x, %v", i, f.Data, err)
		}
	}
	out.Close()
	var f forward.Frame
	if err := r.Next(&f); !errors.Is(err, io.EOF) || !r.Ready() {
		t.Errorf("at the end: %v, ready %v", err, r.Ready())
	}
}

// TestOneByteAtATime reads through the smallest possible reads.
func TestOneByteAtATime(t *testing.T) {
	n := ng{binary.LittleEndian}
	for name, content := range map[string][]byte{
		"pcap":   newPcapSpec().file(packet(60, 1), packet(1514, 2)),
		"pcapng": bytes.Join([][]byte{n.section(), n.iface(1, 0), n.block(4, packet(99, 1)), n.enhanced(0, 1, packet(60, 1), 60)}, nil),
		"gzip":   gzipped(newPcapSpec().file(packet(60, 1), packet(1514, 2))),
	} {
		want, err := readBytes(t, content)
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewReader(iotest.OneByteReader(bytes.NewReader(content)), name)
		if err != nil {
			t.Fatal(name, err)
		}
		got, err := readAll(r)
		if err != nil {
			t.Fatal(name, err)
		}
		equalFrames(t, got, want)
	}
}

// TestLongestFrame lets the longest frames through that are believed, across
// the end of the window.
func TestLongestFrame(t *testing.T) {
	var packets [][]byte
	for i := range 12 {
		packets = append(packets, packet(maxFrame-i*977, byte(i)))
	}
	got, err := readBytes(t, newPcapSpec().file(packets...))
	if err != nil || len(got) != len(packets) {
		t.Fatalf("%d frames, %v", len(got), err)
	}
	for i := range got {
		if !bytes.Equal(got[i].Data, packets[i]) {
			t.Errorf("frame %d differs", i)
		}
	}
	if _, err = readBytes(t, newPcapSpec().file(make([]byte, maxFrame+1))); err == nil {
		t.Error("a longer one was read")
	}
}
