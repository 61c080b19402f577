package orchestrate

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// SidecarEngine is what sidecars need of a container engine.
//
// A sidecar is a container that joins a sensor's network namespace and runs
// this program in it: from there the sensor's port is on loopback, wherever the
// engine is. It is no part of the Compose project, so `up` leaves it alone.
type SidecarEngine interface {
	// CreateSidecar makes the container, copies the program into it and labels
	// it; it does not start it. What was made is removed where it fails.
	CreateSidecar(ctx context.Context, spec SidecarSpec) (id string, err error)
	// StartSidecar connects to the container's standard streams, then starts
	// it. The engine removes it when its program ends.
	StartSidecar(ctx context.Context, id string) (SidecarStreams, error)
	// Sidecars lists those that are there, in any state.
	Sidecars(ctx context.Context) ([]Sidecar, error)
	// RemoveSidecar kills it and removes it with its volume. It is no error if
	// it is gone.
	RemoveSidecar(ctx context.Context, id string) error
}

// SidecarLabel marks every sidecar; its value is the sensor's container.
const SidecarLabel = "org.zeekdemo.sidecar"

// SidecarProgram is the program's path inside the container, on a volume of the
// container's own, for its root is read-only.
const SidecarProgram = "/run/zeekdemo-sidecar/zeekdemo"

// SidecarSpec says what a sidecar is made of.
type SidecarSpec struct {
	Sensor  string   // the container whose network namespace it joins and whose image it is made of: nothing has to be pulled
	Program string   // path of this program, on this machine, for the engine's platform
	Args    []string // its arguments
}

// SidecarStreams are a running sidecar's standard streams.
type SidecarStreams struct {
	ID     string         // the container's
	Stdin  io.WriteCloser // closing it closes the program's standard input
	Stdout io.Reader
	Stderr io.Reader // both end with the program; each needs a reader of its own
	// Wait returns the program's exit code once it has ended and the engine has
	// removed the container.
	Wait func(ctx context.Context) (code int, err error)
	// Close drops the connection, which ends the program's standard input too.
	Close func() error
}

// Sidecar is one that exists.
type Sidecar struct {
	ID      string
	Sensor  string // the container it joined
	State   string // created, running, exited, ...
	Created time.Time
}

// forgottenAfter is how old a sidecar that does not run must be to count as
// forgotten: its client died between making and starting it.
const forgottenAfter = time.Minute

// Platform names the engine's platform as Go does.
func (i EngineInfo) Platform() (goos, goarch string) {
	goos, goarch = strings.ToLower(i.OS), strings.ToLower(i.Arch)
	switch goarch {
	case "x86_64", "x86-64":
		goarch = "amd64"
	case "aarch64", "armv8":
		goarch = "arm64"
	}
	return goos, goarch
}

// SidecarBinary decides which file is the program inside a sidecar: the given
// one, or self, the running program, where that is made for the engine's
// platform, goos and goarch being the running one's. It looks into the file:
// it must be static and for the engine's machine.
func SidecarBinary(info EngineInfo, goos, goarch, self, given string) (string, error) {
	wantOS, wantArch := info.Platform()
	advice := fmt.Sprintf("give the %s/%s build with --sidecar-binary FILE: it is in the release archive zeekdemo_VERSION_%s_%s.tar.gz, or build it with GOOS=%s GOARCH=%s CGO_ENABLED=0 go build ./cmd/zeekdemo",
		wantOS, wantArch, wantOS, wantArch, wantOS, wantArch)
	path := given
	if given == "" {
		path = self
		if goos != wantOS || goarch != wantArch {
			return "", WithHint(fmt.Errorf("run a sidecar: this program is for %s/%s, the engine's machine is %s/%s", goos, goarch, wantOS, wantArch), advice)
		}
	}
	if err := checkProgram(path, wantArch); err != nil {
		return "", WithHint(fmt.Errorf("run a sidecar: %s: %w", path, err), advice)
	}
	return path, nil
}

// checkProgram looks whether a file runs on a Linux of the given architecture
// without anything else: the sensor's image need not have a C library.
func checkProgram(path, arch string) error {
	f, err := elf.Open(path)
	if err != nil {
		var format *elf.FormatError
		if errors.As(err, &format) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.New("not a Linux program")
		}
		return err
	}
	defer f.Close()
	machine := map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[f.Machine]
	if machine == "" {
		machine = strings.ToLower(strings.TrimPrefix(f.Machine.String(), "EM_"))
	}
	if machine != arch {
		return fmt.Errorf("it is for %s, the engine's machine is %s", machine, arch)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("it is not static (build with CGO_ENABLED=0)")
		}
	}
	return nil
}

// StartSidecar makes a sidecar beside the sensor and starts it. Forgotten ones
// are removed first.
func StartSidecar(ctx context.Context, engine SidecarEngine, sensor Sensor, program string, args ...string) (SidecarStreams, error) {
	if _, err := removeSidecars(ctx, engine, func(s Sidecar) bool {
		return s.State != "running" && time.Since(s.Created) > forgottenAfter
	}); err != nil {
		return SidecarStreams{}, err
	}
	id, err := engine.CreateSidecar(ctx, SidecarSpec{Sensor: sensor.Container.ID, Program: program, Args: args})
	if err != nil {
		return SidecarStreams{}, err
	}
	return startOrRemove(ctx, engine, id)
}

// startOrRemove starts a sidecar or a helper. Where that fails it is removed.
func startOrRemove(ctx context.Context, engine interface {
	StartSidecar(ctx context.Context, id string) (SidecarStreams, error)
	RemoveSidecar(ctx context.Context, id string) error
}, id string) (SidecarStreams, error) {
	streams, err := engine.StartSidecar(ctx, id)
	if err != nil {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return SidecarStreams{}, errors.Join(err, engine.RemoveSidecar(clean, id))
	}
	return streams, nil
}

// removeSidecars removes those that which picks, and returns how many.
func removeSidecars(ctx context.Context, engine SidecarEngine, which func(Sidecar) bool) (int, error) {
	list, err := engine.Sidecars(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, s := range list {
		if !which(s) {
			continue
		}
		if err := engine.RemoveSidecar(ctx, s.ID); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// removeStackSidecars removes the sidecars that belong to the stack's sensors,
// and forgotten ones.
func removeStackSidecars(ctx context.Context, engine Engine, progress Progress) error {
	sidecars, ok := engine.(SidecarEngine)
	if !ok {
		return nil
	}
	containers, err := byService(ctx, engine)
	if err != nil {
		return err
	}
	ours := map[string]bool{}
	for _, c := range containers {
		ours[c.ID] = true
	}
	n, err := removeSidecars(ctx, sidecars, func(s Sidecar) bool { return ours[s.Sensor] || s.State != "running" })
	if n > 0 {
		progress.send(Event{ID: "Sidecars", Text: "Removed", State: Done})
	}
	return err
}

// RunningProgram returns the file of the running program, for [SidecarBinary].
func RunningProgram() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the running program: %w", err)
	}
	return path, nil
}
