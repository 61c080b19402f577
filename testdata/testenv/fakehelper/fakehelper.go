// Package fakehelper runs a helper's script without a container, on copies of
// the kernel's files: the real shell script with stand-ins for mount, umount
// and nsenter, so that its protocol is tested where there is no engine.
//
// The copies lie as package nsenter's Tree wants them: the machine's own below
// a folder, those of the namespace of a process below its number there.
package fakehelper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// Engine makes helpers that run on this machine. It has the methods of
// orchestrate.HelperEngine that concern them.
type Engine struct {
	Root  string   // the copies
	Work  string   // a folder for what the helpers mount
	Shell []string // e.g. busybox sh; empty for sh

	mu      sync.Mutex
	made    int // helpers, by now
	helpers map[string]*run
}

type run struct {
	spec    orchestrate.HelperSpec
	created time.Time
	cmd     *exec.Cmd
}

// standIns are functions, which every shell takes before programs and before
// what it has itself. A mount is a symbolic link to the copy; a remount is
// written into the file "remounts".
const standIns = `
FAKE_PID=.
mount() {
	for last; do :; done
	case $2 in
	remount*) echo "$2 $last" >>"$FAKE_WORK/remounts"; return ;;
	proc) from=$FAKE_ROOT/proc ;;
	*) from=$FAKE_ROOT/$FAKE_PID/sys ;;
	esac
	rmdir "$last" && ln -s "$from" "$last"
}
umount() { rm "$1" && mkdir "$1"; }
nsenter() {
	[ -d "$FAKE_ROOT/$2" ] || { echo "nsenter: cannot open /proc/$2/ns/net: No such file or directory" >&2; return 1; }
	FAKE_PID=$2
	shift 3
	"$@"
	set -- "$?"
	FAKE_PID=.
	return "$1"
}
`

// CreateCompanion keeps what a helper is to run.
func (e *Engine) CreateCompanion(_ context.Context, spec orchestrate.CompanionSpec) (string, error) {
	helper, ok := spec.(orchestrate.HelperSpec)
	if !ok {
		return "", fmt.Errorf("make a %s: %w", spec.Kind(), errors.ErrUnsupported)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.helpers == nil {
		e.helpers = map[string]*run{}
	}
	id := fmt.Sprintf("helper%d", e.made)
	e.made++
	e.helpers[id] = &run{spec: helper, created: time.Now()}
	return id, nil
}

// StartCompanion starts the shell.
func (e *Engine) StartCompanion(_ context.Context, id string) (orchestrate.SidecarStreams, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.helpers[id]
	shell := e.Shell
	if len(shell) == 0 {
		shell = []string{"sh"}
	}
	args := append([]string{}, r.spec.Args...)
	args[1], args[3] = filepath.Join(e.Work, id), e.Root+orchestrate.MachineRun // instead of the folders in a container
	r.cmd = exec.Command(shell[0], append(shell[1:], append([]string{"-c", standIns + r.spec.Script, "helper"}, args...)...)...)
	r.cmd.Env = append(os.Environ(), "FAKE_ROOT="+e.Root, "FAKE_WORK="+e.Work)
	stdin, err := r.cmd.StdinPipe()
	if err != nil {
		return orchestrate.SidecarStreams{}, err
	}
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		return orchestrate.SidecarStreams{}, err
	}
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		return orchestrate.SidecarStreams{}, err
	}
	if err := r.cmd.Start(); err != nil {
		return orchestrate.SidecarStreams{}, err
	}
	return orchestrate.SidecarStreams{ID: id, Stdin: stdin, Stdout: stdout, Stderr: stderr,
		Wait: func(context.Context) (int, error) {
			err := r.cmd.Wait()
			if r.cmd.ProcessState == nil {
				return 0, err
			}
			e.mu.Lock()
			delete(e.helpers, id)
			e.mu.Unlock()
			return r.cmd.ProcessState.ExitCode(), nil
		},
		Close: stdin.Close,
	}, nil
}

// Companions lists the helpers that have not ended.
func (e *Engine) Companions(_ context.Context, kind orchestrate.CompanionKind) ([]orchestrate.Companion, error) {
	if kind != orchestrate.HelperKind {
		return nil, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []orchestrate.Companion
	for id, r := range e.helpers {
		state := "created"
		if r.cmd != nil {
			state = "running"
		}
		list = append(list, orchestrate.Companion{ID: id, Kind: kind, Serves: r.spec.Serves(), Client: orchestrate.ParseClient(r.spec.Serves()), State: state, Created: r.created})
	}
	return list, nil
}

// RemoveCompanion kills the shell.
func (e *Engine) RemoveCompanion(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.helpers[id]; r != nil && r.cmd != nil {
		_ = r.cmd.Process.Kill() // it may have ended
	}
	delete(e.helpers, id)
	return nil
}

// Host describes a machine that is never this one.
func (e *Engine) Host(context.Context) (orchestrate.EngineHost, error) {
	return orchestrate.EngineHost{ID: "fake", Name: "elsewhere", Kernel: "0", CPUs: 2}, nil
}

// RestartContainer does nothing.
func (e *Engine) RestartContainer(context.Context, string) error { return nil }

// Remounts tells what was remounted, one call of mount a line.
func (e *Engine) Remounts() string {
	data, err := os.ReadFile(filepath.Join(e.Work, "remounts"))
	if err != nil {
		return ""
	}
	return strings.ReplaceAll(string(data), e.Work, "")
}

// Link gives the processes of a tree the folders of their namespaces: what
// /proc/PID/net shows is the namespace's /proc/net.
func Link(root string, pids ...string) error {
	for _, pid := range pids {
		folder := filepath.Join(root, "proc", pid)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		if err := os.Symlink(filepath.Join("..", "..", pid, "proc", "net"), filepath.Join(folder, "net")); err != nil {
			return err
		}
	}
	return nil
}
