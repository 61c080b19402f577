package transmit

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward/encap"
)

func TestParseMode(t *testing.T) {
	for in, want := range map[string]Mode{"": Auto, "auto": Auto, "packet": Packet, "udp": UDP} {
		if got, err := ParseMode(in); got != want || err != nil {
			t.Errorf("ParseMode(%q) = %q, %v", in, got, err)
		}
	}
	if _, err := ParseMode("Packet"); err == nil {
		t.Error("mode Packet is accepted")
	}
}

func TestParseCPU(t *testing.T) {
	for in, want := range map[string]CPU{"": CPUAuto, "auto": CPUAuto, "off": CPUOff, "0": 0, "17": 17} {
		got, err := ParseCPU(in)
		if got != want || err != nil {
			t.Errorf("ParseCPU(%q) = %v, %v", in, got, err)
		}
		if back, err := ParseCPU(got.String()); back != got || err != nil {
			t.Errorf("ParseCPU(%q) = %v, %v", got.String(), back, err)
		}
	}
	for _, in := range []string{"-1", "one", "1.5", "99999999"} {
		if c, err := ParseCPU(in); err == nil {
			t.Errorf("ParseCPU(%q) = %v", in, c)
		}
	}
}

func TestOptionsDefaults(t *testing.T) {
	o, err := Options{Destination: netip.MustParseAddrPort("[::ffff:192.0.2.1]:0"), Kind: encap.GENEVE}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	want := Options{
		Destination: netip.MustParseAddrPort("192.0.2.1:6081"), Kind: encap.GENEVE, Mode: Auto,
		PortMin: DefaultPortMin, PortMax: DefaultPortMax, Sockets: DefaultSockets,
	}
	if o != want {
		t.Errorf("got %+v, want %+v", o, want)
	}
	o, err = Options{Destination: want.Destination, PortMin: 50000, PortMax: 50002}.withDefaults()
	if err != nil || o.Sockets != 3 {
		t.Errorf("%d sockets for three ports: %v", o.Sockets, err)
	}
}

func TestOptionsErrors(t *testing.T) {
	dst := netip.MustParseAddrPort("192.0.2.1:4789")
	for want, o := range map[string]Options{
		"no destination":        {},
		"not a unicast address": {Destination: netip.MustParseAddrPort("224.0.0.1:4789")},
		"are no range":          {Destination: dst, PortMin: 2, PortMax: 1},
		"unknown transmission":  {Destination: dst, Mode: "pigeon"},
		"-1 sockets":            {Destination: dst, Sockets: -1},
	} {
		if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one that says %q", err, want)
		}
	}
}

func TestSpreadPorts(t *testing.T) {
	o := Options{PortMin: 100, PortMax: 199, Sockets: 4}
	busy := func(ports ...uint16) func(uint16) error {
		return func(p uint16) error {
			if slices.Contains(ports, p) {
				return syscall.EADDRINUSE
			}
			return nil
		}
	}
	for _, test := range []struct {
		name string
		o    Options
		bind func(uint16) error
		want []uint16
		err  error
	}{
		{"free", o, busy(), []uint16{100, 125, 150, 175}, nil},
		{"some in use", o, busy(100, 125, 126, 175), []uint16{101, 127, 150, 176}, nil},
		{"as many as there are", Options{PortMin: 65534, PortMax: 65535, Sockets: 2}, busy(), []uint16{65534, 65535}, nil},
		{"fewer than wanted", Options{PortMin: 65534, PortMax: 65535, Sockets: 2}, busy(65534), []uint16{65535}, nil},
		{"none", Options{PortMin: 7, PortMax: 7, Sockets: 1}, busy(7), nil, syscall.EADDRINUSE},
		{"not allowed", Options{PortMin: 7, PortMax: 9, Sockets: 1}, func(uint16) error { return syscall.EACCES }, nil, syscall.EACCES},
		{"other error", o, func(uint16) error { return syscall.EMFILE }, nil, syscall.EMFILE},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []uint16
			err := test.o.spreadPorts(func(p uint16) error {
				err := test.bind(p)
				if err == nil {
					got = append(got, p)
				}
				return err
			})
			if !errors.Is(err, test.err) || !slices.Equal(got, test.want) {
				t.Errorf("bound %v: %v; want %v, %v", got, err, test.want, test.err)
			}
		})
	}
}

func TestDescription(t *testing.T) {
	for want, d := range map[string]Description{
		"packet on eth0, segmentation offload": {Mode: Packet, Device: "eth0", GSO: true},
		"packet on veth1 (port of bridge br0)": {Mode: Packet, Device: "veth1", Bridge: "br0"},
		"udp, 64 sockets; packet not possible": {Mode: UDP, Sockets: 64, Reasons: []string{"packet not possible"}},
	} {
		if got := d.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestMaxPayload(t *testing.T) {
	for addr, want := range map[string]int{"192.0.2.1": 65507, "::ffff:192.0.2.1": 65507, "2001:db8::1": 65527} {
		if got := MaxPayload(netip.MustParseAddr(addr)); got != want {
			t.Errorf("MaxPayload(%s) = %d, want %d", addr, got, want)
		}
	}
}
