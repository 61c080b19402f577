package encap

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// zeros are bytes of a header that nobody looks at.
func zeros(n int) []byte { return make([]byte, n) }

// field is text in n bytes.
func field(text string, n int) []byte { return append([]byte(text), zeros(n-len(text))...) }

// pktap is a macOS header of 108 bytes before a packet of a link type.
func pktap(kind, link int, packet []byte) []byte {
	return cat(le32(108), le32(kind), le32(link), field("en0", 24), zeros(4), le32(2), zeros(108-44), packet)
}

// erf is a record of a kind: further headers, then the body, of which wire bytes were
// on the wire.
func erf(kind, wire int, more, body []byte) []byte {
	if len(more) > 0 {
		kind |= 0x80
	}
	return cat(zeros(4), le32(1_700_000_000), []byte{byte(kind), 4}, be16(16+len(more)+len(body)), be16(0), be16(wire), more, body)
}

// wrappedCases are those of link types that put a header before another's.
func wrappedCases() []normaliseCase {
	ip, ip6 := cat(synthetic, be16(0x0800), ipPacket), cat(synthetic, be16(0x86dd), ip6Packet)
	eth := cat(macA, macB, be16(0x0800), ipPacket)
	fcs := []byte{0xde, 0xad, 0xbe, 0xef}
	snapIP, dot11 := snap(0x0800, ipPacket), wlan(0x08, 1)
	viaAP := cat(macC, macB, be16(0x0800), ipPacket)
	ppp, hdlc := cat(be16(0x21), ipPacket), cat([]byte{0x0f, 0}, be16(0x0800), ipPacket)
	q922 := []byte{0x18, 0x41}
	ppi := func(link int, fields, packet []byte) []byte {
		return cat([]byte{0, 0}, le16(8+len(fields)), le32(link), fields, packet)
	}
	common := func(flags int) []byte { return cat(le16(2), le16(20), zeros(8), le16(flags), zeros(10)) }
	prism := cat(le32(0x44), le32(144), field("wlan0", 136))
	avs := cat(be32(0x80211001), be32(64), zeros(56))
	one := func(b []byte) [][]byte { return [][]byte{b} }
	return []normaliseCase{
		{"pflog of 61 bytes", 117, cat([]byte{61, 2, 0, 0}, field("em0", 60), ipPacket), one(ip), 0},
		{"pflog of 100 bytes, IPv6", 117, cat([]byte{100, 24, 0, 0}, field("em0", 96), ip6Packet), one(ip6), 0},
		{"pflog, a header that is too short", 117, cat([]byte{44}, zeros(80)), nil, forward.RefusedMalformed},
		{"pflog, nothing behind", 117, cat([]byte{61}, zeros(63)), nil, forward.RefusedMalformed},
		{"old pflog", 17, cat(be32(2), field("em0", 24), ipPacket), one(ip), 0},
		{"enc", 109, cat(le32(2), be32(7), zeros(4), ipPacket), one(ip), 0},
		{"enc, IPv6, big endian", 109, cat(be32(24), be32(7), zeros(4), ip6Packet), one(ip6), 0},
		{"ipnet", 226, cat([]byte{1, 2, 0, 0}, be32(len(ipPacket)), zeros(16), ipPacket), one(ip), 0},
		{"ipnet, too short", 226, zeros(24), nil, forward.RefusedMalformed},
		{"SLIP", 8, cat([]byte{0, 0x40}, zeros(14), ipPacket), one(ip), 0},

		{"pktap, Ethernet", 258, pktap(1, 1, eth), one(eth), 0},
		{"pktap, raw IP", 258, pktap(1, 12, ip6Packet), one(ip6), 0},
		{"pktap, loopback", 258, pktap(1, 0, cat(le32(2), ipPacket)), one(ip), 0},
		{"pktap, no packet", 258, pktap(0, 1, eth), nil, forward.SkippedNoPacket},
		{"pktap in pktap", 258, pktap(1, 258, pktap(1, 1, eth)), nil, forward.RefusedLinkType},
		{"pktap, something else", 258, pktap(1, 195, eth), nil, forward.RefusedLinkType},
		{"pktap, longer than it is", 258, cat(le32(500), le32(1), le32(1), eth), nil, forward.RefusedMalformed},
		{"PPI, Ethernet", 192, ppi(1, nil, eth), one(eth), 0},
		{"PPI, 802.11 with FCS", 192, ppi(105, common(1), cat(dot11, snapIP, fcs)), one(viaAP), 0},
		{"PPI, 802.11 without, behind another field", 192, ppi(105, cat(le16(30), le16(4), zeros(4), common(0)), cat(dot11, snapIP)), one(viaAP), 0},
		{"PPI, another version", 192, cat([]byte{1}, ppi(1, nil, eth)[1:]), nil, forward.RefusedMalformed},
		{"ERF, Ethernet", 197, erf(2, len(eth)+4, nil, cat(be16(0), eth, fcs)), one(eth), 0},
		{"ERF, two further headers", 197, erf(2, len(eth)+4, cat([]byte{0x83}, zeros(7), []byte{4}, zeros(7)), cat(be16(0), eth, fcs)), one(eth), 0},
		{"ERF, IPv4", 197, erf(22, len(ipPacket), nil, ipPacket), one(ip), 0},
		{"ERF, IPv6", 197, erf(23, len(ip6Packet), nil, ip6Packet), one(ip6), 0},
		{"ERF, Cisco HDLC", 197, erf(1, len(hdlc), nil, hdlc), one(ip), 0},
		{"ERF, meta data", 197, erf(27, 0, nil, zeros(40)), nil, forward.SkippedNoPacket},
		{"ERF, headers without end", 197, erf(2, 60, bytes.Repeat([]byte{0x83}, 16), nil), nil, forward.RefusedMalformed},
		{"netANALYZER", 240, cat(zeros(4), eth, fcs), one(eth), 0},
		{"Prism", 119, cat(prism, dot11, snapIP), one(viaAP), 0},
		{"Prism, AVS in its place", 119, cat(avs, dot11, snapIP), one(viaAP), 0},
		{"AVS", 163, cat(avs, dot11, snapIP), one(viaAP), 0},
		{"AVS, too short", 163, avs, nil, forward.RefusedMalformed},

		{"pppd, out", 166, cat([]byte{1, 3}, ppp), one(ip), 0},
		{"pppd, in, as Linux writes it", 166, cat([]byte{0, 0}, be16(0x57), ip6Packet), one(ip6), 0},
		{"pppd, direction alone", 166, cat([]byte{1}, ppp), one(ip), 0},
		{"pppd, LCP", 166, cat([]byte{1, 3}, be16(0xc021), payloadBytes(10)), nil, forward.SkippedNoPacket},
		{"PPP with direction", 204, cat([]byte{1, 0xff, 3}, ppp), one(ip), 0},
		{"PPP with direction, empty", 204, nil, nil, forward.RefusedMalformed},
		{"PPPoE", 51, cat([]byte{0x11, 0}, be16(1), be16(len(ppp)), ppp), one(cat(synthetic, be16(0x8864), []byte{0x11, 0}, be16(1), be16(len(ppp)), ppp)), 0},
		{"C_HDLC", 104, hdlc, one(ip), 0},
		{"C_HDLC, ARP", 104, cat([]byte{0x8f, 0}, be16(0x0806), arpPacket), one(cat(synthetic, be16(0x0806), arpPacket)), 0},
		{"C_HDLC, keepalive", 104, cat([]byte{0x8f, 0}, be16(0x8035), payloadBytes(18)), nil, forward.SkippedNoPacket},
		{"C_HDLC with direction", 205, cat([]byte{1}, hdlc), one(ip), 0},
		{"Frame Relay, NLPID", 107, cat(q922, []byte{3, 0xcc}, ipPacket), one(ip), 0},
		{"Frame Relay, IPv6", 107, cat(q922, []byte{3, 0x8e}, ip6Packet), one(ip6), 0},
		{"Frame Relay, four bytes of address", 107, cat([]byte{0x18, 0x40, 0x10, 0x05, 3, 0xcc}, ipPacket), one(ip), 0},
		{"Frame Relay, SNAP", 107, cat(q922, []byte{3, 0, 0x80, 0, 0, 0}, be16(0x0800), ipPacket), one(ip), 0},
		{"Frame Relay, bridged", 107, cat(q922, []byte{3, 0, 0x80, 0, 0x80, 0xc2}, be16(7), eth), one(eth), 0},
		{"Frame Relay, bridged with FCS", 107, cat(q922, []byte{3, 0, 0x80, 0, 0x80, 0xc2}, be16(1), eth, fcs), one(eth), 0},
		{"Frame Relay, Cisco", 107, cat(q922, be16(0x0800), ipPacket), one(ip), 0},
		{"Frame Relay, LMI", 107, cat([]byte{0, 1, 3, 8}, payloadBytes(10)), nil, forward.SkippedNoPacket},
		{"Frame Relay with direction", 206, cat([]byte{0}, q922, []byte{3, 0xcc}, ipPacket), one(ip), 0},
		{"ATM", 100, snapIP, one(ip), 0},
		{"token ring", 6, cat([]byte{0x10, 0x40}, macA, macB, snapIP), one(eth), 0},
		{"token ring, source routing", 6, cat([]byte{0x10, 0x40}, macA, []byte{0x80}, macB[1:], []byte{0x06, 0x30, 1, 2, 3, 4}, snapIP), one(eth), 0},
		{"token ring, MAC frame", 6, cat([]byte{0x10, 0}, macA, macB, snapIP), nil, forward.SkippedNoPacket},
		{"IP over Fibre Channel", 122, cat([]byte{0x10, 0}, macA, []byte{0x10, 0}, macB, snapIP), one(eth), 0},
		{"IEEE 1394", 138, cat(zeros(16), be16(0x0800), ipPacket), one(ip), 0},
		{"IP over InfiniBand", 242, cat(zeros(40), be16(0x86dd), zeros(2), ip6Packet), one(ip6), 0},

		{"SLL, GRE, bridged", 113, cat(cooked1(0, 778, zeros(4), 0x6558), eth), one(eth), 0},
		{"SLL, GRE, IPv4", 113, cat(cooked1(0, 778, zeros(4), 0x0800), ipPacket), one(ip), 0},
		{"SLL, Frame Relay", 113, cat(cooked1(0, 770, zeros(2), 0), q922, []byte{3, 0xcc}, ipPacket), one(ip), 0},
		{"SLL, PPP", 113, cat(cooked1(0, 512, nil, 0x0800), ipPacket), one(ip), 0},
		{"SLL2, GRE, bridged", 276, cat(cooked2(0, 778, zeros(4), 0x6558), eth), one(eth), 0},
	}
}

// writeClassic writes one frame into a pcap file of its link type.
func writeClassic(t *testing.T, lt forward.LinkType, data []byte) string {
	t.Helper()
	le := binary.LittleEndian
	b := cat(le32(0xa1b2c3d4), le16(2), le16(4), zeros(8), le32(262144), le32(int(lt)))
	b = le.AppendUint32(le.AppendUint32(b, 1_700_000_000), 0)
	b = cat(b, le32(len(data)), le32(len(data)), data)
	name := filepath.Join(t.TempDir(), "one.pcap")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// readByTcpdump are link types that tshark 4.0 does not read, and tcpdump does.
func readByTcpdump() []forward.LinkType { return []forward.LinkType{8, 166, 240} }

// unreadByTshark are those that it does not read at all.
func unreadByTshark() []forward.LinkType { return append(readByTcpdump(), 17, 205, 206) }

// tcpdumpSees is the packet that tcpdump finds in a frame.
func tcpdumpSees(t *testing.T, lt forward.LinkType, data []byte) string {
	t.Helper()
	out, err := exec.Command(testenv.NeedTool(t, "tcpdump"), "-nr", writeClassic(t, lt, data)).Output()
	if err != nil {
		t.Fatal(err)
	}
	_, packet, _ := strings.Cut(string(out), "IP")
	line, _, _ := strings.Cut(packet, "\n")
	return line
}

// TestTcpdumpFindsTheSamePacket where tshark finds none: in the frame and in what it
// becomes. Of pppd's variants tcpdump knows that with a control byte.
func TestTcpdumpFindsTheSamePacket(t *testing.T) {
	for _, name := range []string{"SLIP", "netANALYZER", "pppd, out"} {
		tt := wrappedCases()[slices.IndexFunc(wrappedCases(), func(c normaliseCase) bool { return c.name == name })]
		in, out := tcpdumpSees(t, tt.lt, tt.data), tcpdumpSees(t, forward.LinkEthernet, tt.want[0])
		if in != out || !strings.Contains(in, "10.0.0.200.443") {
			t.Errorf("%s: tcpdump finds %q, and %q in what it becomes", name, in, out)
		}
	}
}

// TestTheTableIsComplete: it lists what is supported, each once, in order.
func TestTheTableIsComplete(t *testing.T) {
	var listed, supported []forward.LinkType
	for _, form := range LinkForms() {
		listed = append(listed, form.Link)
	}
	for i := range 1 << 16 {
		if lt := forward.LinkType(i); Supported(lt) {
			supported = append(supported, lt)
		}
	}
	if !slices.Equal(listed, supported) {
		t.Errorf("listed are %d, supported %d", listed, supported)
	}
}

var update = flag.Bool("update", false, "write the table of link types into the README")

// linkTable is the README's table.
func linkTable() string {
	var b strings.Builder
	b.WriteString("| link type | | filters see |\n|---|---|---|\n")
	for _, form := range LinkForms() {
		sees := "its Ethernet form"
		if form.AsCaptured {
			sees = "the frame as captured"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", LinkTypeName(form.Link), form.What, sees)
	}
	return b.String()
}

// TestTheREADMEHasTheTable compares the README with the code; -update writes it.
func TestTheREADMEHasTheTable(t *testing.T) {
	const name, begin, end = "../../README.md", "<!-- link types -->\n", "<!-- end of link types -->"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", name)
	}
	if *update {
		if err := os.WriteFile(name, []byte(before+begin+linkTable()+end+after), 0o600); err != nil {
			t.Fatal(err)
		}
	} else if table != linkTable() {
		t.Errorf("the table of link types is old: go test ./forward/encap -run TestTheREADMEHasTheTable -update")
	}
}

// TestARefusalOfALinkTypeIsASentence that is true, whether it has a name or none.
func TestARefusalOfALinkTypeIsASentence(t *testing.T) {
	for lt, want := range map[forward.LinkType]string{
		147: "link type USER0 (147) is none of those that are normalised to Ethernet here",
		999: "link type 999 is none of those that are normalised to Ethernet here",
	} {
		if err := CheckLinkTypes([]forward.LinkType{lt}); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := CheckLinkTypes([]forward.LinkType{147, 117}); err != nil {
		t.Error(err)
	}
}
