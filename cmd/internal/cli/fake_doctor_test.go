package cli

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/doctor"
	"github.com/zeekdemo/zeekdemo/orchestrate/engine"
)

var _ doctor.Engine = (*fakeEngine)(nil)

// fakeAddress is where the fake engine publishes: an address of this machine
// on which nobody listens.
const fakeAddress = "127.99.0.77"

// Machine is a virtual machine on this one, so that nothing depends on the
// machine that runs the scripts.
func (e *fakeEngine) Machine(context.Context) (doctor.Machine, error) {
	return doctor.Machine{Name: "fake-engine", Kernel: "6.8.0-fake", CPUs: 8, Memory: 16e9, MemoryLimits: true, Forwarding: true, Time: time.Now()}, nil
}

func (e *fakeEngine) Image(_ context.Context, ref string) (doctor.Image, error) {
	return doctor.Image{Ref: ref, Here: e.fault != "noimage"}, nil
}

func (e *fakeEngine) Registry(context.Context, string) ([]string, error) {
	return nil, errors.New("its registry's name cannot be looked up")
}

func (e *fakeEngine) Networks(context.Context) ([]doctor.Network, error) {
	networks := []doctor.Network{{Name: "bridge", Subnets: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}, Device: "docker0"}}
	if e.load().Up {
		networks = append(networks, doctor.Network{Name: "zeekdemo_monitoring", Project: orchestrate.ProjectName,
			Subnets: []netip.Prefix{netip.MustParsePrefix("172.18.0.0/16")}, Device: "br-zeekmon0"})
	}
	return networks, nil
}

// Complete is the real one, which needs no engine.
func (e *fakeEngine) Complete(ctx context.Context, p orchestrate.Project) (doctor.Stack, error) {
	for _, name := range []string{"ZEEKDEMO_BIND", "ZEEKDEMO_BIND_UNAUTHENTICATED"} {
		p.Env[name] = fakeAddress
	}
	if p.Env["ZEEKDEMO_GRAFANA_PASSWORD"] == "" {
		p.Env["ZEEKDEMO_GRAFANA_PASSWORD"] = orchestrate.DefaultGrafanaPassword
	}
	return new(engine.Engine).Complete(ctx, p)
}

func (e *fakeEngine) Documents(context.Context, string) (map[string]json.RawMessage, error) {
	inspected, err := json.Marshal(map[string]any{"Config": map[string]any{"Env": []string{"GF_SECURITY_ADMIN_PASSWORD=" + e.load().Env["ZEEKDEMO_GRAFANA_PASSWORD"]}}})
	return map[string]json.RawMessage{"containers/zeekdemo-grafana-1.json": inspected}, err
}
