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
func within[T any](ctx context.Context, limit time.Duration, call func(context.Context) (T, error)) (T, error) {
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	result, err := call(inner)
	if err != nil && inner.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: nothing after %s", errNoAnswer, limit)
	}
	return result, err
}

func (b bounded) Ping(ctx context.Context, o client.PingOptions) (client.PingResult, error) {
	return within(ctx, reachLimit, func(ctx context.Context) (client.PingResult, error) { return b.APIClient.Ping(ctx, o) })
}

func (b bounded) ServerVersion(ctx context.Context, o client.ServerVersionOptions) (client.ServerVersionResult, error) {
	return within(ctx, lookLimit, func(ctx context.Context) (client.ServerVersionResult, error) {
		return b.APIClient.ServerVersion(ctx, o)
	})
}

func (b bounded) Info(ctx context.Context, o client.InfoOptions) (client.SystemInfoResult, error) {
	return within(ctx, lookLimit, func(ctx context.Context) (client.SystemInfoResult, error) { return b.APIClient.Info(ctx, o) })
}

func (b bounded) ContainerList(ctx context.Context, o client.ContainerListOptions) (client.ContainerListResult, error) {
	return within(ctx, lookLimit, func(ctx context.Context) (client.ContainerListResult, error) {
		return b.APIClient.ContainerList(ctx, o)
	})
}

func (b bounded) ContainerInspect(ctx context.Context, id string, o client.ContainerInspectOptions) (client.ContainerInspectResult, error) {
	return within(ctx, lookLimit, func(ctx context.Context) (client.ContainerInspectResult, error) {
		return b.APIClient.ContainerInspect(ctx, id, o)
	})
}

func (b bounded) ExecCreate(ctx context.Context, id string, o client.ExecCreateOptions) (client.ExecCreateResult, error) {
	return within(ctx, lookLimit, func(ctx context.Context) (client.ExecCreateResult, error) { return b.APIClient.ExecCreate(ctx, id, o) })
}

func (b bounded) ExecInspect(ctx context.Context, id string, o client.ExecInspectOptions) (client.ExecInspectResult, error) {
	return within(ctx, lookLimit, func(ctx context.Context) (client.ExecInspectResult, error) {
		return b.APIClient.ExecInspect(ctx, id, o)
	})
}

func (b bounded) NetworkList(ctx context.Context, o client.NetworkListOptions) (client.NetworkListResult, error) {
	return within(ctx, lookLimit, func(ctx context.Context) (client.NetworkListResult, error) { return b.APIClient.NetworkList(ctx, o) })
}

func (b bounded) NetworkInspect(ctx context.Context, id string, o client.NetworkInspectOptions) (client.NetworkInspectResult, error) {
	return within(ctx, lookLimit, func(ctx context.Context) (client.NetworkInspectResult, error) {
		return b.APIClient.NetworkInspect(ctx, id, o)
	})
}

func (b bounded) VolumeList(ctx context.Context, o client.VolumeListOptions) (client.VolumeListResult, error) {
	return within(ctx, lookLimit, func(ctx context.Context) (client.VolumeListResult, error) { return b.APIClient.VolumeList(ctx, o) })
}

func (b bounded) VolumeInspect(ctx context.Context, id string, o client.VolumeInspectOptions) (client.VolumeInspectResult, error) {
	return within(ctx, lookLimit, func(ctx context.Context) (client.VolumeInspectResult, error) {
		return b.APIClient.VolumeInspect(ctx, id, o)
	})
}

func (b bounded) ImageList(ctx context.Context, o client.ImageListOptions) (client.ImageListResult, error) {
	return within(ctx, lookLimit, func(ctx context.Context) (client.ImageListResult, error) { return b.APIClient.ImageList(ctx, o) })
}

func (b bounded) DistributionInspect(ctx context.Context, id string, o client.DistributionInspectOptions) (client.DistributionInspectResult, error) {
	return within(ctx, lookLimit, func(ctx context.Context) (client.DistributionInspectResult, error) {
		return b.APIClient.DistributionInspect(ctx, id, o)
	})
}

func (b bounded) ImageInspect(ctx context.Context, id string, o ...client.ImageInspectOption) (client.ImageInspectResult, error) {
	return within(ctx, lookLimit, func(ctx context.Context) (client.ImageInspectResult, error) {
		return b.APIClient.ImageInspect(ctx, id, o...)
	})
}

func (b bounded) ContainerCreate(ctx context.Context, o client.ContainerCreateOptions) (client.ContainerCreateResult, error) {
	return within(ctx, changeLimit, func(ctx context.Context) (client.ContainerCreateResult, error) {
		return b.APIClient.ContainerCreate(ctx, o)
	})
}

func (b bounded) ContainerStart(ctx context.Context, id string, o client.ContainerStartOptions) (client.ContainerStartResult, error) {
	return within(ctx, changeLimit, func(ctx context.Context) (client.ContainerStartResult, error) {
		return b.APIClient.ContainerStart(ctx, id, o)
	})
}

func (b bounded) ContainerRemove(ctx context.Context, id string, o client.ContainerRemoveOptions) (client.ContainerRemoveResult, error) {
	return within(ctx, changeLimit, func(ctx context.Context) (client.ContainerRemoveResult, error) {
		return b.APIClient.ContainerRemove(ctx, id, o)
	})
}

func (b bounded) NetworkCreate(ctx context.Context, id string, o client.NetworkCreateOptions) (client.NetworkCreateResult, error) {
	return within(ctx, changeLimit, func(ctx context.Context) (client.NetworkCreateResult, error) {
		return b.APIClient.NetworkCreate(ctx, id, o)
	})
}

func (b bounded) NetworkRemove(ctx context.Context, id string, o client.NetworkRemoveOptions) (client.NetworkRemoveResult, error) {
	return within(ctx, changeLimit, func(ctx context.Context) (client.NetworkRemoveResult, error) {
		return b.APIClient.NetworkRemove(ctx, id, o)
	})
}

func (b bounded) VolumeCreate(ctx context.Context, o client.VolumeCreateOptions) (client.VolumeCreateResult, error) {
	return within(ctx, changeLimit, func(ctx context.Context) (client.VolumeCreateResult, error) { return b.APIClient.VolumeCreate(ctx, o) })
}

func (b bounded) VolumeRemove(ctx context.Context, id string, o client.VolumeRemoveOptions) (client.VolumeRemoveResult, error) {
	return within(ctx, changeLimit, func(ctx context.Context) (client.VolumeRemoveResult, error) {
		return b.APIClient.VolumeRemove(ctx, id, o)
	})
}

func (b bounded) ContainerStop(ctx context.Context, id string, o client.ContainerStopOptions) (client.ContainerStopResult, error) {
	return within(ctx, changeLimit, func(ctx context.Context) (client.ContainerStopResult, error) {
		return b.APIClient.ContainerStop(ctx, id, o)
	})
}

func (b bounded) ContainerRestart(ctx context.Context, id string, o client.ContainerRestartOptions) (client.ContainerRestartResult, error) {
	return within(ctx, changeLimit, func(ctx context.Context) (client.ContainerRestartResult, error) {
		return b.APIClient.ContainerRestart(ctx, id, o)
	})
}
