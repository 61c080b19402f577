package orchestrate

import (
	"context"
	"fmt"
	"time"
)

// HelperEngine is what reaching the engine's own machine needs of a container
// engine.
//
// A helper is a container in the machine's network and process namespaces that
// runs a shell and does what it is told on its standard input: from there the
// kernel's settings can be read and changed, wherever the engine is, without
// any privilege of this process. It ends with its standard input, and the
// engine removes it then.
type HelperEngine interface {
	// CreateHelper makes the container and labels it; it does not start it.
	// What was made is removed where it fails.
	CreateHelper(ctx context.Context, spec HelperSpec) (id string, err error)
	// StartSidecar connects to its standard streams, then starts it: in that a
	// helper is like a sidecar.
	StartSidecar(ctx context.Context, id string) (SidecarStreams, error)
	// Helpers lists those that are there, in any state.
	Helpers(ctx context.Context) ([]Helper, error)
	// RemoveSidecar kills it and removes it with its volume. It is no error if
	// it is gone.
	RemoveSidecar(ctx context.Context, id string) error
	// Host describes the machine that runs the engine.
	Host(ctx context.Context) (EngineHost, error)
	// RestartContainer stops a container of the stack as its definition says,
	// and starts it, and after it those that share its network namespace.
	RestartContainer(ctx context.Context, id string) error
}

// HelperLabel marks every helper; its value is the [Client] that it serves.
const HelperLabel = "org.zeekdemo.helper"

// HelperFolder is a folder in memory, inside the helper, for what it mounts.
const HelperFolder = "/run/zeekdemo"

// HelperSpec says what a helper is made of.
type HelperSpec struct {
	// Image has sh, cat, mkdir, mount, umount and nsenter; Zeek's has.
	Image string
	// Pull says whether Image is pulled; empty stands for never.
	Pull PullPolicy
	// Progress is told when it is. It may be nil.
	Progress Progress
	Script   string   // what its shell runs
	Args     []string // the script's arguments, from $1 on
	// Program is the path of this program, on this machine, built for the
	// engine's platform; it becomes [SidecarProgram]. Empty for none.
	Program string
}

// Helper is one that exists.
type Helper struct {
	ID      string
	Client  Client // the process that it serves
	State   string // created, running, exited, ...
	Created time.Time
}

// EngineHost is the machine that runs the engine, as the engine describes it.
type EngineHost struct {
	ID     string // of the engine, the same for as long as its data is kept
	Name   string // the machine's host name
	Kernel string // its release, as uname -r prints it
	Memory int64  // bytes, as MemTotal of /proc/meminfo
	CPUs   int
}

// StartHelper makes a helper and starts it. Forgotten ones are removed first.
func StartHelper(ctx context.Context, engine HelperEngine, spec HelperSpec) (SidecarStreams, error) {
	if _, err := RemoveHelpers(ctx, engine, Client.Gone); err != nil {
		return SidecarStreams{}, err
	}
	id, err := engine.CreateHelper(ctx, spec)
	if err != nil {
		return SidecarStreams{}, err
	}
	streams, err := startOrRemove(ctx, engine, id)
	if err != nil {
		err = WithHint(fmt.Errorf("run a helper container of %s: %w", spec.Image, err), "the image needs a shell, mount and nsenter, as Zeek's has")
	}
	return streams, err
}

// RemoveHelpers removes the helpers whose client is gone, and those that have
// not been started for a while, and returns how many.
func RemoveHelpers(ctx context.Context, engine HelperEngine, gone func(client Client) bool) (int, error) {
	list, err := engine.Helpers(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, h := range list {
		if !gone(h.Client) && (h.State == "running" || time.Since(h.Created) < forgottenAfter) {
			continue
		}
		if err := engine.RemoveSidecar(ctx, h.ID); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
