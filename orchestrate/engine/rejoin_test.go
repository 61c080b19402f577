package engine

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// A container that is restarted gets a new network namespace; what shares it has
// to follow, once.
func TestWhatSharesANetworkNamespaceFollows(t *testing.T) {
	const image = "prom/node-exporter:v1.12.1"
	e := liveEngine(t, image)
	project := fmt.Sprintf("zeekdemo-test-%d", os.Getpid())
	run := func(name, network, listen string) string {
		created, err := e.client.ContainerCreate(t.Context(), client.ContainerCreateOptions{
			Name:       project + "-" + name,
			Config:     &container.Config{Image: image, Cmd: []string{"--web.listen-address=" + listen}, Labels: map[string]string{api.ProjectLabel: project, api.ServiceLabel: name}},
			HostConfig: &container.HostConfig{NetworkMode: container.NetworkMode(network)},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := e.client.ContainerRemove(context.Background(), created.ID, client.ContainerRemoveOptions{Force: true}); err != nil {
				t.Error(err)
			}
		})
		if _, err := e.client.ContainerStart(t.Context(), created.ID, client.ContainerStartOptions{}); err != nil {
			t.Fatal(err)
		}
		return created.ID
	}
	owner := run("owner", "none", ":9100")
	run("beside", "container:"+owner, ":9101")
	run("apart", "none", ":9100")

	before := byName(t, e, project)
	if err := e.RestartContainer(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	after := byName(t, e, project)
	if after["apart"].StartedAt != before["apart"].StartedAt || !after["beside"].StartedAt.After(after["owner"].StartedAt) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	namespace := func(c orchestrate.Container) string {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", c.PID))
		if err != nil {
			t.Skipf("SKIPPED: what namespaces they are in, this user may not see: %v", err)
		}
		return link
	}
	if a, b := namespace(after["owner"]), namespace(after["beside"]); a != b {
		t.Errorf("the owner is in %s, what belongs beside it in %s", a, b)
	}
	if err := e.rejoin(t.Context(), project, nil); err != nil {
		t.Fatal(err)
	}
	if again := byName(t, e, project); again["beside"].StartedAt != after["beside"].StartedAt {
		t.Error("it was restarted once more, for nothing")
	}
}

func byName(t *testing.T, e *Engine, project string) map[string]orchestrate.Container {
	t.Helper()
	list, err := e.Containers(t.Context(), project)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]orchestrate.Container{}
	for _, c := range list {
		m[c.Service] = c
	}
	return m
}
