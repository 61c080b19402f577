package mirror

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
)

func TestTheWaysToMirrorThatCanBeAskedFor(t *testing.T) {
	for text, want := range map[string]How{"auto": Auto, "kernel": Kernel, "forwarder": Forwarder, "": "", "Kernel": "", "tc": ""} {
		if got, err := ParseHow(text); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func TestAnEngineIsNeededForSensorsAndContainers(t *testing.T) {
	for want, list := range map[bool][]Options{true: {{}, {To: &way.Host{}, Containers: []string{"web"}}}, false: {{To: &way.Host{}, Interfaces: []string{"eth0"}}}} {
		for _, o := range list {
			if o.NeedsEngine() != want {
				t.Errorf("%+v: %v", o, !want)
			}
		}
	}
}

// What a tunnel device does not do is the forwarder's: by itself where either may
// do it, and an error where the kernel must.
func TestWhatATunnelDeviceDoesNotDoIsTheForwarders(t *testing.T) {
	for want, set := range map[string]func(*mirror){
		"--workers and --tx are the forwarder's":                                                           func(m *mirror) { m.Workers = 2 },
		"--workers and --tx are":                                                                           func(m *mirror) { m.TxGiven = true },
		"a tunnel device needs the sensor's own address, which is reached by sidecar":                      func(m *mirror) { m.target.Kind = way.Sidecar },
		"a tunnel device needs the sensor's own address, which is reached by the published port":           func(m *mirror) { m.target.Kind = way.Published },
		"a tunnel device adds no GENEVE options":                                                           func(m *mirror) { m.Config.Options = []encap.Option{{}} },
		"adds no GENEVE options":                                                                           func(m *mirror) { m.Preset = true },
		"the kernel has one geneve device for a VNI and a sensor, so one interface: unsupported operation": func(m *mirror) { m.Config.Kind, m.interfaces = encap.GENEVE, []string{"eth0", "eth1"} },
	} {
		for _, must := range []func(*mirror){func(m *mirror) { m.How = Auto }, func(m *mirror) { m.How = Kernel }, func(m *mirror) { m.How, m.Detach = Auto, true }} {
			m, heard := toMonitor(netip.MustParseAddrPort(here))
			m.how = ""
			must(m)
			set(m)
			switch err := m.decide(t.Context()); {
			case m.How == Auto && !m.Detach:
				if err != nil || m.how != Forwarder || !strings.Contains(m.howReason, want) || !strings.Contains(heard.all(), "Mirroring by the forwarder: "+m.howReason) {
					t.Errorf("auto: %v: %s because of %q; said %q", err, m.how, m.howReason, heard.all())
				}
			case err == nil || m.how != "" || !strings.Contains(err.Error(), "mirror in the kernel: ") || !strings.Contains(err.Error(), want):
				t.Errorf("%s, detached %v: %v: %s", m.How, m.Detach, err, m.how)
			}
		}
	}
}

// The forwarder can do everything: where it is asked for nothing is looked at.
func TestTheForwarderIsTakenAtItsWord(t *testing.T) {
	m, heard := toMonitor(netip.MustParseAddrPort(here))
	m.How, m.how = Forwarder, ""
	if err := m.decide(t.Context()); err != nil || m.how != Forwarder || m.howReason != "" || heard.all() != "" {
		t.Errorf("%v: %s because of %q", err, m.how, m.howReason)
	}
}

// What helps against the kernel's refusal depends on its kind.
func TestTheHintFitsTheRefusal(t *testing.T) {
	for want, err := range map[string]error{"it needs root or CAP_NET_ADMIN": fmt.Errorf("add: %w", os.ErrPermission), "--how forwarder needs none of this": errors.New("no vxlan")} {
		var hinted interface{ Hint() string }
		if got := KernelHint(err); !errors.Is(got, err) || !errors.As(got, &hinted) || hinted.Hint() != want {
			t.Errorf("%v", got)
		}
	}
}

// No interface is mirrored twice.
func TestAnInterfaceIsNamedOnce(t *testing.T) {
	m, _ := toMonitor(netip.MustParseAddrPort(here))
	m.Interfaces = []string{"eth0", "eth1", "eth0"}
	var usage *way.UsageError
	if err := m.findInterfaces(t.Context()); !errors.As(err, &usage) || !strings.Contains(err.Error(), "interface eth0 is named twice") {
		t.Errorf("got %v", err)
	}
}

// The kernel's counters are the report; what it is known not to have sent, and what
// the sensor did not take, is a loss.
func TestWhatTheKernelsCountersComeTo(t *testing.T) {
	one := tcmirror.Mirror{Interface: "eth0", Stats: tcmirror.Stats{Received: tcmirror.Counters{Packets: 5, Bytes: 500}, Sent: tcmirror.Counters{Packets: 3, Bytes: 300},
		Tunnel: tcmirror.Counters{Packets: 8, Bytes: 900}}}
	lossy := one
	lossy.Stats.Tunnel.Dropped, lossy.Stats.Errors = 1, 1
	for name, tt := range map[string]struct {
		mirrors  []tcmirror.Mirror
		accounts []watch.Account
		failure  error
		verdict  delivery.Verdict
		said     string
	}{
		"all is well":     {[]tcmirror.Mirror{one, one}, nil, nil, delivery.Complete, ""},
		"all was taken":   {[]tcmirror.Mirror{one, one}, []watch.Account{{Ledger: &drops.Ledger{Sent: 16, Taken: 16}}}, nil, delivery.Complete, ""},
		"it did not send": {[]tcmirror.Mirror{one, lossy}, nil, nil, delivery.Incomplete, "2 packets did not leave this machine"},
		"the sensor lost": {[]tcmirror.Mirror{one, one}, []watch.Account{{Ledger: &drops.Ledger{Sent: 16, Taken: 15, Lost: 1, Verdict: "1 of 16 packets lost"}}}, nil, delivery.Incomplete, "1 of 16 packets lost"},
		"it was stopped":  {[]tcmirror.Mirror{one, lossy}, []watch.Account{{Ledger: &drops.Ledger{Lost: 1}}}, tcmirror.ErrGone, delivery.Failed, "the mirror is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := toMonitor(netip.MustParseAddrPort(here))
			m.how = Kernel
			doc, err := m.kernelOutcome(tt.mirrors, time.Now(), &kernelBooks{accounts: tt.accounts}, tt.failure)
			if doc.Verdict != tt.verdict || (err != nil) != (tt.said != "") || doc.Error != tt.said || tt.failure != nil && !errors.Is(err, tt.failure) {
				t.Errorf("%v: %+v", err, doc)
			}
			if r := doc.Report; r.FramesRead != 16 || r.DatagramsSent != 16 || r.InnerBytes != 1600 || !r.Finished || len(doc.Mirrors) != 2 || (doc.Lossless != nil) != (tt.accounts != nil) {
				t.Errorf("%+v", doc)
			}
		})
	}
}
