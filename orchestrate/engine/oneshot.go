package engine

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"strconv"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

var _ orchestrate.OneShots = (*Engine)(nil)

// What copied files are called beside the log folder.
const (
	captureName = "capture"
	seedsName   = "seeds"
)

// tailLines is how much of a one-shot container's output is kept.
const tailLines = "20"

// CreateOneShot makes a container from a service of the project.
//
// Compose's own way to run a service once (`compose run`) makes it a part of
// the project, with its named volumes and networks; so the few fields that a
// sensor uses are translated here. A test holds them against the fields that
// the embedded file sets. Left out on purpose: restart, the health check and
// the scrape network; ports are published only if asked for, and elsewhere.
func (e *Engine) CreateOneShot(ctx context.Context, p orchestrate.Project, o orchestrate.OneShot) (string, error) {
	project, err := e.oneShots.load(ctx, p)
	if err != nil {
		return "", err
	}
	s, err := project.GetService(o.Service)
	if err != nil {
		return "", fmt.Errorf("make %s: %w", o.ContainerName(), err)
	}
	id, err := e.createOneShot(ctx, project, s, o)
	if err != nil {
		return id, fmt.Errorf("make container %s: %w", o.ContainerName(), err)
	}
	return id, e.copyInputs(ctx, id, path.Dir(s.WorkingDir), o)
}

// sensorImage makes sure that the image of a sensor is here. It is pulled where
// it is missing alone: all containers of a run are made of one image.
func (e *Engine) sensorImage(ctx context.Context, image string, policy orchestrate.PullPolicy) error {
	if policy != orchestrate.PullNever {
		policy = orchestrate.PullMissing
	}
	const advice = "the image is neither here nor to be pulled: choose another with --image NAME=REF, or build the project's own with `make images`"
	return e.haveImage(ctx, image, policy, nil, imageHints{missing: advice, failed: advice})
}

func (e *Engine) createOneShot(ctx context.Context, project *types.Project, s types.ServiceConfig, o orchestrate.OneShot) (string, error) {
	if err := e.sensorImage(ctx, s.Image, orchestrate.PullPolicy(s.PullPolicy)); err != nil {
		return "", err
	}
	labels := map[string]string{orchestrate.VerifyLabel: o.Run, orchestrate.ClientLabel: orchestrate.ThisClient().String()}
	config, host, err := oneShotConfig(s, o)
	if err != nil {
		return "", err
	}
	config.Labels = labels
	options := client.ContainerCreateOptions{Name: o.ContainerName(), Config: config, HostConfig: host}
	if o.Capture == "" {
		name, err := e.runNetwork(ctx, project, o.Run, labels)
		if err != nil {
			return "", err
		}
		host.NetworkMode = container.NetworkMode(name)
		options.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{name: {}}}
	}
	return e.create(ctx, options)
}

// createLimit bounds what is not interrupted.
const createLimit = time.Minute

// create makes a container and returns its ID also where ctx has ended meanwhile:
// a request that is broken off may be done nevertheless, and what it made would
// not be known.
func (e *Engine) create(ctx context.Context, options client.ContainerCreateOptions) (string, error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), createLimit)
	defer cancel()
	created, err := e.client.ContainerCreate(whole, options)
	if err != nil {
		return "", err
	}
	return created.ID, context.Cause(ctx)
}

// runNetwork makes the network of a run, once: as the stack's monitoring
// network, but with a bridge of its own.
func (e *Engine) runNetwork(ctx context.Context, project *types.Project, run string, labels map[string]string) (string, error) {
	e.networks.Lock()
	defer e.networks.Unlock()
	name := "zeekdemo-verify-" + run
	if _, err := e.client.NetworkInspect(ctx, name, client.NetworkInspectOptions{}); err == nil {
		return name, nil
	}
	definition := project.Networks[orchestrate.MonitoringNetwork]
	options := maps.Clone(map[string]string(definition.DriverOpts))
	options[bridgeName] = orchestrate.VerifyBridge(run)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), createLimit) // see create
	defer cancel()
	_, err := e.client.NetworkCreate(whole, name, client.NetworkCreateOptions{Driver: definition.Driver, Options: options, Labels: labels})
	if err != nil {
		return "", fmt.Errorf("make network %s: %w", name, err)
	}
	return name, nil
}

// copyInputs copies what a container reads into a folder of it, which must lie on a
// volume: the root is read-only.
func (e *Engine) copyInputs(ctx context.Context, id, folder string, o orchestrate.OneShot) error {
	readable := tar.Header{Mode: 0o444, ModTime: time.Now(), Format: tar.FormatPAX}
	var files []entry
	if o.Seeds != nil {
		seeds := entry{readable, bytes.NewReader(o.Seeds)}
		seeds.Name, seeds.Size = seedsName, int64(len(o.Seeds))
		files = append(files, seeds)
	}
	if o.Capture != "" {
		readable.Name = captureName
		capture, err := openEntry(o.Capture, readable)
		if err != nil {
			return fmt.Errorf("copy the capture into the container: %w", err)
		}
		defer capture.Close()
		files = append(files, capture.entry)
	}
	if len(files) == 0 {
		return nil
	}
	if err := e.copyIn(ctx, id, folder, files...); err != nil {
		return fmt.Errorf("copy its input into the container: %w", err)
	}
	return nil
}

// StartOneShot starts a container and inspects it.
func (e *Engine) StartOneShot(ctx context.Context, id string) (orchestrate.Container, error) {
	if _, err := e.client.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return orchestrate.Container{}, fmt.Errorf("start the container: %w", err)
	}
	in, err := e.client.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return orchestrate.Container{}, fmt.Errorf("inspect the container: %w", err)
	}
	summary := container.Summary{ID: id, Labels: in.Container.Config.Labels, Ports: published(in.Container.NetworkSettings)}
	return describe(summary, in.Container), nil
}

// published lists ports as the engine's list of containers does.
func published(s *container.NetworkSettings) (list []container.PortSummary) {
	if s == nil {
		return nil
	}
	for port, bindings := range s.Ports {
		for _, b := range bindings {
			if n, err := strconv.ParseUint(b.HostPort, 10, 16); err == nil {
				list = append(list, container.PortSummary{IP: b.HostIP, PublicPort: uint16(n), PrivatePort: port.Num(), Type: string(port.Proto())})
			}
		}
	}
	return list
}

// WaitOneShot waits until a container has ended.
func (e *Engine) WaitOneShot(ctx context.Context, id string) (orchestrate.Ended, error) {
	wait := e.client.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case err := <-wait.Error:
		return orchestrate.Ended{}, fmt.Errorf("wait for the container: %w", err)
	case <-wait.Result:
	}
	return e.ended(ctx, id)
}

// StopOneShot ends a container.
func (e *Engine) StopOneShot(ctx context.Context, id string, grace time.Duration) (orchestrate.Ended, error) {
	seconds := int(grace.Seconds())
	if _, err := e.client.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: &seconds}); err != nil {
		return orchestrate.Ended{}, fmt.Errorf("stop the container: %w", err)
	}
	return e.ended(ctx, id)
}

func (e *Engine) ended(ctx context.Context, id string) (orchestrate.Ended, error) {
	in, err := e.client.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return orchestrate.Ended{}, fmt.Errorf("inspect the container: %w", err)
	}
	ended := orchestrate.Ended{Tail: e.tail(ctx, id)}
	if s := in.Container.State; s != nil {
		ended.ExitCode, ended.OOMKilled = s.ExitCode, s.OOMKilled
	}
	return ended, nil
}

// tail returns the last lines a container printed, as far as they can be had.
func (e *Engine) tail(ctx context.Context, id string) []string {
	logs, err := e.client.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: tailLines})
	if err != nil {
		return nil
	}
	defer logs.Close()
	var text bytes.Buffer
	if _, err := stdcopy.StdCopy(&text, &text, logs); err != nil {
		return nil
	}
	var lines []string
	for in := bufio.NewScanner(&text); in.Scan(); {
		lines = append(lines, in.Text())
	}
	return lines
}

// OneShotLogs returns the container's working directory.
func (e *Engine) OneShotLogs(ctx context.Context, id string) (io.ReadCloser, error) {
	in, err := e.client.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return nil, fmt.Errorf("inspect the container: %w", err)
	}
	copied, err := e.client.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: in.Container.Config.WorkingDir})
	if err != nil {
		return nil, fmt.Errorf("copy the logs out of the container: %w", err)
	}
	return copied.Content, nil
}

// RemoveOneShots removes by label. Containers first: a network in use cannot be
// removed.
func (e *Engine) RemoveOneShots(ctx context.Context, r orchestrate.Removal) (int, error) {
	if r.ID != "" {
		return 1, e.removeContainer(ctx, r.ID)
	}
	label := orchestrate.VerifyLabel
	if r.Run != "" {
		label += "=" + r.Run
	}
	filters := client.Filters{}.Add("label", label)
	meant := func(labels map[string]string) bool {
		return r.Run != "" || r.Gone != nil && r.Gone(clientOf(labels))
	}
	list, err := e.client.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return 0, fmt.Errorf("list containers: %w", err)
	}
	n, err := e.removeContainers(ctx, list.Items, meant)
	return n, errors.Join(err, e.removeNetworks(ctx, filters, meant))
}

// removeContainers removes those that are meant, and returns how many that are.
func (e *Engine) removeContainers(ctx context.Context, list []container.Summary, meant func(labels map[string]string) bool) (n int, err error) {
	var errs []error
	for _, c := range list {
		if meant(c.Labels) {
			n++
			errs = append(errs, e.removeContainer(ctx, c.ID))
		}
	}
	return n, errors.Join(errs...)
}

// removeNetworks removes those that are meant.
func (e *Engine) removeNetworks(ctx context.Context, filters client.Filters, meant func(labels map[string]string) bool) error {
	list, err := e.client.NetworkList(ctx, client.NetworkListOptions{Filters: filters})
	if err != nil {
		return fmt.Errorf("list networks: %w", err)
	}
	var errs []error
	for _, n := range list.Items {
		if !meant(n.Labels) {
			continue
		}
		if _, err := e.client.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove network %s: %w", n.Name, err))
		}
	}
	return errors.Join(errs...)
}

// removeContainer removes a container with its anonymous volumes.
func (e *Engine) removeContainer(ctx context.Context, id string) error {
	_, err := e.client.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container %.12s: %w", id, err)
	}
	return nil
}
