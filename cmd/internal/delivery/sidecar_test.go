package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/assets/samples"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/sidecar"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// insideStreams runs the sidecar's end in this process, as an engine does
// in a container. Closing kill is what a kill is there.
func insideStreams(kill <-chan struct{}) orchestrate.SidecarStreams {
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	done := make(chan int, 1)
	go func() {
		code := 0
		if err := (sidecar.Server{In: inR, Out: outW}).Serve(context.Background()); err != nil {
			code = 1
			fmt.Fprintln(errW, "zeekdemo:", err)
		}
		done <- code
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

// sidecarRun is a replay of captures, or of the sample, by a sidecar in this
// process.
func sidecarRun(t *testing.T, ctx context.Context, to *testenv.Receiver, kill <-chan struct{}, names []string, loop int, set func(*Replay)) (*Document, error) {
	t.Helper()
	r := &Replay{Config: encap.Config{Kind: encap.VXLAN, VNI: 7, MTU: 1500}, Pace: pace.MaxSpec(), CPU: transmit.CPUOff, Lossless: watch.Auto, Observer: nobody{}}
	set(r)
	var err error
	if r.Captures, err = OpenCaptures(ctx, names, loop, strings.NewReader(""), ""); err != nil {
		t.Fatal(err)
	}
	defer r.Captures.Close()
	run := &Run{Replay: r, sender: &bySidecar{to: way.Target{Choice: way.Choice{Kind: way.Sidecar}, Address: to.At}, client: sidecar.NewClient(nil, to.At, insideStreams(kill))}}
	defer run.Close()
	return run.Send(ctx)
}

// notLoss leaves out what the machine's other traffic does to the ledger: this
// is not a namespace of a sensor's own.
func notLoss(err error) error {
	var loss *LossError
	if errors.As(err, &loss) {
		return nil
	}
	return err
}

const sampleFrames = 432

func TestASidecarSendsEverything(t *testing.T) {
	to := testenv.NewReceiver(t)
	doc, err := sidecarRun(t, t.Context(), to, nil, nil, 5, func(*Replay) {})
	if err := notLoss(err); err != nil {
		t.Fatal(err)
	}
	to.Awaits(t, 5*sampleFrames)
	rep := doc.Report
	if !rep.Finished || rep.FramesRead != 5*sampleFrames || rep.DatagramsSent != 5*sampleFrames || doc.Via != way.Sidecar ||
		doc.Transmission.Mode != transmit.UDP || doc.Kernel.Datagrams != 5*sampleFrames || doc.Lossless == nil {
		t.Errorf("%+v", doc)
	}
}

// The limit is the sidecar's to keep, and ends an endless replay.
func TestASidecarKeepsTheLimit(t *testing.T) {
	to := testenv.NewReceiver(t)
	doc, err := sidecarRun(t, t.Context(), to, nil, nil, 0, func(r *Replay) { r.Limit = 1000 })
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
			to := testenv.NewReceiver(t)
			ctx, interrupt := context.WithCancel(t.Context())
			go func() {
				to.Awaits(t, 3)
				interrupt()
			}()
			start := time.Now()
			doc, err := sidecarRun(t, ctx, to, nil, nil, loop, func(r *Replay) { r.Pace = pace.Spec{Pace: pace.AsRecorded, Speed: "0.5x"} })
			if err == nil || !errors.Is(err, ErrInterrupted) || doc.Verdict != Interrupted || time.Since(start) > 15*time.Second {
				t.Errorf("%v after %s, %+v", err, time.Since(start), doc)
			}
			if n := doc.Report.DatagramsSent; n < 3 || n >= sampleFrames || int64(n) != to.Received() {
				t.Errorf("%d reported, %d arrived", n, to.Received())
			}
		})
	}
}

func TestALostSidecarIsAnError(t *testing.T) {
	to := testenv.NewReceiver(t)
	kill := make(chan struct{})
	go func() {
		to.Awaits(t, 1)
		close(kill)
	}()
	_, err := sidecarRun(t, t.Context(), to, kill, nil, 0, func(r *Replay) { r.Pace = pace.Spec{Pace: pace.AsRecorded, Speed: "1x"} })
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
	to := testenv.NewReceiver(t)
	doc, err := sidecarRun(t, t.Context(), to, nil, []string{name}, 1, func(*Replay) {})
	if err == nil || !strings.Contains(err.Error(), "cut.pcap: packet") || doc.Verdict != Failed {
		t.Errorf("%v, verdict %s", err, doc.Verdict)
	}
	to.Awaits(t, int64(doc.Report.DatagramsSent))
	if doc.Report.DatagramsSent == 0 {
		t.Error("nothing before the damage was sent")
	}
}
