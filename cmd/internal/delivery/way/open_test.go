package way

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// sidecars is an engine that makes them, as long as it can, and counts.
type sidecars struct {
	wayEngine
	failure error // of starting one
	created []orchestrate.SidecarSpec
	open    int // whose streams have not been closed
	removed []string
}

func (e *sidecars) CreateCompanion(_ context.Context, spec orchestrate.CompanionSpec) (string, error) {
	e.created = append(e.created, spec.(orchestrate.SidecarSpec))
	return "made", nil
}

func (e *sidecars) StartCompanion(_ context.Context, id string) (orchestrate.SidecarStreams, error) {
	if e.failure != nil {
		return orchestrate.SidecarStreams{}, e.failure
	}
	e.open++
	return orchestrate.SidecarStreams{ID: id, Stderr: strings.NewReader(""), Close: func() error { e.open--; return nil },
		Wait: func(context.Context) (int, error) { return 0, nil }}, nil
}

func (e *sidecars) Companions(context.Context, orchestrate.CompanionKind) ([]orchestrate.Companion, error) {
	return nil, nil
}

func (e *sidecars) RemoveCompanion(_ context.Context, id string) error {
	e.removed = append(e.removed, id)
	return nil
}

var _ orchestrate.CompanionEngine = (*sidecars)(nil)

// request wants a way by a program that fits the engine.
func request(t *testing.T, kind Kind) (*sidecars, Request) {
	t.Helper()
	return &sidecars{wayEngine: wayEngine{arch: "sparcv9"}}, Request{Kind: kind, Tx: transmit.Auto, Binary: testenv.ForeignProgram(t)}
}

// A sidecar that does not start is a way that does not work: there may be a worse
// one. Nothing of it stays.
func TestASidecarThatDoesNotStartIsNoWay(t *testing.T) {
	full := errors.New("no space left on device")
	for wanted, want := range map[Kind]Kind{Auto: Published, Direct: "", Sidecar: ""} {
		e, r := request(t, wanted)
		e.failure = full
		w, err := r.Open(t.Context(), e, sensor())
		if w.Kind != want || (err != nil) != (want == "") || err != nil && !errors.Is(err, full) {
			t.Errorf("%s: %q, %v", wanted, w.Kind, err)
		}
		if err != nil && strings.HasPrefix(err.Error(), "reach sensor zeek: not direct: ") != (wanted == Direct) {
			t.Errorf("%s: %v", wanted, err)
		}
		if want == Published && !strings.Contains(w.Announcement(), "not by sidecar: run a sidecar: no space left on device") {
			t.Errorf("it announces %q", w.Announcement())
		}
		if len(e.created) != 1 || len(e.removed) != 1 || e.open != 0 {
			t.Errorf("%s: %d made, removed %q", wanted, len(e.created), e.removed)
		}
	}
}

// Who interrupts wants no other way.
func TestAnInterruptedStartIsNotTriedOtherwise(t *testing.T) {
	e, r := request(t, Auto)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e.failure = context.Canceled
	if w, err := r.Open(ctx, e, sensor()); !errors.Is(err, context.Canceled) || w.Kind != "" {
		t.Errorf("%q, %v", w.Kind, err)
	}
}

// The sidecar that was started serves the first client; who needs another one gets
// it beside the sensor that is there then.
func TestTheStartedSidecarIsUsedOnce(t *testing.T) {
	e, r := request(t, Sidecar)
	first, next := sensor(), sensor()
	first.Container.ID, next.Container.ID = "first", "next"
	w, err := r.Open(t.Context(), e, first)
	if err != nil || e.open != 1 || w.Streams == nil {
		t.Fatalf("%v; %d run", err, e.open)
	}
	client, err := w.Client(t.Context(), e, first)
	if err != nil || len(e.created) != 1 || w.Streams != nil {
		t.Fatalf("%v; made %+v", err, e.created)
	}
	client.Close()
	again, err := w.Client(t.Context(), e, next)
	if err != nil || len(e.created) != 2 || e.created[1].Sensor != "next" || e.created[1].Program != r.Binary {
		t.Fatalf("%v; made %+v", err, e.created)
	}
	again.Close()
	if m, _ := again.Newest(); m.Transmission.Destination != netip.MustParseAddrPort("127.0.0.1:4789") || e.open != 0 {
		t.Errorf("it sends to %s; %d run", m.Transmission.Destination, e.open)
	}
	e.failure = errors.New("no space left on device")
	if _, err := w.Client(t.Context(), e, next); !errors.Is(err, e.failure) {
		t.Errorf("got %v", err)
	}
}

// A sidecar that nobody used ends; of one in use, or of none, nothing is ended.
func TestAnUnusedSidecarIsDiscarded(t *testing.T) {
	e, r := request(t, Sidecar)
	w, err := r.Open(t.Context(), e, sensor())
	if err != nil {
		t.Fatal(err)
	}
	w.Discard(e)
	if e.open != 0 {
		t.Errorf("%d run", e.open)
	}
	w.Discard(e)
	if e.open != 0 {
		t.Errorf("it was ended twice: %d", e.open)
	}
	if w, err = r.Open(t.Context(), e, sensor()); err != nil {
		t.Fatal(err)
	}
	client, err := w.Client(t.Context(), e, sensor())
	if err != nil {
		t.Fatal(err)
	}
	w.Discard(e)
	if e.open != 1 {
		t.Error("one that is in use was ended")
	}
	client.Close()
	none := Straight()
	none.Discard(nil)
}

// unreachable is an engine that is not there.
type unreachable struct{ sidecars }

var errNoEngine = errors.New("is the engine running?")

func (*unreachable) Info(context.Context) (orchestrate.EngineInfo, error) {
	return orchestrate.EngineInfo{}, errNoEngine
}

// What cannot be known counts as not working.
func TestAnEngineThatDoesNotAnswerMakesNoSidecar(t *testing.T) {
	if _, err := (Request{Kind: Sidecar}).Open(t.Context(), &unreachable{}, sensor()); !errors.Is(err, errNoEngine) {
		t.Errorf("got %v", err)
	}
}

// silent fails whoever asks it.
type silent struct {
	orchestrate.Engine
	t *testing.T
}

func (s silent) Info(context.Context) (orchestrate.EngineInfo, error) {
	s.t.Error("the engine was asked")
	return orchestrate.EngineInfo{}, nil
}

func (s silent) Exec(context.Context, string, []string, io.Writer, io.Writer) (int, error) {
	s.t.Error("the container was asked")
	return 0, nil
}

// What is not needed for the choice is not asked for.
func TestOnlyWhatIsNeededIsProbed(t *testing.T) {
	if p := (Request{Kind: Published}).Probe(t.Context(), silent{t: t}, sensor()); p != (Probed{}) {
		t.Errorf("%+v", p)
	}
	e, r := request(t, Sidecar)
	away := sensor()
	away.Direct = netip.AddrPort{} // trying it would fail
	if p := r.Probe(t.Context(), e, away); p != (Probed{}) || len(e.created) > 0 {
		t.Errorf("%+v, made %+v", p, e.created)
	}
	r.Kind = Direct
	if p := r.Probe(t.Context(), e, away); p.Direct == nil || p.Sidecar != nil || len(e.created) > 0 {
		t.Errorf("%+v, made %+v", p, e.created)
	}
}
