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

// wayEngine is an engine whose containers' addresses are not to be reached from
// here. It fails for whoever asks what the way chosen does not need.
type wayEngine struct {
	orchestrate.Engine
	arch string
}

func (e wayEngine) Info(context.Context) (orchestrate.EngineInfo, error) {
	return orchestrate.EngineInfo{OS: "linux", Arch: e.arch}, nil
}

func (e wayEngine) Containers(context.Context, string) ([]orchestrate.Container, error) {
	return nil, nil
}

func (e wayEngine) Exec(context.Context, string, []string, io.Writer, io.Writer) (int, error) {
	return 0, errors.New("not that container")
}

// withSidecars is one that can run sidecars.
type withSidecars struct {
	wayEngine
	program *string // of the last one made
}

func (e withSidecars) CreateCompanion(_ context.Context, spec orchestrate.CompanionSpec) (string, error) {
	*e.program = spec.(orchestrate.SidecarSpec).Program
	return "1", nil
}

func (e withSidecars) StartCompanion(context.Context, string) (orchestrate.SidecarStreams, error) {
	return orchestrate.SidecarStreams{ID: "1"}, nil
}

func (e withSidecars) Companions(context.Context, orchestrate.CompanionKind) ([]orchestrate.Companion, error) {
	return nil, nil
}

func (e withSidecars) RemoveCompanion(context.Context, string) error { return nil }

// The best way that works, why not a better one, and an error where what was
// asked for is not to be had.
func TestOpenedWay(t *testing.T) {
	var made string
	plain := wayEngine{arch: "sparcv9"}
	able := withSidecars{plain, &made}
	given := testenv.ForeignProgram(t)
	tests := map[string]struct {
		engine  orchestrate.Engine
		via     Request
		want    Kind
		reasons string // what they contain, or the error
	}{
		"auto, by sidecar":            {able, Request{Kind: Auto, Tx: transmit.Auto, Binary: given}, Sidecar, "not direct: 192.0.2.1 does not answer from here"},
		"auto, no such engine":        {plain, Request{Kind: Auto, Tx: transmit.Auto}, Published, "not by sidecar: run a sidecar: this engine cannot"},
		"auto, another platform":      {able, Request{Kind: Auto, Tx: transmit.Auto}, Published, "the engine's machine is linux/sparcv9"},
		"auto, packets of our own":    {able, Request{Kind: Auto, Tx: transmit.Packet, Binary: given}, Published, "no capability for --tx packet"},
		"direct, by sidecar":          {able, Request{Kind: Direct, Tx: transmit.Auto, Binary: given}, Sidecar, "not direct"},
		"direct, neither":             {plain, Request{Kind: Direct, Tx: transmit.Auto}, "", "reach sensor zeek: not direct: 192.0.2.1 does not answer"},
		"sidecar":                     {able, Request{Kind: Sidecar, Tx: transmit.Auto, Binary: given}, Sidecar, ""},
		"sidecar, another platform":   {able, Request{Kind: Sidecar, Tx: transmit.Auto}, "", "the engine's machine is linux/sparcv9"},
		"published, nothing is asked": {nil, Request{Kind: Published, Tx: transmit.Auto}, Published, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			// An address of RFC 5737: nobody has it.
			sensor := orchestrate.Sensor{Service: orchestrate.Service{Name: "zeek"}, Direct: netip.MustParseAddrPort("192.0.2.1:4789")}
			w, err := tt.via.Open(t.Context(), tt.engine, sensor)
			said := strings.Join(w.Reasons, "; ")
			if err != nil {
				said = err.Error()
			}
			if (err != nil) != (tt.want == "") || err == nil && w.Kind != tt.want || !strings.Contains(said, tt.reasons) || tt.reasons == "" && said != "" {
				t.Fatalf("got %q, %v: %s", w.Kind, err, said)
			}
			if w.Kind == Sidecar && made != given {
				t.Errorf("the sidecar's program is %s", made)
			}
		})
	}
}
