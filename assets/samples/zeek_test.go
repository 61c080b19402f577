package samples

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// endpoint is one side of a connection, with what Zeek calls its port.
type endpoint struct {
	host netip.Addr
	port uint16
}

// flow is one packet's way: the key of its connection, or that key reversed.
type flow struct {
	proto    string
	from, to endpoint
	oneWay   bool // an ICMP type without an answer: the reverse is another connection
}

func (f flow) reversed() flow { f.from, f.to = f.to, f.from; return f }

// countConnections lists the connections of a capture as Zeek counts them, in
// the order of their first packets. It knows neither fragments nor tunnels nor
// timeouts: a capture of a few seconds whose first packets are requests is what
// it is for.
func countConnections(r io.Reader) ([]Connection, error) {
	file, err := pcapgo.NewReader(r)
	if err != nil {
		return nil, err
	}
	var list []Connection
	seen := map[flow]int{} // index into list
	for {
		data, _, err := file.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		f, ok := flowOf(gopacket.NewPacket(data, decoderFor(file.LinkType()), gopacket.NoCopy))
		if !ok {
			continue
		}
		if i, known := seen[f]; known {
			list[i].OrigPkts++
		} else if i, known := seen[f.reversed()]; known && !f.oneWay {
			list[i].RespPkts++
		} else {
			seen[f] = len(list)
			list = append(list, Connection{f.proto, f.from.host, f.from.port, f.to.host, f.to.port, 1, 0})
		}
	}
}

// decoderFor adds to gopacket's own link types the raw IPv6 of LINKTYPE_IPV6.
func decoderFor(link layers.LinkType) gopacket.Decoder {
	if link == layers.LinkTypeIPv6 {
		return layers.LayerTypeIPv6
	}
	return link
}

// flowOf finds the flow of a packet; an ARP frame has none. The outermost
// transport header counts: an ICMP error quotes another one behind it.
func flowOf(packet gopacket.Packet) (flow, bool) {
	var from, to netip.Addr
	for _, layer := range packet.Layers() {
		switch l := layer.(type) {
		case *layers.IPv4:
			from, to = addr(l.SrcIP), addr(l.DstIP)
		case *layers.IPv6:
			from, to = addr(l.SrcIP), addr(l.DstIP)
		case *layers.TCP:
			return flow{"tcp", endpoint{from, uint16(l.SrcPort)}, endpoint{to, uint16(l.DstPort)}, false}, true
		case *layers.UDP:
			return flow{"udp", endpoint{from, uint16(l.SrcPort)}, endpoint{to, uint16(l.DstPort)}, false}, true
		case *layers.ICMPv4:
			return icmpFlow(from, to, l.TypeCode.Type(), l.TypeCode.Code(), answers4), true
		case *layers.ICMPv6:
			return icmpFlow(from, to, l.TypeCode.Type(), l.TypeCode.Code(), answers6), true
		}
	}
	return flow{}, false
}

func addr(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a
}

// The ICMP types that answer each other (Zeek's ICMP.cc, ICMP4_counterpart and
// ICMP6_counterpart); each pair holds in both directions.
var (
	answers4 = [][2]uint8{{8, 0}, {13, 14}, {15, 16}, {10, 9}, {17, 18}}
	answers6 = [][2]uint8{{128, 129}, {133, 134}, {135, 136}, {130, 131}, {139, 140}, {144, 145}}
)

// icmpFlow puts type and answering type, or type and code, in the ports' place.
func icmpFlow(from, to netip.Addr, kind, code uint8, answers [][2]uint8) flow {
	for _, pair := range answers {
		if kind == pair[1] {
			pair[0], pair[1] = pair[1], pair[0]
		}
		if kind == pair[0] {
			return flow{"icmp", endpoint{from, uint16(kind)}, endpoint{to, uint16(pair[1])}, false}
		}
	}
	return flow{"icmp", endpoint{from, uint16(kind)}, endpoint{to, uint16(code)}, true}
}

// The counting above is what the sample's list rests on, so it is held against
// conn.log files that a real Zeek wrote.
func TestCountsAsZeekDoes(t *testing.T) {
	for _, name := range []string{
		"icmp6-mldv2.pcap", "icmp_dot1q.pcap", "bro.org.pcap", "ntp.pcap", "206_example_b.pcap",
		"tls-1.2-stream-keylog.pcap", "ssl.v3.pcap", "methods.pcap",
	} {
		t.Run(name, func(t *testing.T) {
			capture, err := os.Open(testenv.Shared(t, "pcaps", name))
			if err != nil {
				t.Fatal(err)
			}
			defer capture.Close()
			got, err := countConnections(bufio.NewReader(capture))
			if err != nil {
				t.Fatal(err)
			}
			want := zeekConnections(t, testenv.Shared(t, "zeek9", "offline", name, "conn.log"))
			compareConnections(t, got, want)
		})
	}
}

// zeekConnections reads a conn.log of JSON lines.
func zeekConnections(t *testing.T, path string) (list []Connection) {
	t.Helper()
	text, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var c struct {
			Proto    string
			OrigH    netip.Addr `json:"id.orig_h"`
			OrigP    uint16     `json:"id.orig_p"`
			RespH    netip.Addr `json:"id.resp_h"`
			RespP    uint16     `json:"id.resp_p"`
			OrigPkts int        `json:"orig_pkts"`
			RespPkts int        `json:"resp_pkts"`
		}
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		list = append(list, Connection(c))
	}
	return list
}

// compareConnections demands the same connections in whatever order.
func compareConnections(t *testing.T, got, want []Connection) {
	t.Helper()
	byText := func(a, b Connection) int { return cmp.Compare(a.String(), b.String()) }
	got, want = slices.SortedFunc(slices.Values(got), byText), slices.SortedFunc(slices.Values(want), byText)
	for _, c := range got {
		if !slices.Contains(want, c) {
			t.Errorf("unexpected: %v", c)
		}
	}
	for _, c := range want {
		if !slices.Contains(got, c) {
			t.Errorf("missing:    %v", c)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d connections, not %d", len(got), len(want))
	}
}

// magic returns the first word of a pcap file in little-endian order.
func magic(file []byte) uint32 { return binary.LittleEndian.Uint32(file) }
