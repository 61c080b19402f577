package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moby/moby/client"
)

// How long an engine may take to answer. A daemon that hangs still accepts
// connections, and then says nothing.
const (
	reachLimit  = 10 * time.Second // for the first call of every command
	lookLimit   = 30 * time.Second
	changeLimit = 5 * time.Minute // which waits for disks, and for processes to end
)

// errNoAnswer is the cause of a call that was broken off.
var errNoAnswer = errors.New("the engine does not answer")

// bounded is a client each of whose calls ends in time. Left out are streams, which
// last as long as there is something to say: logs, events, attached standard
// streams, copies, pulls, and waiting for a container's end. A call that is bounded
// comes before each of them.
type bounded struct{ client.APIClient }

// within breaks a call off after a time.
func within[O, R any](ctx context.Context, limit time.Duration, call func(context.Context, O) (R, error), o O) (R, error) {
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	result, err := call(inner, o)
	if err != nil && inner.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: nothing after %s", errNoAnswer, limit)
	}
	return result, err
}

// withinOf does so with a call about the one thing that has the ID.
func withinOf[O, R any](ctx context.Context, limit time.Duration, call func(context.Context, string, O) (R, error), id string, o O) (R, error) {
	return within(ctx, limit, func(ctx context.Context, o O) (R, error) { return call(ctx, id, o) }, o)
}

func (b bounded) Ping(ctx context.Context, o client.PingOptions) (client.PingResult, error) {
	return within(ctx, reachLimit, b.APIClient.Ping, o)
}

func (b bounded) ServerVersion(ctx context.Context, o client.ServerVersionOptions) (client.ServerVersionResult, error) {
	return within(ctx, lookLimit, b.APIClient.ServerVersion, o)
}

func (b bounded) Info(ctx context.Context, o client.InfoOptions) (client.SystemInfoResult, error) {
	return within(ctx, lookLimit, b.APIClient.Info, o)
}

func (b bounded) ContainerList(ctx context.Context, o client.ContainerListOptions) (client.ContainerListResult, error) {
	return within(ctx, lookLimit, b.APIClient.ContainerList, o)
}

func (b bounded) ContainerInspect(ctx context.Context, id string, o client.ContainerInspectOptions) (client.ContainerInspectResult, error) {
	return withinOf(ctx, lookLimit, b.APIClient.ContainerInspect, id, o)
}

func (b bounded) ExecCreate(ctx context.Context, id string, o client.ExecCreateOptions) (client.ExecCreateResult, error) {
	return withinOf(ctx, lookLimit, b.APIClient.ExecCreate, id, o)
}

func (b bounded) ExecInspect(ctx context.Context, id string, o client.ExecInspectOptions) (client.ExecInspectResult, error) {
	return withinOf(ctx, lookLimit, b.APIClient.ExecInspect, id, o)
}

func (b bounded) NetworkList(ctx context.Context, o client.NetworkListOptions) (client.NetworkListResult, error) {
	return within(ctx, lookLimit, b.APIClient.NetworkList, o)
}

func (b bounded) NetworkInspect(ctx context.Context, id string, o client.NetworkInspectOptions) (client.NetworkInspectResult, error) {
	return withinOf(ctx, lookLimit, b.APIClient.NetworkInspect, id, o)
}

func (b bounded) VolumeList(ctx context.Context, o client.VolumeListOptions) (client.VolumeListResult, error) {
	return within(ctx, lookLimit, b.APIClient.VolumeList, o)
}

func (b bounded) VolumeInspect(ctx context.Context, id string, o client.VolumeInspectOptions) (client.VolumeInspectResult, error) {
	return withinOf(ctx, lookLimit, b.APIClient.VolumeInspect, id, o)
}

func (b bounded) ImageList(ctx context.Context, o client.ImageListOptions) (client.ImageListResult, error) {
	return within(ctx, lookLimit, b.APIClient.ImageList, o)
}

func (b bounded) DistributionInspect(ctx context.Context, id string, o client.DistributionInspectOptions) (client.DistributionInspectResult, error) {
	return withinOf(ctx, lookLimit, b.APIClient.DistributionInspect, id, o)
}

func (b bounded) ImageInspect(ctx context.Context, id string, o ...client.ImageInspectOption) (client.ImageInspectResult, error) {
	return withinOf(ctx, lookLimit, func(ctx context.Context, id string, o []client.ImageInspectOption) (client.ImageInspectResult, error) {
		return b.APIClient.ImageInspect(ctx, id, o...)
	}, id, o)
}

func (b bounded) ContainerCreate(ctx context.Context, o client.ContainerCreateOptions) (client.ContainerCreateResult, error) {
	return within(ctx, changeLimit, b.APIClient.ContainerCreate, o)
}

func (b bounded) ContainerStart(ctx context.Context, id string, o client.ContainerStartOptions) (client.ContainerStartResult, error) {
	return withinOf(ctx, changeLimit, b.APIClient.ContainerStart, id, o)
}

func (b bounded) ContainerRemove(ctx context.Context, id string, o client.ContainerRemoveOptions) (client.ContainerRemoveResult, error) {
	return withinOf(ctx, changeLimit, b.APIClient.ContainerRemove, id, o)
}

func (b bounded) NetworkCreate(ctx context.Context, id string, o client.NetworkCreateOptions) (client.NetworkCreateResult, error) {
	return withinOf(ctx, changeLimit, b.APIClient.NetworkCreate, id, o)
}

func (b bounded) NetworkRemove(ctx context.Context, id string, o client.NetworkRemoveOptions) (client.NetworkRemoveResult, error) {
	return withinOf(ctx, changeLimit, b.APIClient.NetworkRemove, id, o)
}

func (b bounded) VolumeCreate(ctx context.Context, o client.VolumeCreateOptions) (client.VolumeCreateResult, error) {
	return within(ctx, changeLimit, b.APIClient.VolumeCreate, o)
}

func (b bounded) VolumeRemove(ctx context.Context, id string, o client.VolumeRemoveOptions) (client.VolumeRemoveResult, error) {
	return withinOf(ctx, changeLimit, b.APIClient.VolumeRemove, id, o)
}

func (b bounded) ContainerStop(ctx context.Context, id string, o client.ContainerStopOptions) (client.ContainerStopResult, error) {
	return withinOf(ctx, changeLimit, b.APIClient.ContainerStop, id, o)
}

func (b bounded) ContainerRestart(ctx context.Context, id string, o client.ContainerRestartOptions) (client.ContainerRestartResult, error) {
	return withinOf(ctx, changeLimit, b.APIClient.ContainerRestart, id, o)
}
