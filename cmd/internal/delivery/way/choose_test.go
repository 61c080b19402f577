package way

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// Every way that can be wanted, with everything that can be found out.
func TestTheBestWayThatWasAllowedAndWorks(t *testing.T) {
	noDirect, noSidecar := errors.New("192.0.2.1 does not answer from here"), errors.New("run a sidecar: this engine cannot")
	const notDirect, notBySidecar = "not direct: 192.0.2.1 does not answer from here", "not by sidecar: run a sidecar: this engine cannot"
	for _, tt := range []struct {
		wanted  Kind
		found   Probed
		want    Kind
		reasons []string
		failure string
	}{
		{Auto, Probed{}, Direct, nil, ""},
		{Auto, Probed{Sidecar: noSidecar}, Direct, nil, ""},
		{Auto, Probed{Direct: noDirect}, Sidecar, []string{notDirect}, ""},
		{Auto, Probed{Direct: noDirect, Sidecar: noSidecar}, Published, []string{notDirect, notBySidecar}, ""},

		{Direct, Probed{}, Direct, nil, ""},
		{Direct, Probed{Sidecar: noSidecar}, Direct, nil, ""},
		{Direct, Probed{Direct: noDirect}, Sidecar, []string{notDirect}, ""},
		{Direct, Probed{Direct: noDirect, Sidecar: noSidecar}, "", nil, notDirect + "; run a sidecar: this engine cannot"},

		{Sidecar, Probed{}, Sidecar, nil, ""},
		{Sidecar, Probed{Direct: noDirect}, Sidecar, nil, ""},
		{Sidecar, Probed{Sidecar: noSidecar}, "", nil, "run a sidecar: this engine cannot"},
		{Sidecar, Probed{Direct: noDirect, Sidecar: noSidecar}, "", nil, "run a sidecar: this engine cannot"},

		{Published, Probed{}, Published, nil, ""},
		{Published, Probed{Direct: noDirect}, Published, nil, ""},
		{Published, Probed{Sidecar: noSidecar}, Published, nil, ""},
		{Published, Probed{Direct: noDirect, Sidecar: noSidecar}, Published, nil, ""},
	} {
		got, err := Choose(tt.wanted, tt.found)
		if got.Kind != tt.want || !slices.Equal(got.Reasons, tt.reasons) {
			t.Errorf("%s of %+v: got %q because of %q", tt.wanted, tt.found, got.Kind, got.Reasons)
		}
		if (err != nil) != (tt.failure != "") || err != nil && (err.Error() != tt.failure || !errors.Is(err, noSidecar)) {
			t.Errorf("%s of %+v: got %v", tt.wanted, tt.found, err)
		}
	}
}

// What is announced is why there is nothing better.
func TestOnlyAWorseWayIsAnnounced(t *testing.T) {
	for want, c := range map[string]Choice{
		"":                                     {Kind: Direct},
		"Going by sidecar: not direct: a":      {Sidecar, []string{"not direct: a"}},
		"Going by the published port: a; b":    {Published, []string{"a", "b"}},
		"Going direct: whatever the reason is": {Direct, []string{"whatever the reason is"}},
	} {
		if got := c.Announcement(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTheWaysThatCanBeAskedFor(t *testing.T) {
	for text, want := range map[string]Kind{"auto": Auto, "published": Published, "direct": Direct, "sidecar": Sidecar,
		"to": "", "file": "", "": "", "Direct": "", "direct ": ""} {
		got, err := ParseKind(text)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), "want published, direct, sidecar or auto") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// sensor has all addresses that one can have.
func sensor() orchestrate.Sensor {
	return orchestrate.Sensor{Service: orchestrate.Service{Name: "zeek", Port: 4789},
		Direct: netip.MustParseAddrPort("192.0.2.1:4789"), Published: netip.MustParseAddrPort("127.0.0.1:14789")}
}

func TestEachWayHasItsAddress(t *testing.T) {
	for kind, want := range map[Kind]string{Direct: "192.0.2.1:4789", Sidecar: "127.0.0.1:4789", Published: "127.0.0.1:14789"} {
		if got := (Choice{Kind: kind}).Address(sensor()); got != netip.MustParseAddrPort(want) {
			t.Errorf("%s: %s, want %s", kind, got, want)
		}
	}
	if got := Straight().Address(sensor()); got != sensor().Direct {
		t.Errorf("straight: %s", got)
	}
}

// A sensor whose port is not published is not to be had by it.
func TestAnAddressThatIsNotThereIsSaid(t *testing.T) {
	at := sensor()
	at.Published = netip.AddrPort{}
	e := wayEngine{arch: "amd64"}
	_, err := Opened{Choice: Choice{Kind: Published}}.Find(t.Context(), e, at)
	var hinted interface{ Hint() string }
	if !errors.As(err, &hinted) || err.Error() != "find sensor zeek: its port is not published" || !strings.Contains(hinted.Hint(), "--direct") {
		t.Errorf("got %v", err)
	}
	target, err := Straight().Find(t.Context(), e, at)
	if err != nil || target.Kind != Direct || target.Address != at.Direct || target.Sensor.Service.Name != "zeek" {
		t.Errorf("%v: %+v", err, target)
	}
}

// One may name the port inside or outside; any other is a mistake.
func TestAPortMustBeOneOfTheSensors(t *testing.T) {
	for port, right := range map[uint16]bool{0: true, 4789: true, 14789: true, 6081: false, 1: false} {
		err := CheckPort(port, sensor())
		var usage *UsageError
		if right != (err == nil) || !right && (!errors.As(err, &usage) || !strings.Contains(usage.Unwrap().Error(), "the stack's sensor listens on 4789")) {
			t.Errorf("%d: %v", port, err)
		}
	}
}

// What a sensor would misread is a mistake, and both ways out are named.
func TestASensorTakesWhatItsModeSays(t *testing.T) {
	const ethernet, ip, gwlb = orchestrate.GeneveEthernet, orchestrate.GeneveIP, orchestrate.GeneveGWLB
	sends := map[orchestrate.GeneveMode]encap.Config{ethernet: {Kind: encap.GENEVE}, ip: {Kind: encap.GENEVE, RawIP: true}, gwlb: {Kind: encap.GENEVE, InVXLAN: true}}
	for _, tt := range []struct {
		takes, sent orchestrate.GeneveMode
		hint        string // how to send something else; empty: it fits
	}{
		{ethernet, ethernet, ""}, {ip, ip, ""}, {gwlb, gwlb, ""},
		{ethernet, ip, "--raw-ip=false carries Ethernet"},
		{ethernet, gwlb, "without --as Ethernet is carried"},
		{ip, ethernet, "--raw-ip, --as aws-gwlb and --as gcp-nsi"},
		{ip, gwlb, "--as aws-gwlb and --as gcp-nsi"},
		{gwlb, ethernet, "--as aws-mirror-gwlb"},
		{gwlb, ip, "--as aws-mirror-gwlb"},
		{"geneve:dlt=ppp", ethernet, "--to HOST"},
	} {
		s := orchestrate.Sensor{Service: orchestrate.Service{Name: "zeek-geneve"}, Mode: tt.takes}
		err := CheckMode(sends[tt.sent], s)
		if tt.hint == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.sent, err)
			}
			continue
		}
		var usage *UsageError
		var hinted interface{ Hint() string }
		if !errors.As(err, &usage) || !errors.As(err, &hinted) {
			t.Errorf("%s to %s: %v", tt.sent, tt.takes, err)
			continue
		}
		if want := "send " + tt.sent.Phrase() + " to sensor zeek-geneve: it takes " + tt.takes.Phrase(); err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
		if hint := hinted.Hint(); !strings.Contains(hint, "`zeekdemo up --geneve-mode "+string(tt.sent)+"`") || !strings.Contains(hint, tt.hint) {
			t.Errorf("%s to %s: hint %q", tt.sent, tt.takes, hint)
		}
	}
}

// VXLAN always carries Ethernet, and its sensor takes that.
func TestTheVXLANSensorTakesEthernet(t *testing.T) {
	s := sensor()
	s.Mode = orchestrate.GeneveEthernet
	if err := CheckMode(encap.Config{}, s); err != nil {
		t.Error(err)
	}
}

// HOST or HOST:PORT; the default port goes with a host alone.
func TestReceiversAsTheyAreNamed(t *testing.T) {
	for text, want := range map[string]Host{
		"192.0.2.1":            {"192.0.2.1", 4789},
		"192.0.2.1:1":          {"192.0.2.1", 1},
		"192.0.2.1:65535":      {"192.0.2.1", 65535},
		"2001:db8::1":          {"2001:db8::1", 4789},
		"2001:DB8:0::1":        {"2001:db8::1", 4789},
		"[2001:db8::1]:6081":   {"2001:db8::1", 6081},
		"[fe80::1%eth0]:6081":  {"fe80::1%eth0", 6081},
		"fe80::1%eth0":         {"fe80::1%eth0", 4789},
		"monitor.example":      {"monitor.example", 4789},
		"monitor.example:6081": {"monitor.example", 6081},
		"192.0.2.1:0":          {},
		"192.0.2.1:65536":      {},
		"192.0.2.1:-1":         {},
		"192.0.2.1:vxlan":      {},
		"192.0.2.1:":           {},
		":4789":                {},
		"[]:4789":              {},
		"":                     {},
	} {
		got, err := ParseTo(text, 4789)
		if got != want || (err != nil) != (want == Host{}) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), "want HOST or HOST:PORT") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// An address is taken as it is, and a name of both families as IPv4: sensors
// listen on 0.0.0.0.
func TestReceiversAreFound(t *testing.T) {
	for text, want := range map[string]string{"192.0.2.1:5": "192.0.2.1:5", "[2001:db8::1]:5": "[2001:db8::1]:5", "localhost:5": "127.0.0.1:5"} {
		host, err := ParseTo(text, 4789)
		if err != nil {
			t.Fatal(err)
		}
		target, err := host.Target(t.Context())
		if err != nil || target.Address.String() != want || target.Kind != To {
			t.Errorf("%s: %v: %+v", text, err, target)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	host, _ := ParseTo("monitor.invalid", 4789)
	if _, err := host.Resolve(ctx); err == nil || !strings.HasPrefix(err.Error(), "look up monitor.invalid: ") {
		t.Errorf("got %v", err)
	}
}

func TestIPv4IsPreferred(t *testing.T) {
	four, six, mapped := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:192.0.2.1")
	for _, tt := range []struct {
		want netip.Addr
		from []netip.Addr
	}{{four, []netip.Addr{six, four}}, {four, []netip.Addr{four, six}}, {four, []netip.Addr{six, mapped}}, {six, []netip.Addr{six}}} {
		if got := preferIPv4(tt.from); got != tt.want {
			t.Errorf("of %v: %s", tt.from, got)
		}
	}
}
