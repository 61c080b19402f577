package sidecar

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// A killed sidecar says nothing any more; its exit code and what it said before do.
func TestAKilledSidecarIsAnErrorWithItsExitCode(t *testing.T) {
	to := testenv.NewReceiver(t)
	inside, client := newContainer(t, nil, to.At)
	defer client.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = Server{In: inside.stdin, Out: inside.stdout}.Serve(context.Background()) // it is killed
	}()
	go func() { to.Awaits(t, 1); inside.end(137, "zeekdemo: running out of memory\n") }()
	last, err := client.Run(t.Context(), inTime(to.At), synthetic(t, endless))
	if err == nil || !strings.Contains(err.Error(), "ended without a report, exit code 137; it said: running out of memory") {
		t.Fatalf("got %v", err)
	}
	var hinted interface{ Hint() string }
	if !errors.As(err, &hinted) || !strings.Contains(hinted.Hint(), "137 is a kill") || last.Account != nil {
		t.Errorf("%v: %+v", err, last)
	}
	within(t, "its program ends", served)
}

// Where the engine does not tell the end either, the sidecar is lost.
func TestASidecarWhoseEndIsNotKnownIsLost(t *testing.T) {
	inside, client := newContainer(t, nil, netip.AddrPort{})
	client.grace = 10 * time.Millisecond
	go func() { _, _ = io.Copy(io.Discard, inside.stdin) }()
	inside.stdout.Close() // and Wait never returns
	if _, err := client.Run(t.Context(), Job{}, synthetic(t, 1)); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the sidecar is lost") {
		t.Errorf("got %v", err)
	}
}

// One that is told to stop and does not is given up, and so is its journal.
func TestASidecarThatDoesNotAnswerIsGivenUp(t *testing.T) {
	inside, client := newContainer(t, nil, netip.AddrPort{})
	client.grace = 10 * time.Millisecond
	go func() { _, _ = io.Copy(io.Discard, inside.stdin) }()
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	if _, err := client.Run(ctx, Job{}, synthetic(t, endless)); err == nil || !strings.Contains(err.Error(), "it does not answer within 10ms") {
		t.Errorf("got %v", err)
	}
}

// Nor can one be told anything that reads no more.
func TestASidecarThatReadsNoMoreCannotBeStopped(t *testing.T) {
	inside, client := newContainer(t, nil, netip.AddrPort{})
	source := make(quiet)
	client.StopSource = func() { close(source) }
	ctx, interrupt := context.WithCancel(t.Context())
	client.Started = func() func() {
		inside.stdin.CloseWithError(errors.New("torn"))
		interrupt()
		return func() {}
	}
	go func() { _, _ = io.Copy(io.Discard, inside.stdin) }()
	go func() { _ = Message{}.write(inside.stdout) }()
	if _, err := client.Run(ctx, Job{}, source); err == nil || !strings.Contains(err.Error(), "stop the sidecar: torn") {
		t.Errorf("got %v", err)
	}
}

// A sidecar that ends before it has the job has said why.
func TestASidecarThatDoesNotStartSaysWhy(t *testing.T) {
	inside, client := newContainer(t, nil, netip.AddrPort{})
	inside.end(126, "exec format error")
	client.stderr.awaits(t, "exec format error")
	if _, err := client.Run(t.Context(), Job{}, synthetic(t, 1)); err == nil || !strings.HasPrefix(err.Error(), "start the sidecar: ") || !strings.HasSuffix(err.Error(), "it said: exec format error") {
		t.Errorf("got %v", err)
	}
}

// awaits waits until that much has been said.
func (t *tail) awaits(tb testing.TB, text string) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for limit := time.After(bound); !strings.Contains(t.text(), text); {
		select {
		case <-limit:
			tb.Fatalf("it said only %q", t.text())
		case <-tick.C:
		}
	}
}

// A program may say much before it dies: the end of it tells why.
func TestTheEndOfWhatItSaidIsKept(t *testing.T) {
	var said tail
	said.readFrom(strings.NewReader("the beginning" + strings.Repeat("\nnoise", 2*tailBytes) + "\nthe cause\n"))
	if text := said.text(); !strings.HasSuffix(text, "noise\nthe cause") || strings.Contains(text, "the beginning") || len(said.end) != tailBytes {
		t.Errorf("%d bytes kept, the text ends with %q", len(said.end), text[len(text)-20:])
	}
	var nothing tail
	nothing.readFrom(strings.NewReader(" \n"))
	if text := nothing.text(); text != "" {
		t.Errorf("of one that said nothing: %q", text)
	}
}

// A message that was handed out is its reader's: the next one does not change it.
func TestAMessageStaysAsItWas(t *testing.T) {
	inside, client := newContainer(t, nil, netip.AddrPort{})
	go func() { _, _ = io.Copy(io.Discard, inside.stdin) }()
	var first Message
	began := make(chan struct{})
	client.Started = func() func() {
		first, _ = client.Newest()
		close(began)
		return func() {}
	}
	go func() {
		defer inside.end(0, "")
		_ = Message{Report: forward.Report{Refused: []forward.RefusedCount{{Reason: "first"}}}}.write(inside.stdout)
		<-began
		_ = Message{Report: forward.Report{Refused: []forward.RefusedCount{{Reason: "second"}}}}.write(inside.stdout)
		_, _ = inside.stdout.Write([]byte(`{"final": true}` + "\n"))
	}()
	last, err := client.Run(t.Context(), Job{}, synthetic(t, 1))
	if err != nil || last.Report.Refused[0].Reason != "second" { // which the last one did not repeat
		t.Fatalf("%v: %+v", err, last)
	}
	if first.Report.Refused[0].Reason != "first" {
		t.Errorf("the first message has become %+v", first.Report)
	}
}

// remover is an engine that counts what it is asked to remove.
type remover struct {
	orchestrate.Engine
	orchestrate.CompanionEngine
	removed atomic.Pointer[string]
}

func (r *remover) RemoveCompanion(_ context.Context, id string) error {
	r.removed.Store(&id)
	return nil
}

// A container that does not end without its standard input is removed; one that
// does has been.
func TestNothingOfASidecarStays(t *testing.T) {
	engine := &remover{}
	inside, client := newContainer(t, engine, netip.AddrPort{})
	inside.end(0, "")
	client.Close()
	if id := engine.removed.Load(); id != nil {
		t.Errorf("%s was removed though it had ended", *id)
	}
	_, client = newContainer(t, engine, netip.AddrPort{})
	client.grace = 10 * time.Millisecond
	client.Close()
	if id := engine.removed.Load(); id == nil || *id != "inside" {
		t.Errorf("removed: %v", id)
	}
	_, client = newContainer(t, nil, netip.AddrPort{}) // an engine that knows nothing of sidecars
	client.grace = 10 * time.Millisecond
	client.Close()
}
