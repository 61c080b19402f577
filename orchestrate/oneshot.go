package orchestrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
)

// OneShots is what verifying needs of a container engine: containers of their
// own beside the stack, made from its service definitions, which serve one
// question and go. They are no part of the Compose project.
type OneShots interface {
	// CreateOneShot makes a container, its volume and, for a sensor that
	// listens, the network of its run, and pulls the image where it is missing
	// and may be pulled.
	CreateOneShot(ctx context.Context, p Project, o OneShot) (id string, err error)
	// StartOneShot starts it.
	StartOneShot(ctx context.Context, id string) (Container, error)
	// WaitOneShot waits until it has ended by itself.
	WaitOneShot(ctx context.Context, id string) (Ended, error)
	// StopOneShot asks it to end (SIGTERM), and kills it after the grace period.
	StopOneShot(ctx context.Context, id string, grace time.Duration) (Ended, error)
	// OneShotLogs returns its log folder as a tar archive; it may have ended.
	OneShotLogs(ctx context.Context, id string) (io.ReadCloser, error)
	// RemoveOneShots removes containers, volumes and networks, and returns how
	// many containers that were. It is no error if there is nothing.
	RemoveOneShots(ctx context.Context, r Removal) (int, error)
}

// Sized is an engine that knows how large its machine is.
type Sized interface {
	Capacity(ctx context.Context) (Capacity, error)
}

// Capacity is what an engine's machine has for containers.
type Capacity struct {
	CPUs   int
	Memory int64 // bytes
}

// Now is the capacity with the memory that is free now, without swapping, where
// the engine's machine is this one: where it has the same memory, to the byte.
func (c Capacity) Now() Capacity { return c.now("/proc") }

func (c Capacity) now(proc string) Capacity {
	text, err := os.ReadFile(filepath.Join(proc, "meminfo"))
	if err != nil {
		return c
	}
	if m, err := procfs.MemInfo(string(text)); err == nil && m.Total == c.Memory && m.Available >= 0 {
		c.Memory = m.Available
	}
	return c
}

// Removal says what RemoveOneShots removes.
type Removal struct {
	ID   string                   // only this container; empty for all of
	Run  string                   // this run, with its network; empty for those of
	Gone func(client Client) bool // clients of which it is true, such as [Client.Gone]
}

// VerifyLabel is on everything that a OneShots makes, beside [ClientLabel]; its value
// is the run.
const VerifyLabel = "org.zeekdemo.verify"

// OneShot describes a container of its own.
type OneShot struct {
	Run     string // the run it belongs to, part of its name
	Name    string // what it is for, unique in the run, part of its name
	Service string // whose definition it is made from
	// Capture is a capture file of this machine that it reads instead of
	// listening; empty for a sensor that listens. It is copied in, and the
	// container has no network.
	Capture string
	// Seeds is the file of seeds from which its Zeek starts, as --save-seeds writes
	// it; nil lets it draw its own. It is copied in.
	Seeds []byte
	// Script is script text for its Zeek, after that of the service.
	Script string
	// Publish gives the ports of one that listens a free port each on this
	// machine's loopback, where the engine publishes them.
	Publish bool
}

// ContainerName is what the engine calls it.
func (o OneShot) ContainerName() string { return "zeekdemo-verify-" + o.Run + "-" + o.Name }

// VerifyBridge is the name of the bridge of a run's network on the engine's
// machine. Runs have eight letters, devices at most 15.
func VerifyBridge(run string) string { return "br-zv-" + run }

// Ended says how a container ended.
type Ended struct {
	ExitCode  int
	OOMKilled bool
	Tail      []string // its last lines
}

// Err returns nil where Zeek ended well, else what it said.
func (e Ended) Err() error {
	last := ""
	for _, line := range e.Tail {
		if strings.TrimSpace(line) != "" {
			last = ": " + strings.TrimSpace(line)
		}
	}
	switch {
	case e.OOMKilled:
		return errors.New("it was killed: out of memory")
	case e.ExitCode == 137:
		return errors.New("it did not end in time and was killed")
	case e.ExitCode != 0:
		return fmt.Errorf("exit code %d%s", e.ExitCode, last)
	}
	return nil
}

// ReadsFile turns the command of a sensor into one that reads a capture: -r
// instead of -i, and -C, because the checksums of captures are often empty.
func ReadsFile(command []string, capture string) ([]string, error) {
	i := slices.Index(command, "-i")
	if i < 1 || i+1 >= len(command) {
		return nil, fmt.Errorf("read a capture: the sensor's command has no -i: %s", strings.Join(command[:min(len(command), 3)], " "))
	}
	return slices.Concat(command[:i], []string{"-C", "-r", capture}, command[i+2:]), nil
}

// WithScript appends script text to that of a command's -e, of which Zeek takes
// only the last.
func WithScript(command []string, text string) []string {
	if text == "" {
		return command
	}
	command = slices.Clone(command)
	i := slices.Index(command, "-e")
	if i < 0 || i+1 >= len(command) {
		return append(command, "-e", text)
	}
	command[i+1] = strings.TrimRight(command[i+1], "\n") + "\n\n" + text
	return command
}

// FreshSeeds draws a file of seeds: 21 numbers, a line each, of which Zeek takes
// one for its random numbers and twenty for its hashes (init_random_seed in
// src/util.cc).
func FreshSeeds() []byte {
	const numbers = 21
	var file []byte
	for range numbers {
		file = fmt.Appendln(file, rand.Uint32())
	}
	return file
}
