package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/assets/samples"
	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/forward/relay"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// insideStreams runs the sidecar's command in this process, as an engine does
// in a container. Closing kill is what a kill is there.
func insideStreams(kill <-chan struct{}) orchestrate.SidecarStreams {
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- Main(context.Background(), []string{sidecarCommand}, &App{Streams: ui.Streams{In: inR, Out: outW, Err: errW}, Getenv: os.Getenv})
	}()
	ended, code := make(chan struct{}), 0
	go func() {
		select {
		case code = <-done:
		case <-kill:
			code = 137
		}
		outW.Close()
		errW.Close()
		inR.Close()
		close(ended)
	}()
	return orchestrate.SidecarStreams{ID: "inside", Stdin: inW, Stdout: outR, Stderr: errR, Close: inW.Close,
		Wait: func(ctx context.Context) (int, error) {
			select {
			case <-ended:
				return code, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}}
}

// sink is a receiver on loopback that counts.
type sink struct {
	at       netip.AddrPort
	received atomic.Int64
}

func newSink(t *testing.T) *sink {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetReadBuffer(8 << 20)
	s := &sink{at: netip.MustParseAddrPort(c.LocalAddr().String())}
	go func() {
		for buf := make([]byte, 1<<16); ; s.received.Add(1) {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	}()
	return s
}

// awaits waits until n datagrams have arrived.
func (s *sink) awaits(t *testing.T, n int64) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s.received.Load() < n {
		select {
		case <-deadline:
			t.Fatalf("%d datagrams arrived, want %d", s.received.Load(), n)
		case <-tick.C:
		}
	}
}

// sidecarRun is a replay of a capture, or of the sample, by a sidecar in this
// process.
func sidecarRun(t *testing.T, ctx context.Context, to *sink, kill <-chan struct{}, set func(*replayOptions)) (doc replayDocument, err error) {
	t.Helper()
	var out bytes.Buffer
	o := replayOptions{loop: 1, json: true, lossless: string(losslessAuto)}
	o.out = outOptions{via: viaOptions{via: viaSidecar}, tx: "auto", cpu: "off"}
	o.encap = encapOptions{kind: "vxlan", vni: 7, mtu: 1500, given: func(string) bool { return false }}
	o.pace = paceOptions{pace: "max", speed: "1x", given: func(flag string) bool { return flag == "pace" }}
	set(&o)
	r, err := o.validate()
	if err != nil {
		t.Fatal(err)
	}
	r.app = &App{Streams: ui.Streams{In: strings.NewReader(""), Out: &out, Err: io.Discard}, Getenv: os.Getenv}
	defer func() { r.cleanup() }()
	if err := r.openSource(ctx); err != nil {
		t.Fatal(err)
	}
	defer r.source.Close()
	r.target = target{Address: to.at, Via: viaSidecar}
	r.useSidecar(nil, to.at, insideStreams(kill))
	err = r.run(ctx)
	if jsonErr := json.Unmarshal(out.Bytes(), &doc); jsonErr != nil {
		t.Fatalf("%v: %v: %s", err, jsonErr, out.String())
	}
	return doc, err
}

// notLoss leaves out what the machine's other traffic does to the ledger: this
// is not a namespace of a sensor's own.
func notLoss(err error) error {
	var loss lossError
	if errors.As(err, &loss) {
		return nil
	}
	return err
}

const sampleFrames = 432

func TestASidecarSendsEverything(t *testing.T) {
	to := newSink(t)
	doc, err := sidecarRun(t, t.Context(), to, nil, func(o *replayOptions) { o.loop = 5 })
	if err := notLoss(err); err != nil {
		t.Fatal(err)
	}
	to.awaits(t, 5*sampleFrames)
	rep := doc.Report
	if !rep.Finished || rep.FramesRead != 5*sampleFrames || rep.DatagramsSent != 5*sampleFrames || doc.Via != viaSidecar ||
		doc.Transmission.Mode != transmit.UDP || doc.Kernel.Datagrams != 5*sampleFrames || doc.Lossless == nil {
		t.Errorf("%+v", doc)
	}
}

// The limit is the sidecar's to keep, and ends an endless replay.
func TestASidecarKeepsTheLimit(t *testing.T) {
	to := newSink(t)
	doc, err := sidecarRun(t, t.Context(), to, nil, func(o *replayOptions) { o.loop, o.limit = 0, 1000 })
	if err := notLoss(err); err != nil || doc.Report.DatagramsSent != 1000 {
		t.Errorf("%d sent, %v", doc.Report.DatagramsSent, err)
	}
}

// The recorded times are kept by the sidecar's clock; an interruption is obeyed
// at once, though a window full of frames is on its way, or all of them have been
// handed over.
func TestAnInterruptedSidecarReports(t *testing.T) {
	for name, loop := range map[string]int{"without end": 0, "handed over": 1} {
		t.Run(name, func(t *testing.T) {
			to := newSink(t)
			ctx, interrupt := context.WithCancel(t.Context())
			go func() {
				to.awaits(t, 3)
				interrupt()
			}()
			start := time.Now()
			doc, err := sidecarRun(t, ctx, to, nil, func(o *replayOptions) { o.loop, o.pace.pace, o.pace.speed = loop, "recorded", "0.5x" })
			if err == nil || !strings.HasPrefix(err.Error(), "interrupted after") || doc.Verdict != "interrupted" || time.Since(start) > sidecarGrace {
				t.Errorf("%v after %s, %+v", err, time.Since(start), doc)
			}
			if n := doc.Report.DatagramsSent; n < 3 || n >= sampleFrames || int64(n) != to.received.Load() {
				t.Errorf("%d reported, %d arrived", n, to.received.Load())
			}
		})
	}
}

func TestALostSidecarIsAnError(t *testing.T) {
	to := newSink(t)
	kill := make(chan struct{})
	go func() {
		to.awaits(t, 1)
		close(kill)
	}()
	_, err := sidecarRun(t, t.Context(), to, kill, func(o *replayOptions) { o.loop, o.pace.pace = 0, "recorded" })
	if err == nil || !strings.Contains(err.Error(), "ended without a report, exit code 137") {
		t.Errorf("got %v", err)
	}
}

// cutSample is a capture that ends within a packet.
func cutSample(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "cut.pcap")
	if err := os.WriteFile(name, samples.Sample()[:2000], 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestADamagedCaptureBySidecar(t *testing.T) {
	name := cutSample(t)
	to := newSink(t)
	doc, err := sidecarRun(t, t.Context(), to, nil, func(o *replayOptions) { o.files = []string{name} })
	if err == nil || !strings.Contains(err.Error(), "cut.pcap: packet") || doc.Verdict != "failed" {
		t.Errorf("%v, verdict %s", err, doc.Verdict)
	}
	to.awaits(t, int64(doc.Report.DatagramsSent))
	if doc.Report.DatagramsSent == 0 {
		t.Error("nothing before the damage was sent")
	}
}

// The sidecar's program may be given, and of another release.
func TestAnotherRelease(t *testing.T) {
	r, w := io.Pipe()
	var out bytes.Buffer
	go func() { _, _ = relay.NewSender(w, sidecarJob{Protocol: sidecarProtocol + 1}) }()
	code := Main(t.Context(), []string{sidecarCommand}, &App{Streams: ui.Streams{In: r, Out: &out, Err: io.Discard}, Getenv: os.Getenv})
	var m sidecarMessage
	if err := json.Unmarshal(out.Bytes(), &m); err != nil || code != exitFailed || !m.Final || !strings.Contains(m.Error, "another release") {
		t.Errorf("exit code %d, %v: %s", code, err, out.String())
	}
}

// A client that is gone ends the sidecar, whatever is due when.
func TestAKilledClientEndsTheSidecar(t *testing.T) {
	to := newSink(t)
	streams := insideStreams(nil)
	go func() { _, _ = io.Copy(io.Discard, streams.Stdout) }()
	go func() { _, _ = io.Copy(io.Discard, streams.Stderr) }()
	sender, err := relay.NewSender(streams.Stdin, sidecarJob{Protocol: sidecarProtocol, Destination: to.at,
		Pace: paceJob{Pace: "recorded", Speed: "1x"}, CPU: transmit.CPUOff, Lossless: losslessOff})
	if err != nil {
		t.Fatal(err)
	}
	if err := sender.Ping(); err != nil {
		t.Fatal(err)
	}
	streams.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if code, err := streams.Wait(ctx); err != nil || code != exitFailed {
		t.Errorf("exit code %d, %v", code, err)
	}
}
