package cli

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
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

// Tunnels arrive at a sensor's own address and at its published port.
func TestSensorAddresses(t *testing.T) {
	at, all := sensorAddresses([]orchestrate.ServiceStatus{
		{Service: "zeek", Addresses: map[string]netip.Addr{orchestrate.MonitoringNetwork: netip.MustParseAddr("172.20.0.2"), "other": netip.MustParseAddr("172.21.0.9")},
			Ports: []string{"127.0.0.1:4789/udp"}},
		{Service: "zeek-geneve"}, // not there
		{Service: "loki", Ports: []string{"127.0.0.1:13100/tcp"}},
	})
	want := []netip.AddrPort{netip.MustParseAddrPort("172.20.0.2:4789"), netip.MustParseAddrPort("127.0.0.1:4789")}
	if len(at) != 1 || at["zeek"] != want[0] || !slices.Equal(all, want) {
		t.Errorf("%v, %v", at, all)
	}
}

// An expression that tcpdump refuses is refused before anything is changed, and
// is no reason to try the forwarder.
func TestKernelExpression(t *testing.T) {
	testenv.NeedTool(t, "tcpdump")
	k := kernelRequest{Interfaces: []string{"nosuch0"}, Encap: "vxlan", To: netip.MustParseAddrPort("192.0.2.1:4789"), Expression: "tcp prot 80"}
	if err := k.possible(t.Context()); err == nil || errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "tcp prot 80") {
		t.Errorf("a wrong expression: %v", err)
	}
	if _, err := k.start(t.Context()); err == nil {
		t.Error("a wrong expression was taken")
	}
}
