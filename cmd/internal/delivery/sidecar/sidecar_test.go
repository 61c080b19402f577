package sidecar

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/relay"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
)

// The sidecar's program may be given, and of another release.
func TestAnotherRelease(t *testing.T) {
	r, w := io.Pipe()
	var out bytes.Buffer
	go func() { _, _ = relay.NewSender(w, Job{Protocol: protocol + 1}) }()
	served := Server{In: r, Out: &out}.Serve(t.Context())
	var told *ToldError
	var m Message
	if err := json.Unmarshal(out.Bytes(), &m); err != nil || !errors.As(served, &told) || !m.Final || !strings.Contains(m.Error, "another release") {
		t.Errorf("%v, %v: %s", served, err, out.String())
	}
}

// A client that is gone ends the sidecar, whatever is due when.
func TestAKilledClientEndsTheSidecar(t *testing.T) {
	in, job := io.Pipe()
	served := make(chan error, 1)
	go func() { served <- Server{In: in, Out: io.Discard}.Serve(context.Background()) }()
	sender, err := relay.NewSender(job, Job{Protocol: protocol, Destination: netip.MustParseAddrPort("127.0.0.1:9"),
		Pace: pace.Spec{Pace: pace.AsRecorded, Speed: "1x"}, CPU: transmit.CPUOff, Lossless: watch.Off})
	if err != nil {
		t.Fatal(err)
	}
	if err := sender.Ping(); err != nil {
		t.Fatal(err)
	}
	job.Close()
	select {
	case err := <-served:
		if !errors.Is(err, relay.ErrLost) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it does not end")
	}
}
