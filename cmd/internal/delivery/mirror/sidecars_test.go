package mirror

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// sidecars is a stack whose engine runs sidecars, in this process.
type sidecars struct {
	*stack
	kill    chan struct{} // the first one
	sensors []string      // beside which they were made
}

func (s *sidecars) CreateCompanion(_ context.Context, spec orchestrate.CompanionSpec) (string, error) {
	s.sensors = append(s.sensors, spec.(orchestrate.SidecarSpec).Sensor)
	return "inside", nil
}

func (s *sidecars) StartCompanion(context.Context, string) (orchestrate.SidecarStreams, error) {
	if len(s.sensors) == 1 {
		return *sidecarHere(s.kill), nil
	}
	return *sidecarHere(nil), nil
}

func (*sidecars) Companions(context.Context, orchestrate.CompanionKind) ([]orchestrate.Companion, error) {
	return nil, nil
}
func (*sidecars) RemoveCompanion(context.Context, string) error { return nil }

var _ orchestrate.CompanionEngine = (*sidecars)(nil)

// program looks like a static program for the engine's machine, which is none that
// could run it.
func program(t *testing.T) string {
	t.Helper()
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	b[16], b[18], b[20] = 2, 43, 1 // ET_EXEC, EM_SPARCV9, EV_CURRENT
	b[52], b[54], b[58] = 64, 56, 64
	name := filepath.Join(t.TempDir(), "zeekdemo")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// bySidecar is a mirror by sidecar to a receiver in this machine's namespace.
func bySidecar(t *testing.T, to netip.AddrPort) (*sidecars, *mirror, *listener) {
	t.Helper()
	e := &sidecars{stack: newStack(), kill: make(chan struct{})}
	e.info = orchestrate.EngineInfo{OS: "linux", Arch: "sparcv9"}
	m, heard := toSensor(t, e.stack)
	m.engine = e
	var err error
	if m.way, err = (way.Request{Kind: way.Sidecar, Tx: transmit.Auto, Binary: program(t)}).Open(t.Context(), e, m.target.Sensor); err != nil {
		t.Fatal(err)
	}
	m.target.Choice, m.target.Address = m.way.Choice, to
	return e, m, heard
}

// A sidecar goes with its sensor; the next sensor gets another one, and the frames
// that came meanwhile.
func TestTheNextSensorGetsASidecarOfItsOwn(t *testing.T) {
	to := newCounter(t)
	e, m, heard := bySidecar(t, to.at)
	frames := newLive(t, 300, nil)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	go func() {
		to.awaits(t, 300)
		e.set(func(c *orchestrate.Container) { c.State = "exited" })
		close(e.kill)
		heard.awaits(t, "The sensor has gone; packets wait until it is back")
		e.set(func(c *orchestrate.Container) { c.ID, c.State = "next", "running" })
		frames.more(200)
		to.awaits(t, 500)
		interrupt()
	}()
	doc, err := (&liveRun{mirror: m}).from(ctx, frames)
	var loss *delivery.LossError
	if err != nil && !errors.As(err, &loss) { // the machine's other traffic
		t.Fatal(err)
	}
	if got := strings.Join(e.sensors, " "); got != "first next" || to.received.Load() != 500 || doc.Report.DatagramsSent < 200 || doc.Report.DatagramsSent > 500 {
		t.Errorf("beside %s; %d arrived: %+v", got, to.received.Load(), doc)
	}
	if said := heard.all(); !strings.Contains(said, "The sidecar has ended: the sidecar ended without a report, exit code 137") {
		t.Errorf("said %q", said)
	}
}

// Where the mirror ends while there is no sensor, the sidecar's end is the error.
func TestALostSidecarWithoutANextSensor(t *testing.T) {
	to := newCounter(t)
	e, m, heard := bySidecar(t, to.at)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	go func() {
		to.awaits(t, 300)
		e.set(func(c *orchestrate.Container) { c.State = "exited" })
		close(e.kill)
		heard.awaits(t, "The sensor has gone; packets wait until it is back")
		interrupt()
	}()
	doc, err := (&liveRun{mirror: m}).from(ctx, newLive(t, 300, nil))
	if err == nil || !strings.Contains(err.Error(), "exit code 137") || doc.Verdict != delivery.Failed {
		t.Errorf("%v: %+v", err, doc)
	}
}
