package samples

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

var update = flag.Bool("update", false, "rewrite connections.tsv from sample.pcap")

// packets decodes the whole sample, and fails where a frame is cut.
func packets(t *testing.T) (list []gopacket.Packet) {
	t.Helper()
	file, err := pcapgo.NewReader(Open())
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, info, err := file.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatalf("packet %d: %v", len(list)+1, err)
		}
		if info.CaptureLength != info.Length {
			t.Errorf("packet %d is cut from %d to %d bytes", len(list)+1, info.Length, info.CaptureLength)
		}
		packet := gopacket.NewPacket(data, file.LinkType(), gopacket.NoCopy)
		packet.Metadata().CaptureInfo = info
		list = append(list, packet)
	}
}

func TestFile(t *testing.T) {
	if size := Open().Size(); size >= 400_000 {
		t.Errorf("%s has %d bytes: the binary carries it, keep it under 400 000", Name, size)
	}
	if got := magic(Sample()); got != 0xa1b2c3d4 {
		t.Errorf("magic number %#x: not a pcap file with microseconds", got)
	}
	file, err := pcapgo.NewReader(Open())
	if err != nil {
		t.Fatal(err)
	}
	if file.LinkType() != layers.LinkTypeEthernet {
		t.Errorf("link type %v, not Ethernet", file.LinkType())
	}
}

func TestSampleIsACopy(t *testing.T) {
	clear(Sample())
	if !bytes.Equal(Sample()[:4], []byte(sample[:4])) {
		t.Error("writing to what Sample returned changed the sample")
	}
}

// A recorded pace is the default of a replay, so somebody waits this long.
func TestDuration(t *testing.T) {
	list := packets(t)
	for i, packet := range list[1:] {
		if packet.Metadata().Timestamp.Before(list[i].Metadata().Timestamp) {
			t.Errorf("packet %d is older than the one before", i+2)
		}
	}
	d := list[len(list)-1].Metadata().Timestamp.Sub(list[0].Metadata().Timestamp)
	if d < 4*time.Second || d > 12*time.Second {
		t.Errorf("the sample lasts %v, not 4 to 12 s", d)
	}
}

// Frames are as they were on the wire: no offload left them longer than an MTU
// of 1500 allows, or without a checksum.
func TestFrames(t *testing.T) {
	for i, packet := range packets(t) {
		if n := len(packet.Data()); n > 1514 {
			t.Errorf("packet %d: %d bytes, more than the MTU of 1500 allows", i+1, n)
		}
		wholeIP := packet.NetworkLayer() != nil && packet.NetworkLayer().LayerPayload() != nil
		if packet.Layer(layers.LayerTypeARP) == nil && !wholeIP {
			t.Errorf("packet %d: neither ARP nor IP: %v", i+1, packet.ErrorLayer())
		}
		for _, layer := range packet.Layers() {
			if l, ok := layer.(interface {
				SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
			}); ok {
				if err := l.SetNetworkLayerForChecksum(packet.NetworkLayer()); err != nil {
					t.Fatal(err)
				}
			}
		}
		err, wrong := packet.VerifyChecksums()
		if err != nil || len(wrong) > 0 {
			t.Errorf("packet %d: checksums: %v %+v", i+1, err, wrong)
		}
	}
}

func TestConnectionList(t *testing.T) {
	want, err := countConnections(Open())
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		writeConnections(t, want)
		return
	}
	got := Connections()
	compareConnections(t, got, want)
	if !t.Failed() && !slices.Equal(got, want) {
		t.Error("connections.tsv is not in the order of the first packets: run go test -update")
	}
	if t.Failed() {
		t.Log("after making a new sample, run: go test ./assets/samples -update")
	}
}

func writeConnections(t *testing.T, list []Connection) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintln(&b, header)
	for _, c := range list {
		fmt.Fprintln(&b, c)
	}
	if err := os.WriteFile("connections.tsv", []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestParseConnections(t *testing.T) {
	const good = "udp\t192.0.2.1\t40000\t2001:db8::1\t53\t1\t2"
	for _, test := range []struct{ name, tsv, err string }{
		{"one line", header + "\n" + good + "\n", ""},
		{"no lines", header + "\n", ""},
		{"no header", good + "\n", "line 1 is"},
		{"empty", "", "line 1 is"},
		{"column missing", header + "\nudp\t192.0.2.1\n", "line 2: 2 fields, not 7"},
		{"originator", header + "\n" + strings.Replace(good, "192.0.2.1", "here", 1), "line 2: ParseAddr"},
		{"responder", header + "\n" + strings.Replace(good, "2001:db8::1", "there", 1), "line 2: ParseAddr"},
		{"port", header + "\n" + strings.Replace(good, "40000", "70000", 1), "value out of range"},
	} {
		t.Run(test.name, func(t *testing.T) {
			list, err := parseConnections(test.tsv)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("error %v, not %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			written := header + "\n"
			for _, c := range list {
				written += c.String() + "\n"
			}
			if written != test.tsv {
				t.Errorf("read and written again:\n%s\nnot\n%s", written, test.tsv)
			}
		})
	}
}

// What the README promises, found in the bytes themselves.
func TestPromisedTraffic(t *testing.T) {
	promised := map[string]func(gopacket.Packet) bool{
		"DNS over UDP":           isUDP(53),
		"DNS over TCP":           both(isTCP(53), payload(`\x07example\x04test\x00`)),
		"a CNAME":                dnsAnswer(layers.DNSTypeCNAME),
		"an MX record":           dnsAnswer(layers.DNSTypeMX),
		"a TXT record":           dnsAnswer(layers.DNSTypeTXT),
		"an AAAA record":         dnsAnswer(layers.DNSTypeAAAA),
		"a name that is not":     dns(func(d *layers.DNS) bool { return d.ResponseCode == layers.DNSResponseCodeNXDomain }),
		"an answer cut short":    dns(func(d *layers.DNS) bool { return d.TC }),
		"a page":                 both(isTCP(80), payload(`^GET / HTTP/1\.1\r\n`)),
		"a file transfer":        both(isTCP(80), payload(`Content-Type: application/gzip\r\nContent-Length: 5\d{4}\r\n`)),
		"a page that is not":     both(isTCP(80), payload(`^HTTP/1\.1 404 `)),
		"a form":                 both(isTCP(80), payload(`^POST /login `)),
		"TLS with SNI":           both(isTCP(443), payload(`(?s)^\x16\x03.*secure\.example\.test`)),
		"a TLS 1.2 certificate":  both(isTCP(443), payload(`(?s)Example Test CA`)),
		"a TLS 1.3 server hello": both(isTCP(443), payload(`(?s)^\x16\x03\x03.{1,2}\x02.*\x00\x2b\x00\x02\x03\x04`)),
		"an SSH client":          both(isTCP(22), payload(`^SSH-2\.0-.*\r\n`)),
		"NTP":                    isUDP(123),
		"an echo over IPv4":      icmp4(layers.ICMPv4TypeEchoReply),
		"an unreachable port":    icmp4(layers.ICMPv4TypeDestinationUnreachable),
		"an echo over IPv6":      func(p gopacket.Packet) bool { return p.Layer(layers.LayerTypeICMPv6) != nil },
		"a refused connection":   both(isTCP(8080), func(p gopacket.Packet) bool { return p.Layer(layers.LayerTypeTCP).(*layers.TCP).RST }),
		"HTTP over IPv6":         both(isIPv6, both(isTCP(80), payload(`^GET `))),
		"TLS over IPv6":          both(isIPv6, both(isTCP(443), payload(`^\x16\x03`))),
		"DNS over UDP over IPv6": both(isIPv6, isUDP(53)),
		"DNS over TCP over IPv6": both(isIPv6, isTCP(53)),
		"an address question":    func(p gopacket.Packet) bool { return p.Layer(layers.LayerTypeARP) != nil },
	}
	list := packets(t)
	for _, what := range slices.Sorted(maps.Keys(promised)) {
		if !slices.ContainsFunc(list, promised[what]) {
			t.Errorf("%s is not in the sample", what)
		}
	}
}

func both(a, b func(gopacket.Packet) bool) func(gopacket.Packet) bool {
	return func(p gopacket.Packet) bool { return a(p) && b(p) }
}

func isIPv6(p gopacket.Packet) bool { return p.Layer(layers.LayerTypeIPv6) != nil }

func isTCP(port layers.TCPPort) func(gopacket.Packet) bool {
	return func(p gopacket.Packet) bool {
		tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		return ok && (tcp.SrcPort == port || tcp.DstPort == port)
	}
}

func isUDP(port layers.UDPPort) func(gopacket.Packet) bool {
	return func(p gopacket.Packet) bool {
		udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		return ok && (udp.SrcPort == port || udp.DstPort == port)
	}
}

func icmp4(kind uint8) func(gopacket.Packet) bool {
	return func(p gopacket.Packet) bool {
		icmp, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
		return ok && icmp.TypeCode.Type() == kind
	}
}

// payload looks for a pattern in what TCP carries in one packet.
func payload(pattern string) func(gopacket.Packet) bool {
	re := regexp.MustCompile(pattern)
	return func(p gopacket.Packet) bool {
		tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		return ok && re.Match(tcp.Payload)
	}
}

func dns(holds func(*layers.DNS) bool) func(gopacket.Packet) bool {
	return func(p gopacket.Packet) bool {
		d, ok := p.Layer(layers.LayerTypeDNS).(*layers.DNS)
		return ok && holds(d)
	}
}

func dnsAnswer(kind layers.DNSType) func(gopacket.Packet) bool {
	return dns(func(d *layers.DNS) bool {
		return slices.ContainsFunc(d.Answers, func(r layers.DNSResourceRecord) bool { return r.Type == kind })
	})
}

// Every TCP connection ends as its client meant it to: closed from both sides,
// but for the refused one and the unanswered one.
func TestConnectionsEnd(t *testing.T) {
	fins := map[flow]bool{}
	for _, packet := range packets(t) {
		if tcp, ok := packet.Layer(layers.LayerTypeTCP).(*layers.TCP); ok && tcp.FIN {
			f, _ := flowOf(packet)
			fins[f] = true
		}
	}
	for _, c := range Connections() {
		if c.Proto != "tcp" || c.RespP == 8080 || c.RespPkts == 0 {
			continue
		}
		f := flow{"tcp", endpoint{c.OrigH, c.OrigP}, endpoint{c.RespH, c.RespP}, false}
		if !fins[f] || !fins[f.reversed()] {
			t.Errorf("not closed from both sides: %v", c)
		}
	}
}

// tshark's streams are an opinion of their own about TCP and UDP connections.
func TestTsharkAgrees(t *testing.T) {
	lines := tshark(t, "not icmp and (tcp or udp)", "tcp.stream", "udp.stream", "ip.src", "ipv6.src")
	got := map[string]map[string]int{} // stream to sender to packets
	for _, line := range lines {
		fields := strings.Split(line, "\t")
		stream, sender := fields[0]+"/"+fields[1], fields[2]+fields[3]
		if got[stream] == nil {
			got[stream] = map[string]int{}
		}
		got[stream][sender]++
	}
	var counted, listed []string
	for _, senders := range got {
		counted = append(counted, fmt.Sprint(senders))
	}
	for _, c := range Connections() {
		if c.Proto == "icmp" {
			continue
		}
		senders := map[string]int{c.OrigH.String(): c.OrigPkts}
		if c.RespPkts > 0 {
			senders[c.RespH.String()] = c.RespPkts
		}
		listed = append(listed, fmt.Sprint(senders))
	}
	slices.Sort(counted)
	slices.Sort(listed)
	if !slices.Equal(counted, listed) {
		t.Errorf("tshark counts\n%s\nconnections.tsv says\n%s", strings.Join(counted, "\n"), strings.Join(listed, "\n"))
	}
}

// tshark returns the fields of the packets that a display filter selects,
// separated by tabs. Where a field occurs more than once, its first counts.
func tshark(t *testing.T, filter string, fields ...string) []string {
	t.Helper()
	args := []string{"-n", "-r", Name, "-Y", filter, "-T", "fields", "-E", "occurrence=f"}
	for _, field := range fields {
		args = append(args, "-e", field)
	}
	cmd := exec.Command(testenv.NeedTool(t, "tshark"), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, stderr.String())
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

// The README's first table has a row for each kind of connection; together
// they are all there is.
func TestReadmeConnections(t *testing.T) {
	want := map[string]int{}
	for _, c := range Connections() {
		want[fmt.Sprintf("%s %d", c.Proto, c.RespP)]++
	}
	got, total := map[string]int{}, 0
	for _, row := range readmeRows(t, `(?m)^\| (tcp|udp|icmp) \| (\d+) \| (\d+) \|`) {
		n, _ := strconv.Atoi(row[3])
		got[row[1]+" "+row[2]] += n
		total += n
	}
	if !maps.Equal(got, want) {
		t.Errorf("the README's connections by protocol and responder's port:\n%v\nconnections.tsv's:\n%v", got, want)
	}
	if said := readmeRows(t, `\*\*(\d+) connections\*\*`); len(said) != 1 || said[0][1] != strconv.Itoa(total) {
		t.Errorf("the README says %v, its table has %d connections", said, total)
	}
}

// The README's second table says how many lines each protocol's log gets. What
// makes a line there, tshark can count.
func TestReadmeLogs(t *testing.T) {
	causes := map[string]string{
		"files.log": "http.content_length > 0",              // a file for a body
		"dns.log":   "dns.flags.response == 0 and not icmp", // a line for a question, with its answer
		"http.log":  "http.request",
		"ssl.log":   "tls.handshake.type == 1",
		"ssh.log":   "ssh.protocol contains \"SSH-2.0\" and tcp.dstport == 22",
		"ntp.log":   "ntp",
		"x509.log":  "tls.handshake.certificate", // one for a chain: the server's own
	}
	rows := readmeRows(t, `(?m)^\| ([a-z0-9]+\.log) \| (\d+) \|`)
	checked := 0
	for _, row := range rows {
		if filter, ok := causes[row[1]]; ok {
			checked++
			if n := strconv.Itoa(len(tshark(t, filter, "frame.number"))); n != row[2] {
				t.Errorf("the README expects %s lines in %s, tshark finds cause for %s", row[2], row[1], n)
			}
		}
	}
	if checked != len(causes) {
		t.Errorf("the README's table has %d of the %d logs that can be checked", checked, len(causes))
	}
}

func readmeRows(t *testing.T, pattern string) [][]string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1)
}
