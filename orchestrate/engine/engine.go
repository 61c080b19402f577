// Package engine is the only one that speaks to Docker: it implements
// [orchestrate.Engine] with Docker Compose as a library and the Docker API.
//
// What binds here:
//
//   - The API client is built here and handed to Docker's CLI library, whose
//     own accessor ends the process where it cannot build one.
//   - A project is loaded from memory with an environment of its own: neither
//     the caller's variables nor a .env file can leak into it.
//   - Compose's Up runs without Attach, which would take over SIGINT.
//   - Compose reports success of an operation inverted (Done's flag), so the
//     returned errors are what counts.
package engine

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/flags"
	"github.com/docker/compose/v5/pkg/api"
	"github.com/docker/compose/v5/pkg/compose"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/sirupsen/logrus"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// Engine is a Docker engine. Its methods may be called concurrently.
type Engine struct {
	client   client.APIClient
	cli      *command.DockerCli
	networks sync.Mutex // held while a run's network is looked for and made
	oneShots loaded     // of which one-shots are made
}

var _ orchestrate.Engine = (*Engine)(nil)

// Connect prepares a client for the engine that DOCKER_HOST, DOCKER_CONTEXT or
// the current Docker context names. It does not reach out yet: Info does.
func Connect(warnings io.Writer) (*Engine, error) {
	logrus.SetOutput(io.Discard) // Compose logs to the global logger what it returns as errors as well
	cfg := config.LoadDefaultConfigFile(warnings)
	c, err := command.NewAPIClientFromFlags(flags.NewClientOptions(), cfg)
	if err != nil {
		return nil, orchestrate.WithHint(fmt.Errorf("connect to the Docker engine: %w", err),
			"`docker context ls` shows the contexts there are; DOCKER_CONTEXT and DOCKER_HOST choose one")
	}
	c = bounded{c}
	cli, err := command.NewDockerCli(command.WithAPIClient(c), command.WithCombinedStreams(io.Discard))
	if err != nil {
		return nil, fmt.Errorf("prepare the Docker client: %w", err)
	}
	if err := cli.Initialize(flags.NewClientOptions()); err != nil {
		return nil, fmt.Errorf("prepare the Docker client: %w", err)
	}
	return &Engine{client: c, cli: cli}, nil
}

// Close releases the connections.
func (e *Engine) Close() error { return e.client.Close() }

// Info reaches the engine and describes it. Of one that does not answer it
// returns where it was looked for, beside the error.
func (e *Engine) Info(ctx context.Context) (orchestrate.EngineInfo, error) {
	// The context's own address: behind ssh:// the client has a made-up one.
	address := e.cli.DockerEndpoint().Host
	if address == "" {
		address = e.client.DaemonHost()
	}
	info := orchestrate.EngineInfo{Address: address, Remote: isRemote(address)}
	if _, err := e.client.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		return info, explainReach(address, err)
	}
	v, err := e.client.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return info, explainReach(address, err)
	}
	info.Version, info.APIVersion, info.OS, info.Arch = v.Version, v.APIVersion, v.Os, v.Arch
	return info, nil
}

// isRemote tells a local socket or loopback address from another machine's.
// An SSH context keeps the address of the far end's socket behind a dialer.
func isRemote(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	switch u.Scheme {
	case "unix", "npipe", "fd":
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback())
}

// compose returns a Compose service that reports to progress.
func (e *Engine) compose(progress orchestrate.Progress) (api.Compose, error) {
	return compose.NewComposeService(e.cli,
		compose.WithPrompt(compose.AlwaysOkPrompt()),
		compose.WithEventProcessor(events(progress)))
}

// Up brings the project up with Compose.
func (e *Engine) Up(ctx context.Context, p orchestrate.Project, progress orchestrate.Progress) error {
	project, err := load(ctx, p)
	if err != nil {
		return err
	}
	service, err := e.compose(progress)
	if err != nil {
		return err
	}
	options := api.UpOptions{Create: api.CreateOptions{
		RemoveOrphans: true,
		Recreate:      api.RecreateDiverged, RecreateDependencies: api.RecreateDiverged,
		// Anonymous volumes of an older container are not taken over: what is to
		// be kept has a named one.
		Inherit: false,
	}, Start: api.StartOptions{Project: project}}
	if err := persist(ctx, func() error { return service.Up(ctx, project, options) }); err != nil {
		return explainUp(ctx, err)
	}
	return e.rejoin(ctx, p.Name, progress)
}

// persist calls up again where what an earlier one left half-made is in its way.
func persist(ctx context.Context, up func() error) error {
	err := up()
	for range halfMadeTries {
		if !halfMade(err) || sleep(ctx, halfMadeWait) != nil {
			break
		}
		err = up()
	}
	return err
}

// How often, and after which time, a name that is taken is asked for again.
const (
	halfMadeTries = 5
	halfMadeWait  = 300 * time.Millisecond
)

// halfMade recognises what an `up` that failed or was interrupted leaves for an
// instant: a container that the engine goes on making though nobody waits for
// it. Its name is taken before any list shows it.
func halfMade(err error) bool { return err != nil && nameTaken.MatchString(err.Error()) }

// sleep waits, but no longer than the context lasts.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// Down removes what carries the project's label.
func (e *Engine) Down(ctx context.Context, project string, volumes bool, progress orchestrate.Progress) error {
	service, err := e.compose(progress)
	if err != nil {
		return err
	}
	err = service.Down(ctx, project, api.DownOptions{RemoveOrphans: true, Volumes: volumes})
	if err != nil {
		return fmt.Errorf("remove the stack: %w", err)
	}
	return nil
}

// Containers lists containers and inspects each, for the list alone lacks the
// PID and the exit code.
func (e *Engine) Containers(ctx context.Context, project string) ([]orchestrate.Container, error) {
	filters := client.Filters{}
	if project != "" {
		filters.Add("label", api.ProjectLabel+"="+project)
	}
	list, err := e.client.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var containers []orchestrate.Container
	for _, item := range list.Items {
		if item.Labels[api.OneoffLabel] == "True" {
			continue
		}
		inspected, err := e.client.ContainerInspect(ctx, item.ID, client.ContainerInspectOptions{})
		if err != nil {
			continue // gone since it was listed
		}
		containers = append(containers, describe(item, inspected.Container))
	}
	return containers, nil
}

func describe(item container.Summary, in container.InspectResponse) orchestrate.Container {
	c := orchestrate.Container{
		ID: item.ID, Name: strings.TrimPrefix(in.Name, "/"), Image: item.Image,
		Project: item.Labels[api.ProjectLabel], Service: item.Labels[api.ServiceLabel],
		State: string(item.State), Addresses: map[string]netip.Addr{},
	}
	describeState(&c, in.State)
	if in.Config != nil {
		c.Image, c.Env, c.Command = in.Config.Image, in.Config.Env, in.Config.Cmd
	}
	if in.NetworkSettings != nil {
		for name, endpoint := range in.NetworkSettings.Networks {
			if endpoint != nil && endpoint.IPAddress.IsValid() {
				c.Addresses[strings.TrimPrefix(name, c.Project+"_")] = endpoint.IPAddress
			}
		}
	}
	for _, p := range item.Ports {
		c.Ports = append(c.Ports, orchestrate.PublishedPort{HostIP: p.IP, HostPort: p.PublicPort, ContainerPort: p.PrivatePort, Protocol: p.Type})
	}
	return c
}

// describeState fills in how a container fares.
func describeState(c *orchestrate.Container, s *container.State) {
	if s == nil {
		return
	}
	c.State, c.ExitCode, c.OOMKilled, c.PID = string(s.Status), s.ExitCode, s.OOMKilled, s.Pid
	c.StartedAt, _ = time.Parse(time.RFC3339Nano, s.StartedAt)
	if s.Health != nil && s.Health.Status != container.NoHealthcheck {
		c.Health = string(s.Health.Status)
	}
}

// Exec runs a command in a container. Its standard input is empty, and ends when
// nobody reads its output any more, even if this process was killed: by that a
// command that would go on for ever can end.
func (e *Engine) Exec(ctx context.Context, id string, cmd []string, stdout, stderr io.Writer) (int, error) {
	created, err := e.client.ExecCreate(ctx, id, client.ExecCreateOptions{Cmd: cmd, AttachStdin: true, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return 0, fmt.Errorf("run %s in the container: %w", cmd[0], err)
	}
	attached, err := e.client.ExecAttach(ctx, created.ID, client.ExecAttachOptions{})
	if err != nil {
		return 0, fmt.Errorf("run %s in the container: %w", cmd[0], err)
	}
	stop := context.AfterFunc(ctx, attached.Close)
	defer stop()
	defer attached.Close()
	if _, err := stdcopy.StdCopy(stdout, stderr, attached.Reader); err != nil && ctx.Err() == nil {
		return 0, fmt.Errorf("read the output of %s: %w", cmd[0], err)
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	ended, err := e.client.ExecInspect(ctx, created.ID, client.ExecInspectOptions{})
	if err != nil {
		return 0, fmt.Errorf("run %s in the container: %w", cmd[0], err)
	}
	return ended.ExitCode, nil
}

// Logs writes the services' output through Compose's log reader, which follows
// containers that are started later as well.
func (e *Engine) Logs(ctx context.Context, req orchestrate.LogRequest) error {
	service, err := e.compose(nil)
	if err != nil {
		return err
	}
	options := api.LogOptions{Follow: req.Follow, Tail: req.Tail}
	if req.Service != "" {
		options.Services = []string{req.Service}
	}
	if err := service.Logs(ctx, req.Project, &consumer{project: req.Project, line: req.Line}, options); err != nil && ctx.Err() == nil {
		return fmt.Errorf("read the logs: %w", err)
	}
	return context.Cause(ctx)
}

// composeEvents translates Compose's progress.
type composeEvents struct {
	progress orchestrate.Progress
}

func events(p orchestrate.Progress) api.EventProcessor {
	if p == nil {
		p = func(orchestrate.Event) {}
	}
	return composeEvents{p}
}

func (composeEvents) Start(context.Context, string) {}

func (composeEvents) Done(string, bool) {}

// On passes events on. What went wrong is returned as an error and printed
// there, once, so an event only says that its object failed.
func (c composeEvents) On(resources ...api.Resource) {
	for _, r := range resources {
		e := orchestrate.Event{ID: r.ID, Parent: r.ParentID, Text: r.Text, Detail: r.Details, Current: r.Current, Total: r.Total}
		switch r.Status {
		case api.Working:
			e.State = orchestrate.Working
		case api.Done:
			e.State = orchestrate.Done
		case api.Warning:
			e.State = orchestrate.Warning
		default:
			e.State, e.Text, e.Detail = orchestrate.Failed, "Failed", ""
		}
		if name, ok := strings.CutPrefix(r.ID, "service:"); ok { // as Compose names one that it could not create: service:zeek:1
			name, _, _ = strings.Cut(name, ":")
			e.ID = "Service " + name
		}
		c.progress(e)
	}
}
