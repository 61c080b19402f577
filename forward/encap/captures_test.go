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
	"github.com/gopacket/gopacket/layers"
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
			if f.LinkType == forward.LinkEthernet && out.Refusal == 0 && out.Flags&forward.LengthRepaired == 0 && string(b.Payload(0)[8:]) != string(f.Data) {
				t.Errorf("%s, packet %d: changed", filepath.Base(name), i+1)
			}
		}
	}
}

// Both directions of every flow of every shared capture have one port. What a flow
// is, tunnels looked into, says an independent decoder.
func TestFlowsOfCapturesKeepTheirPort(t *testing.T) {
	flows, both := 0, 0
	for _, name := range captures(t) {
		e, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		type seen struct {
			port   uint16
			ways   map[string]bool
			packet int
		}
		known := map[string]*seen{}
		var b forward.Batch
		for i, f := range readCapture(t, name) {
			b.Reset()
			if out := e.Encapsulate(&b, &f); out.Refusal != 0 || len(b.Datagrams) != 1 {
				continue
			}
			flow, way, ok := innermost(b.Payload(0)[8:])
			if !ok {
				continue
			}
			s := known[flow]
			if s == nil {
				s = &seen{b.Datagrams[0].Port, map[string]bool{}, i + 1}
				known[flow] = s
			}
			s.ways[way] = true
			if s.port != b.Datagrams[0].Port {
				t.Errorf("%s: packets %d and %d of %s have the ports %d and %d", filepath.Base(name), s.packet, i+1, flow, s.port, b.Datagrams[0].Port)
			}
		}
		for _, s := range known {
			if flows++; len(s.ways) == 2 {
				both++
			}
		}
	}
	t.Logf("%d flows, %d of them in both directions", flows, both)
	if both < 1000 {
		t.Errorf("only %d flows in both directions", both)
	}
}

// innermost names the flow of the innermost TCP segment or UDP datagram of a frame
// as gopacket decodes it, and its direction. It fails for fragments, for what it does
// not see to the end, and for tunnels that it does not know.
func innermost(frame []byte) (flow, way string, ok bool) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	var network gopacket.Flow
	var ends gopacket.Flow
	var proto gopacket.LayerType
	for _, layer := range p.Layers() {
		switch l := layer.(type) {
		case *layers.IPv4:
			network, proto = l.NetworkFlow(), 0
			if l.Flags&layers.IPv4MoreFragments != 0 || l.FragOffset > 0 {
				return "", "", false
			}
		case *layers.IPv6:
			network, proto = l.NetworkFlow(), 0
		case *layers.IPv6Fragment:
			return "", "", false
		case *layers.TCP:
			ends, proto = l.TransportFlow(), layers.LayerTypeTCP
		case *layers.UDP:
			ends, proto = l.TransportFlow(), layers.LayerTypeUDP
			if l.SrcPort == portTeredo || l.DstPort == portTeredo {
				return "", "", false
			}
		}
	}
	if proto == 0 || p.ErrorLayer() != nil {
		return "", "", false
	}
	there := network.String() + " " + ends.String()
	back := network.Reverse().String() + " " + ends.Reverse().String()
	return proto.String() + " " + min(there, back), there, true
}
