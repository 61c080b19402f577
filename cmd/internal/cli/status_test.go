package cli

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
)

// someMirrors are one of each state.
func someMirrors() []tcmirror.Mirror {
	m := tcmirror.Mirror{Device: "zeekmon-00abc12", Interface: "eth0", Direction: "both", Encap: "vxlan", VNI: 7, Service: "zeek",
		Sensor: netip.MustParseAddrPort("172.20.0.2:4789"), Process: 12, Alive: true, Complete: true}
	m.Stats = tcmirror.Stats{Received: tcmirror.Counters{Packets: 10, Bytes: 1000}, Sent: tcmirror.Counters{Packets: 5, Bytes: 500, Dropped: 2},
		Tunnel: tcmirror.Counters{Packets: 13, Dropped: 1}, Errors: 3}
	detached, dead, partial := m, m, m
	detached.Interface, detached.Detached, detached.Expression = "eth1", true, "tcp port 80"
	dead.Interface, dead.Alive = "eth2", false
	partial.Interface, partial.Complete, partial.Service = "", false, ""
	return []tcmirror.Mirror{m, detached, dead, partial}
}

func TestMirrorRows(t *testing.T) {
	var out bytes.Buffer
	ui.Table(&out, mirrorRows(someMirrors()))
	const want = `MIRROR  STATE        DIRECTION  SENSOR                VNI  PACKETS  BYTES  DROPPED  FILTER
eth0    process 12   both       zeek 172.20.0.2:4789  7    15       1500   6        -
eth1    detached     both       zeek 172.20.0.2:4789  7    15       1500   6        tcp port 80
eth2    left behind  both       zeek 172.20.0.2:4789  7    15       1500   6        -
-       incomplete   both       172.20.0.2:4789       7    15       1500   6        -
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// When the stack goes, mirrors to it are named; those to other monitors are not
// its business, and where nothing can be mirrored nothing is said.
func TestTellMirrors(t *testing.T) {
	for _, test := range []struct {
		list func() ([]tcmirror.Mirror, error)
		want string
	}{
		{func() ([]tcmirror.Mirror, error) { return someMirrors(), nil },
			"Still mirrored, to nowhere until the next `zeekdemo up`: eth0, eth1, eth2. `zeekdemo mirror --stop` ends that.\n"},
		{func() ([]tcmirror.Mirror, error) { return someMirrors()[3:], nil }, ""},
		{func() ([]tcmirror.Mirror, error) { return nil, fmt.Errorf("here: %w", errors.ErrUnsupported) }, ""},
		{nil, ""},
	} {
		var said bytes.Buffer
		tellMirrors(&App{Streams: ui.Streams{Err: &said}, Mirrors: test.list})
		if said.String() != test.want {
			t.Errorf("said %q, want %q", said.String(), test.want)
		}
	}
}
