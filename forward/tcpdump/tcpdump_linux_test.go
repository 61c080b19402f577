package tcpdump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/afpacket"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// talk sends datagrams over lo of a namespace: each goes there once, and nobody
// listens.
func talk(t *testing.T, namespace string, n int) {
	t.Helper()
	testenv.Inside(t, namespace, func() error {
		for i := range n {
			c, err := net.Dial("udp", "127.0.0.1:4000")
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(c, "datagram %d.", i); err != nil {
				return err
			}
			c.Close()
		}
		return nil
	})
}

// Where there are no packet rings, the system's tcpdump captures: every frame, in
// order, and what was captured before it is stopped comes out.
func TestTcpdumpCaptures(t *testing.T) {
	testenv.NeedTool(t, "tcpdump")
	ns := testenv.Namespace(t)
	var c *Capture
	testenv.Inside(t, ns, func() (err error) {
		expression := Filter("udp dst port 4000 or udp dst port 4789", []afpacket.Tunnel{{To: netip.MustParseAddrPort("127.0.0.1:4789")}},
			[]netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:22")})
		c, err = Open([]string{"lo"}, expression)
		return err
	})
	defer c.Close()
	const n = 200
	testenv.Inside(t, ns, func() error { // which must not come
		own, err := net.Dial("udp", "127.0.0.1:4789")
		if err == nil {
			_, err = io.WriteString(own, "the tunnel's own")
			own.Close()
		}
		return err
	})
	talk(t, ns, n)
	source := c.Sources()[0]
	var f forward.Frame
	for i := range n {
		if err := source.Next(&f); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("datagram %d.", i); !strings.HasSuffix(string(f.Data), want) || f.LinkType != forward.LinkEthernet {
			t.Fatalf("frame %d: %q of link type %v", i, f.Data, f.LinkType)
		}
	}
	if source.(forward.Readier).Ready() {
		t.Error("there is more")
	}
	c.Interrupt(true)
	if err := source.Next(&f); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	c.Interrupt(false)
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	if err := source.Next(&f); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	if counts, _ := c.Counts(); len(counts) != 1 || counts[0].Packets != n || counts[0].Dropped != 0 {
		t.Errorf("%+v", counts)
	}
}

func TestTcpdumpsTroubleIsTold(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedTool(t, "tcpdump")
	for _, c := range []struct{ name, expression, want string }{
		{"nosuch0", "", "nosuch0"},
		{"lo", "tcp prot 80", "syntax error"},
		{"-w/tmp/x", "", "want an interface's name"},
	} {
		if _, err := Open([]string{c.name}, c.expression); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: %v", c.name, c.expression, err)
		}
	}
}

// A tcpdump that dies is an error after what it captured, with what it said.
func TestAKilledTcpdumpIsTold(t *testing.T) {
	testenv.NeedTool(t, "tcpdump")
	ns := testenv.Namespace(t)
	var c *Capture
	testenv.Inside(t, ns, func() (err error) {
		c, err = Open([]string{"lo"}, "udp dst port 4000")
		return err
	})
	defer c.Close()
	if err := c.dumps[0].cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var f forward.Frame
	if err := c.Next(&f); err == nil || !strings.Contains(err.Error(), "capture on lo: tcpdump: ") {
		t.Errorf("got %v", err)
	}
}
