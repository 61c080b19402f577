package engine

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
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

var _ orchestrate.SidecarEngine = (*Engine)(nil)

// What a sidecar may use. The window of frames on their way and Go's runtime
// need a tenth of the memory.
const (
	sidecarMemory  = 256 << 20
	sidecarPIDs    = 128 // threads
	sidecarUser    = "65534:65534"
	sidecarGoLimit = "GOMEMLIMIT=160MiB"
)

// CreateSidecar makes the container with nothing it could do but send: no
// capability, no new privileges, nobody's user, a read-only root. The program
// lies on an anonymous volume, for an engine refuses to copy into a read-only
// root; the volume goes with the container.
func (e *Engine) CreateSidecar(ctx context.Context, spec orchestrate.SidecarSpec) (string, error) {
	sensor, err := e.client.ContainerInspect(ctx, spec.Sensor, client.ContainerInspectOptions{})
	if err != nil {
		return "", fmt.Errorf("make a sidecar: %w", err)
	}
	pids := int64(sidecarPIDs)
	return e.createWith(ctx, "sidecar", spec.Program, client.ContainerCreateOptions{
		Name: "zeekdemo-sidecar-" + strings.ToLower(rand.Text()[:8]),
		Config: &container.Config{
			Image:      sensor.Container.Image, // by its ID: the name may mean another one by now
			User:       sidecarUser,
			Entrypoint: []string{orchestrate.SidecarProgram}, Cmd: spec.Args, Env: []string{sidecarGoLimit}, WorkingDir: "/",
			Labels:      map[string]string{orchestrate.SidecarLabel: spec.Sensor},
			Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
			AttachStdin: true, AttachStdout: true, AttachStderr: true,
			OpenStdin: true, StdinOnce: true, // the client's end is the program's end of file
		},
		HostConfig: &container.HostConfig{
			NetworkMode: container.NetworkMode("container:" + spec.Sensor),
			AutoRemove:  true, ReadonlyRootfs: true,
			CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges:true"},
			LogConfig:     container.LogConfig{Type: "none"}, // its output is ours alone
			RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
			Mounts:        []mount.Mount{{Type: mount.TypeVolume, Target: path.Dir(orchestrate.SidecarProgram)}},
			Resources:     container.Resources{Memory: sidecarMemory, PidsLimit: &pids},
		},
	})
}

// createWith makes a container that errors call what, and copies the program into
// it unless that is empty. What was made is removed where something fails.
func (e *Engine) createWith(ctx context.Context, what, program string, options client.ContainerCreateOptions) (string, error) {
	id, err := e.create(ctx, options)
	if err != nil {
		err = fmt.Errorf("make a %s: %w", what, err)
	} else if program != "" {
		err = e.copyProgram(ctx, id, program)
	}
	if err != nil && id != "" {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return "", errors.Join(err, e.RemoveSidecar(clean, id))
	}
	return id, err
}

// copyProgram puts the program onto the container's volume, as a tar archive
// that is written while it is sent.
func (e *Engine) copyProgram(ctx context.Context, id, program string) error {
	f, err := os.Open(program)
	if err != nil {
		return fmt.Errorf("copy the program into the sidecar: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("copy the program into the sidecar: %w", err)
	}
	r, w := io.Pipe()
	defer r.Close() // ends the writer where the engine stops reading
	go func() {
		archive := tar.NewWriter(w)
		err := archive.WriteHeader(&tar.Header{Name: path.Base(orchestrate.SidecarProgram), Mode: 0o555, Size: info.Size(), Typeflag: tar.TypeReg})
		if err == nil {
			_, err = io.Copy(archive, f)
		}
		if err == nil {
			err = archive.Close()
		}
		w.CloseWithError(err)
	}()
	if _, err := e.client.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: path.Dir(orchestrate.SidecarProgram), Content: r}); err != nil {
		return fmt.Errorf("copy the program into the sidecar: %w", err)
	}
	return nil
}

// StartSidecar attaches first and starts then, so that nothing is missed. The
// connection outlives ctx: it ends with the program, or by Close.
func (e *Engine) StartSidecar(ctx context.Context, id string) (orchestrate.SidecarStreams, error) {
	life := context.WithoutCancel(ctx)
	attached, err := e.client.ContainerAttach(life, id, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		return orchestrate.SidecarStreams{}, fmt.Errorf("attach to the sidecar: %w", err)
	}
	waiting := e.client.ContainerWait(life, id, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
	if _, err := e.client.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		attached.Close()
		return orchestrate.SidecarStreams{}, fmt.Errorf("start the sidecar: %w", err)
	}
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	go func() {
		_, err := stdcopy.StdCopy(outW, errW, attached.Reader)
		outW.CloseWithError(err)
		errW.CloseWithError(err)
	}()
	return orchestrate.SidecarStreams{
		ID: id, Stdin: stdin{attached.HijackedResponse}, Stdout: outR, Stderr: errR,
		Wait: waiter(waiting), Close: attached.Conn.Close,
	}, nil
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
			failed = fmt.Errorf("wait for the sidecar: %w", err)
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

// Sidecars lists by label, of every stack.
func (e *Engine) Sidecars(ctx context.Context) ([]orchestrate.Sidecar, error) {
	filters := client.Filters{}
	filters.Add("label", orchestrate.SidecarLabel)
	list, err := e.client.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return nil, fmt.Errorf("list sidecars: %w", err)
	}
	var sidecars []orchestrate.Sidecar
	for _, item := range list.Items {
		sidecars = append(sidecars, orchestrate.Sidecar{ID: item.ID, Sensor: item.Labels[orchestrate.SidecarLabel], State: string(item.State), Created: time.Unix(item.Created, 0)})
	}
	return sidecars, nil
}

// RemoveSidecar kills and removes. One that the engine is removing already is
// as good as gone.
func (e *Engine) RemoveSidecar(ctx context.Context, id string) error {
	_, err := e.client.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
		return fmt.Errorf("remove a sidecar: %w", err)
	}
	return nil
}
