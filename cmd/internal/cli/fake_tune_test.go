package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv/fakehelper"
)

// The machine of the fake engine is a folder with copies of the kernel's files,
// which ZEEKDEMO_FAKE_MACHINE names; without it there is none, and no sensor
// has a process. Helpers run the real script on the copies.
var _ orchestrate.HelperEngine = (*fakeEngine)(nil)

// fakePID is the process of the first sensor, beyond what a kernel gives.
const fakePID = 5_000_001

func (e *fakeEngine) machine() string { return os.Getenv("ZEEKDEMO_FAKE_MACHINE") }

func (e *fakeEngine) helpers() *fakehelper.Engine {
	if e.helper == nil {
		e.helper = &fakehelper.Engine{Root: e.machine(), Work: fmt.Sprintf("%s.work%d", e.machine(), os.Getpid())}
	}
	return e.helper
}

func (e *fakeEngine) CreateCompanion(ctx context.Context, spec orchestrate.CompanionSpec) (string, error) {
	helper, ok := spec.(orchestrate.HelperSpec)
	if !ok {
		return "", errors.New("run a sidecar: this engine cannot")
	}
	if e.machine() == "" || e.fault == "noimage" {
		return "", orchestrate.WithHint(fmt.Errorf("make a helper container: no image %s is here", helper.Image), "`zeekdemo up` pulls it")
	}
	for i := range 2 {
		pid := strconv.Itoa(fakePID + i)
		if _, err := os.Lstat(filepath.Join(e.machine(), "proc", pid, "net")); err != nil {
			if err := fakehelper.Link(e.machine(), pid); err != nil {
				return "", err
			}
		}
	}
	return e.helpers().CreateCompanion(ctx, spec)
}

func (e *fakeEngine) StartCompanion(ctx context.Context, id string) (orchestrate.SidecarStreams, error) {
	return e.helpers().StartCompanion(ctx, id)
}

// MachineFolder looks at the copies.
func (e *fakeEngine) MachineFolder(ctx context.Context, folder string) (map[string]string, error) {
	if e.machine() == "" {
		return nil, nil
	}
	return e.helpers().MachineFolder(ctx, folder)
}

func (e *fakeEngine) Companions(ctx context.Context, kind orchestrate.CompanionKind) ([]orchestrate.Companion, error) {
	return e.helpers().Companions(ctx, kind)
}

func (e *fakeEngine) RemoveCompanion(ctx context.Context, id string) error {
	return e.helpers().RemoveCompanion(ctx, id)
}

func (e *fakeEngine) Host(ctx context.Context) (orchestrate.EngineHost, error) {
	if e.fault == "unreachable" {
		return orchestrate.EngineHost{}, errors.New("no engine")
	}
	return e.helpers().Host(ctx)
}

// RestartContainer gives a sensor a new namespace: its start is another one,
// and its interface as new.
func (e *fakeEngine) RestartContainer(_ context.Context, id string) error {
	return e.fresh(id)
}

// fresh starts a sensor.
func (e *fakeEngine) fresh(service string) error {
	pid := e.pidOf(service)
	root := filepath.Join(e.machine(), strconv.Itoa(pid))
	uptime := "200000" // ticks; after everything that the fixture tells of
	return errors.Join(
		os.WriteFile(filepath.Join(root, "started"), []byte(time.Now().Format(time.RFC3339Nano)), 0o600),
		os.WriteFile(filepath.Join(root, "sys/class/net/eth0/queues/rx-0/rps_cpus"), []byte("0\n"), 0o600),
		os.WriteFile(filepath.Join(e.machine(), "proc", strconv.Itoa(pid), "stat"), []byte("1 (zeek) S "+strings.Repeat("0 ", 18)+uptime+" 0"), 0o600))
}

func (e *fakeEngine) pidOf(service string) int {
	return fakePID + slices.IndexFunc(orchestrate.Services(), func(s orchestrate.Service) bool { return s.Name == service })
}

// dress gives the sensors their processes.
func (e *fakeEngine) dress(list []orchestrate.Container) []orchestrate.Container {
	if e.machine() == "" {
		return list
	}
	for i, c := range list {
		owner := c.Service
		if s, err := orchestrate.ServiceByName(c.Service); err == nil && s.Beside != "" {
			owner = s.Beside // started with it
		}
		pid := e.pidOf(owner)
		started, err := os.ReadFile(filepath.Join(e.machine(), strconv.Itoa(pid), "started"))
		if err != nil {
			continue // no sensor, or one that the fixture does not have
		}
		list[i].StartedAt, _ = time.Parse(time.RFC3339Nano, strings.TrimSpace(string(started)))
		if owner == c.Service {
			list[i].PID = pid
		}
	}
	return list
}

// look answers what is read in a container without a helper. It reports whether
// it was such a question.
func (e *fakeEngine) look(ctx context.Context, id string, cmd []string, stdout io.Writer) bool {
	if e.machine() == "" {
		return false
	}
	return fakehelper.Look(ctx, e.machine(), e.pidOf(id), cmd, stdout)
}
