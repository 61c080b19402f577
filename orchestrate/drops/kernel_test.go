package drops

import (
	"net/netip"
	"reflect"
	"testing"
)

func TestParseSoftnet(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []softnet
		fails      bool
	}{
		{"3.10: ten columns", "0000beef 00000001 00000002 00000000 00000000 00000000 00000000 00000000 00000000 00000007\n",
			[]softnet{{processed: 0xbeef, dropped: 1, squeezed: 2, receivedRPS: 7, hasRPS: true}}, false},
		{"6.18: fifteen, CPU 1 offline", "00000001 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000003 00000004 00000005 00000000 00000000 00000000\n" +
			"ffffffff 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000002 00000000 00000000\n",
			[]softnet{{processed: 1, receivedRPS: 3, flowLimit: 4, backlog: 5, hasRPS: true, hasFlowLimit: true, hasBacklog: true},
				{cpu: 2, processed: 0xffffffff, hasRPS: true, hasFlowLimit: true, hasBacklog: true}}, false},
		{"nothing", "", nil, false},
		{"cut", "00000001 0000\n", nil, true},
		{"no number", "00000001 0000 zzzz\n", nil, true},
	} {
		got, err := parseSoftnet(tt.text)
		if (err != nil) != tt.fails || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n%+v, %v\nwant %+v", tt.name, got, err, tt.want)
		}
	}
}

func TestParseSockets(t *testing.T) {
	const text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n" +
		" 4096: 0100007F:12B5 00000000:0000 07 00000000:00034080 00:00000000 00000000     0        0 54321 2 0000000000000000 32065        \n" +
		" 4097: 0100007F:12B5 0200007F:0001 01 00000000:00034080 00:00000000 00000000     0        0 54322 2 0000000000000000 5        \n" +
		"  181: 00000000000000000000000001000000:17C1 00000000000000000000000000000000:0000 07 00000000:00000300 00:00000000 00000000     0        0 7 2 0000000000000000 0\n" +
		"  182: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 8 2 0000000000000000 0\n" +
		"  183: 00000000:12B5 00000000:0000 07 0000\n"
	want := []udpSocket{{netip.MustParseAddrPort("127.0.0.1:4789"), 54321, 213120, 32065}, {netip.MustParseAddrPort("[::1]:6081"), 7, 768, 0}}
	if got := parseSockets(text, []uint16{4789, 6081}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

func TestParseStat(t *testing.T) {
	got, err := parseStat("entries  clashres found insert_failed drop early_drop\n00000102  00000000 00000001 00000002 00000003 00000004\n00000102 0 0 a b c 7\n")
	if want := (numbers{"entries": 0x102, "clashres": 0, "found": 1, "insert_failed": 12, "drop": 14, "early_drop": 16}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"a b\n1\n", "a\nx\n"} {
		if n, err := parseStat(bad); err == nil {
			t.Errorf("%q: %v", bad, n)
		}
	}
}

func TestDeviceOf(t *testing.T) {
	const routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
		"eth1\t00000000\t010013AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"eth0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n" +
		"eth1\t000013AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
	for addr, want := range map[string]string{"172.18.0.2": "eth0", "172.19.0.2": "eth1", "10.0.0.1": ""} {
		if got := deviceOf(routes, netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is on %q, want %q", addr, got, want)
		}
	}
}

func TestProcessState(t *testing.T) {
	state, started, ok := processState("42 (a) b (c) T 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 100 1\n")
	if state != "T" || started != 987 || !ok {
		t.Errorf("%q %d %t", state, started, ok)
	}
	if _, _, ok := processState("42 (a"); ok {
		t.Error("a cut line is taken for one")
	}
}

// Whatever text the files of a kernel to come have, reading them ends.
func FuzzParse(f *testing.F) {
	f.Add("Ip: Forwarding ReasmFails\nIp: 1 5\nUdp: NoPorts\nUdp: 7\n")
	f.Add("  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n")
	f.Add("0000beef 00000001 00000002\n")
	f.Add(" 1: 0100007F:12B5 00000000:0000 07 00000000:00034080 00:0 0 0 0 54321 2 0 32065\n")
	f.Add("otelcol_exporter_queue_size{a=\"b\\\"}\",c=\"d\"} 5 1700000000\n")
	f.Fuzz(func(_ *testing.T, text string) {
		n := numbers{}
		_ = parseSNMP(text, n)
		parseSNMP6(text, n)
		parseDevices(text)
		_, _ = parseSoftnet(text)
		parseSockets(text, []uint16{4789})
		_, _ = parseStat(text)
		deviceOf(text, netip.MustParseAddr("10.0.0.1"))
		processState(text)
		_, _, _ = parseLabels(text)
	})
}
