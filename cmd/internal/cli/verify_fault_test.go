package cli

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/engine"
	"github.com/zeekdemo/zeekdemo/orchestrate/zeeklog"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// faulty is a way out that does one thing wrong, to the datagram number at
// (from 0) of the run.
type faulty struct {
	forward.Sink
	fault string // drop, double, cut, swap
	at    int
	seen  int
	held  []byte // the first of two that are swapped
	port  uint16
}

// Send passes the batch on with its fault, and says that all of it was sent, as
// a network does.
func (f *faulty) Send(b *forward.Batch) (int, error) {
	out := &forward.Batch{}
	add := func(payload []byte, port uint16) {
		out.Datagrams = append(out.Datagrams, forward.Datagram{Off: len(out.Buf), Len: len(payload), Port: port})
		out.Buf = append(out.Buf, payload...)
	}
	for i, d := range b.Datagrams {
		payload, n := b.Payload(i), f.seen
		f.seen++
		switch {
		case n == f.at && f.fault == "drop":
		case n == f.at && f.fault == "double":
			add(payload, d.Port)
			add(payload, d.Port)
		case n == f.at && f.fault == "cut":
			add(payload[:len(payload)-10], d.Port)
		case n == f.at && f.fault == "swap":
			f.held, f.port = slices.Clone(payload), d.Port
		default:
			add(payload, d.Port)
			if f.held != nil {
				add(f.held, f.port)
				f.held = nil
			}
		}
	}
	if len(out.Datagrams) > 0 {
		if _, err := f.Sink.Send(out); err != nil {
			return 0, err
		}
	}
	return len(b.Datagrams), nil
}

// BatchSize leaves room for the datagram that is doubled.
func (f *faulty) BatchSize() (datagrams, bytes int) { return 16, 64 << 10 }

// verifyEngine needs an engine on this machine with the sensor's image.
func verifyEngine(t *testing.T) *App {
	t.Helper()
	if os.Getenv("ZEEKDEMO_E2E") != "1" && !testenv.CI() {
		t.Skip("SKIPPED: starts containers; ZEEKDEMO_E2E=1 runs it")
	}
	if runtime.GOOS != "linux" {
		testenv.Missing(t, "needs containers that are reachable by their addresses: Linux")
	}
	image := os.Getenv("ZEEKDEMO_IMAGE_ZEEK")
	if image == "" {
		image = "zeek/zeek:9.0"
	}
	if out, err := exec.Command("docker", "image", "inspect", image).CombinedOutput(); err != nil {
		testenv.Missing(t, "needs the image "+image+": "+string(out))
	}
	app := System("test")
	app.Streams = ui.Streams{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard}
	return app
}

// verifyWith verifies one capture with something standing before the way out.
func verifyWith(t *testing.T, app *App, capture string, between func(forward.Sink) forward.Sink) verifyRow {
	t.Helper()
	o := verifyOptions{encap: "vxlan", tx: "auto", cpu: "off", pull: "never", jobs: 1,
		pace: paceOptions{pace: "max", given: func(string) bool { return false }}}
	v, err := o.validate(os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	v.app, v.between, v.folder = app, between, t.TempDir()
	e, err := engine.Connect(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	rows, err := v.all(t.Context(), e, []string{capture})
	if err != nil {
		t.Fatal(err)
	}
	if rows[0].Verdict == verdictFailed {
		t.Fatalf("verify: %s", rows[0].Error)
	}
	return rows[0]
}

// Each fault of the path is found and named with its hop. The capture's first
// packets are the SYN of a connection and its answer.
func TestVerifyFindsSeededFaults(t *testing.T) {
	capture := testenv.Shared(t, "pcaps", "bro.org.pcap")
	app := verifyEngine(t)
	for _, c := range []struct {
		fault string
		at    int
		cause zeeklog.Cause
		hop   string
		text  string
	}{
		{"drop", 40, zeeklog.Lost, "between", "1 of 751 datagrams were lost"},
		{"double", 40, zeeklog.Doubled, "between", "1 datagrams more arrived than the 751"},
		{"cut", 40, zeeklog.Cut, "socket", "10 of 500501 bytes are missing"},
		{"swap", 0, zeeklog.Reordered, "between", "not in the order"},
		{"none", 0, "", "", ""},
	} {
		t.Run(c.fault, func(t *testing.T) {
			t.Parallel()
			row := verifyWith(t, app, capture, func(s forward.Sink) forward.Sink { return &faulty{Sink: s, fault: c.fault, at: c.at} })
			if c.cause == "" {
				if row.Verdict != verdictEqual {
					t.Errorf("without a fault: %s\n%s", row.Verdict, strings.Join(details(row), "\n"))
				}
				return
			}
			if row.Verdict != verdictDiffers || len(row.Findings) != 1 {
				t.Fatalf("verdict %s, findings %v", row.Verdict, row.Findings)
			}
			f := row.Findings[0]
			if f.Cause != c.cause || !strings.Contains(f.Hop, c.hop) || !strings.Contains(f.Text, c.text) {
				t.Errorf("found %+v, want %s %s: %q", f, c.cause, c.hop, c.text)
			}
			if c.fault != "cut" && row.Different == 0 {
				t.Error("no connection shows it")
			}
		})
	}
}

// What a client that was killed left is removed by the next run and by `down`;
// what a living one still needs is not.
func TestVerifyRemovesWhatAKilledClientLeft(t *testing.T) {
	verifyEngine(t)
	e, err := engine.Connect(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	id := freshID()
	settings, err := upOptions{pull: "never", bind: "127.0.0.1", waitTimeout: 1}.settings(os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	s := &subject{verification: &verification{settings: settings}}
	capture := filepath.Join(t.TempDir(), "x.pcap")
	if err := os.WriteFile(capture, []byte("no capture"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, shot := range []orchestrate.OneShot{
		{Run: id, Name: "live", Service: "zeek"}, {Run: id, Name: "file", Service: "zeek", Capture: capture},
	} {
		if _, err := e.CreateOneShot(t.Context(), s.project(), shot); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if _, err := e.RemoveOneShots(context.Background(), orchestrate.Removal{Run: id}); err != nil {
			t.Error(err)
		}
	})
	left := func() string {
		filter := "label=" + orchestrate.VerifyLabel + "=" + id
		containers, err1 := exec.Command("docker", "ps", "-aq", "--filter", filter).Output()
		networks, err2 := exec.Command("docker", "network", "ls", "-q", "--filter", filter).Output()
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		return string(containers) + string(networks)
	}
	if _, err := e.RemoveOneShots(t.Context(), orchestrate.Removal{Gone: orchestrate.ClientGone}); err != nil {
		t.Fatal(err)
	}
	if n := len(strings.Fields(left())); n != 3 {
		t.Fatalf("%d of 2 containers and a network are left while their client lives", n)
	}
	dead := func(client string) bool { return client == orchestrate.Client() }
	n, err := e.RemoveOneShots(t.Context(), orchestrate.Removal{Gone: dead})
	if err != nil || n != 2 {
		t.Fatalf("removed %d containers: %v", n, err)
	}
	if list := left(); list != "" {
		t.Errorf("left: %s", list)
	}
}
