package encap

import (
	"bufio"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// readCapture reads frames with gopacket's readers, which share no code with
// this project's, up to the first error.
func readCapture(tb testing.TB, name string) []forward.Frame {
	tb.Helper()
	file, err := os.Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	var r io.Reader = bufio.NewReader(file)
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(r); err != nil {
			tb.Fatal(err)
		}
	}
	if strings.Contains(name, ".pcapng") {
		return readPcapng(tb, r)
	}
	source, err := pcapgo.NewReader(r)
	if err != nil {
		return nil
	}
	var frames []forward.Frame
	for {
		data, info, err := source.ReadPacketData()
		if err != nil {
			return frames
		}
		frames = append(frames, frameOf(data, info, forward.LinkType(source.LinkType())))
	}
}

func readPcapng(tb testing.TB, r io.Reader) []forward.Frame {
	tb.Helper()
	source, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		tb.Fatal(err)
	}
	var frames []forward.Frame
	for {
		data, info, err := source.ReadPacketData()
		if err != nil {
			return frames
		}
		face, err := source.Interface(info.InterfaceIndex)
		if err != nil {
			tb.Fatal(err)
		}
		frames = append(frames, frameOf(data, info, forward.LinkType(face.LinkType)))
	}
}

func frameOf(data []byte, info gopacket.CaptureInfo, lt forward.LinkType) forward.Frame {
	return forward.Frame{Data: data, Length: info.Length, Time: info.Timestamp.UnixNano(), LinkType: lt}
}

// captures lists the shared captures.
func captures(tb testing.TB) []string {
	tb.Helper()
	all, err := filepath.Glob(filepath.Join(testenv.Shared(tb, "pcaps"), "*.pcap*"))
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

// sharedCaptures lists the shared captures, none where there are none: fuzz
// targets do without.
func sharedCaptures() []string {
	root := os.Getenv("ZEEKDEMO_SHARED")
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared")
	}
	names, err := filepath.Glob(filepath.Join(root, "pcaps", "*.pcap*"))
	if err != nil {
		return nil // the pattern is bad, as a path with brackets is
	}
	return names
}

// captureSeeds are the first frames of each shared capture, none where there
// are no shared captures.
func captureSeeds(f *testing.F) []forward.Frame {
	f.Helper()
	names := sharedCaptures()
	var seeds []forward.Frame
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || info.Size() > 100<<10 {
			continue
		}
		frames := readCapture(f, name)
		seeds = append(seeds, frames[:min(len(frames), 4)]...)
	}
	return seeds
}

// Every frame of every shared capture passes, but for those of which the table
// says why not; Ethernet passes unchanged.
func TestCaptures(t *testing.T) {
	refused := map[string]forward.Refusal{ // any of its frames may be refused as this
		"ieee80211.15.4.pcap": forward.RefusedLinkType,
	}
	for _, name := range captures(t) {
		e, err := New(Config{VNI: 5})
		if err != nil {
			t.Fatal(err)
		}
		var b forward.Batch
		for i, f := range readCapture(t, name) {
			b.Reset()
			out := e.Encapsulate(&b, &f)
			checkBatch(t, &b, out, 0, 0, 8)
			if out.Refusal != 0 && out.Refusal != refused[filepath.Base(name)] {
				t.Errorf("%s, packet %d: %v", filepath.Base(name), i+1, out.Refusal)
			}
			if out.Flags&forward.CutBySnap != 0 != (f.Length > len(f.Data)) {
				t.Errorf("%s, packet %d: %d of %d bytes, outcome %+v", filepath.Base(name), i+1, len(f.Data), f.Length, out)
			}
			if f.LinkType == forward.LinkEthernet && out.Refusal == 0 && string(b.Payload(0)[8:]) != string(f.Data) {
				t.Errorf("%s, packet %d: changed", filepath.Base(name), i+1)
			}
		}
	}
}
