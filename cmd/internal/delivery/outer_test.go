package delivery

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// A file's outer headers are as asked for; tshark reads them.
func TestOuterHeadersOfAFile(t *testing.T) {
	tshark := testenv.NeedTool(t, "tshark")
	for _, tt := range []struct {
		outer Outer
		to    string
		want  string // source, TTL, DSCP, (don't fragment,) IPv4's checksum is right, UDP's is not there or right
	}{
		{Outer{}, "", "192.0.2.1 64 0 1 1 3"},
		{Outer{Outer: transmit.Outer{TTL: 9, DSCP: 46, Source: netip.MustParseAddr("10.1.2.3")}, MayFragment: true}, "", "10.1.2.3 9 46 0 1 3"},
		{Outer{Outer: transmit.Outer{DontFragment: true}}, "192.0.2.9", "192.0.2.1 64 0 1 1 3"},
		{Outer{Outer: transmit.Outer{TTL: 255, DSCP: 63, Source: netip.MustParseAddr("2001:db8::77")}}, "2001:db8::9", "2001:db8::77 255 63 1"},
	} {
		r := replay(t)
		r.Limit, r.Outer = 20, tt.outer
		file := File{Path: filepath.Join(t.TempDir(), "out.pcap")}
		if tt.to != "" {
			file.To = host(t, tt.to)
		}
		if _, err := sent(t, r, file); err != nil {
			t.Fatal(err)
		}
		status := []string{"ip.checksum.status", "udp.checksum.status"}
		fields := []string{"ip.src", "ip.ttl", "ip.dsfield.dscp", "ip.flags.df"}
		if strings.Contains(tt.to, ":") {
			fields = []string{"ipv6.src", "ipv6.hlim", "ipv6.tclass.dscp"}
			status = status[1:]
		}
		// Not looking into the tunnel, tshark shows the outer header alone.
		args := []string{"-n", "-r", file.Path, "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "--disable-protocol", "vxlan", "-T", "fields", "-E", "separator= "}
		for _, f := range append(fields, status...) {
			args = append(args, "-e", f)
		}
		cmd := exec.Command(tshark, args...)
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if lines = slices.Compact(lines); !slices.Equal(lines, []string{tt.want}) {
			t.Errorf("%+v: outer headers %q, want %q", tt.outer, lines, tt.want)
		}
	}
}

// A sidecar's loopback has no use for what is asked of the outer header.
func TestOuterHeadersAreRefusedBySidecar(t *testing.T) {
	var usage *UsageError
	if err := (Outer{Outer: transmit.Outer{TTL: 9}}).checkSidecar(); !errors.As(err, &usage) {
		t.Errorf("error %v", err)
	}
	if err := (Outer{}).checkSidecar(); err != nil {
		t.Errorf("nothing was asked for: %v", err)
	}
}
