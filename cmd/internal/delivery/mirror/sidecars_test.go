package mirror

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
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

// bySidecar is a mirror by sidecar to a receiver in this machine's namespace.
func bySidecar(t *testing.T, to netip.AddrPort) (*sidecars, *mirror, *listener) {
	t.Helper()
	e := &sidecars{stack: newStack(), kill: make(chan struct{})}
	e.info = orchestrate.EngineInfo{OS: "linux", Arch: "sparcv9"}
	m, heard := toSensor(t, e.stack)
	m.engine = e
	var err error
	if m.way, err = (way.Request{Kind: way.Sidecar, Tx: transmit.Auto, Binary: testenv.ForeignProgram(t)}).Open(t.Context(), e, m.target.Sensor); err != nil {
		t.Fatal(err)
	}
	m.target.Choice, m.target.Address = m.way.Choice, to
	return e, m, heard
}

// A sidecar goes with its sensor; the next sensor gets another one, and the frames
// that came meanwhile.
func TestTheNextSensorGetsASidecarOfItsOwn(t *testing.T) {
	to := testenv.NewReceiver(t)
	e, m, heard := bySidecar(t, to.At)
	frames := newLive(t, 300, nil)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	go func() {
		to.Awaits(t, 300)
		e.set(func(c *orchestrate.Container) { c.State = "exited" })
		close(e.kill)
		heard.awaits(t, "The sensor has gone; packets wait until it is back")
		e.set(func(c *orchestrate.Container) { c.ID, c.State = "next", "running" })
		frames.more(200)
		to.Awaits(t, 500)
		interrupt()
	}()
	doc, err := (&liveRun{mirror: m}).from(ctx, frames)
	var loss *delivery.LossError
	if err != nil && !errors.As(err, &loss) { // the machine's other traffic
		t.Fatal(err)
	}
	if got := strings.Join(e.sensors, " "); got != "first next" || to.Received() != 500 || doc.Report.DatagramsSent < 200 || doc.Report.DatagramsSent > 500 {
		t.Errorf("beside %s; %d arrived: %+v", got, to.Received(), doc)
	}
	if said := heard.all(); !strings.Contains(said, "The sidecar has ended: the sidecar ended without a report, exit code 137") {
		t.Errorf("said %q", said)
	}
}

// Where the mirror ends while there is no sensor, the sidecar's end is the error.
func TestALostSidecarWithoutANextSensor(t *testing.T) {
	to := testenv.NewReceiver(t)
	e, m, heard := bySidecar(t, to.At)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	go func() {
		to.Awaits(t, 300)
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
