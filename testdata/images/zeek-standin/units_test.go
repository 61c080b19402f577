package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseArgs(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		want options
		err  bool
	}{
		{"the stack's", []string{"-i", "udp::0.0.0.0:4789:vxlan", "local", "-e", "y", "-e", "x"},
			options{iface: "udp::0.0.0.0:4789:vxlan", scripts: []string{"local"}, exec: "x"}, false},
		{"seeds", []string{"--load-seeds", "a", "--save-seeds=b"}, options{loadSeeds: "a", saveSeeds: "b"}, false},
		{"seeds, short", []string{"-Ga", "-H", "b"}, options{loadSeeds: "a", saveSeeds: "b"}, false},
		{"no seeds", []string{"--load-seeds"}, options{}, true},
		{"unknown, long", []string{"--loud"}, options{}, true},
		{"clustered", []string{"-bCr", "f.pcap"}, options{readFile: "f.pcap"}, false},
		{"attached", []string{"-rf.pcap"}, options{readFile: "f.pcap"}, false},
		{"version", []string{"--version"}, options{version: true}, false},
		{"no value", []string{"-i"}, options{}, true},
		{"unknown", []string{"-Z"}, options{}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseArgs(tc.args)
			if (err != nil) != tc.err {
				t.Fatalf("error %v", err)
			}
			if err == nil && !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

// What Zeek's parse_interface_path reads (src/packet_source_options.cc of its
// packet-source-udp), less raw and skip=.
func TestParseSource(t *testing.T) {
	for iface, want := range map[string]source{
		"udp::0.0.0.0:4789:vxlan":             {encap: "vxlan", link: linkEthernet},
		"udp::0.0.0.0:4789":                   {encap: "vxlan", link: linkEthernet},
		"udp::[::1]:6081:geneve":              {encap: "geneve", link: linkEthernet},
		"udp::0.0.0.0:6081:geneve:dlt=raw":    {encap: "geneve", link: linkRaw},
		"udp::0.0.0.0:6081:dlt=raw:geneve":    {encap: "geneve", link: linkRaw},
		"udp::[::1]:4711:dlt=raw":             {encap: "vxlan", link: linkRaw},
		"udp::0.0.0.0:1:geneve:dlt=en10mb":    {encap: "geneve", link: linkEthernet},
		"udp::0.0.0.0:6081:geneve+vxlan":      {encap: "geneve+vxlan", link: linkEthernet},
		"udp::0.0.0.0:1:geneve+vxlan:dlt=ppp": {encap: "geneve+vxlan", link: linkPPP},
	} {
		got, err := parseSource(iface)
		path := strings.TrimPrefix(iface, "udp::")
		if err != nil || got.encap != want.encap || got.link != want.link || got.String() != path || !strings.HasPrefix(path, got.addr.String()) {
			t.Errorf("%s: got %+v, %v", iface, got, err)
		}
	}
	for iface, want := range map[string]string{
		"udp::0.0.0.0:4789:erspan":             "invalid option: 'erspan'",
		"udp::0.0.0.0:6081:geneve:DLT_RAW":     "invalid option: 'DLT_RAW'",
		"udp::0.0.0.0:6081:GENEVE":             "invalid option: 'GENEVE'",
		"udp::0.0.0.0:6081:geneve:":            "invalid option: ''",
		"udp::0.0.0.0:6081:vxlan:geneve":       "encapsulation already set - unexpected 'geneve'",
		"udp::0.0.0.0:6081:dlt=raw:dlt=en10mb": "data link_type already set - unexpected 'dlt=en10mb'",
		"udp::0.0.0.0":                         "missing port",
		"udp::[::1]":                           "missing port",
		"udp::0.0.0.0:":                        "invalid path",
		"udp::192.168.300:1":                   "invalid path",
		"udp::0.0.0.0:65536":                   "invalid path",
		"eth0":                                 "only the udp:: packet source",
	} {
		if got, err := parseSource(iface); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %+v, %v", iface, got, err)
		}
	}
}

func TestScript(t *testing.T) {
	s := defaultScript()
	err := s.apply(`# redef Telemetry::metrics_port = 1/tcp;
redef Telemetry::metrics_port = 9991/tcp; redef Log::default_logdir = "/a#b";
redef PacketSource::UDP::udp_recv_buffer_size = 32 * 1024 * 1024;
redef PacketSource::UDP::recvmmsg_buffer_size = 65535; # all of it
redef Stats::report_interval = 1min;
@load policy/frameworks/conn_key/packet_source/udp/geneve_vni`, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := script{metricsPort: 9991, metricsAddr: "0.0.0.0", recvBuffer: 32 << 20, datagramLimit: 65535,
		logDir: "/a#b", statsInterval: time.Minute, vniField: "geneve_vni"}
	if s != want {
		t.Errorf("got %+v\nwant %+v", s, want)
	}
	if err := s.apply("redef LogAscii::use_json = F;", io.Discard); err == nil {
		t.Error("no error for logs it cannot write")
	}
}

func TestDecapsulate(t *testing.T) {
	const (
		vxlan  = "\x08\x00\x00\x00\x00\x10\x92\x00" // 4242
		geneve = "\x00\x00\x08\x00\x00\x00\x4d\x00" // 77
		ip     = "\x45\x00\x00\x2a\x00\x00\x00\x00\x40\x11\x00\x00\xc0\x00\x02\x01\xc0\x00\x02\x02"
		udp    = "\xc0\x00\x12\xb5\x00\x16\x00\x00"
	)
	for _, tc := range []struct {
		name, encap, datagram string
		vnis                  vnis
		frame, weird          string
	}{
		{"vxlan", "vxlan", vxlan + "frame", vnis{noVNI, 4242}, "frame", ""},
		{"vxlan without a VNI", "vxlan", "\x00\x00\x00\x00\x00\x10\x92\x00frame", noTunnel(), "", "vxlan_unset_I_flag"},
		{"geneve", "geneve", geneve + "frame", vnis{77, noVNI}, "frame", ""},
		{"geneve with options", "geneve", "\x02\x00\x65\x58\x00\x00\x4d\x00optionsXframe", vnis{77, noVNI}, "frame", ""},
		{"geneve that is cut", "geneve", "\x02\x00\x65\x58\x00\x00\x4d\x00opt", noTunnel(), "", "geneve_too_short"},
		{"geneve of another version", "geneve", "\x40\x00\x65\x58\x00\x00\x4d\x00frame", noTunnel(), "", "geneve_invalid_version"},
		{"too short", "vxlan", "\x08", noTunnel(), "", "skipped_packet"},
		{"both", "geneve+vxlan", geneve + ip + udp + vxlan + "frame", vnis{77, 4242}, "frame", ""},
		{"both, IP with options", "geneve+vxlan", geneve + "\x46" + ip[1:] + "opts" + udp + vxlan + "frame", vnis{77, 4242}, "frame", ""},
		{"an Ethernet frame where both are wanted", "geneve+vxlan", geneve + string(udpFrame()), vnis{77, noVNI}, "", "unhandled IP version"},
		{"IPv6 where both are wanted", "geneve+vxlan", geneve + "\x60" + ip[1:] + ip, vnis{77, noVNI}, "", "unhandled IP version"},
		{"another protocol where both are wanted", "geneve+vxlan", geneve + ip[:9] + "\x06" + ip[10:] + udp + vxlan, vnis{77, noVNI}, "", "non_UDP_proto"},
		{"a header that says too little", "geneve+vxlan", geneve + "\x44" + ip[1:] + udp + vxlan, vnis{77, noVNI}, "", "invalid_IP_header_length"},
		{"no room for IP", "geneve+vxlan", geneve + ip[:19], vnis{77, noVNI}, "", "short_IP_in_GENEVE"},
		{"no room for UDP", "geneve+vxlan", geneve + ip, vnis{77, noVNI}, "", "skipped_packet"},
		{"UDP, but no VXLAN", "geneve+vxlan", geneve + ip + udp + "\x00data of some application", vnis{77, noVNI}, "", "vxlan_unset_I_flag"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, frame, weird := decapsulators()[tc.encap]([]byte(tc.datagram))
			if v != tc.vnis || string(frame) != tc.frame || weird != tc.weird {
				t.Errorf("got %v %q %q", v, frame, weird)
			}
		})
	}
}

// The link type is the listener's alone: what comes with another one is misread or
// dropped, whatever the GENEVE header says of it.
func TestALinkTypeIsTheListeners(t *testing.T) {
	ethernet := udpFrame()
	bare := ethernet[14:]
	misleading := slices.Concat([]byte{0x45, 0, 0xff}, ethernet[3:]) // to a group address that looks like a long IPv4 packet
	for _, tc := range []struct {
		name  string
		link  int
		frame []byte
		conns int
		weird string
	}{
		{"Ethernet as Ethernet", linkEthernet, ethernet, 1, ""},
		{"IP as IP", linkRaw, bare, 1, ""},
		{"Ethernet as IP", linkRaw, ethernet, 0, "unknown_ip_version"},
		{"Ethernet as IP, whose first byte misleads", linkRaw, misleading, 0, "truncated_IP"},
		{"IP as Ethernet", linkEthernet, bare, 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			s := newTestSensor(defaultScript(), dir)
			strip := decapsulators()["geneve"]
			r := receiver{sensor: s, strip: strip, link: tc.link}
			r.datagram(append([]byte("\x00\x00\x65\x58\x00\x00\x4d\x00"), tc.frame...))
			if err := s.finish(); err != nil {
				t.Fatal(err)
			}
			conns, _ := os.ReadFile(filepath.Join(dir, "conn.log"))
			weirds, _ := os.ReadFile(filepath.Join(dir, "weird.log"))
			if n := strings.Count(string(conns), "\n"); n != tc.conns {
				t.Errorf("%d connections, want %d:\n%s", n, tc.conns, conns)
			}
			if (tc.weird == "") != (len(weirds) == 0) || !strings.Contains(string(weirds), tc.weird) {
				t.Errorf("weird.log %q, want %q in it", weirds, tc.weird)
			}
		})
	}
}

// What is no tunnel's counts as received and as dropped.
func TestWhatIsNoTunnelsIsDropped(t *testing.T) {
	s := newTestSensor(defaultScript(), t.TempDir())
	r := receiver{sensor: s, strip: stripBoth, link: linkEthernet}
	r.datagram([]byte("\x00\x00\x08\x00\x00\x00\x4d\x00too short"))
	if c := s.counts; c.packets != 1 || c.dropped != 1 || c.bytes != 17 || c.weirds != 1 {
		t.Errorf("%+v", c)
	}
}

// Which VNIs keep connections apart, and are logged, is what the loaded script says.
func TestVNIsOfTheConnectionKey(t *testing.T) {
	for field, want := range map[string]vnis{
		"":                 noTunnel(),
		"vxlan_vni":        {noVNI, 4242},
		"geneve_vni":       {77, noVNI},
		"geneve_vxlan_vni": {77, 4242},
	} {
		s := script{vniField: field}
		if got := s.keyed(vnis{77, 4242}); got != want {
			t.Errorf("%q: %v, want %v", field, got, want)
		}
		var o object
		o.flow(&flow{key: flowKey{vnis: s.keyed(vnis{77, 4242})}}, field)
		for name, vni := range map[string]uint32{"geneve": want.geneve, "vxlan": want.vxlan} {
			text := fmt.Sprintf(`"id.ctx.%s_vni":%d`, name, vni)
			if strings.Contains(string(o.b), text) != (vni != noVNI) {
				t.Errorf("%q: %s", field, o.b)
			}
		}
	}
}

func TestStreamGaps(t *testing.T) {
	var st stream
	st.segment(0, 10)
	st.segment(20, 30)
	st.segment(25, 40)
	if hole := st.acked(15); hole != 5 {
		t.Errorf("hole of %d before 15, want 5", hole)
	}
	if hole := st.acked(40); hole != 5 {
		t.Errorf("hole of %d before 40, want 5", hole)
	}
	if st.next != 40 || st.size() != 40 {
		t.Errorf("next %d, size %d, want 40", st.next, st.size())
	}
}

func TestStreamPositionWraps(t *testing.T) {
	st := stream{started: true, start: 0xfffffff0}
	st.segment(0, 0x10)
	if got := st.position(5); got != 0x15 {
		t.Errorf("position %#x, want 0x15", got)
	}
}

// newTestSensor asks nobody for names.
func newTestSensor(script script, dir string) *sensor {
	return newSensor(script, newLogSet(dir), seeds{1}, &resolver{})
}

// udpFrame is a UDP packet of 4 payload bytes in an Ethernet frame.
func udpFrame() []byte {
	return []byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00" +
		"\x45\x00\x00\x20\x00\x00\x00\x00\x40\x11\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02" +
		"\x30\x39\x23\x28\x00\x0c\x00\x00data")
}

func TestHandlingAPacketAllocatesNothing(t *testing.T) {
	s := newTestSensor(defaultScript(), t.TempDir())
	frame, at := udpFrame(), int64(1)
	s.frame(at, vnis{}, linkEthernet, frame, len(frame))
	if n := testing.AllocsPerRun(1000, func() {
		at += 1000
		s.frame(at, vnis{}, linkEthernet, frame, len(frame))
	}); n != 0 {
		t.Errorf("%v allocations per packet", n)
	}
}

func TestVNIsKeepFlowsApartAndSilenceEndsThem(t *testing.T) {
	dir := t.TempDir()
	script := defaultScript()
	script.vniField = "vxlan_vni"
	s := newTestSensor(script, dir)
	s.limits = liveLimits(0)
	frame := udpFrame()
	s.frame(1, vnis{vxlan: 7}, linkEthernet, frame, len(frame))
	s.frame(2, vnis{vxlan: 8}, linkEthernet, frame, len(frame))
	s.frame(3, vnis{vxlan: 7}, linkEthernet, frame, len(frame))
	s.advance(int64(7 * time.Second))
	if err := s.logs.flush(); err != nil {
		t.Fatal(err)
	}
	conns := readConns(t, filepath.Join(dir, "conn.log"))
	if len(conns) != 2 || conns[0].OrigPkts+conns[1].OrigPkts != 3 || conns[0].VNI == conns[1].VNI {
		t.Errorf("got %+v, want 2 and 1 packets with VNIs 7 and 8", conns)
	}
	if err := s.finish(); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "conn.log")); strings.Count(string(text), "\n") != 2 {
		t.Errorf("a flow was logged twice:\n%s", text)
	}
}

// A rotation loses nothing and leaves no line twice; a process that starts empties
// what another has left.
func TestLogsRotate(t *testing.T) {
	dir := t.TempDir()
	logs, start := newLogSet(dir), time.Date(2026, 1, 1, 0, 0, 1, 0, time.UTC)
	logs.rotate = 5 * time.Second
	for i := range 4 { // at seconds 1, 4, 7 and 10
		now := start.Add(time.Duration(i) * 3 * time.Second)
		logs.turn(now)
		anew := logs.files["conn"] == nil || logs.files["conn"].w == nil
		logs.write("conn", fmt.Appendf(nil, "line %d\n", i))
		if anew {
			logs.files["conn"].opened = now
		}
	}
	if err := logs.close(); err != nil {
		t.Fatal(err)
	}
	all := ""
	list, _ := filepath.Glob(filepath.Join(dir, "conn*.log"))
	for _, name := range list {
		text, _ := os.ReadFile(name)
		all += string(text)
	}
	for i := range 4 {
		if strings.Count(all, fmt.Sprintf("line %d\n", i)) != 1 {
			t.Errorf("in %q: %q", list, all)
		}
	}
	want := []string{"conn.2026-01-01-00-00-01.log", "conn.2026-01-01-00-00-07.log", "conn.2026-01-01-00-00-10.log"} // at the end it is renamed as well
	for i, name := range list {
		list[i] = filepath.Base(name)
	}
	if !slices.Equal(list, want) || logs.files["conn"].lines != 4 {
		t.Errorf("files %q, want %q; %d lines", list, want, logs.files["conn"].lines)
	}
	next := newLogSet(dir)
	next.write("conn", []byte("other\n"))
	if err := next.close(); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "conn.log")); string(text) != "other\n" {
		t.Errorf("a new process left %q", text)
	}
}

func BenchmarkFrame(b *testing.B) {
	s := newTestSensor(defaultScript(), b.TempDir())
	frame, at := udpFrame(), int64(1)
	for b.Loop() {
		at += 1000
		s.frame(at, vnis{}, linkEthernet, frame, len(frame))
	}
}
