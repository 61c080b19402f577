package nsenter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
)

// Open chooses a way to the engine's machine and opens it: directly where this
// process is root on that machine, else by a helper container. Without an
// engine (nil, or one that does not answer, which callers have found out) only
// Direct can be had, and means this machine.
func Open(ctx context.Context, engine orchestrate.Engine, o Options) (Machine, Way, error) {
	if o.Way != Helper {
		err := directly(ctx, engine, o.Way == Direct)
		if err == nil {
			return Local(), Direct, nil
		}
		if o.Way == Direct {
			return nil, "", err
		}
	}
	helpers, ok := engine.(orchestrate.HelperEngine)
	if !ok {
		return nil, "", errNoEngine
	}
	spec := orchestrate.HelperSpec{Image: o.Image, Pull: o.Pull, Progress: o.Progress}
	if o.Program != nil {
		path, err := o.Program()
		if err != nil {
			return nil, "", err
		}
		spec.Program = path
	}
	if spec.Image == "" {
		image, err := sensorImage(ctx, engine)
		if err != nil {
			return nil, "", err
		}
		spec.Image = image
	}
	m, err := openHelper(ctx, helpers, spec)
	return m, Helper, err
}

// sensorImage is what a sensor of the stack is made of.
func sensorImage(ctx context.Context, engine orchestrate.Engine) (string, error) {
	list, err := engine.Containers(ctx, orchestrate.ProjectName)
	if err != nil {
		return "", err
	}
	for _, c := range list {
		if s, err := orchestrate.ServiceByName(c.Service); err == nil && s.IsSensor() {
			return c.Image, nil
		}
	}
	return "", orchestrate.ErrNoStack
}

// directly returns nil if this process is root on the engine's machine, else
// why it is not. Without an answer of the engine, that is only allowed where
// the user said which machine is meant.
func directly(ctx context.Context, engine orchestrate.Engine, said bool) error {
	if os.Geteuid() != 0 {
		return orchestrate.WithHint(errors.New("change this machine's kernel settings: only root may"),
			"run it with sudo, or by a helper container: --reach helper")
	}
	helpers, ok := engine.(orchestrate.HelperEngine)
	if !ok {
		if said {
			return nil
		}
		return errNoEngine
	}
	host, err := helpers.Host(ctx)
	if err != nil {
		if said && ctx.Err() == nil {
			return nil
		}
		return err
	}
	if err := isThisMachine(host); err != nil {
		return orchestrate.WithHint(fmt.Errorf("reach the engine's machine directly: %w", err), "a helper container reaches it: --reach helper")
	}
	return sameProcesses(ctx, engine)
}

// sameProcesses makes sure that the engine's process numbers are this
// process's: the container of a running sensor has to be found by its own.
func sameProcesses(ctx context.Context, engine orchestrate.Engine) error {
	list, err := engine.Containers(ctx, orchestrate.ProjectName)
	if err != nil {
		return err
	}
	running := false
	for _, c := range list {
		if !c.Running() {
			continue
		}
		running = true
		groups, err := os.ReadFile("/proc/" + strconv.Itoa(c.PID) + "/cgroup")
		names := func(g procfs.Cgroup) bool { return strings.Contains(g.Path, c.ID) }
		if err == nil && slices.ContainsFunc(procfs.Cgroups(string(groups)), names) || c.RunsHere() {
			return nil
		}
	}
	if running {
		return orchestrate.WithHint(errors.New("reach the engine's machine directly: its containers' processes are not seen from here"),
			"a helper container reaches it: --reach helper")
	}
	return nil
}
