package procfs

import (
	"reflect"
	"strings"
	"testing"
)

const snmpText = "Ip: Forwarding DefaultTTL InReceives ReasmFails\nIp: 1 64 48172 5\n" +
	"IcmpMsg: InType3\nIcmpMsg: 1\n" +
	"Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens\nTcp: 1 200 120000 -1 25\n" +
	"Udp: InDatagrams NoPorts InErrors\nUdp: 47 0 18446744073709551615\n" +
	"UdpLite: InDatagrams NoPorts InErrors\nUdpLite: 8 9 10\n"

func TestSNMP(t *testing.T) {
	for name, tt := range map[string]struct {
		text      string
		protocols []string
		want      Counters
	}{
		"two protocols": {snmpText, []string{"Ip", "Udp"}, Counters{"IpForwarding": 1, "IpDefaultTTL": 64, "IpInReceives": 48172, "IpReasmFails": 5,
			"UdpInDatagrams": 47, "UdpNoPorts": 0, "UdpInErrors": 1<<64 - 1}},
		"one whose name begins like another's": {snmpText, []string{"UdpLite"}, Counters{"UdpLiteInDatagrams": 8, "UdpLiteNoPorts": 9, "UdpLiteInErrors": 10}},
		"a setting of TCP":                     {snmpText, []string{"Tcp"}, Counters{"TcpRtoAlgorithm": 1, "TcpRtoMin": 200, "TcpRtoMax": 120000, "TcpMaxConn": 0, "TcpActiveOpens": 25}},
		"all of them":                          {"A: x\nA: 1\n\nB: x\nB: 2\n", nil, Counters{"Ax": 1, "Bx": 2}},
		"a heading alone":                      {"Ip: Forwarding\n", nil, Counters{}},
		"nothing":                              {"", []string{"Ip"}, Counters{}},
	} {
		if got, err := SNMP(tt.text, tt.protocols...); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %v, %v\nwant %v", name, got, err, tt.want)
		}
	}
	for text, want := range map[string]string{
		"Udp: InDatagrams NoPorts\nUdp: 1\n":                 `the numbers of "Udp:" do not fit their heading`,
		"Udp: InDatagrams\nIp: 1\n":                          `the numbers of "Udp:" do not fit their heading`,
		"Udp: InDatagrams\nUdp: many\n":                      `UdpInDatagrams: "many" is no counter`,
		"Udp: InDatagrams\nUdp: 1" + strings.Repeat("0", 20): `is no counter`, // too large
	} {
		if got, err := SNMP(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want %q", text, got, err, want)
		}
	}
}

func TestSNMP6(t *testing.T) {
	const text = "Ip6InReceives                   \t12\nIcmp6InMsgs                     \t3\nUdp6InErrors                    \t4\n" +
		"UdpLite6InErrors                \t5\nUdp6NoPorts 6\nUdp6InDatagrams                 \tmany\n"
	for protocols, want := range map[string]Counters{
		"Ip6 Udp6": {"Ip6InReceives": 12, "Udp6InErrors": 4},
		"":         {"Ip6InReceives": 12, "Icmp6InMsgs": 3, "Udp6InErrors": 4, "UdpLite6InErrors": 5},
		"Tcp6":     {},
	} {
		if got := SNMP6(text, strings.Fields(protocols)...); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, want %v", protocols, got, want)
		}
	}
}

func TestDevices(t *testing.T) {
	const text = "Inter-|   Receive                                                |  Transmit\n" +
		" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n" +
		"    lo:    3193      29    0    0    0     0          0         0     3193      29    0    0    0     0       0          0\n" +
		"  eth0:787267200 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15\n" +
		"  eth1: 1 2 3\n  eth2: 0 -1 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
	want := map[string]Device{
		"lo":   {RxPackets: 29, TxPackets: 29},
		"eth0": {RxPackets: 1, RxErrors: 2, RxDropped: 3, RxFIFO: 4, RxFrame: 5, TxPackets: 9, TxErrors: 10, TxDropped: 11, TxFIFO: 12, TxCarrier: 14},
	}
	if got := Devices(text); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

func TestSoftnet(t *testing.T) {
	for name, tt := range map[string]struct {
		text  string
		want  []SoftnetCPU
		fails bool
	}{
		"3.10: ten columns": {"0000beef 00000001 00000002 00000000 00000000 00000000 00000000 00000000 00000000 00000007\n",
			[]SoftnetCPU{{Processed: 0xbeef, Dropped: 1, Squeezed: 2, ReceivedRPS: 7, HasRPS: true}}, false},
		"6.18: fifteen, CPU 1 offline": {"00000001 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000003 00000004 00000005 00000000 00000000 00000000\n" +
			"ffffffff 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000002 00000000 00000000\n",
			[]SoftnetCPU{{Processed: 1, ReceivedRPS: 3, FlowLimit: 4, Backlog: 5, HasRPS: true, HasFlowLimit: true, HasBacklog: true},
				{CPU: 2, Processed: 0xffffffff, HasRPS: true, HasFlowLimit: true, HasBacklog: true}}, false},
		"nothing":   {"", nil, false},
		"cut":       {"00000001 0000\n", nil, true},
		"no number": {"00000001 0000 zzzz\n", nil, true},
	} {
		got, err := Softnet(tt.text)
		if (err != nil) != tt.fails || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n%+v, %v\nwant %+v", name, got, err, tt.want)
		}
	}
}

func TestPerCPU(t *testing.T) {
	for text, want := range map[string]Counters{
		"entries  clashres found insert_failed drop early_drop\n00000102  00000000 00000001 00000002 00000003 00000004\n00000102 0 0 a b c 7\n": {
			"entries": 0x102, "clashres": 0, "found": 1, "insert_failed": 12, "drop": 14, "early_drop": 16},
		"entries  allocs   unresolved_discards table_fulls\n00000003 00000015 1ffffffff           00000000\n00000003 00000004 00000001            00000000\n": {
			"entries": 3, "allocs": 0x19, "unresolved_discards": 0x200000000, "table_fulls": 0},
		"": {},
	} {
		if got, err := PerCPU(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	for _, bad := range []string{"a b\n1\n", "a\nx\n"} {
		if n, err := PerCPU(bad); err == nil {
			t.Errorf("%q: %v", bad, n)
		}
	}
}
