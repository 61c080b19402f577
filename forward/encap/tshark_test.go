package encap

import (
	"bytes"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// tshark is an implementation of everything here that shares nothing with it.

// tshark runs it on a capture and returns what it prints.
func tshark(t *testing.T, capture string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(testenv.NeedTool(t, "tshark"), append([]string{"-n", "-r", capture}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark %v: %v\n%s", args, err, stderr.String())
	}
	return out
}

// writeCapture writes frames, of any link types, into a pcapng file.
func writeCapture(t *testing.T, frames []forward.Frame) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "frames.pcapng"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	faces := map[forward.LinkType]int{}
	var w *pcapgo.NgWriter
	for _, f := range frames {
		if _, ok := faces[f.LinkType]; !ok {
			face := pcapgo.NgInterface{LinkType: layers.LinkType(f.LinkType), SnapLength: 1 << 18, TimestampResolution: 9}
			if w == nil {
				w, err = pcapgo.NewNgWriterInterface(file, face, pcapgo.DefaultNgWriterOptions)
			} else {
				_, err = w.AddInterface(face)
			}
			if err != nil {
				t.Fatal(err)
			}
			faces[f.LinkType] = len(faces)
		}
		info := gopacket.CaptureInfo{Timestamp: time.Unix(0, f.Time), CaptureLength: len(f.Data), Length: max(f.Length, len(f.Data)), InterfaceIndex: faces[f.LinkType]}
		if err := w.WritePacket(info, f.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}

// outerFrames are the datagrams of b as whole packets.
func outerFrames(t *testing.T, b *forward.Batch, c OuterConfig) []forward.Frame {
	t.Helper()
	o, err := NewOuter(c)
	if err != nil {
		t.Fatal(err)
	}
	var frames []forward.Frame
	for i, d := range b.Datagrams {
		packet := slices.Concat(make([]byte, o.Len()), b.Payload(i))
		o.Put(packet[:o.Len()], packet[o.Len():], d.Port)
		frames = append(frames, forward.Frame{Data: packet, LinkType: forward.LinkEthernet})
	}
	return frames
}

// pdmlProto is a protocol or a field as tshark -T pdml prints them.
type pdmlProto struct {
	Name   string      `xml:"name,attr"`
	Pos    int         `xml:"pos,attr"`
	Size   int         `xml:"size,attr"`
	Show   string      `xml:"show,attr"`
	Value  string      `xml:"value,attr"`
	Fields []pdmlProto `xml:"field"`
}

type pdmlPacket struct {
	Protos []pdmlProto `xml:"proto"`
}

func pdml(t *testing.T, capture string, args ...string) []pdmlPacket {
	t.Helper()
	var doc struct {
		Packets []pdmlPacket `xml:"packet"`
	}
	if err := xml.Unmarshal(tshark(t, capture, append([]string{"-T", "pdml"}, args...)...), &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Packets
}

// find returns all fields of that name below p.
func (p pdmlProto) find(name string) []pdmlProto {
	var found []pdmlProto
	for _, f := range p.Fields {
		if f.Name == name {
			found = append(found, f)
		}
		found = append(found, f.find(name)...)
	}
	return found
}

// tunnel returns the tunnel header of a packet and the protocols inside.
func (p pdmlPacket) tunnel(t *testing.T, kind Kind) (header pdmlProto, inside []pdmlProto) {
	t.Helper()
	i := slices.IndexFunc(p.Protos, func(p pdmlProto) bool { return p.Name == kind.String() })
	if i < 0 {
		t.Fatalf("tshark sees no %v", kind)
	}
	return p.Protos[i], p.Protos[i+1:]
}

// wantFields checks single fields, numbers in any notation.
func wantFields(t *testing.T, what string, p pdmlProto, want map[string]uint64) {
	t.Helper()
	for name, value := range want {
		found := p.find(name)
		if len(found) == 0 {
			t.Errorf("%s: tshark sees no %s", what, name)
			continue
		}
		if got, err := strconv.ParseUint(found[0].Show, 0, 64); err != nil || got != value {
			t.Errorf("%s: tshark reads %s as %q, want %#x", what, name, found[0].Show, value)
		}
	}
}

// TestTsharkReadsInnerFrames: for every link type, tshark finds the tunnel
// header, the VNI, and behind it the expected Ethernet frame, byte for byte.
func TestTsharkReadsInnerFrames(t *testing.T) {
	v6 := OuterConfig{Kind: GENEVE, Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00::2")}
	v4 := OuterConfig{Kind: VXLAN, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2")}
	for _, outer := range []OuterConfig{v4, v6} {
		e, err := New(Config{Kind: outer.Kind, VNI: 0xabcdef})
		if err != nil {
			t.Fatal(err)
		}
		var b forward.Batch
		var want [][]byte
		var names []string
		for _, tt := range normaliseCases() {
			if tt.why == 0 && len(tt.data) > 14 {
				e.Encapsulate(&b, &forward.Frame{Data: tt.data, Length: len(tt.data), LinkType: tt.lt})
				want = append(want, tt.want...)
				names = append(names, slices.Repeat([]string{tt.name}, len(tt.want))...)
			}
		}
		frames := outerFrames(t, &b, outer)
		packets := pdml(t, writeCapture(t, frames), "-o", "udp.check_checksum:TRUE")
		if len(packets) != len(want) {
			t.Fatalf("tshark sees %d packets, want %d", len(packets), len(want))
		}
		for i, p := range packets {
			header, inside := p.tunnel(t, outer.Kind)
			wantFields(t, names[i], header, map[string]uint64{outer.Kind.String() + ".vni": 0xabcdef})
			checkInside(t, names[i], inside, frames[i].Data, want[i])
			for _, udp := range p.Protos {
				if udp.Name == "udp" && udp.Pos < header.Pos {
					checkOuterUDP(t, names[i], udp, outer.Kind, b.Datagrams[i].Port)
				}
			}
		}
	}
}

// checkInside: the protocols inside the tunnel are those of the wanted frame.
func checkInside(t *testing.T, name string, inside []pdmlProto, packet, want []byte) {
	t.Helper()
	if len(inside) == 0 || inside[0].Name != "eth" {
		t.Errorf("%s: inside is %v", name, inside)
		return
	}
	if got := packet[inside[0].Pos:]; !bytes.Equal(got, want) {
		t.Errorf("%s: tshark finds\n%x, want\n%x", name, got, want)
	}
	for field, at := range map[string]int{"eth.dst": 0, "eth.src": 6} {
		if f := inside[0].find(field); len(f) == 0 || f[0].Value != hex.EncodeToString(want[at:at+6]) {
			t.Errorf("%s: tshark reads %s as %v", name, field, f)
		}
	}
}

func checkOuterUDP(t *testing.T, name string, udp pdmlProto, kind Kind, from uint16) {
	t.Helper()
	wantFields(t, name, udp, map[string]uint64{"udp.dstport": uint64(kind.Port()), "udp.srcport": uint64(from)})
	status := udp.find("udp.checksum.status")
	if want := map[Kind]string{VXLAN: "3", GENEVE: "1"}[kind]; len(status) != 1 || status[0].Show != want {
		t.Errorf("%s: UDP checksum status %v, want %s (1 good, 3 not present)", name, status, want)
	}
}

// comparedFields must read the same in a frame and in its Ethernet form.
func comparedFields() []string {
	names := strings.Fields(`ip.src ip.dst ip.id ip.len ip.ttl ip.proto ipv6.src ipv6.dst ipv6.plen ipv6.nxt
		tcp.srcport tcp.dstport tcp.seq_raw tcp.ack_raw tcp.flags tcp.window_size_value
		udp.srcport udp.dstport udp.length arp.opcode arp.src.proto_ipv4 arp.dst.proto_ipv4 icmp.type icmpv6.type
		dns.id vlan.id mpls.label stp.type`)
	var args []string
	for _, name := range names {
		args = append(args, "-e", name)
	}
	return append([]string{"-T", "fields", "-E", "occurrence=a", "-o", "ip.defragment:FALSE"}, args...)
}

// TestTsharkReadsTheSame compares what tshark reads in frames of all link types,
// hand-made ones and those of the shared captures, with what it reads in the
// Ethernet frames that they become.
func TestTsharkReadsTheSame(t *testing.T) {
	e, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	var before, after []forward.Frame
	var names []string
	add := func(name string, f forward.Frame) {
		var b forward.Batch
		if out := e.Encapsulate(&b, &f); out.Refusal != 0 || len(b.Datagrams) != 1 || len(f.Data) < 14 {
			return
		}
		before = append(before, f)
		after = append(after, forward.Frame{Data: b.Payload(0)[8:], LinkType: forward.LinkEthernet, Time: f.Time})
		names = append(names, name)
	}
	// tshark itself does not read these (the last: it takes its own host's order).
	unread := []string{"null, an EtherType", "null, Linux IPv6", "null, Windows IPv6", "SLL, 802.11", "PPP, neither", "FDDI, long LLC", "NFLOG, big endian", "C_HDLC, ARP"}
	for _, tt := range normaliseCases() {
		if !slices.Contains(unread, tt.name) && !slices.Contains(unreadByTshark(), tt.lt) {
			add(tt.name, forward.Frame{Data: tt.data, Length: len(tt.data), LinkType: tt.lt})
		}
	}
	if len(sharedCaptures()) > 0 {
		for _, name := range captures(t) {
			for i, f := range readCapture(t, name) {
				if f.LinkType != forward.LinkEthernet {
					add(fmt.Sprintf("%s, packet %d", filepath.Base(name), i+1), f)
				}
			}
		}
	}
	args := comparedFields()
	want := strings.Split(string(tshark(t, writeCapture(t, before), args...)), "\n")
	got := strings.Split(string(tshark(t, writeCapture(t, after), args...)), "\n")
	if len(got) != len(want) || len(got) != len(names)+1 {
		t.Fatalf("%d and %d lines for %d frames", len(got), len(want), len(names))
	}
	for i, name := range names {
		if got[i] != want[i] {
			t.Errorf("%s: tshark reads\n%q, and before\n%q", name, got[i], want[i])
		}
	}
	t.Logf("compared %d frames", len(names))
}

// TestTsharkReadsPresets: tshark reads the options of the clouds' presets, and
// with RawIP the bare packet behind them.
func TestTsharkReadsPresets(t *testing.T) {
	critical := Option{Class: 0xfffe, Type: 0x85, Data: []byte{1, 2, 3, 4}}
	for _, name := range Presets() {
		for _, rawIP := range []bool{false, true} {
			c, err := Preset(name)
			if err != nil {
				t.Fatal(err)
			}
			if c.Kind == VXLAN && rawIP || c.InVXLAN { // see TestTsharkReadsVXLANInGENEVE
				continue
			}
			c.VNI, c.RawIP = 0x1234, rawIP
			if name == "gcp-nsi" {
				c.SetOption(Option{Class: 0x0132, Type: 1, Data: []byte{0x12, 0x34, 0x56, 0x71}})
				c.SetOption(critical)
			}
			e, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			var b forward.Batch
			tcp4, tcp6 := vlanTag(tcp4Frame(100, 1), 7), tcp6Frame(100, 1)
			for _, frame := range [][]byte{tcp4, tcp6} {
				e.Encapsulate(&b, &forward.Frame{Data: frame, Length: len(frame), LinkType: forward.LinkEthernet})
			}
			frames := outerFrames(t, &b, OuterConfig{Kind: c.Kind, DstPort: c.DestinationPort(), Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2")})
			for i, p := range pdml(t, writeCapture(t, frames)) {
				header, inside := p.tunnel(t, c.Kind)
				if header.Size != c.HeaderLen() {
					t.Errorf("%s: header of %d bytes", name, header.Size)
				}
				wantFields(t, name, header, map[string]uint64{c.Kind.String() + ".vni": 0x1234})
				checkPresetOptions(t, name, header, c)
				outside, want := "eth", [][]byte{tcp4, tcp6}[i]
				if rawIP {
					outside, want = []string{"ip", "ipv6"}[i], want[[]int{18, 14}[i]:]
					wantFields(t, name, header, map[string]uint64{"geneve.proto_type": []uint64{0x0800, 0x86dd}[i]})
				}
				if inside[0].Name != outside || !bytes.Equal(frames[i].Data[inside[0].Pos:], want) {
					t.Errorf("%s, raw IP %v: inside is %s", name, rawIP, inside[0].Name)
				}
			}
		}
	}
}

func checkPresetOptions(t *testing.T, name string, header pdmlProto, c Config) {
	t.Helper()
	classes, types := header.find("geneve.option.class"), header.find("geneve.option.type")
	if len(classes) != len(c.Options) || len(types) != len(c.Options) {
		t.Errorf("%s: tshark sees %d options, want %d", name, len(classes), len(c.Options))
		return
	}
	critical := uint64(0)
	for i, o := range c.Options {
		if classes[i].Value != fmt.Sprintf("%04x", o.Class) || types[i].Value != fmt.Sprintf("%02x", o.Type) {
			t.Errorf("%s: option %d is %s:%s, want %v", name, i, classes[i].Value, types[i].Value, o)
		}
		if o.Critical() {
			critical = 1
		}
	}
	if c.Kind == GENEVE {
		wantFields(t, name, header, map[string]uint64{"geneve.flags.critical": critical, "geneve.flags.oam": 0})
	}
	if name == "gcp-nsi" {
		wantFields(t, name, header, map[string]uint64{"geneve.option.gcp.vnid": 0x1234567, "geneve.option.gcp.direction": 1})
	}
}

// TestTsharkReadsSegments: tshark finds no fault in re-segmented super-frames.
func TestTsharkReadsSegments(t *testing.T) {
	e, err := New(Config{ResegmentAll: true})
	if err != nil {
		t.Fatal(err)
	}
	var frames []forward.Frame
	var want []byte
	for i, super := range [][]byte{superFrame4(40000, 0x19), superFrame6(40000, 0x19), vlanTag(superFrame4(20000, 0x18), 5)} {
		super[len(super)-1] = byte(i)
		var b forward.Batch
		e.Encapsulate(&b, &forward.Frame{Data: super, Length: len(super), LinkType: forward.LinkEthernet})
		for _, p := range payloads(&b, 8) {
			frames = append(frames, forward.Frame{Data: p, LinkType: forward.LinkEthernet})
		}
		want = append(want, super[bytes.Index(super, payloadBytes(64)):]...)
	}
	out := tshark(t, writeCapture(t, frames), "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-T", "fields",
		"-e", "tcp.checksum.status", "-e", "ip.checksum.status", "-e", "tcp.payload")
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	var got []byte
	for i, line := range lines {
		f := strings.Split(line, "\t")
		if f[0] != "1" || f[1] != "1" && f[1] != "" {
			t.Errorf("segment %d: checksum status TCP %q, IP %q, want 1 (good)", i, f[0], f[1])
		}
		payload, err := hex.DecodeString(f[2])
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, payload...)
	}
	if len(lines) != len(frames) || !bytes.Equal(got, want) {
		t.Errorf("tshark reads %d segments of %d, %d payload bytes of %d", len(lines), len(frames), len(got), len(want))
	}
}
