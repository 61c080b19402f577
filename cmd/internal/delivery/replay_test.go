package delivery

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// The run's VNI in these tests, and the bytes before an inner frame in what File
// writes: outer Ethernet, IPv4 and UDP, and VXLAN.
const (
	testVNI   = 4242
	outerLen  = 14 + 20 + 8
	vxlanLen  = 8
	etherType = 12 // where the EtherType of a synthetic header begins
)

// captured is a frame of a capture, copied.
type captured struct {
	data []byte
	link forward.LinkType
}

// readCapture returns every frame up to the end or the damage.
func readCapture(t *testing.T, name string) []captured {
	t.Helper()
	r, err := pcapfile.Open(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var list []captured
	var f forward.Frame
	for r.Next(&f) == nil {
		list = append(list, captured{bytes.Clone(f.Data), f.LinkType})
	}
	return list
}

// captures lists the shared captures that can be replayed.
func captures(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(testenv.Shared(t, "pcaps"), "*.pcap*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	return names
}

// played replays a capture as fast as it goes, or as set says, and returns the
// report. Damage of the capture is no failure.
func played(t *testing.T, name string, set func(*Replay), to Receiver) Document {
	t.Helper()
	r := &Replay{Config: encap.Config{Kind: encap.VXLAN, VNI: testVNI, MTU: encap.DefaultMTU}, Pace: pace.MaxSpec(), CPU: transmit.CPUAuto, Lossless: watch.Auto}
	if set != nil {
		set(r)
	}
	doc, err := play(t, r, []string{name}, 1, to)
	var damage *pcapfile.DamageError
	if doc == nil || err != nil && !errors.As(err, &damage) {
		t.Fatal(err)
	}
	return *doc
}

// play opens captures and replays them.
func play(t *testing.T, r *Replay, names []string, loop int, to Receiver) (*Document, error) {
	t.Helper()
	var err error
	if r.Captures, err = OpenCaptures(t.Context(), names, loop, strings.NewReader(""), ""); err != nil {
		return nil, err
	}
	defer r.Captures.Close()
	run, err := r.Open(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	return run.Send(t.Context())
}

// refused reports captures of a link type that Ethernet cannot carry.
func refused(t *testing.T, name string) bool {
	t.Helper()
	for _, f := range readCapture(t, name) {
		if encap.Supported(f.link) {
			return false
		}
	}
	return len(readCapture(t, name)) > 0
}

// Every capture comes out of a file as it went in: inside, in order, none missing.
func TestEveryCaptureIntoAFile(t *testing.T) {
	for _, name := range captures(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out.pcap")
			if refused(t, name) {
				if _, err := OpenCaptures(t.Context(), []string{name}, 1, nil, ""); err == nil || !strings.Contains(err.Error(), "IEEE802_15_4") {
					t.Errorf("got %v", err)
				}
				return
			}
			doc := played(t, name, nil, File{Path: out})
			compareInner(t, readCapture(t, name), readCapture(t, out), doc.Report)
		})
	}
}

// compareInner checks each written packet against the frame it was made from.
// Ethernet is as it was; of other link types what follows the synthetic header
// is a part of the frame.
func compareInner(t *testing.T, in, out []captured, rep forward.Report) {
	t.Helper()
	if want := rep.FramesRead - rep.FramesRefused - rep.FramesResegmented + rep.Segments; uint64(len(out)) != want || rep.FramesRead != uint64(len(in)) {
		t.Fatalf("%d frames, read %d, %d packets written, want %d", len(in), rep.FramesRead, len(out), want)
	}
	next := 0 // the first frame that the next packet may come from
	for i, packet := range out {
		inner := packet.data[outerLen+vxlanLen:]
		for next < len(in) && !carries(in[next], inner) {
			next++
		}
		if next == len(in) {
			t.Fatalf("packet %d is in no frame, or not in order:\n% .60x", i+1, inner)
		}
		if rep.FramesResegmented == 0 && in[next].link != forward.LinkIEEE80211 {
			next++ // one frame, one packet
		}
	}
}

func carries(f captured, inner []byte) bool {
	const etherLen, headers = 14, 14 + 20 + 20
	if f.link == forward.LinkEthernet {
		if len(f.data) > headers && len(inner) > headers && f.data[etherLen] == 0x45 && f.data[etherLen+2]|f.data[etherLen+3] == 0 {
			return bytes.Contains(f.data, inner[headers:]) // its host left the IP length to the card: the headers are put right
		}
		return bytes.Equal(f.data, inner) || len(f.data) > encap.DefaultMaxDatagram-vxlanLen
	}
	return bytes.Contains(f.data, inner[etherType+2:])
}
