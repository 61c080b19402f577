package orchestrate

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// SidecarProgram is the program's path inside a companion, on a volume of the
// container's own, for its root is read-only.
const SidecarProgram = "/run/zeekdemo-sidecar/zeekdemo"

// SidecarSpec says what a sidecar is made of: a companion that joins a sensor's
// network namespace and runs this program in it. From there the sensor's port is
// on loopback, wherever the engine is.
type SidecarSpec struct {
	Sensor  string   // the container whose network namespace it joins and whose image it is made of: nothing has to be pulled
	Program string   // path of this program, on this machine, for the engine's platform
	Args    []string // its arguments
}

// Kind says that it is a sidecar.
func (SidecarSpec) Kind() CompanionKind { return SidecarKind }

// Serves is the container of the sensor.
func (s SidecarSpec) Serves() string { return s.Sensor }

// StartSidecar makes a sidecar beside the sensor and starts it. Forgotten ones
// are removed first.
func StartSidecar(ctx context.Context, engine CompanionEngine, sensor Sensor, program string, args ...string) (SidecarStreams, error) {
	id, err := createCompanion(ctx, engine, SidecarSpec{Sensor: sensor.Container.ID, Program: program, Args: args})
	if err != nil {
		return SidecarStreams{}, err
	}
	streams, err := startOrRemove(ctx, engine, id)
	if err != nil {
		return SidecarStreams{}, fmt.Errorf("run a sidecar: %w", err)
	}
	return streams, nil
}

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

// RunningProgram returns the file of the running program, for [SidecarBinary].
func RunningProgram() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the running program: %w", err)
	}
	return path, nil
}
