package sidecar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/record"
	"github.com/zeekdemo/zeekdemo/forward/relay"
	"github.com/zeekdemo/zeekdemo/forward/selftest"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// bound is how long anything may take here.
const bound = 30 * time.Second

// within waits for what a channel brings, or for its end.
func within[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(bound):
		t.Fatalf("waited in vain: %s", what)
	}
	return v
}

// container is a sidecar without a container: its streams are pipes.
type container struct {
	stdin          *io.PipeReader
	stdout, stderr *io.PipeWriter
	ended          chan struct{}
	code           int // valid once ended is closed
}

// newContainer makes one in which nothing runs, and the client's end of it.
func newContainer(t *testing.T, e orchestrate.Engine, to netip.AddrPort) (*container, *Client) {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	c := &container{stdin: inR, stdout: outW, stderr: errW, ended: make(chan struct{})}
	t.Cleanup(func() { inR.Close(); outW.Close(); errW.Close() })
	client := NewClient(e, to, orchestrate.SidecarStreams{ID: "inside", Stdin: inW, Stdout: outR, Stderr: errR, Close: inW.Close,
		Wait: func(ctx context.Context) (int, error) {
			select {
			case <-c.ended:
				return c.code, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}})
	client.grace = bound
	return c, client
}

// end is what the end of its program is.
func (c *container) end(code int, said string) {
	fmt.Fprint(c.stderr, said)
	c.code = code
	close(c.ended)
	c.stderr.Close()
	c.stdout.Close()
	c.stdin.Close()
}

// serve runs the sidecar's end in it.
func (c *container) serve() {
	code, said := 0, ""
	if err := (Server{In: c.stdin, Out: c.stdout}).Serve(context.Background()); err != nil {
		code, said = 1, "zeekdemo: "+err.Error()
	}
	c.end(code, said)
}

// both are both ends, and where the sidecar sends to.
func both(t *testing.T) (*Client, *testenv.Receiver) {
	t.Helper()
	to := testenv.NewReceiver(t)
	inside, client := newContainer(t, nil, to.At)
	go inside.serve()
	t.Cleanup(client.Close)
	return client, to
}

// asap is a job to send as fast as it goes, unobserved.
func asap(to netip.AddrPort) Job {
	return Job{Destination: to, Config: encap.Config{Kind: encap.VXLAN, VNI: 7, MTU: 1500}, CPU: transmit.CPUOff, Lossless: watch.Off, Pace: pace.MaxSpec()}
}

// inTime is a job to send when the capture says.
func inTime(to netip.AddrPort) Job {
	job := asap(to)
	job.Pace = pace.Spec{Pace: pace.AsRecorded, Speed: "0.01x"}
	return job
}

func synthetic(t *testing.T, n uint64) forward.Source {
	t.Helper()
	source, err := selftest.NewSynthetic(n)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// endless is more than any run takes.
const endless = 1 << 40

// More goes through than the window holds, so credit comes back; the client hears
// what the sidecar's own books say.
func TestEverythingHandedOverIsSent(t *testing.T) {
	client, to := both(t)
	const n = 20_000
	over := make(chan struct{})
	client.Started = func() func() {
		if m, final := client.Newest(); final || m.Transmission.Destination != to.At {
			t.Errorf("when it began it said %+v", m)
		}
		return func() { close(over) }
	}
	job := asap(to.At)
	job.Lossless = watch.Auto
	last, err := client.Run(t.Context(), job, synthetic(t, n))
	if err != nil {
		t.Fatal(err)
	}
	within(t, "the end is told", over)
	to.Awaits(t, n)
	if last.Report.DatagramsSent != n || last.Kernel.Datagrams != n || last.Taken < 2*relay.Window || !last.Report.Finished || last.Transmission.Mode != transmit.UDP {
		t.Errorf("%+v", last)
	}
	if last.Account == nil || !last.Account.Governed || last.Account.Ledger.Taken < n {
		t.Errorf("account %+v", last.Account)
	}
	if newest, final := client.Newest(); !final || newest.Report.DatagramsSent != n {
		t.Errorf("final %v: %+v", final, newest)
	}
}

// Number and duration are the sidecar's to keep, and end an endless run.
func TestTheSidecarKeepsTheLimits(t *testing.T) {
	for name, set := range map[string]func(*Job){
		"number":   func(j *Job) { j.Limit = 1000 },
		"duration": func(j *Job) { j.Duration = 30 * time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			client, to := both(t)
			job := asap(to.At)
			set(&job)
			last, err := client.Run(t.Context(), job, synthetic(t, endless))
			if err != nil || last.Report.DatagramsSent == 0 || job.Limit > 0 && last.Report.DatagramsSent != job.Limit {
				t.Errorf("%d sent, %v", last.Report.DatagramsSent, err)
			}
		})
	}
}

// The journal is of the very datagrams that were sent, and of all of them.
func TestTheJournalComesBack(t *testing.T) {
	client, to := both(t)
	var journal bytes.Buffer
	client.Journal = &journal
	job := asap(to.At)
	job.Journal = true
	const n = 3000
	if last, err := client.Run(t.Context(), job, synthetic(t, n)); err != nil || last.Journal != nil {
		t.Fatalf("%v, %d bytes of the journal are still there", err, len(last.Journal))
	}
	e, err := encap.New(job.Config)
	if err != nil {
		t.Fatal(err)
	}
	sent, _, err := record.Rebuild(t.Context(), &journal, synthetic(t, n), e, encap.VXLAN, io.Discard, "sent.pcap")
	if err != nil || sent != n {
		t.Errorf("the journal has %d datagrams, %v", sent, err)
	}
}

// full is a disk that is.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// A journal with a gap proves nothing.
func TestAJournalThatCannotBeWrittenFailsTheRun(t *testing.T) {
	client, to := both(t)
	client.Journal = full{}
	job := asap(to.At)
	job.Journal = true
	if last, err := client.Run(t.Context(), job, synthetic(t, 100)); err == nil || !strings.Contains(err.Error(), "no space left") || last.Report.DatagramsSent != 100 {
		t.Errorf("%d sent, %v", last.Report.DatagramsSent, err)
	}
}

// An interruption stops what is due in an hour, and is answered by a report; a
// source that waits is woken.
func TestAnInterruptedSidecarReports(t *testing.T) {
	client, to := both(t)
	ctx, interrupt := context.WithCancel(t.Context())
	woken := make(chan struct{})
	client.StopSource = func() { close(woken) }
	go func() { to.Awaits(t, 3); interrupt() }()
	last, err := client.Run(ctx, inTime(to.At), synthetic(t, endless))
	within(t, "the source is woken", woken)
	if err != nil || last.Account == nil || int64(last.Report.DatagramsSent) != to.Received() || last.Report.DatagramsSent < 3 {
		t.Errorf("%d arrived, %v: %+v", to.Received(), err, last)
	}
}

// broken yields some frames, and then fails.
type broken struct {
	forward.Source
	left int
}

func (b *broken) Next(f *forward.Frame) error {
	if b.left--; b.left < 0 {
		return errors.New("packet 11 is cut")
	}
	return b.Source.Next(f)
}

// What was read before the damage is sent, and the damage is the run's error.
func TestADamagedCaptureIsTheRunsError(t *testing.T) {
	client, to := both(t)
	last, err := client.Run(t.Context(), asap(to.At), &broken{synthetic(t, endless), 10})
	if err == nil || !strings.Contains(err.Error(), "packet 11 is cut") || last.Report.DatagramsSent != 10 {
		t.Errorf("%d sent, %v", last.Report.DatagramsSent, err)
	}
}

// What the sidecar cannot do it says, and the client says it.
func TestTheSidecarsErrorsAreTheClients(t *testing.T) {
	nobody := netip.MustParseAddrPort("127.0.0.1:9")
	for want, set := range map[string]func(*Job){
		"VNI":          func(j *Job) { j.Config.VNI = 1 << 24 },
		"speed":        func(j *Job) { j.Pace = pace.Spec{Pace: pace.AsRecorded, Speed: "fast"} },
		"destination":  func(j *Job) { j.Destination = netip.AddrPort{} },
		"lossless run": func(j *Job) { j.Lossless = watch.Require },
		"CPU 4000":     func(j *Job) { j.CPU = 4000 },
	} {
		t.Run(want, func(t *testing.T) {
			inside, client := newContainer(t, nil, nobody)
			go inside.serve()
			defer client.Close()
			job := asap(nobody)
			set(&job)
			if _, err := client.Run(t.Context(), job, synthetic(t, endless)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// What comes by standard input may be anything.
func TestAnythingButAJobIsRefused(t *testing.T) {
	for want, in := range map[string]string{"this is not a stream of frames": "hello, world", "receive the job": ""} {
		var out bytes.Buffer
		if err := (Server{In: strings.NewReader(in), Out: &out}).Serve(t.Context()); err == nil || !strings.Contains(err.Error(), want) || out.Len() > 0 {
			t.Errorf("%q: %v, told %q", in, err, out.String())
		}
	}
}

// A client that hangs keeps its end of the connection open for ever.
func TestASilentClientIsGone(t *testing.T) {
	in, job := io.Pipe()
	defer job.Close()
	served := make(chan error, 1)
	go func() {
		served <- Server{In: in, Out: io.Discard, silence: 50 * time.Millisecond}.Serve(context.Background())
	}()
	to := inTime(testenv.NewReceiver(t).At)
	to.Protocol = protocol
	if _, err := relay.NewSender(job, to); err != nil {
		t.Fatal(err)
	}
	if err := within(t, "the sidecar ends", served); !errors.Is(err, relay.ErrLost) || !strings.Contains(err.Error(), "nothing came for 50ms") {
		t.Errorf("got %v", err)
	}
}

// quiet has no frame until it is stopped.
type quiet chan struct{}

func (q quiet) Next(*forward.Frame) error { <-q; return io.EOF }
func (q quiet) Ready() bool               { return false }
func (q quiet) Close() error              { return nil }

// A client without frames shows that it lives.
func TestAQuietClientGivesSignsOfLife(t *testing.T) {
	inside, client := newContainer(t, nil, netip.AddrPort{})
	client.heartbeat = time.Millisecond
	source := make(quiet)
	client.StopSource = func() { close(source) }
	ran := make(chan error, 1)
	go func() {
		_, err := client.Run(t.Context(), Job{}, source)
		ran <- err
	}()
	beats := make(chan struct{})
	go func() { // the stream is the job, and then a mark and a length for each beat
		defer close(beats)
		head := make([]byte, 5)
		_, _ = io.ReadFull(inside.stdin, head)
		_, _ = io.CopyN(io.Discard, inside.stdin, int64(head[1])|int64(head[2])<<8|int64(head[3])<<16)
		for range 3 {
			if _, err := io.ReadFull(inside.stdin, head); err != nil || head[0] != 'P' {
				t.Errorf("%q, %v", head, err)
			}
		}
	}()
	within(t, "three beats", beats)
	inside.end(0, "")
	within(t, "the run ends with its sidecar", ran)
}
