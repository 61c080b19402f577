package mirror

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/afpacket"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// All ways to the stack's sensors are left out, and nothing twice; a sidecar's
// loopback is not this machine's.
func TestNoSensorsTunnelIsMirrored(t *testing.T) {
	sensor := orchestrate.Sensor{Direct: netip.MustParseAddrPort("172.28.0.3:4789"), Published: netip.MustParseAddrPort("127.0.0.1:4789")}
	moved := orchestrate.Sensor{Direct: netip.MustParseAddrPort("172.28.0.4:4789"), Published: sensor.Published}
	list := func(tunnels []afpacket.Tunnel) (text string) {
		for _, tunnel := range tunnels {
			text += tunnel.To.String() + " "
		}
		return text
	}
	m := &mirror{target: way.Target{Choice: way.Choice{Kind: way.Direct}, Address: sensor.Direct, Sensor: sensor}}
	if got, want := list(m.tunnels(moved)), "172.28.0.3:4789 127.0.0.1:4789 172.28.0.4:4789 "; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	m.target = way.Target{Choice: way.Choice{Kind: way.Sidecar}, Address: netip.MustParseAddrPort("127.0.0.1:7777"), Sensor: sensor}
	if got, want := list(m.tunnels()), "172.28.0.3:4789 127.0.0.1:4789 "; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	m.target = way.Target{Choice: way.Choice{Kind: way.To}, Address: netip.MustParseAddrPort("192.0.2.1:4789")}
	if got, want := list(m.tunnels()), "192.0.2.1:4789 "; got != want {
		t.Errorf("got %s, want %s", got, want)
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
