package engine

import (
	"context"
	"fmt"

	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/client"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

var _ orchestrate.HelperEngine = (*Engine)(nil)

// What a helper may use: a shell and what that starts.
const (
	helperMemory = 128 << 20
	helperPIDs   = 64
)

var helperImageHints = imageHints{
	missing: "`zeekdemo up` pulls it; --image names another one that has a shell, mount and nsenter",
	failed:  "see the network and the name",
}

// helperOptions describes a container that is not privileged: an engine whose own
// machine lacks a capability refuses that. What it has instead:
//
//   - SYS_ADMIN to mount a proc and a sysfs of its own and to enter a network
//     namespace; the default profiles of seccomp and AppArmor forbid both;
//   - SYS_PTRACE to look at another process's namespaces;
//   - NET_ADMIN to change interfaces and what belongs to a network namespace;
//   - DAC_OVERRIDE, for the root of a container with a user namespace is not
//     the owner of these files.
func helperOptions(s orchestrate.HelperSpec) client.ContainerCreateOptions {
	o := companionOptions(s, s.Program, helperMemory, helperPIDs)
	o.Config.Image, o.Config.User = s.Image, "0:0"
	o.Config.Entrypoint, o.Config.Cmd = []string{"sh", "-c", s.Script, "helper"}, s.Args
	h := o.HostConfig
	h.PidMode, h.NetworkMode, h.UTSMode, h.UsernsMode = "host", "host", "host", "host"
	h.CapAdd = []string{"SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN", "DAC_OVERRIDE"}
	h.SecurityOpt = append(h.SecurityOpt, "seccomp=unconfined", "apparmor=unconfined")
	h.Mounts = append(h.Mounts, machineRun(false))
	h.Tmpfs = map[string]string{orchestrate.HelperFolder: "size=64k"}
	return o
}

// Host asks the engine for its machine.
func (e *Engine) Host(ctx context.Context) (orchestrate.EngineHost, error) {
	got, err := e.client.Info(ctx, client.InfoOptions{})
	if err != nil {
		return orchestrate.EngineHost{}, fmt.Errorf("ask the engine for its machine: %w", err)
	}
	i := got.Info
	return orchestrate.EngineHost{ID: i.ID, Name: i.Name, Kernel: i.KernelVersion, Memory: i.MemTotal, CPUs: i.NCPU}, nil
}

// RestartContainer restarts with the container's own grace period, and after it
// what shares its network namespace.
func (e *Engine) RestartContainer(ctx context.Context, id string) error {
	if _, err := e.client.ContainerRestart(ctx, id, client.ContainerRestartOptions{}); err != nil {
		return fmt.Errorf("restart the container: %w", err)
	}
	in, err := e.client.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return fmt.Errorf("inspect the container: %w", err)
	}
	return e.rejoin(ctx, in.Container.Config.Labels[api.ProjectLabel], nil)
}
