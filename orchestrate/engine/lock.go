package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

var _ orchestrate.Locks = (*Engine)(nil)

// lockImage is an image with nothing in it.
const lockImage = orchestrate.LockName + ":1"

// emptyArchive is the end of a tar archive, two blocks of zeros, and nothing before.
const emptyArchive = 2 * 512

// TakeLock makes a container that can be there once, for engines keep names apart,
// and is never started.
func (e *Engine) TakeLock(ctx context.Context, name string, h orchestrate.Holder) (string, *orchestrate.Holder, error) {
	options := client.ContainerCreateOptions{Name: name,
		Config: &container.Config{Image: lockImage, Cmd: []string{"/never"},
			Labels: map[string]string{orchestrate.LockLabel: h.Command, orchestrate.ClientLabel: h.Client.String()}},
		HostConfig: &container.HostConfig{NetworkMode: "none"}}
	id, err := e.create(ctx, options)
	if errdefs.IsNotFound(err) {
		if err := e.makeEmptyImage(ctx); err != nil {
			return "", nil, err
		}
		id, err = e.create(ctx, options)
	}
	switch {
	case err == nil:
		return id, nil, nil
	case id != "": // interrupted
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), createLimit)
		defer cancel()
		return "", nil, errors.Join(err, e.removeContainer(clean, id))
	case errdefs.IsConflict(err) || halfMade(err):
		other, err := e.holder(ctx, name)
		return "", other, err
	}
	return "", nil, err
}

// holder looks who has a lock. One that was released meanwhile, or is just being
// made, has a holder of whom nothing is known.
func (e *Engine) holder(ctx context.Context, name string) (*orchestrate.Holder, error) {
	in, err := e.client.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if errdefs.IsNotFound(err) {
		return &orchestrate.Holder{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look who has it: %w", err)
	}
	h := &orchestrate.Holder{ID: in.Container.ID}
	if in.Container.Config != nil {
		h.Command, h.Client = in.Container.Config.Labels[orchestrate.LockLabel], clientOf(in.Container.Config.Labels)
	}
	h.Since, _ = time.Parse(time.RFC3339Nano, in.Container.Created) // zero where the engine does not say
	return h, nil
}

// makeEmptyImage makes the image of locks.
func (e *Engine) makeEmptyImage(ctx context.Context) error {
	source := client.ImageImportSource{Source: bytes.NewReader(make([]byte, emptyArchive)), SourceName: "-"}
	done, err := e.client.ImageImport(ctx, source, lockImage, client.ImageImportOptions{})
	if err != nil {
		return fmt.Errorf("make its image %s: %w", lockImage, err)
	}
	defer done.Close()
	var said bytes.Buffer
	if _, err := said.ReadFrom(done); err != nil {
		return fmt.Errorf("make its image %s: %w", lockImage, err)
	}
	return nil
}

// ReleaseLock removes by ID, so that nobody else's lock is meant.
func (e *Engine) ReleaseLock(ctx context.Context, id string) error { return e.RemoveCompanion(ctx, id) }
