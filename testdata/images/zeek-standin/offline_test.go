package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// sharedDir is the folder with the captures and with what a real Zeek wrote
// for them: ZEEKDEMO_SHARED, or a folder "shared" beside one of those above.
func sharedDir(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("ZEEKDEMO_SHARED"); dir != "" {
		return dir
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		shared := filepath.Join(dir, "shared")
		if _, err := os.Stat(filepath.Join(shared, "pcaps")); err == nil {
			return shared
		}
	}
	t.Skip("SKIPPED: no captures and no real Zeek's logs to compare with; set ZEEKDEMO_SHARED")
	return ""
}

// connection is what both have to agree on.
type connection struct {
	Proto    string `json:"proto"`
	OrigH    string `json:"id.orig_h"`
	OrigP    int    `json:"id.orig_p"`
	RespH    string `json:"id.resp_h"`
	RespP    int    `json:"id.resp_p"`
	OrigPkts int    `json:"orig_pkts"`
	OrigIP   int    `json:"orig_ip_bytes"`
	RespPkts int    `json:"resp_pkts"`
	RespIP   int    `json:"resp_ip_bytes"`
	State    string `json:"conn_state"`
	Missed   int    `json:"missed_bytes"`
	VNI      uint32 `json:"id.ctx.vxlan_vni"`
}

// readConns reads a conn.log, sorted; a log that is not there has no lines.
func readConns(t *testing.T, path string) []connection {
	t.Helper()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var conns []connection
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var c connection
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatalf("%s: %v in %s", path, err, lines.Bytes())
		}
		conns = append(conns, c)
	}
	slices.SortFunc(conns, func(a, b connection) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return conns
}

func TestOfflineEqualsZeek(t *testing.T) {
	shared := sharedDir(t)
	for _, name := range []string{
		"206_example_b.pcap", "bro.org.pcap", "conn-size.pcap", "cwd-navigation.pcap", "dhcp_flood.pcap", "dns53.pcap",
		"echo-connections.pcap", "http-post-large.pcap", "http-qinq-0.pcap", "icmp6-mldv2.pcap", "icmp_dot1q.pcap",
		"ipv6-fragmented-dns.pcap", "ipv6-hbh-routing0.pcap", "ipv6-http-atomic-frag.pcap", "irc-dcc-send.pcapng",
		"kerberos_tso.pcapng", "linux_dlt_sll2.pcap", "methods.pcap", "mixed-vlan-mpls.pcap", "modbusBig.pcap",
		"mqtt.pcap", "pcapng-multi-interface.pcapng", "smb2.pcap", "snap-tcp.pcap", "ssh.pcap", "ssl.v3.pcap",
		"workshop_2011_browse.pcap",
	} {
		t.Run(name, func(t *testing.T) {
			capture := filepath.Join(shared, "pcaps", name)
			if _, err := os.Stat(capture); err != nil {
				capture += ".gz"
			}
			got := analyse(t, capture)
			want := readConns(t, filepath.Join(shared, "zeek9", "offline", name, "conn.log"))
			if len(got) != len(want) {
				t.Errorf("%d connections, Zeek has %d", len(got), len(want))
			}
			for i := range min(len(got), len(want)) {
				if got[i] != want[i] {
					t.Fatalf("connection %d:\n got %+v\nwant %+v", i, got[i], want[i])
				}
			}
		})
	}
}

// analyse runs the stand-in on a capture and returns its connections.
func analyse(t *testing.T, capture string) []connection {
	t.Helper()
	dir := t.TempDir()
	script := fmt.Sprintf("redef LogAscii::use_json = T;\nredef Log::default_logdir = %q;\n"+
		"@load policy/frameworks/conn_key/packet_source/udp/vxlan_vni\n", dir)
	args := []string{"-C", "-r", capture, "local", "-e", script}
	if code := run(t.Context(), args, func(string) string { return "" }, io.Discard, io.Discard); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	return readConns(t, filepath.Join(dir, "conn.log"))
}
