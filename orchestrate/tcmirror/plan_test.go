package tcmirror

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// usual is a plain interface, and a sensor on a bridge of this machine.
func usual() (Spec, facts) {
	return Spec{Interface: "eth0", Encap: VXLAN, VNI: 7, Sensor: netip.MustParseAddrPort("172.20.0.2:4789")},
		facts{iface: iface{name: "eth0", index: 2, mtu: 1500, linkType: "ether"}, classifier: classifierBPF,
			route: route{device: 9, mtu: 65535, onLink: true}}
}

// decision is what is decided where something is other than usual.
type decision struct {
	name   string
	change func(*Spec, *facts)
	want   string // the plan, or after a "!" what the error says
}

func decisions() []decision {
	return []decision{
		{"usual", func(*Spec, *facts) {}, `add clsact
filter what comes in: clsact by bpf, priority 100
filter what goes out: clsact by bpf, priority 100
send frames of up to 65491 bytes
`},
		{"clsact is there", func(_ *Spec, f *facts) { f.ingress, f.priorities = "clsact", [2][]int{{49152}, {50, 200}} },
			`filter what comes in: clsact by bpf, priority 100
filter what goes out: clsact by bpf, priority 49
send frames of up to 65491 bytes
`},
		{"others are first", func(_ *Spec, f *facts) { f.ingress, f.priorities = "clsact", [2][]int{{1, 2, 5}, nil} },
			`filter what comes in: clsact by bpf, priority 3
filter what goes out: clsact by bpf, priority 100
send frames of up to 65491 bytes
note: a filter that was there has priority 1: what it decides about is not seen
`},
		{"the path is narrow", func(s *Spec, f *facts) { s.Sensor, f.route.mtu = netip.MustParseAddrPort("[2001:db8::1]:4789"), 1500 },
			`add clsact
filter what comes in: clsact by bpf, priority 100
filter what goes out: clsact by bpf, priority 100
send frames of up to 65471 bytes
take the original's route off each copy
note: frames of more than 1444 bytes go to the sensor in fragments, for the path there takes 1500 bytes
`},
		{"lo, as far as it goes", func(s *Spec, f *facts) {
			s.Oversize, f.iface = true, iface{name: "lo", index: 1, mtu: 65536, linkType: "loopback", isLoop: true}
		}, `add clsact
filter what comes in: clsact by bpf, priority 100
send frames of up to 65491 bytes
note: frames of more than 65491 bytes do not fit into a datagram: they count as dropped
`},
		{"lo with an ingress qdisc", func(s *Spec, f *facts) {
			f.ingress, f.iface = "ingress", iface{name: "lo", index: 1, mtu: 1500, linkType: "loopback", isLoop: true}
		}, `filter what comes in: ingress by bpf, priority 100
send frames of up to 65491 bytes
`},
		{"no cls_bpf", func(_ *Spec, f *facts) { f.classifier = classifierMatchAll }, `add clsact
filter what comes in: clsact by matchall, priority 100
filter what goes out: clsact by matchall, priority 100
send frames of up to 65491 bytes
`},
		{"no cls_bpf, and a filter", func(s *Spec, f *facts) { f.classifier, s.Filter = classifierU32, verdict(1) },
			"!mirror eth0: the filter needs the kernel's classifier bpf (cls_bpf), which is missing"},
		{"no cls_bpf, the tunnel's way", func(_ *Spec, f *facts) { f.classifier, f.iface.related = classifierU32, []int{9} },
			"!mirror eth0: the way to the sensor goes through it, and leaving that out needs"},
		{"no cls_bpf, under the tunnel's way", func(_ *Spec, f *facts) { f.classifier, f.route.related = classifierU32, []int{2} },
			"!mirror eth0: the way to the sensor goes through it, and leaving that out needs"},
		{"no classifier", func(_ *Spec, f *facts) { f.classifier = "" }, "!mirror eth0: this kernel has no classifier bpf (cls_bpf), matchall or u32"},
		{"ingress is taken", func(_ *Spec, f *facts) { f.ingress = "ingress" },
			"!mirror what eth0 sends: its ingress queueing discipline, which another program made, takes the only place"},
		{"something else is there", func(_ *Spec, f *facts) { f.ingress = "bpf" }, "!mirror eth0: its bpf queueing discipline takes the place"},
		{"no Ethernet", func(_ *Spec, f *facts) { f.iface.linkType = "none" }, "!mirror eth0: its frames have no Ethernet header (none), and"},
		{"too long", func(_ *Spec, f *facts) { f.iface.mtu = 65535 }, "!mirror eth0: its frames have up to 65549 bytes, which is too long for one datagram"},
		{"to this machine", func(_ *Spec, f *facts) { f.route.local = true }, "!mirror to 172.20.0.2: it is this machine itself"},
	}
}

// What is going to be done follows from the facts alone.
func TestDecide(t *testing.T) {
	for _, test := range decisions() {
		s, f := usual()
		test.change(&s, &f)
		p, err := decide(s, f)
		want, fails := strings.CutPrefix(test.want, "!")
		switch {
		case fails && (!errors.Is(err, errors.ErrUnsupported) || !strings.HasPrefix(err.Error(), want)):
			t.Errorf("%s: %v", test.name, err)
		case !fails && (err != nil || p.String() != want):
			t.Errorf("%s: %v\n%s", test.name, err, p)
		}
	}
	s, f := usual()
	f.iface.isTunnel = true
	if _, err := decide(s, f); err == nil || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a tunnel of our own: %v", err)
	}
}

func TestValidate(t *testing.T) {
	good, _ := usual()
	if err := good.validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Spec){
		"no interface":  func(s *Spec) { s.Interface = "" },
		"encapsulation": func(s *Spec) { s.Encap = "gre" },
		"VNI":           func(s *Spec) { s.VNI = 1 << 24 },
		"no sensor":     func(s *Spec) { s.Sensor = netip.AddrPort{} },
		"no port":       func(s *Spec) { s.Sensor = netip.MustParseAddrPort("10.0.0.1:0") },
		"any address":   func(s *Spec) { s.Sensor = netip.MustParseAddrPort("0.0.0.0:4789") },
		"a group":       func(s *Spec) { s.Sensor = netip.MustParseAddrPort("239.0.0.1:4789") },
		"a blank":       func(s *Spec) { s.Service = "ze ek" },
	} {
		s := good
		change(&s)
		if s.validate() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func exampleRecord() record {
	return record{iface: "eth0.5@x", index: 12, direction: directionBoth, encap: VXLAN, sensor: netip.MustParseAddrPort("[fd00::2]:4789"),
		vni: 1<<24 - 1, service: "zeek-geneve", clsact: clsactOurs, owner: orchestrate.ClientHere(4194303, 1<<60, 4026531836), detached: true,
		started: time.Unix(1790000000, 0), expression: "host a=b and not filter=x"}
}

// A record is read back as it was written, whatever the expression; one that is
// too long for an alias loses the end of the expression.
func TestRecord(t *testing.T) {
	r := exampleRecord()
	back, ok := parseRecord(r.String())
	if !ok || back != r {
		t.Errorf("%+v\n%+v", r, back)
	}
	r.expression = strings.Repeat("host ä or ", 99)
	back, ok = parseRecord(r.String())
	if !ok || len(r.String()) > maxAlias || !strings.HasSuffix(back.expression, "…") || back.owner != r.owner {
		t.Errorf("%d bytes: %+v", len(r.String()), back)
	}
	for _, alias := range []string{"", "my uplink", recordHead, recordHead + " if=eth0 index=x filter=", "zeekdemo mirror 2 if=eth0 index=1 filter="} {
		if _, ok := parseRecord(alias); ok {
			t.Errorf("%q is taken for a record", alias)
		}
	}
	if device, c, ok := parseCookie(cookie("zeekmon-00abc12", clsactOurs)); !ok || device != "zeekmon-00abc12" || c != clsactOurs {
		t.Error(device, c, ok)
	}
	if _, _, ok := parseCookie([]byte("zeekmon")); ok {
		t.Error("a strange cookie is taken for ours")
	}
}

// Whatever an alias says, reading it does no harm, and what is understood is
// written again as it was.
func FuzzRecord(f *testing.F) {
	f.Add(exampleRecord().String())
	f.Add(recordHead + " if=lo index=1 filter=")
	f.Fuzz(func(t *testing.T, alias string) {
		r, ok := parseRecord(alias)
		if !ok {
			return
		}
		again, ok := parseRecord(r.String())
		r.expression, again.expression = "", ""
		if !r.started.IsZero() && len(r.iface) < 16 && r.sensor.IsValid() && len(r.direction)+len(r.encap)+len(r.service)+len(r.clsact) < 50 && (!ok || again != r) {
			t.Errorf("%q\n%+v\n%+v", alias, r, again)
		}
	})
}
