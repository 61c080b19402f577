package engine

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

var _ orchestrate.CompanionEngine = (*Engine)(nil)

// CreateCompanion makes the container by what its kind adds to what all have in
// common.
func (e *Engine) CreateCompanion(ctx context.Context, spec orchestrate.CompanionSpec) (string, error) {
	switch s := spec.(type) {
	case orchestrate.SidecarSpec:
		sensor, err := e.client.ContainerInspect(ctx, s.Sensor, client.ContainerInspectOptions{})
		if err != nil {
			return "", fmt.Errorf("make a sidecar container: %w", err)
		}
		return e.makeCompanion(ctx, spec.Kind(), s.Program, sidecarOptions(s, sensor.Container.Image))
	case orchestrate.HelperSpec:
		if err := e.haveImage(ctx, s.Image, s.Pull, s.Progress, helperImageHints); err != nil {
			return "", fmt.Errorf("make a helper container: %w", err)
		}
		return e.makeCompanion(ctx, spec.Kind(), s.Program, helperOptions(s))
	}
	return "", fmt.Errorf("make a %s container: %w", spec.Kind(), errors.ErrUnsupported)
}

// companionOptions is what all companions have in common: no more than they are
// told they may, one client at the other end of their streams, and nothing that
// stays. Memory is in bytes; a PID is a thread.
//
// The program lies on an anonymous volume, for an engine refuses to copy into a
// read-only root; the volume goes with the container.
func companionOptions(spec orchestrate.CompanionSpec, program string, memory, pids int64) client.ContainerCreateOptions {
	host := &container.HostConfig{
		AutoRemove: true, ReadonlyRootfs: true,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		CapDrop:       []string{"ALL"}, SecurityOpt: []string{"no-new-privileges:true"},
		LogConfig: container.LogConfig{Type: "none"}, // its output is ours alone
		Resources: container.Resources{Memory: memory, PidsLimit: &pids},
	}
	if program != "" {
		host.Mounts = []mount.Mount{{Type: mount.TypeVolume, Target: path.Dir(orchestrate.SidecarProgram)}}
	}
	return client.ContainerCreateOptions{
		Name: "zeekdemo-" + string(spec.Kind()) + "-" + strings.ToLower(rand.Text()[:8]),
		Config: &container.Config{
			WorkingDir:  "/",
			Labels:      map[string]string{spec.Kind().Label(): spec.Serves(), orchestrate.ClientLabel: orchestrate.ThisClient().String()},
			Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
			AttachStdin: true, AttachStdout: true, AttachStderr: true,
			OpenStdin: true, StdinOnce: true, // the client's end is the program's end of file
		},
		HostConfig: host,
	}
}

// makeCompanion makes the container and copies the program into it unless that
// is empty. What was made is removed where something fails.
func (e *Engine) makeCompanion(ctx context.Context, kind orchestrate.CompanionKind, program string, options client.ContainerCreateOptions) (string, error) {
	id, err := e.create(ctx, options)
	if err == nil && program != "" {
		err = e.copyProgram(ctx, id, program)
	}
	if err == nil {
		return id, nil
	}
	err = fmt.Errorf("make a %s container: %w", kind, err)
	if id != "" {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(err, e.RemoveCompanion(clean, id))
	}
	return "", err
}

// copyProgram puts the program onto the container's volume.
func (e *Engine) copyProgram(ctx context.Context, id, program string) error {
	entry := tar.Header{Name: path.Base(orchestrate.SidecarProgram), Mode: 0o555}
	if err := e.copyFile(ctx, id, program, path.Dir(orchestrate.SidecarProgram), entry); err != nil {
		return fmt.Errorf("copy the program into it: %w", err)
	}
	return nil
}

// StartCompanion attaches first and starts then, so that nothing is missed. The
// connection outlives ctx: it ends with the program, or by Close.
func (e *Engine) StartCompanion(ctx context.Context, id string) (orchestrate.SidecarStreams, error) {
	life := context.WithoutCancel(ctx)
	attached, err := e.client.ContainerAttach(life, id, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		return orchestrate.SidecarStreams{}, fmt.Errorf("attach to the container: %w", err)
	}
	waiting := e.client.ContainerWait(life, id, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
	if _, err := e.client.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		attached.Close()
		return orchestrate.SidecarStreams{}, fmt.Errorf("start the container: %w", err)
	}
	stdout, stderr := demultiplex(attached.Reader)
	return orchestrate.SidecarStreams{
		ID: id, Stdin: stdin{attached.HijackedResponse}, Stdout: stdout, Stderr: stderr,
		Wait: waiter(waiting), Close: attached.Conn.Close,
	}, nil
}

// demultiplex takes apart the two streams of an attached connection. Both end
// with it.
func demultiplex(attached io.Reader) (stdout, stderr io.Reader) {
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	go func() {
		_, err := stdcopy.StdCopy(outW, errW, attached)
		outW.CloseWithError(err)
		errW.CloseWithError(err)
	}()
	return outR, errR
}

// waiter returns a function that waits for the end of a container, and may be
// called several times.
func waiter(waiting client.ContainerWaitResult) func(context.Context) (int, error) {
	ended := make(chan struct{})
	var code int
	var failed error
	go func() {
		defer close(ended)
		select {
		case result := <-waiting.Result:
			code = int(result.StatusCode)
		case err := <-waiting.Error:
			failed = fmt.Errorf("wait for the container: %w", err)
		}
	}()
	return func(ctx context.Context) (int, error) {
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-ended:
			return code, failed
		}
	}
}

// stdin is the writing half of an attached connection.
type stdin struct{ attached client.HijackedResponse }

func (s stdin) Write(b []byte) (int, error) { return s.attached.Conn.Write(b) }

func (s stdin) Close() error { return s.attached.CloseWrite() }

// Companions lists by label, of every stack.
func (e *Engine) Companions(ctx context.Context, kind orchestrate.CompanionKind) ([]orchestrate.Companion, error) {
	filters := client.Filters{}.Add("label", kind.Label())
	list, err := e.client.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return nil, fmt.Errorf("list %s containers: %w", kind, err)
	}
	var companions []orchestrate.Companion
	for _, item := range list.Items {
		companions = append(companions, orchestrate.Companion{ID: item.ID, Kind: kind, Serves: item.Labels[kind.Label()],
			Client: clientOf(item.Labels), State: string(item.State), Created: time.Unix(item.Created, 0)})
	}
	return companions, nil
}

// clientOf reads whose something is. Earlier versions wrote it in other labels, and
// on sidecars not at all.
func clientOf(labels map[string]string) orchestrate.Client {
	for _, label := range []string{orchestrate.ClientLabel, orchestrate.VerifyLabel + ".client", orchestrate.HelperKind.Label()} {
		if text := labels[label]; text != "" {
			return orchestrate.ParseClient(text)
		}
	}
	return orchestrate.Client{}
}

// RemoveCompanion kills and removes. One that the engine is removing already is
// as good as gone.
func (e *Engine) RemoveCompanion(ctx context.Context, id string) error {
	if err := e.removeContainer(ctx, id); !errdefs.IsConflict(err) {
		return err
	}
	return nil
}
