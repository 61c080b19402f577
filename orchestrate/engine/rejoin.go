package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// rejoin restarts the running containers of a project that share another one's
// network namespace and are older than it: a container that is started again
// gets a new namespace, and those beside it stay in the old one, where nobody
// reaches them. Compose sees to that only where it makes the other one anew.
func (e *Engine) rejoin(ctx context.Context, project string, progress orchestrate.Progress) error {
	all, err := e.running(ctx, project)
	if err != nil {
		return err
	}
	for id, c := range all {
		owner, ok := all[c.HostConfig.NetworkMode.ConnectedContainer()]
		if !ok || !startedAt(c).Before(startedAt(owner)) {
			continue
		}
		name, beside := strings.TrimPrefix(c.Name, "/"), strings.TrimPrefix(owner.Name, "/")
		grace := 1 // seconds; what reads counters has nothing to lose
		if _, err := e.client.ContainerRestart(ctx, id, client.ContainerRestartOptions{Timeout: &grace}); err != nil {
			return fmt.Errorf("start %s again beside %s: %w", name, beside, err)
		}
		if progress != nil {
			progress(orchestrate.Event{ID: "Container " + name, Text: "Restarted", Detail: "beside " + beside, State: orchestrate.Done})
		}
	}
	return nil
}

// running inspects the running containers of a project, by their IDs.
func (e *Engine) running(ctx context.Context, project string) (map[string]container.InspectResponse, error) {
	filters := client.Filters{}.Add("label", api.ProjectLabel+"="+project)
	list, err := e.client.ContainerList(ctx, client.ContainerListOptions{Filters: filters})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	all := map[string]container.InspectResponse{}
	for _, item := range list.Items {
		if in, err := e.client.ContainerInspect(ctx, item.ID, client.ContainerInspectOptions{}); err == nil && in.Container.HostConfig != nil && in.Container.State != nil { // else it has gone
			all[item.ID] = in.Container
		}
	}
	return all, nil
}

// startedAt is when a container was last started.
func startedAt(c container.InspectResponse) time.Time {
	at, _ := time.Parse(time.RFC3339Nano, c.State.StartedAt) // zero where the engine says nothing
	return at
}
