package delivery

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
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
	if f.link == forward.LinkEthernet {
		return bytes.Equal(f.data, inner) || len(f.data) > encap.DefaultMaxDatagram-vxlanLen
	}
	return bytes.Contains(f.data, inner[etherType+2:])
}

// receiver is a UDP socket in a network namespace behind a bridge, as a
// container's is.
type receiver struct {
	host way.Host
	conn *net.UDPConn
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	c := testenv.NewContainer(t, 65535)
	host, err := way.ParseTo(c.Addr.String(), 4789)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{host: host}
	c.Inside(t, func() error { r.conn = testenv.ListenUDP(t, ":4789", 4<<20); return nil })
	return r
}

// drain drops what an earlier test left in the socket.
func (r *receiver) drain() {
	buf := make([]byte, 1)
	for {
		_ = r.conn.SetReadDeadline(time.Now())
		if _, err := r.conn.Read(buf); err != nil {
			return
		}
	}
}

// collect reads n datagrams, or what has come after two silent seconds.
func (r *receiver) collect(ctx context.Context, n int, list chan<- [][]byte) {
	var got [][]byte
	buf := make([]byte, 1<<16)
	for len(got) < n && ctx.Err() == nil {
		_ = r.conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		size, err := r.conn.Read(buf)
		if err != nil {
			break
		}
		got = append(got, bytes.Clone(buf[:size]))
	}
	list <- got
}

// Every capture arrives in a namespace by both transmissions exactly as -w
// wrote it: every datagram, byte for byte, in order.
func TestEveryCaptureThroughANamespace(t *testing.T) {
	r := newReceiver(t)
	for _, name := range captures(t) {
		if refused(t, name) {
			continue
		}
		file := filepath.Join(t.TempDir(), "out.pcap")
		played(t, name, nil, File{Path: file})
		want := readCapture(t, file)
		for _, tx := range []transmit.Mode{transmit.Packet, transmit.UDP} {
			t.Run(filepath.Base(name)+"/"+string(tx), func(t *testing.T) {
				r.drain()
				list := make(chan [][]byte, 1)
				go r.collect(t.Context(), len(want), list)
				// At a rate that any receiver takes: this is about order and bytes.
				played(t, name, func(p *Replay) {
					p.Tx, p.Pace = tx, pace.Spec{Pace: pace.AsRecorded, Speed: "1x", PPS: 15000, Given: map[string]bool{"pps": true}}
				}, Monitor{Host: r.host})
				comparePayloads(t, <-list, want)
			})
		}
	}
}

func comparePayloads(t *testing.T, got [][]byte, want []captured) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if !bytes.Equal(got[i], want[i].data[outerLen:]) {
			t.Fatalf("datagram %d of %d differs, %d arrived:\ngot  % .60x\nwant % .60x", i+1, len(want), len(got), got[i], want[i].data[outerLen:])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d datagrams arrived, want %d", len(got), len(want))
	}
}
