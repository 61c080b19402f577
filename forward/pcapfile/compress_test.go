package pcapfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// packed is b as a program compresses it.
func packed(t *testing.T, b []byte, tool string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(testenv.NeedTool(t, tool), args...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// skippable is a frame that zstd and lz4 pass over.
func skippable(kind byte, content string) []byte {
	head := append([]byte{0x50 | kind}, magicSkippable...)
	return append(binary.LittleEndian.AppendUint32(head, uint32(len(content))), content...)
}

// halves are two pieces of a capture of 2000 packets.
func halves() (whole, first, second []byte) {
	spec := newPcapSpec()
	whole = spec.header()
	for i := range 2000 {
		whole = append(whole, spec.record(start+int64(i), packet(60+i%1400, byte(i)))...)
	}
	return whole, whole[:len(whole)/2], whole[len(whole)/2:]
}

// TestCompressions reads what the programs write, in one piece and in several, with what
// is passed over before, between and behind.
func TestCompressions(t *testing.T) {
	whole, first, second := halves()
	want, err := readBytes(t, whole)
	if err != nil {
		t.Fatal(err)
	}
	padding := make([]byte, 1000)
	skip := skippable(3, "sixteen bytes ...")
	tests := map[string][]byte{
		"gzip, two members and padding": slices.Concat(gzipped(first), gzipped(second), padding),
		"gzip, padding between":         slices.Concat(gzipped(first), padding, gzipped(second)),
		"gzip, then zstd":               slices.Concat(gzipped(first), zstded(t, second)),
		"gzip, then xz":                 slices.Concat(gzipped(first), packed(t, second, "xz", "-c")),
		"zstd, two frames":              slices.Concat(zstded(t, first), zstded(t, second)),
		"pzstd":                         slices.Concat(skip, zstded(t, first), skip, skip, zstded(t, second), skip),
		"zstd, long":                    packed(t, whole, "zstd", "-c", "--long=27"),
		"xz":                            packed(t, whole, "xz", "-c"),
		"xz, two streams and padding":   slices.Concat(packed(t, first, "xz", "-c"), packed(t, second, "xz", "-c"), padding[:8]),
		"xz, blocks":                    packed(t, whole, "xz", "-c", "-9e", "-T2", "--block-size=100000"),
		"bzip2":                         packed(t, whole, "bzip2", "-c"),
		"bzip2, two streams":            slices.Concat(packed(t, first, "bzip2", "-c"), packed(t, second, "bzip2", "-1c")),
		"lz4":                           packed(t, whole, "lz4", "-c"),
		"lz4, two frames":               slices.Concat(packed(t, first, "lz4", "-9c"), packed(t, second, "lz4", "-c", "-BD")),
		"lz4, a skippable frame first":  slices.Concat(skippable(0, "x"), packed(t, whole, "lz4", "-c")),
		"lz4, legacy":                   packed(t, whole, "lz4", "-lc"),
	}
	for name, content := range tests {
		got, err := readBytes(t, content)
		if err != nil || len(got) != len(want) {
			t.Errorf("%s: %d frames, want %d: %v", name, len(got), len(want), err)
			continue
		}
		equalFrames(t, got, want)
		plain, was, err := Uncompress(bytes.NewReader(content))
		if err != nil || !was {
			t.Fatalf("%s: %v, %v", name, was, err)
		}
		if all, err := io.ReadAll(plain); err != nil || !bytes.Equal(all, whole) {
			t.Errorf("%s: %d bytes, want %d: %v", name, len(all), len(whole), err)
		}
		if err := plain.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestDamagedCompressions: what comes before the damage is read, then it is named.
func TestDamagedCompressions(t *testing.T) {
	whole, first, _ := halves()
	for name, content := range map[string][]byte{
		"gzip": gzipped(whole), "zstd": packed(t, whole, "zstd", "-c"), "xz": packed(t, whole, "xz", "-c"),
		"bzip2": packed(t, whole, "bzip2", "-1c"), "lz4": packed(t, whole, "lz4", "-cB4"),
	} {
		got, err := readBytes(t, content[:len(content)-len(content)/3])
		var damage *DamageError
		if !errors.As(err, &damage) || !damage.Compressed || damage.Packet != int64(len(got)+1) {
			t.Errorf("%s, cut: %d frames: %v", name, len(got), err)
		}
	}
	_, err := readBytes(t, append(gzipped(whole), "something else"...))
	if err == nil || !strings.Contains(err.Error(), "what follows the compressed data is neither padding nor compressed; it looks like text") {
		t.Errorf("got %v", err)
	}
	_, err = NewReader(bytes.NewReader(append(skippable(1, "x"), first...)), "x")
	if err == nil || !strings.Contains(err.Error(), "nothing follows its skippable frames") {
		t.Errorf("got %v", err)
	}
	_, err = NewReader(bytes.NewReader(skippable(1, "x")[:9]), "x")
	if err == nil {
		t.Error("nothing was read")
	}
}

// TestPlainIsLeftAlone by Uncompress.
func TestPlainIsLeftAlone(t *testing.T) {
	for _, content := range []string{"", "short", "longer than a magic number"} {
		plain, was, err := Uncompress(strings.NewReader(content))
		if err != nil || was {
			t.Fatalf("%q: %v, %v", content, was, err)
		}
		if all, err := io.ReadAll(plain); err != nil || string(all) != content {
			t.Errorf("%q became %q: %v", content, all, err)
		}
	}
}

// TestGluedCaptures: a capture that was appended to another is read on where it begins,
// as a segment of its own.
func TestGluedCaptures(t *testing.T) {
	a, b := packet(60, 1), packet(61, 2)
	little, big := newPcapSpec(), newPcapSpec()
	big.order, big.magic, big.link = binary.BigEndian, magicMicros, 101
	modified := newPcapSpec()
	modified.magic = magicModified
	n := ng{little.order}
	blocks := bytes.Join([][]byte{n.section(), n.iface(1, 0), n.enhanced(0, 5, a, 60)}, nil)
	whole := func(f forward.Frame, segment int) forward.Frame { f.Segment = segment; return f }
	micros := start / 1000 * 1000
	tests := map[string]struct {
		content []byte
		want    []forward.Frame
	}{
		"pcap, pcap":   {slices.Concat(little.file(a), big.file(b)), []forward.Frame{frame(a, 60, start, 1), whole(frame(b, 61, micros, 101), 1)}},
		"pcap, empty":  {slices.Concat(little.file(a), little.file(), modified.file(b)), []forward.Frame{frame(a, 60, start, 1), whole(frame(b, 61, micros, 1), 2)}},
		"pcap, pcapng": {slices.Concat(modified.file(a), blocks), []forward.Frame{frame(a, 60, micros, 1), whole(frame(a, 60, 5000, 1), 1)}},
		"pcapng, pcap": {slices.Concat(blocks, big.file(b)), []forward.Frame{frame(a, 60, 5000, 1), whole(frame(b, 61, micros, 101), 1)}},
		"pcapng twice": {slices.Concat(blocks, blocks), []forward.Frame{frame(a, 60, 5000, 1), frame(a, 60, 5000, 1)}},
		"gzip":         {slices.Concat(gzipped(little.file(a)), gzipped(big.file(b))), []forward.Frame{frame(a, 60, start, 1), whole(frame(b, 61, micros, 101), 1)}},
		"gzip, plain":  {slices.Concat(gzipped(little.file(a)), big.file(b)), []forward.Frame{frame(a, 60, start, 1), whole(frame(b, 61, micros, 101), 1)}},
	}
	for name, test := range tests {
		got, err := readBytes(t, test.content)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		equalFrames(t, got, test.want)
	}
}

// TestGluedCapturesAmongOthers: segments go on growing, and link types are known.
func TestGluedCapturesAmongOthers(t *testing.T) {
	big := newPcapSpec()
	big.link = 101
	names := []string{
		writeFile(t, "glued.pcap", slices.Concat(newPcapSpec().file(packet(60, 1)), big.file(packet(60, 2)))),
		writeFile(t, "other.pcap", newPcapSpec().file(packet(60, 3))),
	}
	src, err := OpenAll(names, Options{Loop: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	got, err := readAll(src)
	if err != nil {
		t.Fatal(err)
	}
	var segments []int
	for _, f := range got {
		segments = append(segments, f.Segment)
	}
	if !slices.Equal(segments, []int{0, 1, 2, 3, 4, 5}) {
		t.Errorf("segments %v", segments)
	}
}

// TestWhatIsGluedAndDamaged is damage at its place.
func TestWhatIsGluedAndDamaged(t *testing.T) {
	one := newPcapSpec().file(packet(60, 1))
	got, err := readBytes(t, slices.Concat(one, gzipped(one)))
	var damage *DamageError
	if len(got) != 1 || !errors.As(err, &damage) || damage.Offset != int64(len(one)) || !strings.Contains(err.Error(), "compressed data instead of a packet") {
		t.Errorf("%d frames: %v", len(got), err)
	}
	got, err = readBytes(t, slices.Concat(one, one[:20]))
	if len(got) != 1 || !errors.As(err, &damage) {
		t.Errorf("%d frames: %v", len(got), err)
	}
}

// TestWhatIsNoCaptureIsNamed by what it looks like.
func TestWhatIsNoCaptureIsNamed(t *testing.T) {
	record := append([]byte{0, 0, 0, 0, 1, 0xf1, 0x53, 0x65, 2, 4, 0, 32}, make([]byte, 20)...)
	for content, want := range map[string]string{
		"%PDF-1.7\n%\xe2\xe3\xcf\xd3":                "a PDF document",
		"\n<!DOCTYPE html>\n<html>":                  "an HTML page: was it downloaded from the right address?",
		"\x7fELF\x02\x01\x01\x00":                    "an ELF program",
		"version https://git-lfs.github.com/spec/v":  "a pointer of Git LFS: git lfs pull fetches the file",
		`{"timestamp": 1}`:                           "JSON",
		"1700000000.1\tCx\t10.0.0.1":                 "text",
		"snoop\x00\x00\x00\x00\x00\x00\x02":          "a snoop capture: convert it with editcap -F pcapng",
		"GMBU\x00\x02":                               "a Network Monitor capture: convert it with editcap -F pcapng",
		string(record) + string(record):              "an ERF capture: convert it with editcap -F pcapng",
		"PK\x03\x04\x14\x00":                         "a ZIP archive: unpack it first",
		"dir/" + string(make([]byte, 253)) + "ustar": "a tar archive: unpack it first",
	} {
		_, err := Open(writeFile(t, "what", []byte(content)), nil)
		if err == nil || !strings.HasSuffix(err.Error(), "not a pcap or pcapng capture; it looks like "+want) {
			t.Errorf("%.20q: %v, want %s", content, err, want)
		}
	}
}

// TestEditcapConvertsWhatIsNoCapture as is said: what it makes of a snoop capture can be
// read.
func TestEditcapConvertsWhatIsNoCapture(t *testing.T) {
	editcap := testenv.NeedTool(t, "editcap")
	name := writeFile(t, "a.pcap", newPcapSpec().file(packet(60, 1), packet(61, 2)))
	for format, ending := range map[string]string{"snoop": "snoop", "netmon2": "Network Monitor", "ngsniffer": "Sniffer"} {
		foreign := name + "." + format
		if out, err := exec.Command(editcap, "-F", format, name, foreign).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if _, err := Open(foreign, nil); err == nil || !strings.Contains(err.Error(), ending) || !strings.Contains(err.Error(), "editcap -F pcapng") {
			t.Errorf("%s: %v", format, err)
		}
		if out, err := exec.Command(editcap, "-F", "pcapng", foreign, foreign+".pcapng").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		r, err := Open(foreign+".pcapng", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(r); err != nil || len(got) != 2 {
			t.Errorf("%s: %d frames: %v", format, len(got), err)
		}
		r.Close()
	}
}
