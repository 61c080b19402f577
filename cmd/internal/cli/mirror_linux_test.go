package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/afpacket"
	"github.com/zeekdemo/zeekdemo/forward/encap"
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
	var c liveCapture
	testenv.Inside(t, ns, func() (err error) {
		expression := tcpdumpFilter("udp dst port 4000 or udp dst port 4789", []afpacket.Tunnel{{To: netip.MustParseAddrPort("127.0.0.1:4789")}},
			[]netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:22")})
		c, err = openTcpdump([]string{"lo"}, expression, func(string) {})
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
		{"-w/tmp/x", "", "want its name"},
	} {
		if _, err := openTcpdump([]string{c.name}, c.expression, func(string) {}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: %v", c.name, c.expression, err)
		}
	}
}

// What tcpdump captures goes to the sensor by a sidecar, as on macOS. Where tcpdump
// dies, the mirror says so.
func TestTcpdumpFeedsASidecar(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(stop func(), dump *tcpdump)
		want string
	}{
		"interrupted": {func(stop func(), _ *tcpdump) { stop() }, ""},
		"killed":      {func(_ func(), dump *tcpdump) { _ = dump.cmd.Process.Kill() }, "capture on lo: tcpdump: "},
	} {
		t.Run(name, func(t *testing.T) { mirrorByTcpdump(t, c.end, c.want) })
	}
}

func mirrorByTcpdump(t *testing.T, stop func(func(), *tcpdump), want string) {
	testenv.NeedTool(t, "tcpdump")
	ns, to := testenv.Namespace(t), newSink(t)
	var out bytes.Buffer
	o := mirrorOptions{interfaces: []string{"lo"}, how: howForwarder, json: true}
	m := &mirror{app: &App{Streams: ui.Streams{In: strings.NewReader(""), Out: &out, Err: io.Discard}, Getenv: os.Getenv}, o: o,
		config: encap.Config{Kind: encap.VXLAN, VNI: 7}, lossless: losslessAuto, interfaces: o.interfaces, how: howForwarder,
		target: target{Address: to.at, Via: viaSidecar}, way: chosenWay{via: viaSidecar, sidecar: insideStreams(nil)}}
	var c liveCapture
	testenv.Inside(t, ns, func() (err error) {
		c, err = openTcpdump(m.interfaces, "udp dst port 4000", func(string) {})
		return err
	})
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- (&liveRun{mirror: m}).from(ctx, c) }()
	const n = 300
	talk(t, ns, n)
	to.awaits(t, n)
	stop(end, c.(*tcpdumpCapture).dumps[0])
	defer end()
	select {
	case err := <-done:
		if err := notLoss(err); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
	for _, want := range []string{`"datagrams_sent": 300`, `"packets": 300`, `"via": "sidecar"`, `"how": "forwarder"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, out.String())
		}
	}
}
