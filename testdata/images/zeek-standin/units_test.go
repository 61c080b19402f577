package main

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
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

func TestParseSource(t *testing.T) {
	for iface, want := range map[string]string{
		"udp::0.0.0.0:4789:vxlan":  "0.0.0.0:4789:vxlan",
		"udp::[::]:6081:geneve":    "[::]:6081:geneve",
		"udp::0.0.0.0:4789:erspan": "",
		"udp::0.0.0.0":             "",
		"eth0":                     "",
	} {
		got, err := parseSource(iface)
		if want == "" && err == nil || want != "" && (err != nil || got.String() != want) {
			t.Errorf("%s: got %v, %v", iface, got, err)
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
	for _, tc := range []struct {
		name, encap, datagram string
		vni                   uint32
		frame                 string
		ok                    bool
	}{
		{"vxlan", "vxlan", "\x08\x00\x00\x00\x00\x10\x92\x00frame", 4242, "frame", true},
		{"vxlan without a VNI", "vxlan", "\x00\x00\x00\x00\x00\x10\x92\x00frame", 0, "", false},
		{"geneve", "geneve", "\x00\x00\x65\x58\x00\x00\x4d\x00frame", 77, "frame", true},
		{"geneve with options", "geneve", "\x02\x00\x65\x58\x00\x00\x4d\x00optionsXframe", 77, "frame", true},
		{"geneve that is cut", "geneve", "\x02\x00\x65\x58\x00\x00\x4d\x00opt", 0, "", false},
		{"too short", "vxlan", "\x08", 0, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			vni, frame, ok := decapsulator(tc.encap)([]byte(tc.datagram))
			if vni != tc.vni || string(frame) != tc.frame || ok != tc.ok {
				t.Errorf("got %d %q %v", vni, frame, ok)
			}
		})
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
	s.frame(at, 1, linkEthernet, frame, len(frame))
	if n := testing.AllocsPerRun(1000, func() {
		at += 1000
		s.frame(at, 1, linkEthernet, frame, len(frame))
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
	s.frame(1, 7, linkEthernet, frame, len(frame))
	s.frame(2, 8, linkEthernet, frame, len(frame))
	s.frame(3, 7, linkEthernet, frame, len(frame))
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

func BenchmarkFrame(b *testing.B) {
	s := newTestSensor(defaultScript(), b.TempDir())
	frame, at := udpFrame(), int64(1)
	for b.Loop() {
		at += 1000
		s.frame(at, 1, linkEthernet, frame, len(frame))
	}
}
