package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli/command"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// imageHints say what to do where an image cannot be had.
type imageHints struct {
	missing string // it is not here, and may not be pulled
	failed  string // it could not be pulled
}

// haveImage makes sure that an image is here: it is pulled where the policy says
// so. An empty policy stands for never.
func (e *Engine) haveImage(ctx context.Context, image string, policy orchestrate.PullPolicy, tell orchestrate.Progress, hints imageHints) error {
	if policy != orchestrate.PullAlways {
		_, err := e.client.ImageInspect(ctx, image)
		switch {
		case err == nil:
			return nil
		case !errdefs.IsNotFound(err):
			return fmt.Errorf("look for image %s: %w", image, err)
		case policy != orchestrate.PullMissing:
			return orchestrate.WithHint(fmt.Errorf("no image %s is here", image), hints.missing)
		}
	}
	err := e.pull(ctx, image, tell)
	if err != nil && ctx.Err() == nil {
		return orchestrate.WithHint(err, hints.failed)
	}
	return err
}

// pull pulls an image, with the login that `docker pull` would use, and returns
// when it is here. Compose pulls for `up`; this is the one way beside it.
func (e *Engine) pull(ctx context.Context, image string, tell orchestrate.Progress) error {
	if tell == nil {
		tell = func(orchestrate.Event) {}
	}
	step := orchestrate.Event{ID: "Image " + image, Text: "Pulling"}
	tell(step)
	err := e.pullLayers(ctx, image, func(layer orchestrate.Event) {
		layer.Parent = step.ID
		tell(layer)
	})
	if err != nil {
		step.Text, step.State = "Failed", orchestrate.Failed
		tell(step)
		return fmt.Errorf("pull image %s: %w", image, err)
	}
	step.Text, step.State = "Pulled", orchestrate.Done
	tell(step)
	return nil
}

// pullLayers pulls and tells of each layer.
func (e *Engine) pullLayers(ctx context.Context, image string, tell orchestrate.Progress) error {
	token, err := command.RetrieveAuthTokenFromImage(e.cli.ConfigFile(), image)
	if err != nil {
		return err
	}
	stream, err := e.client.ImagePull(ctx, image, client.ImagePullOptions{RegistryAuth: token})
	if err != nil {
		return err
	}
	defer stream.Close()
	err = readPull(stream, tell)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// pullMessage is one of those that a pull's answer consists of
// (https://docs.docker.com/reference/api/engine/, "Create an image"). The answer
// begins with status 200 before anything was fetched, so a failure is one of its
// messages.
type pullMessage struct {
	jsonstream.Message
	Refusal string `json:"error"` // what errorDetail says, in the form of before it
}

// readPull reads the messages to their end and returns the failure that they
// tell of.
func readPull(stream io.Reader, tell orchestrate.Progress) error {
	for messages := json.NewDecoder(stream); ; {
		var m pullMessage
		switch err := messages.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the engine's answer: %w", err)
		case m.Error != nil:
			return m.Error
		case m.Refusal != "":
			return errors.New(m.Refusal)
		case m.ID != "" && m.Progress != nil:
			tell(layerEvent(m.Message))
		}
	}
}

// layerEvent translates the news of a layer. One that is complete no longer says
// its size.
func layerEvent(m jsonstream.Message) orchestrate.Event {
	e := orchestrate.Event{ID: m.ID, Text: m.Status, Current: m.Progress.Current, Total: m.Progress.Total}
	switch m.Status {
	case "Download complete", "Already exists", "Pull complete":
		e.State = orchestrate.Done
	}
	return e
}
