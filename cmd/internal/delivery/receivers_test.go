package delivery

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/assets/samples"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// replay is one of captures, or of the sample, as fast as it goes.
func replay(t *testing.T, names ...string) *Replay {
	t.Helper()
	captures, err := OpenCaptures(t.Context(), names, 1, strings.NewReader(""), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { captures.Close() })
	return &Replay{Captures: captures, Config: encap.Config{Kind: encap.VXLAN, VNI: 7, MTU: encap.DefaultMTU}, Pace: pace.MaxSpec(),
		Tx: transmit.UDP, CPU: transmit.CPUOff, Lossless: watch.Auto}
}

// sent plays to a receiver.
func sent(t *testing.T, r *Replay, to Receiver) (*Document, error) {
	t.Helper()
	run, err := r.Open(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	return run.Send(t.Context())
}

// host reads what --to is given.
func host(t *testing.T, text string) *way.Host {
	t.Helper()
	h, err := way.ParseTo(text, 4789)
	if err != nil {
		t.Fatal(err)
	}
	return &h
}

// hint is the advice that an error carries.
func hint(err error) string {
	var has interface{ Hint() string }
	if errors.As(err, &has) {
		return has.Hint()
	}
	return ""
}

// Standard output gets byte for byte what a file gets.
func TestAFileAndStandardOutputGetTheSame(t *testing.T) {
	var out bytes.Buffer
	if _, err := sent(t, replay(t), File{Path: "-", Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "out.pcap")
	doc, err := sent(t, replay(t), File{Path: name})
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(name)
	if err != nil || len(file) < sampleFrames*outerLen || !bytes.Equal(file, out.Bytes()) {
		t.Errorf("%v, %d bytes in the file, %d on standard output", err, len(file), out.Len())
	}
	if doc.Via != way.File || doc.Destination != name || doc.Verdict != Complete || doc.Lossless != nil || doc.Transmission != nil || !slices.Equal(doc.Files, []string{"sample"}) {
		t.Errorf("%+v", doc)
	}
}

// The outer headers lead to the receiver that was named, or to nobody.
func TestOuterHeadersLeadToTheReceiver(t *testing.T) {
	for name, tt := range map[string]struct {
		to        *way.Host
		etherType uint16
		at        int // where the addresses are, source first
		src, dst  string
		port      uint16
	}{
		"nobody": {nil, 0x0800, 14 + 12, "192.0.2.1", "192.0.2.2", 4789},
		"IPv4":   {host(t, "198.51.100.7:9"), 0x0800, 14 + 12, "192.0.2.1", "198.51.100.7", 9},
		"IPv6":   {host(t, "2001:db8::7"), 0x86dd, 14 + 8, "2001:db8::1", "2001:db8::7", 4789},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out.pcap")
			if _, err := sent(t, replay(t), File{Path: out, To: tt.to}); err != nil {
				t.Fatal(err)
			}
			frames := readCapture(t, out)
			if len(frames) != sampleFrames {
				t.Fatalf("%d frames", len(frames))
			}
			src, dst := netip.MustParseAddr(tt.src).AsSlice(), netip.MustParseAddr(tt.dst).AsSlice()
			for _, f := range frames {
				addresses := f.data[tt.at:]
				udp := addresses[2*len(src):]
				if binary.BigEndian.Uint16(f.data[etherType:]) != tt.etherType || !bytes.HasPrefix(addresses, slices.Concat(src, dst)) || binary.BigEndian.Uint16(udp[2:]) != tt.port {
					t.Fatalf("% x", f.data[:70])
				}
			}
		})
	}
}

// A capture is never overwritten by its own output, by whatever name.
func TestACaptureIsNotItsOwnOutput(t *testing.T) {
	folder := t.TempDir()
	name, other := filepath.Join(folder, "in.pcap"), filepath.Join(folder, "same.pcap")
	if err := errors.Join(os.WriteFile(name, samples.Sample(), 0o600), os.Link(name, other)); err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{name, other} {
		_, err := replay(t, name).Open(t.Context(), File{Path: out})
		var usage *UsageError
		if !errors.As(err, &usage) {
			t.Errorf("%s: %v", out, err)
		}
	}
	if now, err := os.ReadFile(name); err != nil || !bytes.Equal(now, samples.Sample()) {
		t.Errorf("it was changed: %v", err)
	}
}

// What cannot be opened is told, and opened is nothing.
func TestAReceiverThatCannotBeOpened(t *testing.T) {
	for name, to := range map[string]Receiver{
		"no such folder": File{Path: filepath.Join(t.TempDir(), "no", "out.pcap")},
		"no such name":   File{Path: "-", Stdout: io.Discard, To: host(t, "no-such-host.invalid")},
		"no such host":   Monitor{Host: *host(t, "no-such-host.invalid")},
	} {
		if run, err := replay(t).Open(t.Context(), to); err == nil || run != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Nothing is known of a monitor, and the report says so; a run that requires to
// know does not begin.
func TestAMonitorOfWhichNothingIsKnown(t *testing.T) {
	to := testenv.NewReceiver(t)
	doc, err := sent(t, replay(t), Monitor{Host: *host(t, to.At.String())})
	if err != nil {
		t.Fatal(err)
	}
	to.Awaits(t, sampleFrames)
	if doc.Via != way.To || doc.Destination != to.At.String() || doc.Kernel.Datagrams != sampleFrames || doc.GrafanaURL != "" {
		t.Errorf("%+v", doc)
	}
	if a := doc.Lossless; a == nil || a.Governed || a.Ledger != nil || a.Reason != "nothing is known of the receiver that --to names" {
		t.Errorf("%+v", a)
	}
	strict := replay(t)
	strict.Lossless = watch.Require
	doc, err = sent(t, strict, Monitor{Host: *host(t, to.At.String())})
	if doc != nil || err == nil || !strings.Contains(hint(err), "--lossless auto sends without") {
		t.Errorf("%v, hint %q, %+v", err, hint(err), doc)
	}
}

// closings counts how often a way out is closed.
type closings struct {
	transmit.Transmitter
	n int
}

func (c *closings) Close() error { c.n++; return nil }

// What was opened and is not sent is closed, and only once.
func TestARunThatIsNotSentIsClosed(t *testing.T) {
	packets, file := &closings{}, &closings{}
	for _, s := range []sender{&fromHere{tx: packets}, &intoFile{sink: file}} {
		run := &Run{sender: s}
		run.Close()
		run.Close()
	}
	if packets.n != 1 || file.n != 1 {
		t.Errorf("closed %d and %d times", packets.n, file.n)
	}
}

// stack is an engine with a running sensor, whose own address is out of reach.
type stack struct {
	orchestrate.Engine
	containers []orchestrate.Container
	err        error // of Info
}

func (e stack) Info(context.Context) (orchestrate.EngineInfo, error) {
	return orchestrate.EngineInfo{OS: "linux", Arch: sparc64}, e.err
}

func (e stack) Containers(context.Context, string) ([]orchestrate.Container, error) {
	return e.containers, nil
}

// sparc64 is a machine that is certainly not this one: programs for sidecars are
// given.
const sparc64 = "sparcv9"

// zeek is a sensor's container, published at an address; not valid for nowhere.
func zeek(state string, at netip.AddrPort) orchestrate.Container {
	c := orchestrate.Container{ID: "z", Name: "zeekdemo-zeek-1", Service: "zeek", State: state}
	if at.IsValid() {
		c.Ports = []orchestrate.PublishedPort{{HostIP: at.Addr(), HostPort: at.Port(), ContainerPort: 4789, Protocol: "udp"}}
	}
	return c
}

// withSidecars is a stack whose sidecars run in this process.
type withSidecars struct {
	stack
	made *orchestrate.SidecarSpec
	gone chan struct{} // closed when the sidecar has ended
}

func (e withSidecars) CreateCompanion(_ context.Context, spec orchestrate.CompanionSpec) (string, error) {
	*e.made = spec.(orchestrate.SidecarSpec)
	return "s", nil
}

func (e withSidecars) StartCompanion(context.Context, string) (orchestrate.SidecarStreams, error) {
	streams := insideStreams(nil)
	go func() {
		defer close(e.gone)
		_, _ = streams.Wait(context.Background())
	}()
	return streams, nil
}

func (e withSidecars) Companions(context.Context, orchestrate.CompanionKind) ([]orchestrate.Companion, error) {
	return nil, nil
}

func (e withSidecars) RemoveCompanion(context.Context, string) error { return nil }

// The sensor of the stack is found, and reached by its published port where
// nothing better works; why not is said before it begins, and in the report.
func TestTheStacksSensorIsReached(t *testing.T) {
	to, told := testenv.NewReceiver(t), &strings.Builder{}
	r := replay(t)
	r.Observer = sayer{told}
	e := stack{containers: []orchestrate.Container{zeek("running", to.At), grafana("http://127.0.0.1:3000")}}
	doc, err := sent(t, r, Sensor{Engine: e, Way: way.Request{Kind: way.Auto, Tx: transmit.UDP}})
	if err != nil {
		t.Fatal(err)
	}
	to.Awaits(t, sampleFrames)
	const why = "not direct: its container has no address on the monitoring network; not by sidecar: run a sidecar: this engine cannot"
	if doc.Via != way.Published || doc.ViaReason != why || doc.Destination != to.At.String() || doc.Lossless.Reason != "the sensor does not run on this machine" {
		t.Errorf("%+v", doc)
	}
	if want := "Going by the published port: " + why + "\nRun 7: the embedded sample to vxlan " + to.At.String(); !strings.HasPrefix(told.String(), want) {
		t.Errorf("said %q", told)
	}
	if !strings.HasPrefix(doc.GrafanaURL, "http://127.0.0.1:3000/d/zeekdemo-logs?from=") || !strings.HasSuffix(doc.GrafanaURL, "&var-run=7") {
		t.Errorf("link %q", doc.GrafanaURL)
	}
}

// grafana is the stack's, published where a URL says.
func grafana(url string) orchestrate.Container {
	at := netip.MustParseAddrPort(strings.TrimPrefix(url, "http://"))
	return orchestrate.Container{ID: "g", Service: "grafana", State: "running",
		Ports: []orchestrate.PublishedPort{{HostIP: at.Addr(), HostPort: at.Port(), ContainerPort: 3000, Protocol: "tcp"}}}
}

// A run that was opened by sidecar and is not sent leaves no sidecar behind.
func TestASidecarThatIsNotUsedEnds(t *testing.T) {
	e := withSidecars{stack{containers: []orchestrate.Container{zeek("running", netip.AddrPort{})}}, &orchestrate.SidecarSpec{}, make(chan struct{})}
	given := testenv.ForeignProgram(t)
	run, err := replay(t).Open(t.Context(), Sensor{Engine: e, Way: way.Request{Kind: way.Sidecar, Tx: transmit.UDP, Binary: given}})
	if err != nil {
		t.Fatal(err)
	}
	if to := run.sender.target(); to.Kind != way.Sidecar || run.sender.destination() != "127.0.0.1:4789" || e.made.Sensor != "z" || e.made.Program != given {
		t.Errorf("%+v, made of %+v", to, e.made)
	}
	run.Close()
	select {
	case <-e.gone:
	case <-time.After(20 * time.Second):
		t.Error("it does not end")
	}
}

// Where no sensor is to be had the error says what helps, and that any monitor
// can be sent to; advice from deeper down is kept.
func TestASensorThatIsNotToBeHad(t *testing.T) {
	at := netip.MustParseAddrPort("127.0.0.1:9")
	published := way.Request{Kind: way.Published, Tx: transmit.UDP}
	for name, tt := range map[string]struct {
		engine orchestrate.Engine
		way    way.Request
		port   uint16 // asked for
		text   string
		hint   string
	}{
		"no engine":       {stack{err: errors.New("no engine")}, published, 0, "no engine", "--to HOST sends to any monitor without an engine"},
		"advice is kept":  {stack{err: orchestrate.WithHint(errors.New("no engine"), "start it")}, published, 0, "no engine", "start it"},
		"no sensor":       {stack{containers: []orchestrate.Container{grafana("http://127.0.0.1:3000")}}, published, 0, "it has no container", "`zeekdemo up` completes the stack"},
		"not running":     {stack{containers: []orchestrate.Container{zeek("exited", at)}}, published, 0, "its container is exited", "`zeekdemo up` starts it; `zeekdemo logs zeek` shows why it stopped"},
		"not published":   {stack{containers: []orchestrate.Container{zeek("running", netip.AddrPort{})}}, published, 0, "its port is not published", "--direct sends to the container's own address, or by sidecar"},
		"another port":    {stack{containers: []orchestrate.Container{zeek("running", at)}}, published, 4790, "--port 4790: the stack's sensor listens on 4789", "--to HOST sends to any monitor without an engine"},
		"no way leads to": {stack{containers: []orchestrate.Container{zeek("running", at)}}, way.Request{Kind: way.Direct, Tx: transmit.UDP}, 0, "reach sensor zeek: not direct", "--to HOST sends to any monitor without an engine"},
	} {
		t.Run(name, func(t *testing.T) {
			r := replay(t)
			r.Config.Port = tt.port
			run, err := r.Open(t.Context(), Sensor{Engine: tt.engine, Way: tt.way})
			if run != nil || err == nil || !strings.Contains(err.Error(), tt.text) || hint(err) != tt.hint {
				t.Errorf("%v, hint %q", err, hint(err))
			}
			var usage *UsageError
			if errors.As(err, &usage) != (tt.port != 0) {
				t.Errorf("a mistake of usage: %v", err)
			}
		})
	}
	if _, err := replay(t).Open(t.Context(), Sensor{Engine: stack{}, Way: published}); !errors.Is(err, orchestrate.ErrNoStack) {
		t.Errorf("no stack: %v", err)
	}
}

// Only what a privilege would cure has advice about privileges.
func TestThePrivilegesHint(t *testing.T) {
	if err := HintPrivilege(fmt.Errorf("open: %w", fs.ErrPermission)); !strings.Contains(hint(err), "--tx udp needs no privilege") {
		t.Errorf("hint %q", hint(err))
	}
	if err := HintPrivilege(fs.ErrNotExist); hint(err) != "" {
		t.Errorf("hint %q", hint(err))
	}
}

// Datagrams fit what UDP carries, and no less was asked for.
func TestDatagramsFitTheAddress(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, tt := range []struct {
		asked int
		to    netip.Addr
		want  int
	}{
		{0, four, transmit.MaxPayload(four)}, {0, six, transmit.MaxPayload(six)}, {1400, four, 1400}, {1 << 20, six, transmit.MaxPayload(six)},
	} {
		c := encap.Config{MaxDatagram: tt.asked}
		if FitDatagrams(&c, tt.to); c.MaxDatagram != tt.want {
			t.Errorf("%d to %s: %d, want %d", tt.asked, tt.to, c.MaxDatagram, tt.want)
		}
	}
}
