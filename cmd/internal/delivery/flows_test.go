package delivery

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// judged is what tshark, which shares no code with the forwarder, sees in a frame:
// the flow to which the innermost packet of it belongs, or the one that an ICMP error
// quotes, and of which datagram the frame is a fragment.
type judged struct {
	flow     string // ends and protocol, the same both ways; "": none, no IP
	datagram string // "": no fragment
	first    bool   // of a datagram's fragments
}

// judgeFields are asked of tshark: fields that occur once in each header of a kind.
var judgeFields = []string{
	"frame.protocols", "ip.src", "ip.dst", "ip.proto", "ip.id", "ip.flags.mf", "ip.frag_offset", "ipv6.src", "ipv6.dst",
	"ipv6.fraghdr.ident", "ipv6.fraghdr.more", "ipv6.fraghdr.offset", "tcp.srcport", "tcp.dstport", "udp.srcport", "udp.dstport",
	"sctp.srcport", "sctp.dstport",
}

// identify asks tshark about Ethernet frames.
func identify(t *testing.T, frames [][]byte) []judged {
	t.Helper()
	tshark := testenv.NeedTool(t, "tshark")
	if len(frames) == 0 {
		return nil
	}
	name := filepath.Join(t.TempDir(), "inside.pcap")
	writeFrames(t, name, frames)
	args := []string{"-n", "-r", name, "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE", "-T", "fields", "-E", "separator=|", "-E", "aggregator=;"}
	for _, field := range judgeFields {
		args = append(args, "-e", field)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(tshark, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if err != nil || len(lines) != len(frames) {
		t.Fatalf("tshark has %d lines of %d frames: %v: %s", len(lines), len(frames), err, &stderr)
	}
	judgements := make([]judged, 0, len(lines))
	for _, line := range lines {
		judgements = append(judgements, newHeaders(line).judged())
	}
	return judgements
}

func writeFrames(t *testing.T, name string, frames [][]byte) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := pcapgo.NewWriter(f)
	if err := w.WriteFileHeader(1<<18, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for _, frame := range frames {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(0, 0), CaptureLength: len(frame), Length: len(frame)}
		if err := w.WritePacket(info, frame); err != nil {
			t.Fatal(err)
		}
	}
}

// headers are the values of each field of a frame, in the order of its headers.
type headers map[string][]string

func newHeaders(line string) headers {
	h := headers{}
	for i, value := range strings.Split(line, "|") {
		if value != "" {
			h[judgeFields[i]] = strings.Split(value, ";")
		}
	}
	return h
}

// take returns a field's value in the next header of its kind.
func (h headers) take(field string) string {
	values := h[field]
	if len(values) == 0 {
		return ""
	}
	h[field] = values[1:]
	return values[0]
}

// judged walks over the headers.
func (h headers) judged() (j judged) {
	var src, dst, transport string
	ports := ""
	for _, protocol := range strings.Split(h.take("frame.protocols"), ":") {
		switch protocol {
		case "eth":
			src, transport, ports = "", "", "" // of an inner frame what is in it counts, IP or not
		case "ip":
			src, dst, transport, ports = h.take("ip.src"), h.take("ip.dst"), "proto "+h.take("ip.proto"), ""
			j.fragment(src, dst, transport+" "+h.take("ip.id"), h.take("ip.flags.mf"), h.take("ip.frag_offset"))
		case "ipv6":
			src, dst, transport, ports = h.take("ipv6.src"), h.take("ipv6.dst"), "", ""
		case "ipv6.fraghdr":
			j.fragment(src, dst, h.take("ipv6.fraghdr.ident"), h.take("ipv6.fraghdr.more"), h.take("ipv6.fraghdr.offset"))
		case "tcp", "udp", "sctp":
			transport = protocol
			if a, b := src+" "+h.take(protocol+".srcport"), dst+" "+h.take(protocol+".dstport"); a < b {
				ports = a + " " + b
			} else {
				ports = b + " " + a
			}
		case "icmp", "icmpv6":
			transport = protocol
		}
	}
	switch {
	case src == "":
	case ports != "":
		j.flow = transport + " " + ports
	default:
		j.flow = fmt.Sprint(transport, " ", min(src, dst), " ", max(src, dst))
	}
	return j
}

// fragment notes that the frame is one, unless a header outside of this one is.
func (j *judged) fragment(src, dst, id, more, offset string) {
	whole := (more == "0" || more == "False") && (offset == "0" || offset == "")
	if j.datagram != "" || whole || more == "" {
		return
	}
	j.datagram = fmt.Sprint(src, " ", dst, " ", id)
	j.first = offset == "0" || offset == ""
}

// unknowable is how many fragments of a capture a sender cannot know the flow of,
// because the first of their datagram was never captured or comes later. They must
// still stay together.
type unknowable int

// settle gives all fragments of a datagram the flow of the first one, or, where a
// sender cannot know it, one of their own.
func settle(all []judged) (left unknowable) {
	flows := map[string]string{}
	for i, j := range all {
		switch known := flows[j.datagram]; {
		case j.datagram == "":
		case j.first && !strings.HasPrefix(known, "fragments"):
			flows[j.datagram] = j.flow
		case known == "":
			flows[j.datagram] = "fragments " + j.datagram
			fallthrough
		default:
			all[i].flow = flows[j.datagram]
			if strings.HasPrefix(all[i].flow, "fragments") {
				left++
			}
		}
	}
	return left
}

// parted lists the flows whose frames did not all go to one place.
func parted[P comparable](all []judged, place func(i int) P) (flows []string) {
	where, told := map[string]P{}, map[string]bool{}
	for i, j := range all {
		if j.flow == "" {
			continue
		}
		p := place(i)
		if first, seen := where[j.flow]; !seen {
			where[j.flow] = p
		} else if first != p && !told[j.flow] {
			told[j.flow] = true
			flows = append(flows, fmt.Sprintf("%s (frame %d)", j.flow, i+1))
		}
	}
	return flows
}

// insideAndPorts are the frames that a capture becomes, in the order in which they are
// sent, and the outer source port of each.
func insideAndPorts(t *testing.T, name string) (inside [][]byte, ports []uint16) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "out.pcap")
	played(t, name, nil, File{Path: file})
	for _, c := range readCapture(t, file) {
		inside = append(inside, c.data[outerLen+vxlanLen:])
		ports = append(ports, binary.BigEndian.Uint16(c.data[outerLen-8:]))
	}
	return inside, ports
}

// Every frame of a flow has one outer source port: both directions, fragments, ICMP
// errors about it, and whatever tunnels it is in.
func TestEveryFlowHasOnePort(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: tshark reads every capture; runs without -short")
	}
	exceptions := map[string]unknowable{
		"ipv6-fragmented-dns.pcap": 1,
		"mix.pcap":                 2,
	}
	for _, name := range captures(t) {
		if refused(t, name) {
			continue
		}
		t.Run(filepath.Base(name), func(t *testing.T) {
			inside, ports := insideAndPorts(t, name)
			all := identify(t, inside)
			if left, want := settle(all), exceptions[filepath.Base(name)]; left != want {
				t.Errorf("%d fragments whose flow nobody can know, want %d", left, want)
			}
			for i, flow := range parted(all, func(i int) uint16 { return ports[i] }) {
				if i < 8 {
					t.Errorf("it has several ports: %s", flow)
				}
			}
		})
	}
}
