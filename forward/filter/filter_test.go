package filter

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// expressions are one of each kind that pcap-filter(7) describes.
var expressions = []string{
	"", "ip", "ip6", "arp", "tcp", "udp", "icmp", "icmp6", "not ip", "ip or ip6",
	"port 53", "tcp port 80", "src port 53", "dst port 443 or port 22", "portrange 20-1023", "tcp portrange 1-100", "not portrange 0-1023",
	"host 192.168.1.1", "src host 10.0.0.1 or dst host 10.0.0.2", "net 10.0.0.0/8", "net 192.168", "src net 172.16.0.0/12", "ip6 host fe80::1", "ip6 net fe80::/10", "dst net 224.0.0.0/4",
	"greater 500", "less 100", "len > 60 and len <= 1000", "len = 60",
	"tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "tcp[tcpflags] == tcp-syn", "tcp[13] & 4 != 0",
	"tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)",
	"ip[8] < 64", "ip[0] & 0xf != 5", "ip[6:2] & 0x1fff != 0", "udp[4:2] > 100", "icmp[icmptype] == icmp-echo", "ip[2:2] % 2 = 1", "ip[2:2] / 3 * 3 = ip[2:2]", "ip[1] ^ 1 = 1",
	"ip proto 47", "ip protochain 6", "ip6 protochain 58", "ip6 protochain 6", "proto 17",
	"-ip[0] & 1 = 1",
}

// ethernetOnly need an Ethernet header.
var ethernetOnly = []string{
	"vlan", "vlan 2", "vlan and ip", "vlan and vlan and tcp", "mpls", "mpls and ip", "ether broadcast", "ether multicast", "broadcast", "ip multicast",
	"ether proto 0x88cc", "ether host 00:11:22:33:44:55", "ether[0] & 1 = 0 and ip[16] >= 224", "llc", "ether[12:2] > 1500", "pppoes", "stp", "ether proto \\ip and not tcp", "geneve", "tcp and port 80 or vlan and tcp and port 80",
}

// files are captures of as many kinds as there are.
var files = []string{
	"bro.org.pcap", "ssh.pcap", "workshop_2011_browse.pcap", "ipv6-fragmented-dns.pcap", "ipv6-hbh-routing0.pcap", "mixed-vlan-mpls.pcap",
	"http-qinq-0.pcap", "icmp_dot1q.pcap", "nmap-vsn.pcap", "ip4-trunc.pcap", "ip6-ext-trunc.pcap", "snmpwalk-short.pcap", "erspan.pcap", "snap-tcp.pcap", "vlan-pcp-dei.pcapng", "http-post-large.pcap",
	"rotation.pcap", "linuxsll-arp.pcap", "linux_dlt_sll2.pcap", "icmp6-mldv2.pcap", "tcp-syslog.pcap", "dns-svcb.pcap", "radiotap.pcap", "quic-interop-retry.pcap",
}

// TestAgainstTcpdump runs every expression on captures of every kind: the
// frames that match are those that tcpdump prints, and they are those that
// golang.org/x/net/bpf selects, as far as that can.
func TestAgainstTcpdump(t *testing.T) {
	tcpdump := testenv.NeedTool(t, "tcpdump")
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			name := testenv.Shared(t, "pcaps", file)
			lt, frames := readFrames(t, name)
			all := expressions
			if lt == forward.LinkEthernet {
				all = append(all[:len(all):len(all)], ethernetOnly...)
			}
			for _, expr := range all {
				compareMatches(t, tcpdump, name, expr, lt, frames)
			}
		})
	}
}

// readFrames reads all frames of a capture that has one link type.
func readFrames(tb testing.TB, name string) (forward.LinkType, []forward.Frame) {
	tb.Helper()
	r, err := pcapfile.Open(name, nil)
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	var frames []forward.Frame
	for {
		var f forward.Frame
		if err := r.Next(&f); errors.Is(err, io.EOF) {
			return r.LinkTypes()[0], frames
		} else if err != nil {
			tb.Fatal(err)
		}
		f.Data = bytes.Clone(f.Data)
		frames = append(frames, f)
	}
}

// compareMatches compares one expression on one capture.
func compareMatches(t *testing.T, tcpdump, name, expr string, lt forward.LinkType, frames []forward.Frame) {
	t.Helper()
	// -w rewrites what matched, so that frames can be counted whatever
	// tcpdump would print about them.
	printed, tcpdumpErr := exec.Command(tcpdump, "-n", "-r", name, "-w", "-", "--", expr).Output()
	p, err := Compile(t.Context(), expr, lt, 0)
	if (err == nil) != (tcpdumpErr == nil) {
		t.Errorf("%q: %v, tcpdump: %v", expr, err, tcpdumpErr)
	}
	if err != nil || tcpdumpErr != nil {
		return
	}
	want := countRecords(t, printed)
	vm, vmErr := peerVM(p.Raw())
	got := 0
	for i, f := range frames {
		match := p.Match(f.Data, f.Length)
		if match {
			got++
		}
		if vmErr != nil || f.Length != len(f.Data) {
			continue
		}
		if n, err := vm.Run(f.Data); err != nil || (n > 0) != match {
			t.Fatalf("%q: frame %d: %v, golang.org/x/net/bpf says %d, %v", expr, i+1, match, n, err)
		}
	}
	if got != want {
		t.Errorf("%q: %d of %d frames match, tcpdump says %d", expr, got, len(frames), want)
	}
	if vmErr != nil && !strings.Contains(expr, "protochain") && !strings.HasPrefix(expr, "-") {
		t.Errorf("%q: golang.org/x/net/bpf refuses the program: %v", expr, vmErr)
	}
}

// peerVM makes the peer's interpreter, which lacks an instruction and gets another
// one wrong.
func peerVM(raw []bpf.RawInstruction) (*bpf.VM, error) {
	instructions, ok := bpf.Disassemble(raw)
	if !ok {
		return nil, errors.New("cannot be disassembled")
	}
	for _, r := range raw {
		if r.Op == 0x84 || r.Op == 0x81 {
			return nil, errors.New("negation is not implemented, and ldx #len loads the accumulator")
		}
	}
	return bpf.NewVM(instructions)
}

// countRecords counts the packets of a capture.
func countRecords(t *testing.T, capture []byte) (n int) {
	t.Helper()
	r, err := pcapfile.NewReader(bytes.NewReader(capture), "tcpdump's output")
	if err != nil {
		t.Fatal(err)
	}
	for {
		var f forward.Frame
		if err := r.Next(&f); errors.Is(err, io.EOF) {
			return n
		} else if err != nil {
			t.Fatal(err)
		}
		n++
	}
}

// TestCompileRefuses passes tcpdump's own words on.
func TestCompileRefuses(t *testing.T) {
	testenv.NeedTool(t, "tcpdump")
	written := filepath.Join(t.TempDir(), "written")
	tests := []struct {
		expr, want string
		link       forward.LinkType
	}{
		{"tcp prt 80", "syntax error", 1},
		{"port 80 and", "syntax error", 1},
		{"port nosuchservice", "unknown port 'nosuchservice'", 1},
		{"host 300.1.1.1", "host", 1},
		{"-w " + written, "syntax error", 1},
		{"--version", "syntax error", 1},
		{"-F/etc/passwd", "syntax error", 1},
		{"vlan", "no VLAN support", forward.LinkRaw},
		{"tcp", "not implemented", forward.LinkIEEE802154},
		{"ip6", "expression rejects all packets", forward.LinkIPv4},
		{"tcp\x00port 80", "zero byte", 1},
	}
	for _, test := range tests {
		t.Run(test.expr, func(t *testing.T) {
			p, err := Compile(t.Context(), test.expr, test.link, 0)
			if err == nil {
				t.Fatalf("compiled to %d instructions", len(p.Raw()))
			}
			if !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), fmt.Sprintf("compile filter %q", test.expr)) {
				t.Errorf("error %q lacks %q", err, test.want)
			}
			if strings.Contains(err.Error(), "reading from file") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q says more than is wrong", err)
			}
		})
	}
	if _, err := os.Stat(written); err == nil {
		t.Error("an expression became an option")
	}
}

// TestCompileWithoutTcpdump says how to get it.
func TestCompileWithoutTcpdump(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Compile(t.Context(), "ip", forward.LinkEthernet, 0)
	if !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "apt-get install tcpdump") {
		t.Errorf("%v", err)
	}
}

// TestCompileCancelled ends with the context's cause.
func TestCompileCancelled(t *testing.T) {
	testenv.NeedTool(t, "tcpdump")
	why := errors.New("changed my mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := Compile(ctx, "ip", forward.LinkEthernet, 0); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

// TestSnapLen is what a matching program returns.
func TestSnapLen(t *testing.T) {
	testenv.NeedTool(t, "tcpdump")
	p, err := Compile(t.Context(), "", forward.LinkEthernet, 96)
	if err != nil {
		t.Fatal(err)
	}
	if raw := p.Raw(); len(raw) != 1 || raw[0] != (bpf.RawInstruction{Op: 6, K: 96}) {
		t.Errorf("program %v", raw)
	}
}

// TestParse refuses what tcpdump would not print.
func TestParse(t *testing.T) {
	good := "2\n48 0 0 0\n6 0 0 262144\n"
	if raw, err := parse(bufio.NewReader(strings.NewReader(good))); err != nil || len(raw) != 2 || raw[0].Op != 48 || raw[1].K != 262144 {
		t.Errorf("%v, %v", raw, err)
	}
	for _, bad := range []string{"", "x", "0\n", "-1\n", "2\n6 0 0 1\n", "1\n6 0 0\n", "1\n6 256 0 0\n", "1\n6 0 0 4294967296\n", "99999999\n"} {
		if raw, err := parse(strings.NewReader(bad)); err == nil {
			t.Errorf("%q became %v", bad, raw)
		}
	}
}
