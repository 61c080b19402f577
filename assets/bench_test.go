package assets_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// bench runs single services of the stack as Compose would, on a network and
// volumes of its own: their real programs, configurations, users, limits and
// mounts, but no published port. Everything is gone when the test ends.
type bench struct {
	testing.TB
	api     *client.Client
	project *types.Project
	name    string // of the network; prefix of all other names
	gateway netip.Addr
}

// instance is a running service.
type instance struct {
	*bench
	id, service string
}

// newBench needs an engine on this machine, whose containers can be reached by
// address, and the images of the services.
func newBench(tb testing.TB, services ...string) *bench {
	tb.Helper()
	if testing.Short() {
		tb.Skip("SKIPPED: starts containers")
	}
	if runtime.GOOS != "linux" {
		testenv.Missing(tb, "needs containers that are reachable by their addresses: Linux")
	}
	api, err := client.New(client.FromEnv)
	if err != nil {
		testenv.Missing(tb, fmt.Sprintf("needs a Docker engine: %v", err))
	}
	tb.Cleanup(func() { api.Close() })
	if _, err := api.Ping(tb.Context(), client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		testenv.Missing(tb, fmt.Sprintf("needs a Docker engine: %v", err))
	}
	b := &bench{TB: tb, api: api, project: loadStack(tb, environment()), name: fmt.Sprintf("zeekdemo-bench-%d-%d", os.Getpid(), time.Now().UnixNano())}
	for _, s := range services {
		if _, err := api.ImageInspect(tb.Context(), b.project.Services[s].Image); err != nil {
			testenv.Missing(tb, fmt.Sprintf("needs image %s (make images): %v", b.project.Services[s].Image, err))
		}
	}
	b.createNetwork()
	return b
}

// environment is this process's, as far as it concerns the stack.
func environment() map[string]string {
	env := map[string]string{}
	for _, entry := range os.Environ() {
		if name, value, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "ZEEKDEMO_IMAGE_") {
			env[name] = value
		}
	}
	return env
}

func (b *bench) createNetwork() {
	b.Helper()
	if _, err := b.api.NetworkCreate(b.Context(), b.name, client.NetworkCreateOptions{Driver: "bridge"}); err != nil {
		b.Fatalf("create network: %v", err)
	}
	b.cleanup("network", func(ctx context.Context) error {
		_, err := b.api.NetworkRemove(ctx, b.name, client.NetworkRemoveOptions{})
		return err
	})
	n, err := b.api.NetworkInspect(b.Context(), b.name, client.NetworkInspectOptions{})
	if err != nil {
		b.Fatalf("inspect network: %v", err)
	}
	b.gateway = n.Network.IPAM.Config[0].Gateway
}

// cleanup removes something at the end, also when the test has failed.
func (b *bench) cleanup(what string, remove func(context.Context) error) {
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := remove(ctx); err != nil {
			b.Errorf("remove %s: %v", what, err)
		}
	})
}

// create makes a container of a service; hosts are extra names, "name:address".
func (b *bench) create(service string, hosts ...string) *instance {
	b.Helper()
	s := b.project.Services[service]
	config := &container.Config{Image: s.Image, Cmd: []string(s.Command), User: s.User, WorkingDir: s.WorkingDir, StopSignal: s.StopSignal}
	for name, value := range s.Environment {
		config.Env = append(config.Env, name+"="+*value)
	}
	if h := s.HealthCheck; h != nil {
		config.Healthcheck = &container.HealthConfig{Test: h.Test, Interval: time.Duration(*h.Interval), Timeout: time.Duration(*h.Timeout), Retries: int(*h.Retries)}
	}
	host := &container.HostConfig{CapDrop: s.CapDrop, CapAdd: s.CapAdd, SecurityOpt: s.SecurityOpt, ReadonlyRootfs: s.ReadOnly, ExtraHosts: hosts, Tmpfs: map[string]string{},
		PidMode: container.PidMode(s.Pid), UsernsMode: container.UsernsMode(s.UserNSMode)}
	host.Memory = int64(s.MemLimit)
	for _, path := range s.Tmpfs {
		host.Tmpfs[path] = ""
	}
	for _, v := range s.Volumes {
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeVolume, Source: b.volume(v.Source), Target: v.Target, ReadOnly: v.ReadOnly})
	}
	i := b.createContainer(service, config, host)
	i.copyConfigs(s)
	return i
}

func (b *bench) createContainer(service string, config *container.Config, host *container.HostConfig) *instance {
	b.Helper()
	created, err := b.api.ContainerCreate(b.Context(), client.ContainerCreateOptions{
		Name: b.name + "-" + service, Config: config, HostConfig: host,
		NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{b.name: {Aliases: []string{service}}}},
	})
	if err != nil {
		b.Fatalf("create %s: %v", service, err)
	}
	b.cleanup(service, func(ctx context.Context) error {
		_, err := b.api.ContainerRemove(ctx, created.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		return err
	})
	return &instance{bench: b, id: created.ID, service: service}
}

// volume returns the bench's volume for one of the project's, made at its first
// use. It is removed after the containers: cleanups run last in, first out.
func (b *bench) volume(name string) string {
	b.Helper()
	full := b.name + "-" + name
	if _, err := b.api.VolumeInspect(b.Context(), full, client.VolumeInspectOptions{}); err == nil {
		return full
	}
	if _, err := b.api.VolumeCreate(b.Context(), client.VolumeCreateOptions{Name: full}); err != nil {
		b.Fatalf("create volume: %v", err)
	}
	b.cleanup("volume", func(ctx context.Context) error {
		_, err := b.api.VolumeRemove(ctx, full, client.VolumeRemoveOptions{})
		return err
	})
	return full
}

// run creates and starts a service.
func (b *bench) run(service string, hosts ...string) *instance {
	b.Helper()
	i := b.create(service, hosts...)
	i.start()
	return i
}

// depot is a container that never runs: through it files reach the sensors'
// volume.
func (b *bench) depot() *instance {
	b.Helper()
	return b.createContainer("depot", &container.Config{Image: b.project.Services["collector"].Image}, &container.HostConfig{
		Mounts: []mount.Mount{{Type: mount.TypeVolume, Source: b.volume("zeek-logs"), Target: "/logs"}},
	})
}

// copyConfigs delivers the inline configs, readable by everybody as Compose does.
func (i *instance) copyConfigs(s types.ServiceConfig) {
	i.Helper()
	files := map[string]string{}
	for _, c := range s.Configs {
		files[strings.TrimPrefix(c.Target, "/")] = i.project.Configs[c.Source].Content
	}
	i.write("/", files)
}

// write copies files into the container, below folder; they belong to root.
func (i *instance) write(folder string, files map[string]string) {
	i.Helper()
	if len(files) == 0 {
		return
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o444, Size: int64(len(content)), ModTime: time.Now()}); err != nil {
			i.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			i.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		i.Fatal(err)
	}
	if _, err := i.api.CopyToContainer(i.Context(), i.id, client.CopyToContainerOptions{DestinationPath: folder, Content: &archive}); err != nil {
		i.Fatalf("copy files into %s: %v", i.service, err)
	}
}

func (i *instance) start() {
	i.Helper()
	if _, err := i.api.ContainerStart(i.Context(), i.id, client.ContainerStartOptions{}); err != nil {
		i.Fatalf("start %s: %v", i.service, err)
	}
}

func (i *instance) kill() {
	i.Helper()
	if _, err := i.api.ContainerKill(i.Context(), i.id, client.ContainerKillOptions{}); err != nil {
		i.Fatalf("kill %s: %v", i.service, err)
	}
}

func (i *instance) inspect() container.InspectResponse {
	i.Helper()
	r, err := i.api.ContainerInspect(i.Context(), i.id, client.ContainerInspectOptions{})
	if err != nil {
		i.Fatalf("inspect %s: %v", i.service, err)
	}
	return r.Container
}

// logs returns what the service wrote to its standard streams.
func (i *instance) logs() string {
	i.Helper()
	r, err := i.api.ContainerLogs(i.Context(), i.id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "50"})
	if err != nil {
		return err.Error()
	}
	defer r.Close()
	var text strings.Builder
	if _, err := stdcopy.StdCopy(&text, &text, r); err != nil {
		return err.Error()
	}
	return text.String()
}

// address is the container's; not valid while it does not run.
func (i *instance) address() netip.Addr {
	return i.inspect().NetworkSettings.Networks[i.name].IPAddress
}

// get asks the service over HTTP at its container's address.
func (i *instance) get(port int, path string, query url.Values) ([]byte, error) {
	address := i.address()
	if !address.IsValid() {
		return nil, fmt.Errorf("%s does not run", i.service)
	}
	target := url.URL{Scheme: "http", Host: netip.AddrPortFrom(address, uint16(port)).String(), Path: path, RawQuery: query.Encode()}
	ctx, cancel := context.WithTimeout(i.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", i.service, path, resp.Status, bytes.TrimSpace(body))
	}
	return body, err
}

// answer is what the query APIs of Prometheus and Loki return; both have the
// same envelope.
type answer struct {
	Data struct {
		ResultType string
		Result     []series
	}
}

// series is one of a result: of a matrix, a vector or log streams.
type series struct {
	Metric map[string]string // of a matrix or vector
	Stream map[string]string // of log lines
	Value  [2]any            // of a vector: seconds, value
	Values [][2]any          // of a matrix: seconds, value; of log lines: nanoseconds, line
}

// ask runs one query.
func (i *instance) ask(port int, path string, query url.Values) (answer, error) {
	var a answer
	body, err := i.get(port, path, query)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return a, fmt.Errorf("parse the answer of %s: %w", i.service, err)
	}
	return a, nil
}

// eventually asks until the condition holds. After the limit it reports the
// last refusal, and what the services wrote.
func eventually(tb testing.TB, limit time.Duration, condition func() error, involved ...*instance) {
	tb.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			for _, i := range involved {
				tb.Logf("%s says:\n%s", i.service, i.logs())
			}
			tb.Fatalf("not within %v: %v", limit, err)
		}
		time.Sleep(100 * time.Millisecond) // between two looks at the state
	}
}
