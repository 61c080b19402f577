package orchestrate

import (
	"context"
	"fmt"
)

// HelperEngine is what reaching the engine's own machine needs of a container
// engine, whose companions include helpers.
type HelperEngine interface {
	CompanionEngine
	// Host describes the machine that runs the engine.
	Host(ctx context.Context) (EngineHost, error)
	// RestartContainer stops a container of the stack as its definition says,
	// and starts it, and after it those that share its network namespace.
	RestartContainer(ctx context.Context, id string) error
}

// MachineFiles is what looking at the engine's machine without running anything
// there needs of a container engine.
type MachineFiles interface {
	// MachineFolder returns the files of a folder below [MachineRun], by their
	// paths there, as far as they are root's and nobody else may write them: none
	// where the folder is not there, or not root's alone. Nothing stays.
	MachineFolder(ctx context.Context, folder string) (map[string]string, error)
}

// HelperFolder is a folder in memory, inside the helper, for what it mounts.
const HelperFolder = "/run/zeekdemo"

// HelperRun is where the helper finds /run of the engine's machine, and what was
// recorded there; MachineRun is that.
const (
	HelperRun  = "/machine/run"
	MachineRun = "/run"
)

// HelperSpec says what a helper is made of: a companion in the network and
// process namespaces of the engine's machine that runs a shell and does what it
// is told on its standard input. From there the kernel's settings can be read and
// changed, wherever the engine is, without any privilege of this process.
type HelperSpec struct {
	// Image has sh, cat, ls, mkdir, mv, rm, sync, mount, umount and nsenter, and
	// flock if it can; Zeek's has.
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

// Kind says that it is a helper.
func (HelperSpec) Kind() CompanionKind { return HelperKind }

// Serves is this process, as on every container's [ClientLabel].
func (HelperSpec) Serves() string { return ThisClient().String() }

// EngineHost is the machine that runs the engine, as the engine describes it.
type EngineHost struct {
	ID     string // of the engine, the same for as long as its data is kept
	Name   string // the machine's host name
	Kernel string // its release, as uname -r prints it
	Memory int64  // bytes, as MemTotal of /proc/meminfo
	CPUs   int
}

// StartHelper makes a helper and starts it. Forgotten ones are removed first.
func StartHelper(ctx context.Context, engine CompanionEngine, spec HelperSpec) (SidecarStreams, error) {
	id, err := createCompanion(ctx, engine, spec)
	if err != nil {
		return SidecarStreams{}, err
	}
	streams, err := startOrRemove(ctx, engine, id)
	if err != nil {
		err = WithHint(fmt.Errorf("run a helper container of %s: %w", spec.Image, err), "the image needs a shell, mount and nsenter, as Zeek's has")
	}
	return streams, err
}
