package mirror

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/forward/afpacket"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// A container is mirrored by the interface of this machine behind which it is; one
// of which there is none here is refused with the reason.
func TestAContainersInterfaceIsTheOtherEndOfItsVeth(t *testing.T) {
	l := newLab(t)
	client, own, bare := process(t, l.client), process(t, l.host), process(t, testenv.Namespace(t))
	at := map[string]netip.Addr{"web_default": netip.MustParseAddr("10.1.0.2")}
	e := &stack{containers: []orchestrate.Container{
		{ID: "0123456789abcdef", Name: "web", State: "running", PID: client.Process.Pid, Addresses: at},
		{ID: "1", Name: "stopped", State: "exited"},
		{ID: "2", Name: "elsewhere", State: "running", PID: bare.Process.Pid, Addresses: at},
		{ID: "3", Name: "unknown", State: "running"},
		{ID: "4", Name: "host", State: "running", PID: own.Process.Pid},
		{ID: "5", Name: "bare", State: "running", PID: bare.Process.Pid},
	}}
	for name, want := range map[string]string{
		"web": "", "0123456789ab": "",
		"nosuch": "there is no container of this name", "0123": "there is no container of this name",
		"stopped": "it is exited", "elsewhere": "it does not run on this machine", "unknown": "it does not run on this machine",
		"host": "it uses this machine's own network", "bare": "none of its interfaces has its other end on this machine",
	} {
		m, heard := toMonitor(netip.MustParseAddrPort(here))
		m.engine, m.Interfaces, m.Containers = e, []string{"s0"}, []string{name}
		var err error
		l.onHost(func() error { err = m.findInterfaces(t.Context()); return nil })
		switch {
		case want == "":
			if err != nil || !slices.Equal(m.interfaces, []string{"s0", "c0"}) || !strings.Contains(heard.all(), "Container "+name+": c0") {
				t.Errorf("%s: %v: %q; said %q", name, err, m.interfaces, heard.all())
			}
		case err == nil || !strings.Contains(err.Error(), "mirror container "+name+": "+want):
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A container that is started again has another interface: it is captured on as
// soon as it is there.
func TestAContainerThatIsStartedAgainIsMirroredAgain(t *testing.T) {
	l := newLab(t)
	e := &stack{containers: []orchestrate.Container{{ID: "1", Name: "web", State: "running", PID: process(t, l.client).Process.Pid}}}
	m, heard := toMonitor(netip.MustParseAddrPort(sensorHere))
	m.engine, m.Interfaces, m.Containers = e, nil, []string{"web"}
	testenv.IP(t, "-n "+l.host+" link del c0")
	gone := newLive(t, 0, fmt.Errorf("capture on c0: %w", afpacket.ErrGone))
	doc, err := l.run(func(ctx context.Context) (*Document, error) { return (&liveRun{mirror: m}).from(ctx, gone) }, heard, func() {
		heard.awaits(t, "The container's interface has gone; waiting until it is back")
		l.plug()
		heard.awaits(t, "Run 7: c0 to vxlan")
		l.talk()
	})
	if err != nil || len(doc.Interfaces) != 2 || doc.Interfaces[1].Interface != "c0" || doc.Interfaces[1].Packets == 0 || !slices.Equal(m.interfaces, []string{"c0"}) {
		t.Errorf("%v: %+v", err, doc)
	}
}

// It may also not come back.
func TestAMirrorThatWaitsForAContainerCanBeEnded(t *testing.T) {
	m, heard := toMonitor(testenv.NewReceiver(t).At)
	m.engine, m.Interfaces, m.Containers = &stack{}, nil, []string{"web"}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	go func() { heard.awaits(t, "waiting until it is back"); interrupt() }()
	doc, err := (&liveRun{mirror: m}).from(ctx, newLive(t, 10, afpacket.ErrGone))
	if err != nil || doc.Report.DatagramsSent != 10 || doc.Verdict != delivery.Complete {
		t.Errorf("%v: %+v", err, doc)
	}
}
