package verify

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/sidecar"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
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
func verifyEngine(t *testing.T) *engine.Engine {
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
	e, err := engine.Connect(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// sensorSettings are those that `up` would have, from the environment.
func sensorSettings(t *testing.T) orchestrate.Settings {
	t.Helper()
	s := orchestrate.Settings{Pull: orchestrate.PullNever, Bind: netip.MustParseAddr("127.0.0.1"), Images: map[string]string{}}
	if ref := os.Getenv(orchestrate.ImageVariable("zeek")); ref != "" {
		s.Images["zeek"] = ref
	}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	return s
}

// quiet is an observer that does not care.
type quiet struct{}

func (quiet) Say(string)                           {}
func (quiet) Meter(func() delivery.Reading) func() { return func() {} }
func (quiet) Flows(func() []delivery.Flow) func()  { return func() {} }
func (quiet) Step(delivery.Step)                   {}

// verifyWith verifies one capture with something standing before the way out.
func verifyWith(t *testing.T, e orchestrate.Engine, capture string, by way.Request, interpose func(forward.Sink) forward.Sink) Row {
	t.Helper()
	o := Options{Kind: encap.VXLAN, Way: by, Pace: pace.MaxSpec(), Tx: transmit.Auto, CPU: transmit.CPUOff, Lossless: watch.Require,
		Settings: sensorSettings(t), Jobs: 1, Stdin: strings.NewReader(""), Observer: quiet{}, Interpose: interpose}
	rows, err := Run(t.Context(), e, []string{capture}, o)
	if err != nil {
		t.Fatal(err)
	}
	if rows[0].Verdict == Failed {
		t.Fatalf("verify: %s", rows[0].Error)
	}
	return rows[0]
}

// TestMain makes this test binary the program inside a sidecar as well; it does
// there the fault that was appended to it.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == sidecar.Command {
		if err := (sidecar.Server{In: os.Stdin, Out: os.Stdout, Interpose: appendedFault()}).Serve(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// faultMark comes before a fault at the end of a program.
const faultMark = "\nfault of a test: "

// appendedFault is the fault at the end of the running program; nil without.
func appendedFault() func(forward.Sink) forward.Sink {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil
	}
	defer self.Close()
	end := make([]byte, 100)
	if info, err := self.Stat(); err != nil || info.Size() < int64(len(end)) {
		return nil
	} else if _, err := self.ReadAt(end, info.Size()-int64(len(end))); err != nil {
		return nil
	}
	_, text, found := strings.Cut(string(end), faultMark)
	f := faulty{}
	if _, err := fmt.Sscan(text, &f.fault, &f.at); !found || err != nil {
		return nil
	}
	return f.before
}

// before puts the fault before a way out.
func (f faulty) before(s forward.Sink) forward.Sink {
	f.Sink = s
	return &f
}

// sidecarPrograms builds this very program as sidecars need it, and returns how
// to get one with a fault.
func sidecarPrograms(t *testing.T) func(t *testing.T, f faulty) string {
	t.Helper()
	plain := filepath.Join(t.TempDir(), "zeekdemo")
	cmd := exec.Command("go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", plain, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	program, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T, f faulty) string {
		name := filepath.Join(t.TempDir(), "zeekdemo")
		if err := os.WriteFile(name, fmt.Appendf(slices.Clone(program), "%s%s %d\n", faultMark, f.fault, f.at), 0o700); err != nil {
			t.Fatal(err)
		}
		return name
	}
}

// Each fault of the path is found and named with its hop, on every way. The
// capture's first packets are the SYN of a connection and its answer.
func TestVerifyFindsSeededFaults(t *testing.T) {
	capture := testenv.Shared(t, "pcaps", "bro.org.pcap")
	e := verifyEngine(t)
	program := sidecarPrograms(t)
	for _, c := range []struct {
		faulty
		cause zeeklog.Cause
		hop   string
		text  string
	}{
		{faulty{fault: "drop", at: 40}, zeeklog.Lost, "between", "1 of 751 datagrams were lost"},
		{faulty{fault: "double", at: 40}, zeeklog.Doubled, "between", "1 datagrams more arrived than the 751"},
		{faulty{fault: "cut", at: 40}, zeeklog.Cut, "socket", "10 of 500501 bytes are missing"},
		{faulty{fault: "swap", at: 0}, zeeklog.Unexplained, "unknown", "whether they had their order and their bytes was not looked at"},
		{faulty{fault: "none", at: -1}, "", "", ""},
	} {
		for _, by := range []way.Kind{way.Direct, way.Sidecar, way.Published} {
			t.Run(c.fault+" "+string(by), func(t *testing.T) {
				t.Parallel()
				request := way.Request{Kind: by}
				if by == way.Sidecar {
					request.Binary = program(t, c.faulty)
				}
				row := verifyWith(t, e, capture, request, c.before)
				if row.Via != by || row.Lossless == nil || !row.Lossless.Governed {
					t.Errorf("went %s, lossless %+v", row.Via, row.Lossless)
				}
				if c.cause == "" {
					if row.Verdict != Equal {
						t.Errorf("without a fault: %s: %v %v", row.Verdict, row.Findings, row.Differences)
					}
					return
				}
				if row.Verdict != Differs || len(row.Findings) != 1 {
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
}

// What a client that was killed left is removed by the next run and by `down`;
// what a living one still needs is not.
func TestVerifyRemovesWhatAKilledClientLeft(t *testing.T) {
	e := verifyEngine(t)
	id := freshID()
	r := &run{Options: Options{Settings: sensorSettings(t)}}
	capture := filepath.Join(t.TempDir(), "x.pcap")
	if err := os.WriteFile(capture, []byte("no capture"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, shot := range []orchestrate.OneShot{
		{Run: id, Name: "live", Service: "zeek"}, {Run: id, Name: "file", Service: "zeek", Capture: capture},
	} {
		if _, err := e.CreateOneShot(t.Context(), r.project(), shot); err != nil {
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
	if _, err := e.RemoveOneShots(t.Context(), orchestrate.Removal{Gone: orchestrate.Client.Gone}); err != nil {
		t.Fatal(err)
	}
	if n := len(strings.Fields(left())); n != 3 {
		t.Fatalf("%d of 2 containers and a network are left while their client lives", n)
	}
	dead := func(client orchestrate.Client) bool { return client == orchestrate.ThisClient() }
	n, err := e.RemoveOneShots(t.Context(), orchestrate.Removal{Gone: dead})
	if err != nil || n != 2 {
		t.Fatalf("removed %d containers: %v", n, err)
	}
	if list := left(); list != "" {
		t.Errorf("left: %s", list)
	}
}
