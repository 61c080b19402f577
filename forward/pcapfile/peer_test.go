package pcapfile

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// sharedCaptures are the paths of all shared captures.
func sharedCaptures(tb testing.TB) []string {
	tb.Helper()
	names, err := filepath.Glob(filepath.Join(testenv.Shared(tb, "pcaps"), "*.pcap*"))
	if err != nil || len(names) == 0 {
		tb.Fatalf("no captures: %v", err)
	}
	return names
}

// peerReader is what both of pcapgo's readers do.
type peerReader interface {
	ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
}

// openPeer opens a capture with pcapgo; link gives a packet's link type.
func openPeer(r io.Reader) (peer peerReader, link func(gopacket.CaptureInfo) layers.LinkType, err error) {
	in := bufio.NewReader(r)
	if head, _ := in.Peek(2); bytes.Equal(head, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, nil, err
		}
		in = bufio.NewReader(z)
	}
	if head, _ := in.Peek(4); isPcapng(head) {
		p, err := pcapgo.NewNgReader(in, pcapgo.NgReaderOptions{WantMixedLinkType: true})
		return p, func(ci gopacket.CaptureInfo) layers.LinkType { return ci.AncillaryData[0].(layers.LinkType) }, err
	}
	p, err := pcapgo.NewReader(in)
	return p, func(gopacket.CaptureInfo) layers.LinkType { return p.LinkType() }, err
}

// TestPeerPcapgo compares every frame of every shared capture with what
// gopacket reads.
func TestPeerPcapgo(t *testing.T) {
	for _, name := range sharedCaptures(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			peer, link, err := openPeer(f)
			if err != nil {
				t.Fatal(err)
			}
			r, err := Open(name, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			comparePeer(t, r, peer, link)
		})
	}
}

func comparePeer(t *testing.T, r *Reader, peer peerReader, link func(gopacket.CaptureInfo) layers.LinkType) {
	t.Helper()
	for n := 1; ; n++ {
		var f forward.Frame
		err := r.Next(&f)
		data, info, peerErr := peer.ReadPacketData()
		if err != nil || peerErr != nil {
			if !errors.Is(err, io.EOF) || !errors.Is(peerErr, io.EOF) {
				t.Errorf("packet %d: %v, the peer says %v", n, err, peerErr)
			}
			return
		}
		if !bytes.Equal(f.Data, data) || f.Length != info.Length || f.Time != info.Timestamp.UnixNano() || int(f.LinkType) != int(link(info)) {
			t.Fatalf("packet %d: %d bytes of %d at %d, link type %d; the peer has %d of %d at %d, %d", n,
				len(f.Data), f.Length, f.Time, f.LinkType, len(data), info.Length, info.Timestamp.UnixNano(), link(info))
		}
	}
}

// TestPeerTshark compares number, times and lengths with what tshark reads.
func TestPeerTshark(t *testing.T) {
	tshark := testenv.NeedTool(t, "tshark")
	for _, name := range sharedCaptures(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			cmd := exec.Command(tshark, "-n", "-r", name, "--disable-protocol", "eth", "-T", "fields", "-E", "separator=/s",
				"-e", "frame.time_epoch", "-e", "frame.cap_len", "-e", "frame.len")
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			r, err := Open(name, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			frames, err := readAll(r)
			if err != nil {
				t.Fatal(err)
			}
			var ours strings.Builder
			for _, f := range frames {
				fmt.Fprintf(&ours, "%d.%09d %d %d\n", f.Time/1e9, f.Time%1e9, len(f.Data), f.Length)
			}
			if got, want := ours.String(), string(out); got != want {
				t.Errorf("%d lines, tshark has %d; first difference at line %d", strings.Count(got, "\n"), strings.Count(want, "\n"), firstDifference(got, want))
			}
		})
	}
}

func firstDifference(a, b string) int {
	other := strings.Split(b, "\n")
	for i, line := range strings.Split(a, "\n") {
		if i >= len(other) || line != other[i] {
			return i + 1
		}
	}
	return 0
}

// TestPeerWriters reads what tshark's editcap and mergecap make of captures:
// every format they write, and several interfaces in one file.
func TestPeerWriters(t *testing.T) {
	editcap, mergecap := testenv.NeedTool(t, "editcap"), testenv.NeedTool(t, "mergecap")
	base := testenv.Shared(t, "pcaps", "bro.org.pcap")
	raw := testenv.Shared(t, "pcaps", "rotation.pcap")
	want := readFile(t, base)
	for _, format := range []string{"pcap", "nsecpcap", "modpcap", "pcapng"} {
		name := filepath.Join(t.TempDir(), format)
		if out, err := exec.Command(editcap, "-F", format, base, name).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Run(format, func(t *testing.T) { equalFrames(t, readFile(t, name), want) })
	}
	t.Run("merged", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "merged")
		if out, err := exec.Command(mergecap, "-a", "-F", "pcapng", "-w", name, base, raw).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		equalFrames(t, readFile(t, name), append(want, readFile(t, raw)...))
	})
}

// readFile reads all frames of a file.
func readFile(tb testing.TB, name string) []forward.Frame {
	tb.Helper()
	r, err := Open(name, nil)
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	frames, err := readAll(r)
	if err != nil {
		tb.Fatal(err)
	}
	return frames
}
