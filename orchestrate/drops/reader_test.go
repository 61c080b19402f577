package drops

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// tree is a machine as its /proc and /sys show it, with one sensor.
type tree map[string]string

// machine is one with so many processors, devices and sockets.
func machine(cpus, devices, sockets int) tree {
	const snmp = "Ip: Forwarding InReceives InHdrErrors InAddrErrors InDiscards OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragFails\n" +
		"Ip: 1 900 0 0 0 0 0 0 0 0 5 0\nTcp: MaxConn\nTcp: -1\n" +
		"Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors MemErrors\nUdp: 800 7 17 5 17 3 0 0\n"
	const netstat = "TcpExt: SyncookiesSent\nTcpExt: 0\nIpExt: InNoRoutes InTruncatedPkts InCsumErrors InNoECTPkts InECT1Pkts InECT0Pkts InCEPkts\nIpExt: 0 0 0 1000 0 20 0\n"
	const stat = "entries  insert_failed drop early_drop invalid\n00000005  00000001 00000002 00000000 00000000\n"
	var softnet, dev, udp strings.Builder
	for cpu := range cpus {
		fmt.Fprintf(&softnet, "%08x %08x %08x 0 0 0 0 0 0 %08x %08x %08x %08x 0 0\n", 1000+cpu, cpu%2, 3, 4, 0, 6, cpu)
	}
	names := []string{"lo", "br-zeekmon0", "vethab"}
	for i := range devices {
		names = append(names, fmt.Sprintf("veth%05x", i))
	}
	for _, name := range names {
		fmt.Fprintf(&dev, "%s: 1 10 0 1 0 0 0 0 2 20 0 2 0 0 0 0\n", name)
	}
	for i := range sockets {
		fmt.Fprintf(&udp, "%5d: 0100007F:%04X 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 %d 2 0000000000000000 0        \n", i, 20000+i, i+100)
	}
	listens := func(address string, drops int) string {
		return fmt.Sprintf("    1: %s:12B5 00000000:0000 07 00000000:00000300 00:00000000 00000000     0        0 77 2 0000000000000000 %d        \n", address, drops)
	}
	return tree{
		"/proc/net/snmp": snmp, "/proc/net/netstat": netstat, "/proc/net/snmp6": "Ip6InNoECTPkts \t3\nUdp6InErrors \t0\n", "/proc/net/dev": dev.String(),
		"/proc/net/udp": listens("0100007F", 11) + udp.String(), "/proc/net/udp6": "", "/proc/net/softnet_stat": softnet.String(),
		"/proc/net/stat/nf_conntrack": stat, "/proc/net/stat/arp_cache": "entries unresolved_discards\n1 2\n",
		"/proc/sys/net/core/netdev_max_backlog": "1000\n", "/proc/sys/net/netfilter/nf_conntrack_count": "5\n", "/proc/sys/net/netfilter/nf_conntrack_max": "1000\n",
		"/proc/70/stat": "70 (zeek) S 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 20 0 1 0 987 100 1\n", "/proc/80/stat": "80 (docker-proxy) T 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 20 0 1 0 900 100 1\n",
		"/proc/70/net/snmp": snmp, "/proc/70/net/netstat": netstat, "/proc/70/net/snmp6": "", "/proc/70/net/dev": "eth0: 1 10 0 1 0 0 0 0 2 20 0 2 0 0 0 0\n",
		"/proc/70/net/udp": listens("00000000", 17), "/proc/70/net/udp6": "", "/proc/70/net/route": "eth0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n",
		"/proc/70/net/stat/nf_conntrack":         stat,
		"/sys/class/net/lo/queues/rx-0/rps_cpus": "ff\n", "/proc/70/root/sys/class/net/eth0/queues/rx-0/rps_cpus": "00\n",
		"/proc/70/root/sys/class/net/eth0/mtu": "1500\n", "/sys/class/net/br-zeekmon0/mtu": "9000\n",
		"/proc/70/root/sys/class/net/eth0/iflink": "9\n", "/sys/class/net/vethab/ifindex": "9\n", "/sys/class/net/veth00000/ifindex": "11\n",
		"/sys/class/net/br-zeekmon0/brif/vethab/port_no": "0x1\n", "/sys/class/net/br-zeekmon0/brif/veth00000/port_no": "0x2\n",
	}
}

// write puts the tree into a folder.
func (m tree) write(tb testing.TB) Dir {
	tb.Helper()
	dir := tb.TempDir()
	for name, content := range m {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			tb.Fatal(err)
		}
	}
	return Dir(dir)
}

func (m tree) without(names ...string) tree {
	m = maps.Clone(m)
	for _, name := range names {
		delete(m, name)
	}
	return m
}

// somewhere is a reader of such a machine.
func somewhere(files Files) *Reader {
	host := Host{Owner: func(uint64, netip.AddrPort) (int, string, error) { return 80, "docker-proxy", nil }}
	return NewReader(files, host, func(context.Context) (Path, error) {
		return Path{Bridge: "br-zeekmon0", Sensors: []SensorAt{{Name: "zeek", ID: "abc", PID: 70, Started: time.Unix(1000, 0), Port: 4789,
			Address: netip.MustParseAddr("172.18.0.2"), Published: netip.MustParseAddrPort("127.0.0.1:4789")}}}, nil
	})
}

func find(p Picture, hop Hop) *State {
	for i := range p.States {
		if p.States[i].Hop == hop {
			return &p.States[i]
		}
	}
	return nil
}

// Every hop is read, in the order of the way, from a machine's files alone.
func TestReadsAMachine(t *testing.T) {
	p, err := somewhere(machine(2, 3, 5).write(t)).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var hops []Hop
	for _, s := range p.States {
		hops = append(hops, s.Hop)
	}
	if want := []Hop{HopSender, HopConntrack, HopLoopback, HopHostUDP, HopProxy, HopBridge, HopVeth, HopSoftnet, HopDevice, HopIP, HopUDP, HopSocket, HopZeek, HopLogs, HopCollector, HopLoki}; !slices.Equal(hops, want) {
		t.Errorf("%v\nwant %v", hops, want)
	}
	for hop, want := range map[Hop]map[string]uint64{
		HopSender:    {"UdpOutDatagrams": 5, "UdpSndbufErrors": 3, "IpOutDiscards": 0, "unresolved_discards": 2},
		HopConntrack: {"drop": 2, "insert_failed": 1},
		HopLoopback:  {"rx_packets": 10, rxDropped: 1},
		HopHostUDP:   {inErrors: 17, noPorts: 7, reasmFails: 5},
		HopProxy:     {"127.0.0.1:4789 drops #77": 11},
		HopBridge:    {"tx_packets": 20, txDropped: 2},
		HopVeth:      {"tx_packets": 20, txDropped: 2},
		HopSoftnet:   {"processed": 2001, softDropped: 1, "time_squeeze": 6, "received_rps": 8, flowLimited: 0},
		HopDevice:    {"rx_packets": 10, rxDropped: 1},
		HopIP:        {"IpExtInNoECTPkts": 1000, "IpExtInECT0Pkts": 20, reasmFails: 5, "conntrack drop": 2},
		HopUDP:       {inDatagrams: 800, inErrors: 17, noPorts: 7, "UdpRcvbufErrors": 17, "UdpMemErrors": 0},
		HopSocket:    {"0.0.0.0:4789 drops #77": 17},
	} {
		got := values(p, hop)
		for name, n := range want {
			if v, ok := got[name]; !ok || v != n {
				t.Errorf("%s: %s is %d (%t), want %d", hop, name, v, ok, n)
			}
		}
	}
	veth, proxy, soft := find(p, HopVeth), find(p, HopProxy), find(p, HopSoftnet)
	if veth.Name != "vethab" || !proxy.Facts.Stopped || proxy.Facts.Process != "docker-proxy (PID 80)" {
		t.Errorf("%s; %+v", veth.Name, proxy.Facts)
	}
	if bridge, device := find(p, HopBridge), find(p, HopDevice); bridge.Facts.MTU != 9000 || device.Facts.MTU != 1500 {
		t.Errorf("MTU: %+v, %+v", bridge.Facts, device.Facts)
	}
	if soft.Name != "softnet (2 CPUs)" || soft.Facts.Backlog != 1000 || !slices.Equal(soft.Facts.RPS, []string{"lo ff", "eth0 of zeek 00"}) {
		t.Errorf("%s; %+v", soft.Name, soft.Facts)
	}
}

// A kernel, or a privilege, that lacks something: that is named, and the rest is
// read.
func TestReadsWhatThereIs(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  tree
		without []string
		hop     Hop
		what    string
		why     string
		values  int // that are read nevertheless
	}{
		{"no conntrack", nil, []string{"/proc/net/stat/nf_conntrack"}, HopConntrack, fileConntrack, "this kernel does not have it", 0},
		{"no softnet_stat", nil, []string{"/proc/net/softnet_stat"}, HopSoftnet, fileSoftnet, "this kernel does not have it", 0},
		{"an old softnet_stat", tree{"/proc/net/softnet_stat": "1 2 3 0 0 0 0 0 0\n"}, nil, HopSoftnet, "received_rps, " + flowLimited, "this kernel does not have it", 3},
		{"a damaged softnet_stat", tree{"/proc/net/softnet_stat": "x\n"}, nil, HopSoftnet, fileSoftnet, "line 1 has 1 columns, want at least 3", 0},
		{"a damaged snmp", tree{"/proc/net/snmp": "Udp: InDatagrams NoPorts\nUdp: 1\n"}, nil, HopHostUDP, fileSNMP, `the numbers of "Udp:" do not fit their heading`, 0},
		{"an older snmp", tree{"/proc/70/net/snmp": "Udp: InDatagrams NoPorts InErrors\nUdp: 1 2 3\n"}, nil, HopUDP, "UdpRcvbufErrors", "this kernel does not have it", 3},
		{"the sensor's process has gone", nil, []string{"/proc/70/net/snmp", "/proc/70/net/dev", "/proc/70/net/udp"}, HopUDP, fileSNMP, "the process in its network namespace has gone", 0},
		{"no root: the other end of the link", nil, []string{"/proc/70/root/sys/class/net/eth0/iflink"}, HopVeth, "which device it is", "this kernel does not have it", 0},
		{"no bridge", tree{"/proc/net/dev": "lo: 1 10 0 1 0 0 0 0 2 20 0 2 0 0 0 0\n"}, nil, HopBridge, "counters", "there is no device br-zeekmon0", 0},
		{"no docker-proxy", tree{"/proc/net/udp": ""}, nil, HopProxy, "its socket", "nobody listens at 127.0.0.1:4789: without the userland proxy the engine redirects packets instead", 0},
	} {
		files := machine(2, 1, 1).without(tt.without...)
		maps.Copy(files, tt.change)
		p, err := somewhere(files.write(t)).Read(t.Context())
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		st := find(p, tt.hop)
		if !slices.Contains(st.Unknown, Unknown{tt.what, tt.why}) || len(st.Values) != tt.values {
			t.Errorf("%s: %d values, not known: %+v", tt.name, len(st.Values), st.Unknown)
		}
	}
}

// Without root a process's /sys may show the devices of another namespace: an MTU
// is only believed of a device that names the host's end of its link.
func TestTheMTUOfAnotherDevice(t *testing.T) {
	files := machine(2, 0, 1).without("/sys/class/net/veth00000/ifindex", "/sys/class/net/br-zeekmon0/brif/veth00000/port_no")
	files["/proc/70/root/sys/class/net/eth0/iflink"] = "4711\n"
	p, err := somewhere(files.write(t)).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if veth, device := find(p, HopVeth), find(p, HopDevice); veth.Name != "vethab" || device.Facts.Device != "eth0" || device.Facts.MTU != 0 {
		t.Errorf("%s: %+v", veth.Name, device.Facts)
	}
}

// remote is another machine, as a helper container shows it.
type remote struct{ files tree }

func (r remote) Read(_ context.Context, ns nsenter.Namespace, paths ...string) (map[string]string, error) {
	found := map[string]string{}
	for _, pattern := range paths {
		at := Dir("").locate(ns.PID, pattern)
		for path, text := range r.files {
			if ok, _ := filepath.Match(at, path); ok {
				found[strings.TrimPrefix(path, strings.TrimSuffix(at, pattern))] = text
			}
		}
		if text, ok := r.files[at]; ok {
			found[pattern] = text
		}
	}
	return found, nil
}

func (remote) Write(context.Context, nsenter.Namespace, string, string) error {
	return fs.ErrPermission
}
func (remote) Lock(context.Context, string) (func(), error) { return nil, fs.ErrPermission }

func (remote) Close() error { return nil }

// By a helper container the same is read as directly.
func TestReadsAnotherMachine(t *testing.T) {
	files := machine(2, 3, 5)
	here, err := somewhere(files.write(t)).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	there, err := somewhere(Entered{remote{files}}).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range here.States {
		if got, want := values(there, s.Hop), values(here, s.Hop); !maps.Equal(got, want) {
			t.Errorf("%s: %v\nwant %v", s.Hop, got, want)
		}
	}
}

// Without an engine's answer at first nothing can be read; later on what is
// known stays, and what is not is named.
func TestTheEngineGoesAway(t *testing.T) {
	away := errors.New("the engine does not answer")
	r := somewhere(machine(2, 1, 1).write(t))
	well := r.find
	r.find = func(context.Context) (Path, error) { return Path{}, away }
	if _, err := r.Read(t.Context()); !errors.Is(err, away) {
		t.Errorf("at first: %v", err)
	}
	r.find = well
	if _, err := r.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.find = func(context.Context) (Path, error) { return Path{}, away }
	r.links["zeek"] = link{identity: "another process"}
	p, err := r.Read(t.Context())
	if s := find(p, HopSocket); err != nil || len(s.Values) != 0 || s.Unknown[0].Why != away.Error() {
		t.Errorf("later: %v, %+v", err, s)
	}
}

// A machine with 64 processors, 200 devices and 500 UDP sockets.
func BenchmarkReadLargeMachine(b *testing.B) {
	r := somewhere(machine(64, 200, 500).write(b))
	for b.Loop() {
		if _, err := r.Read(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
