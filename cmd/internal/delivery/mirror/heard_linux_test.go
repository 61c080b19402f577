package mirror

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// inTheKernel mirrors the client to a monitor, and does something meanwhile.
func (l *lab) inTheKernel(to string, meanwhile func()) (*Document, *listener, error) {
	l.Helper()
	return l.inTheKernelAs(func() error { return nil }, to, meanwhile)
}

// inTheKernelAs does so by a thread that was prepared for it.
func (l *lab) inTheKernelAs(prepare func() error, to string, meanwhile func()) (*Document, *listener, error) {
	l.Helper()
	o, heard := toLab(l.T, Kernel)
	host, err := way.ParseTo(to, 4789)
	if err != nil {
		l.Fatal(err)
	}
	o.To = &host
	doc, err := l.run(func(ctx context.Context) (*Document, error) {
		if err := prepare(); err != nil {
			return nil, err
		}
		return Run(ctx, nil, o)
	}, heard, meanwhile)
	if doc == nil {
		l.Fatal(err)
	}
	return doc, heard, err
}

// checkUnheard wants a run that did not arrive, and why.
func checkUnheard(t *testing.T, doc *Document, err error, kind transmit.TroubleKind, from netip.Addr) {
	t.Helper()
	var loss *delivery.LossError
	if !errors.As(err, &loss) || doc.Verdict != delivery.Incomplete || doc.Delivery != watch.SomeLost || !strings.Contains(doc.Error, "did not arrive") {
		t.Errorf("%v: %+v", err, doc)
	}
	if len(doc.Troubles) != 1 || doc.Troubles[0].Kind != kind || doc.Troubles[0].From != from {
		t.Errorf("troubles: %+v", doc.Troubles)
	}
}

// Where nobody listens, the kernel's packets are lost as the forwarder's are.
func TestTheKernelsMirrorHearsThatNobodyListens(t *testing.T) {
	for _, to := range []string{"10.2.0.2:4790", "[fd02::2]:4790"} {
		l := newLab(t)
		doc, heard, err := l.inTheKernel(to, l.talkInVain)
		checkUnheard(t, doc, err, transmit.PortUnreachable, netip.MustParseAddrPort(to).Addr())
		if strings.Contains(heard.all(), "note:") {
			t.Errorf("said %q", heard.all())
		}
	}
}

// So it is when the receiver goes while it is mirrored.
func TestTheKernelsMirrorHearsThatTheReceiverHasGone(t *testing.T) {
	l := newLab(t)
	doc, _, err := l.inTheKernel(sensorHere, func() {
		l.talk()
		l.receiver.Close()
		l.talkInVain()
	})
	checkUnheard(t, doc, err, transmit.PortUnreachable, netip.MustParseAddrPort(sensorHere).Addr())
}

// Nobody answers for the address at all. As long as nothing is mirrored, nothing is
// lost there.
func TestTheKernelsMirrorSeesASilentNeighbour(t *testing.T) {
	l := newLab(t)
	doc, _, err := l.inTheKernel("10.2.0.9:4789", l.talkInVain)
	checkUnheard(t, doc, err, transmit.NeighbourSilent, netip.Addr{})

	o, _ := toLab(t, Kernel)
	o.Filter = "tcp port 1" // which nobody speaks
	host, _ := way.ParseTo("10.2.0.9", 4789)
	o.To = &host
	heard := o.Observer.(*listener)
	doc, err = l.run(func(ctx context.Context) (*Document, error) { return Run(ctx, nil, o) }, heard, func() {})
	if err != nil || doc.Verdict != delivery.Complete || len(doc.Troubles) > 0 {
		t.Errorf("%v: %+v", err, doc)
	}
}

// Without the privilege to hear it is mirrored all the same, and what is not known
// is said once.
func TestTheKernelsMirrorWithoutThePrivilegeToHear(t *testing.T) {
	l := newLab(t)
	doc, heard, err := l.inTheKernelAs(withoutRaw, "10.2.0.2:4790", l.talkInVain)
	if err != nil || doc.Verdict != delivery.Complete || doc.Delivery != watch.OnlySent {
		t.Errorf("%v: %+v", err, doc)
	}
	if strings.Count(heard.all(), "note: ") != 1 || !strings.Contains(heard.all(), "CAP_NET_RAW") {
		t.Errorf("said %q", heard.all())
	}
}

// withoutRaw takes CAP_NET_RAW from this thread.
func withoutRaw() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&hdr, &have[0]); err != nil {
		return err
	}
	have[0].Effective &^= 1 << unix.CAP_NET_RAW
	return unix.Capset(&hdr, &have[0])
}

// An interface that goes, however shortly before the end, is no complete run.
func TestTheInterfaceOfAKernelsMirrorGoes(t *testing.T) {
	l := newLab(t)
	doc, _, err := l.inTheKernel(sensorHere, func() {
		l.talk()
		testenv.IP(t, "-n "+l.host+" link del c0")
	})
	if !errors.Is(err, tcmirror.ErrGone) || doc.Verdict != delivery.Failed || strings.Count(doc.Error, "interface c0 has gone") != 1 || len(doc.Mirrors) != 1 {
		t.Errorf("%v: %+v", err, doc)
	}
	if left := l.mirrors(); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
}
