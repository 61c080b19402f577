package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
)

// A run that writes for a reader who stalls ends when it is interrupted, and reports
// what that reader can have.
func TestAReaderThatStallsIsNotWaitedForWhenInterrupted(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	r := &Replay{Config: encap.Config{Kind: encap.VXLAN, VNI: testVNI, MTU: encap.DefaultMTU}, Pace: pace.MaxSpec()}
	if r.Captures, err = OpenCaptures(ctx, nil, 0, strings.NewReader(""), ""); err != nil {
		t.Fatal(err)
	}
	defer r.Captures.Close()
	run, err := r.Open(ctx, File{Path: "-", Stdout: out})
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	var head [24]byte // of the file
	go func() {
		_, _ = io.ReadFull(in, head[:])
		interrupt()
	}()
	doc, err := sentInTime(t, ctx, run)
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	rest, readErr := io.ReadAll(in)
	if readErr != nil {
		t.Fatal(readErr)
	}
	name := filepath.Join(t.TempDir(), "taken.pcap")
	if err := os.WriteFile(name, bytes.Join([][]byte{head[:], rest}, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	taken := uint64(len(readCapture(t, name)))
	if !errors.Is(err, ErrInterrupted) || doc.Verdict != Interrupted || taken == 0 || doc.Report.DatagramsSent != taken {
		t.Errorf("%v, %s: the reader has %d packets of %d", err, doc.Verdict, taken, doc.Report.DatagramsSent)
	}
	if want := fmt.Sprintf(" after %d packets", taken); !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v, want%s", err, want)
	}
}

// sentInTime sends, which must not take for ever.
func sentInTime(t *testing.T, ctx context.Context, run *Run) (doc *Document, err error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		doc, err = run.Send(ctx)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("still sending")
	}
	return doc, err
}
