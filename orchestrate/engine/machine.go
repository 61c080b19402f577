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

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

var _ orchestrate.MachineFiles = (*Engine)(nil)

// recordLimit bounds one file of the machine that is read, in bytes. Records are
// some kilobytes.
const recordLimit = 1 << 20

// machineRun is the mount of the machine's /run. What is mounted below it there,
// such as the network namespaces of containers, is no business of ours.
func machineRun(readOnly bool) mount.Mount {
	return mount.Mount{Type: mount.TypeBind, Source: orchestrate.MachineRun, Target: orchestrate.HelperRun, ReadOnly: readOnly,
		BindOptions: &mount.BindOptions{NonRecursive: true}}
}

// MachineFolder makes a container that is never started, of the image of locks,
// and lets the engine read in it: for that it mounts what the container would
// have. Where that image is not there, no command that changes anything has ever
// used this engine, and so nothing is recorded.
func (e *Engine) MachineFolder(ctx context.Context, folder string) (_ map[string]string, err error) {
	id, err := e.create(ctx, client.ContainerCreateOptions{Name: "zeekdemo-look-" + strings.ToLower(rand.Text()[:8]),
		Config: &container.Config{Image: lockImage, Cmd: []string{"/never"},
			Labels: map[string]string{orchestrate.HelperKind.Label(): orchestrate.ThisClient().String(), orchestrate.ClientLabel: orchestrate.ThisClient().String()}},
		HostConfig: &container.HostConfig{NetworkMode: "none", Mounts: []mount.Mount{machineRun(true)}}})
	if id != "" {
		defer func() {
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), createLimit)
			defer cancel()
			err = errors.Join(err, e.removeContainer(clean, id))
		}()
	}
	var copied client.CopyFromContainerResult
	if err == nil {
		copied, err = e.client.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: orchestrate.HelperRun + strings.TrimPrefix(folder, orchestrate.MachineRun)})
	}
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look into %s of the engine's machine: %w", folder, err)
	}
	defer copied.Content.Close()
	return readFolder(copied.Content, folder)
}

// readFolder reads an archive of a folder, which comes first in it.
func readFolder(r io.Reader, folder string) (map[string]string, error) {
	found := map[string]string{}
	archive := tar.NewReader(r)
	for first := true; ; first = false {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s of the engine's machine: %w", folder, err)
		}
		rootsAlone := h.Uid == 0 && h.Mode&0o022 == 0
		if first && (h.Typeflag != tar.TypeDir || !rootsAlone) {
			return nil, nil
		}
		if _, name, _ := strings.Cut(h.Name, "/"); h.Typeflag == tar.TypeReg && rootsAlone && name == path.Base(name) {
			content, err := io.ReadAll(io.LimitReader(archive, recordLimit))
			if err != nil {
				return nil, fmt.Errorf("read %s of the engine's machine: %w", folder, err)
			}
			found[path.Join(folder, name)] = string(content)
		}
	}
}
