package mirror

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/offload"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// toLab are the options of a mirror of the client to the sensor as any monitor.
func toLab(t *testing.T, how How) (Options, *listener) {
	t.Helper()
	to, err := way.ParseTo(sensorHere, 4789)
	if err != nil {
		t.Fatal(err)
	}
	m, heard := toMonitor(netip.AddrPort{})
	o := m.Options
	o.Interfaces, o.To, o.How = []string{"c0"}, &to, how
	return o, heard
}

// The kernel mirrors until it is interrupted, and nothing stays.
func TestTheKernelMirrorsUntilItIsInterrupted(t *testing.T) {
	l := newLab(t)
	o, heard := toLab(t, Kernel)
	doc, err := l.run(func(ctx context.Context) (*Document, error) { return Run(ctx, nil, o) }, heard, l.talk)
	if err != nil || doc.Verdict != delivery.Complete || doc.How != Kernel || doc.Via != way.To || doc.Report.FramesRead == 0 || len(doc.Mirrors) != 1 || !doc.Report.Finished {
		t.Errorf("%v: %+v", err, doc)
	}
	if said := heard.all(); !strings.Contains(said, "Run 7: c0 to vxlan "+sensorHere+" in the kernel; Ctrl-C ends it") {
		t.Errorf("said %q", said)
	}
	if left := l.mirrors(); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
}

// Where either may do it, what an interface merges decides: the forwarder cuts it,
// unless merging is switched off meanwhile.
func TestMergedPacketsAreCutByTheForwarder(t *testing.T) {
	l := newLab(t)
	merging := func() (on []string) {
		l.onHost(func() (err error) { on, err = offload.Merging("c0"); return err })
		return on
	}
	before := merging()
	o, heard := toLab(t, Auto)
	doc, err := l.run(func(ctx context.Context) (*Document, error) { return Run(ctx, nil, o) }, heard, l.talk)
	if err != nil || doc.How != Forwarder || !strings.Contains(doc.HowReason, "c0 merges packets (") || !strings.Contains(heard.all(), doc.HowReason) || doc.Interfaces[0].Packets == 0 {
		t.Errorf("%v: %+v", err, doc)
	}
	o, heard = toLab(t, Auto)
	o.Unmerge = true
	doc, err = l.run(func(ctx context.Context) (*Document, error) { return Run(ctx, nil, o) }, heard, func() {
		if on := merging(); len(on) > 0 {
			t.Errorf("still on: %q", on)
		}
		l.talk()
	})
	if err != nil || doc.How != Kernel || doc.HowReason != "" {
		t.Errorf("%v: %+v", err, doc)
	}
	if after := merging(); len(before) == 0 || !slices.Equal(before, after) {
		t.Errorf("merging was %q, is %q", before, after)
	}
}

// The forwarder takes what the expression takes.
func TestTheForwarderFilters(t *testing.T) {
	testenv.NeedTool(t, "tcpdump")
	l := newLab(t)
	o, heard := toLab(t, Forwarder)
	o.Filter = "udp port 7 and not icmp"
	doc, err := l.run(func(ctx context.Context) (*Document, error) { return Run(ctx, nil, o) }, heard, func() { l.talk(); l.talk() })
	if err != nil || doc.Report.DatagramsSent != 2 || doc.Interfaces[0].Packets != 2 {
		t.Errorf("%v: %+v", err, doc)
	}
	o.Filter = "udp prot 7"
	if _, err := l.run(func(ctx context.Context) (*Document, error) { return Run(ctx, nil, o) }, &listener{}, nil); err == nil || !strings.Contains(err.Error(), "udp prot 7") {
		t.Errorf("got %v", err)
	}
}

// A mirror that somebody else stops ends with that news.
func TestAMirrorThatIsStoppedByAnotherEnds(t *testing.T) {
	l := newLab(t)
	o, _ := toLab(t, Kernel)
	o.Observer = &intruder{before: func() { // on the mirror's own thread
		list, err := tcmirror.List()
		if err != nil || len(list) != 1 || list[0].Stop() != nil {
			t.Errorf("%+v, %v", list, err)
		}
	}}
	l.onHost(func() error {
		doc, err := Run(t.Context(), nil, o)
		if !errors.Is(err, tcmirror.ErrGone) || doc.Verdict != delivery.Failed {
			t.Errorf("%v: %+v", err, doc)
		}
		return nil
	})
}

// A detached mirror goes on without anybody, and is stopped by its interface.
func TestADetachedMirrorGoesOnUntilItIsStopped(t *testing.T) {
	l := newLab(t)
	o, heard := toLab(t, Auto)
	o.Detach, o.Unmerge = true, true
	var doc *Document
	l.onHost(func() (err error) { doc, err = Run(t.Context(), nil, o); return err })
	if len(doc.Mirrors) != 1 || !doc.Mirrors[0].Detached || doc.Report.Finished || !strings.Contains(heard.all(), "`zeekdemo mirror --stop` ends it") {
		t.Errorf("%+v; said %q", doc, heard.all())
	}
	l.talk()
	stop := func(interfaces ...string) (stopped Stopped) {
		l.onHost(func() (err error) {
			running, err := tcmirror.List()
			if err == nil {
				stopped, err = Stop(running, interfaces)
			}
			return err
		})
		return stopped
	}
	if other := stop("other0"); len(other.Mirrors) > 0 || len(other.Offloads) > 0 || len(l.mirrors()) != 1 {
		t.Errorf("another interface: %+v", other)
	}
	if all := stop(); len(all.Mirrors) != 1 || all.Mirrors[0].Interface != "c0" || !slices.Equal(all.Offloads, []string{"c0"}) || len(l.mirrors()) != 0 {
		t.Errorf("all: %+v, left %+v", all, l.mirrors())
	}
}

// request is a detached mirror to a sensor of the stack.
func request() kernelRequest {
	return kernelRequest{Interfaces: []string{"c0"}, Encap: "vxlan", VNI: 7, To: netip.MustParseAddrPort(sensorHere), Service: "zeek", Detached: true, Oversize: true}
}

// What nobody watches is pointed to where the sensor is now, once.
func TestADetachedMirrorFollowsItsSensor(t *testing.T) {
	l := newLab(t)
	l.onHost(func() error { _, err := request().start(t.Context()); return err })
	if names := ToStack(l.mirrors()); !slices.Equal(names, []string{"c0"}) {
		t.Errorf("to the stack: %q", names)
	}
	moved := []orchestrate.ServiceStatus{{Service: "zeek", Mode: orchestrate.GeneveEthernet, Addresses: map[string]netip.Addr{orchestrate.MonitoringNetwork: netip.MustParseAddr("10.2.0.3")}}}
	var said []string
	for range 2 { // the second time it is there already
		running := l.mirrors()
		l.onHost(func() error {
			FollowDetached(running, moved, func(line string) { said = append(said, line) })
			return nil
		})
	}
	if !slices.Equal(said, []string{"The mirror of c0 goes to zeek at " + sensorThere + " now."}) {
		t.Errorf("said %q", said)
	}
	if list := l.mirrors(); len(list) != 1 || list[0].Sensor.String() != sensorThere {
		t.Errorf("%+v", list)
	}
	l.talk()
}

// A request is done for all its interfaces or for none, and once.
func TestAllInterfacesAreMirroredOrNone(t *testing.T) {
	l := newLab(t)
	l.onHost(func() error {
		r := request()
		r.Interfaces = []string{"c0", "nosuch0"}
		if _, err := r.start(t.Context()); err == nil {
			t.Error("an interface that is not there is mirrored")
		}
		if list, err := tcmirror.List(); err != nil || len(list) > 0 {
			t.Errorf("left: %+v, %v", list, err)
		}
		r.Interfaces = []string{"c0"}
		run, err := r.start(t.Context())
		if err != nil {
			return err
		}
		var hinted interface{ Hint() string }
		if _, err := r.start(t.Context()); !errors.Is(err, tcmirror.ErrRunning) || !errors.As(err, &hinted) || hinted.Hint() != "`zeekdemo mirror --stop c0` ends that one" {
			t.Errorf("twice: %v", err)
		}
		if err := run.follow(netip.MustParseAddrPort(sensorThere), nil); err != nil {
			return err
		}
		if now, err := run.look(); err != nil || now[0].Sensor.String() != sensorThere {
			t.Errorf("%v: %+v", err, now)
		}
		last, err := run.finish()
		if err != nil || len(last) != 1 {
			t.Errorf("%v: %+v", err, last)
		}
		if now, err := run.look(); !errors.Is(err, tcmirror.ErrGone) || len(now) != 1 {
			t.Errorf("afterwards: %v: %+v", err, now)
		}
		return nil
	})
}

// Attended, the kernel's mirror follows the sensor that is made anew, and has the
// books of each.
func TestTheKernelsMirrorFollowsTheSensor(t *testing.T) {
	l := newLab(t)
	first := process(t, l.sensor)
	e := newStack()
	e.containers[0] = l.container("first", sensorHere, first.Process.Pid)
	m, heard := toSensor(t, e)
	m.interfaces, m.how, m.How = []string{"c0"}, Kernel, Kernel
	doc, err := l.run(m.runKernel, heard, func() {
		l.talk()
		next := process(t, l.sensor)
		e.set(func(c *orchestrate.Container) { *c = l.container("next", sensorThere, next.Process.Pid) })
		_ = first.Process.Kill()
		_ = first.Wait()
		heard.awaits(t, "Following the sensor to "+sensorThere)
		l.talk()
	})
	if doc == nil || len(doc.Mirrors) != 1 || doc.Mirrors[0].Sensor.String() != sensorThere || len(l.mirrors()) != 0 {
		t.Fatalf("%v: %+v", err, doc)
	}
	if doc.Lossless == nil || doc.Lossless.Governed || doc.Lossless.Reason != "the kernel waits for nobody" || doc.Lossless.Ledger == nil ||
		doc.Lossless.Ledger.Sent != doc.Report.DatagramsSent || doc.Lossless.Ledger.Taken < 2 {
		t.Errorf("%v: %+v", err, doc.Lossless)
	}
}
