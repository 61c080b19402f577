package drops

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fixture writes a net directory as the kernel shows one.
func fixture(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// counters are the files of a machine on which so much was lost.
func counters(reasm, noPorts, rcvbuf, udp6, rxDropped, softnet string) map[string]string {
	return map[string]string{
		"snmp": "Ip: Forwarding InReceives InHdrErrors InAddrErrors ForwDatagrams InDiscards InDelivers ReasmFails\nIp: 1 900 0 0 0 0 900 " + reasm + "\n" +
			"Tcp: MaxConn\nTcp: -1\n" +
			"Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors\nUdp: 800 " + noPorts + " " + rcvbuf + " 5 " + rcvbuf + " 3 0 0 0\n",
		"snmp6": "Ip6InReceives                   \t12\nUdp6RcvbufErrors                \t" + udp6 + "\nUdp6InDatagrams                 \t4\n",
		"dev": "Inter-|   Receive                                                |  Transmit\n" +
			" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n" +
			"    lo:    1       1    0    99   0     0          0         0        1       1    0    0    0     0       0          0\n" +
			"  eth0: 1296     16    0    " + rxDropped + "    0     0          0         0        0       0    0    0    0     0       0          0\n" +
			"vethab:12 16 0 0 0 0 0 0 0 0 0 7 0 0 0 0\n",
		"softnet_stat": "0000beef " + softnet + " 00000002 00000000\n00000001 00000000 00000001 00000000\n",
	}
}

var none = counters("0", "0", "0", "0", "0", "00000000")

func TestTakeReadsEverything(t *testing.T) {
	place := Place{Name: "sensor", Net: fixture(t, counters("1", "2", "3", "4", "5", "0000000a")), Softnet: true}
	s, err := Take([]Place{place}, []Socket{{"sensor", "0.0.0.0:4789", 3}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range s {
		if c.Count > 0 {
			got = append(got, c.String())
		}
	}
	want := []string{"socket 0.0.0.0:4789 of the sensor (3)", "IpReasmFails of the sensor (1)", "UdpNoPorts of the sensor (2)", "UdpInErrors of the sensor (3)",
		"UdpRcvbufErrors of the sensor (3)", "Udp6RcvbufErrors of the sensor (4)", "device eth0 rx_dropped of the sensor (5)", "device vethab tx_dropped of the sensor (7)",
		"softnet dropped of the sensor (10)", "softnet time_squeeze of the sensor (3)"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestOnlyTheDevicesOnTheWay(t *testing.T) {
	place := Place{Name: "host", Net: fixture(t, counters("0", "0", "0", "0", "5", "00000001")), Devices: []string{"vethab"}}
	s, err := Take([]Place{place}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s {
		if strings.Contains(c.Name, "eth0") || strings.Contains(c.Name, "softnet") {
			t.Errorf("%v", c)
		}
	}
}

// A kernel without IPv6 is no error; a file that makes no sense is.
func TestTakeErrors(t *testing.T) {
	files := map[string]string{"snmp": none["snmp"], "dev": none["dev"]}
	if s, err := Take([]Place{{Name: "host", Net: fixture(t, files)}}, nil); err != nil || len(s) == 0 {
		t.Errorf("%v, %v", s, err)
	}
	files["snmp"] = "Udp: InDatagrams NoPorts\nUdp: 1\n"
	if _, err := Take([]Place{{Name: "host", Net: fixture(t, files)}}, nil); err == nil || !strings.Contains(err.Error(), "host") {
		t.Errorf("a damaged file: %v", err)
	}
}

func TestVerdict(t *testing.T) {
	const socket = "0.0.0.0:4789"
	tests := []struct {
		name    string
		drops   uint64 // at the sensor's socket
		files   map[string]string
		sent    uint64
		taken   uint64
		queued  int
		lost    uint64
		verdict string
	}{
		{"all arrived", 0, none, 100, 100, 0, 0, "all 100 packets were taken by the sensor"},
		{"others send as well", 0, none, 100, 104, 0, 0,
			"the sensor's system took 104 packets, 100 were sent: others' are among them, so how many of this run's were taken cannot be told"},
		{"some wait", 0, none, 100, 90, 4096, 0, "90 of 100 packets were taken by the sensor; the others still wait in its queue"},
		{"at the socket", 30, counters("0", "0", "30", "0", "0", "00000000"), 100, 70, 0, 30,
			"30 of 100 packets lost: dropped at socket 0.0.0.0:4789 of the sensor (30)"},
		{"at the socket, and before it", 20, counters("0", "0", "20", "0", "0", "0000000a"), 100, 70, 0, 30,
			"30 of 100 packets lost: dropped at socket 0.0.0.0:4789 of the sensor (20), UdpInErrors of the sensor (20), UdpRcvbufErrors of the sensor (20), softnet dropped of the sensor (10)"},
		{"nobody knows", 0, none, 100, 99, 0, 1, "1 of 100 packets lost: no counter tells where"},
		{"others' packets were lost", 0, counters("0", "0", "0", "0", "7", "00000000"), 100, 100, 0, 0, "all 100 packets were taken by the sensor"},
		{"dropped at the socket though others' fill the count", 5, none, 100, 100, 0, 5, "5 of 100 packets lost: dropped at socket 0.0.0.0:4789 of the sensor (5)"},
	}
	for _, tt := range tests {
		before, err := Take([]Place{{Name: "sensor", Net: fixture(t, none), Softnet: true}}, []Socket{{"sensor", socket, 1000}})
		if err != nil {
			t.Fatal(err)
		}
		after, err := Take([]Place{{Name: "sensor", Net: fixture(t, tt.files), Softnet: true}}, []Socket{{"sensor", socket, 1000 + tt.drops}})
		if err != nil {
			t.Fatal(err)
		}
		l := Settle(before, after, Run{Sent: tt.sent, Taken: tt.taken, QueuedBytes: tt.queued})
		if l.Lost != tt.lost || l.Verdict != tt.verdict {
			t.Errorf("%s: lost %d, %q\nwant %d, %q", tt.name, l.Lost, l.Verdict, tt.lost, tt.verdict)
		}
	}
}

func TestBridgePorts(t *testing.T) {
	sys := t.TempDir()
	if err := os.MkdirAll(filepath.Join(sys, "class/net/br0/brif/veth1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := BridgePorts(sys, "br0"); !slices.Equal(got, []string{"br0", "veth1"}) {
		t.Errorf("%v", got)
	}
	if got := BridgePorts(sys, "br1"); got == nil || len(got) != 0 {
		t.Errorf("no bridge: %v", got)
	}
}
