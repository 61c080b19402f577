package engine

import (
	"context"
	"crypto/rand"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
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

// CreateHelper makes the container. It is not privileged: an engine whose own
// machine lacks a capability refuses that. What it has instead:
//
//   - SYS_ADMIN to mount a proc and a sysfs of its own and to enter a network
//     namespace; the default profiles of seccomp and AppArmor forbid both;
//   - SYS_PTRACE to look at another process's namespaces;
//   - NET_ADMIN to change interfaces and what belongs to a network namespace;
//   - DAC_OVERRIDE, for the root of a container with a user namespace is not
//     the owner of these files.
func (e *Engine) CreateHelper(ctx context.Context, spec orchestrate.HelperSpec) (string, error) {
	if err := e.haveImage(ctx, spec.Image, spec.Pull, spec.Progress, helperImageHints); err != nil {
		return "", fmt.Errorf("make a helper container: %w", err)
	}
	pids := int64(helperPIDs)
	host := &container.HostConfig{
		PidMode: "host", NetworkMode: "host", UTSMode: "host", UsernsMode: "host",
		AutoRemove: true, ReadonlyRootfs: true,
		CapDrop:     []string{"ALL"},
		CapAdd:      []string{"SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN", "DAC_OVERRIDE"},
		SecurityOpt: []string{"no-new-privileges:true", "seccomp=unconfined", "apparmor=unconfined"},
		LogConfig:   container.LogConfig{Type: "none"}, // its output is ours alone
		Tmpfs:       map[string]string{orchestrate.HelperFolder: "size=64k"},
		Resources:   container.Resources{Memory: helperMemory, PidsLimit: &pids},
	}
	if spec.Program != "" {
		host.Mounts = []mount.Mount{{Type: mount.TypeVolume, Target: path.Dir(orchestrate.SidecarProgram)}}
	}
	return e.createWith(ctx, "helper container", spec.Program, client.ContainerCreateOptions{
		Name: "zeekdemo-helper-" + strings.ToLower(rand.Text()[:8]),
		Config: &container.Config{
			Image: spec.Image, User: "0:0", WorkingDir: "/",
			Entrypoint: []string{"sh", "-c", spec.Script, "helper"}, Cmd: spec.Args,
			Labels:      map[string]string{orchestrate.HelperLabel: orchestrate.ThisClient().String()},
			Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
			AttachStdin: true, AttachStdout: true, AttachStderr: true,
			OpenStdin: true, StdinOnce: true, // the client's end is the shell's end of file
		},
		HostConfig: host,
	})
}

// Helpers lists by label.
func (e *Engine) Helpers(ctx context.Context) ([]orchestrate.Helper, error) {
	filters := client.Filters{}
	filters.Add("label", orchestrate.HelperLabel)
	list, err := e.client.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return nil, fmt.Errorf("list helper containers: %w", err)
	}
	var helpers []orchestrate.Helper
	for _, item := range list.Items {
		helpers = append(helpers, orchestrate.Helper{ID: item.ID, Client: orchestrate.ParseClient(item.Labels[orchestrate.HelperLabel]),
			State: string(item.State), Created: time.Unix(item.Created, 0)})
	}
	return helpers, nil
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
