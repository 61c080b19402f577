package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli/command"
	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/doctor"
)

var _ doctor.Engine = (*Engine)(nil)

// The options by which a bridge network names its device.
const (
	bridgeName    = "com.docker.network.bridge.name"
	defaultBridge = "docker0"
	bridgePrefix  = "br-" // and twelve digits of the network's ID
)

// Machine translates what `docker info` shows.
func (e *Engine) Machine(ctx context.Context) (doctor.Machine, error) {
	answer, err := e.client.Info(ctx, client.InfoOptions{})
	if err != nil {
		return doctor.Machine{}, fmt.Errorf("ask the engine for its machine: %w", err)
	}
	i := answer.Info
	m := doctor.Machine{Name: i.Name, System: i.OperatingSystem, Kernel: i.KernelVersion, CPUs: i.NCPU, Memory: i.MemTotal,
		Root: i.DockerRootDir, MemoryLimits: i.MemoryLimit, Forwarding: i.IPv4Forwarding}
	m.Time, _ = time.Parse(time.RFC3339Nano, i.SystemTime)
	m.Rootless = slices.ContainsFunc(i.SecurityOptions, func(o string) bool { return strings.Contains(o, "rootless") })
	for _, pool := range i.DefaultAddressPools {
		m.Pools = append(m.Pools, doctor.Pool{Base: pool.Base, Bits: pool.Size})
	}
	return m, nil
}

// Image inspects an image.
func (e *Engine) Image(ctx context.Context, ref string) (doctor.Image, error) {
	found, err := e.client.ImageInspect(ctx, ref)
	if errdefs.IsNotFound(err) {
		return doctor.Image{Ref: ref}, nil
	}
	if err != nil {
		return doctor.Image{Ref: ref}, fmt.Errorf("look for image %s: %w", ref, err)
	}
	return doctor.Image{Ref: ref, Here: true, Platform: found.Os + "/" + found.Architecture}, nil
}

// Registry asks by way of the engine, which is what would pull, with the login
// that `docker pull` would use.
func (e *Engine) Registry(ctx context.Context, ref string) ([]string, error) {
	auth, err := command.RetrieveAuthTokenFromImage(e.cli.ConfigFile(), ref)
	if err != nil {
		auth = "" // no login is no error: the images are public
	}
	answer, err := e.client.DistributionInspect(ctx, ref, client.DistributionInspectOptions{EncodedRegistryAuth: auth})
	if err != nil {
		return nil, errors.New(refusal(err))
	}
	var platforms []string
	for _, p := range answer.Platforms {
		if p.OS != "unknown" { // an attestation, not an image
			platforms = append(platforms, p.OS+"/"+p.Architecture)
		}
	}
	return platforms, nil
}

// refusal shortens what an engine says of a registry to its cause. Engines
// answer with several errors, one inside the other.
func refusal(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	for _, known := range []struct{ sign, cause string }{
		{"no such host", "its registry's name cannot be looked up"},
		{"server misbehaving", "its registry's name cannot be looked up"},
		{"connection refused", "its registry refuses the connection"},
		{"network is unreachable", "its registry cannot be reached"},
		{"no route to host", "its registry cannot be reached"},
		{"i/o timeout", "its registry does not answer"},
		{"x509", "its registry's certificate is not trusted"},
		{"manifest unknown", "its registry has no such image"},
		{"toomanyrequests", "its registry wants a login for more pulls"},
		{"denied", "its registry has no such image, or wants a login"},
		{"unauthorized", "its registry wants a login"},
	} {
		if strings.Contains(text, known.sign) {
			return known.cause
		}
	}
	return strings.TrimPrefix(text, "Error response from daemon: ")
}

// Networks lists them with their subnets and devices.
func (e *Engine) Networks(ctx context.Context) ([]doctor.Network, error) {
	list, err := e.client.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	networks := []doctor.Network{}
	for _, n := range list.Items {
		found := doctor.Network{Name: n.Name, Project: n.Labels[api.ProjectLabel], Subnets: []netip.Prefix{}, Device: deviceOf(n.Network)}
		for _, c := range n.IPAM.Config {
			if c.Subnet.IsValid() {
				found.Subnets = append(found.Subnets, c.Subnet)
			}
		}
		networks = append(networks, found)
	}
	return networks, nil
}

// deviceOf names the device of a bridge network on the engine's machine; empty
// for others.
func deviceOf(n network.Network) string {
	switch {
	case n.Driver != "bridge":
		return ""
	case n.Options[bridgeName] != "":
		return n.Options[bridgeName]
	case n.Name == "bridge":
		return defaultBridge
	case len(n.ID) > 12:
		return bridgePrefix + n.ID[:12]
	}
	return ""
}

// Complete loads the project as `up` does.
func (e *Engine) Complete(ctx context.Context, p orchestrate.Project) (doctor.Stack, error) {
	project, err := load(ctx, p)
	if err != nil {
		return doctor.Stack{}, err
	}
	document, err := project.MarshalJSON()
	if err != nil {
		return doctor.Stack{}, fmt.Errorf("write the stack as JSON: %w", err)
	}
	s := doctor.Stack{JSON: document, Bridge: project.Networks[orchestrate.MonitoringNetwork].DriverOpts[bridgeName]}
	for _, name := range project.ServiceNames() {
		service := project.Services[name]
		if !slices.Contains(s.Images, service.Image) {
			s.Images = append(s.Images, service.Image)
		}
		s.Memory += int64(service.MemLimit)
		for _, port := range service.Ports {
			published, err := portOf(name, port)
			if err != nil {
				return s, err
			}
			s.Ports = append(s.Ports, published)
		}
	}
	return s, nil
}

// portOf translates a published port.
func portOf(service string, p types.ServicePortConfig) (doctor.Port, error) {
	host := p.HostIP
	if host == "" {
		host = netip.IPv4Unspecified().String()
	}
	at, err := netip.ParseAddrPort(net.JoinHostPort(host, p.Published))
	if err != nil {
		return doctor.Port{}, fmt.Errorf("read a port of %s: %w", service, err)
	}
	return doctor.Port{Service: service, Address: at, Protocol: p.Protocol, Inside: uint16(p.Target)}, nil
}

// Documents marshals what the engine says. The names are those of files.
func (e *Engine) Documents(ctx context.Context, project string) (map[string]json.RawMessage, error) {
	d := documents{files: map[string]json.RawMessage{}}
	version, err := e.client.ServerVersion(ctx, client.ServerVersionOptions{})
	d.add("engine/version.json", version, err)
	info, err := e.client.Info(ctx, client.InfoOptions{})
	d.add("engine/info.json", info.Info, err)
	filters := client.Filters{}
	filters.Add("label", api.ProjectLabel+"="+project)
	containers, err := e.client.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		d.add("containers", nil, err)
	}
	for _, c := range containers.Items {
		inspected, err := e.client.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
		d.add("containers/"+nameOf(c.Names, c.ID)+".json", inspected.Container, err)
	}
	networks, err := e.client.NetworkList(ctx, client.NetworkListOptions{})
	d.add("engine/networks.json", networks.Items, err)
	volumes, err := e.client.VolumeList(ctx, client.VolumeListOptions{Filters: filters})
	d.add("engine/volumes.json", volumes.Items, err)
	return d.files, errors.Join(d.errs...)
}

// nameOf is a container's first name, without the slash that engines put
// before it.
func nameOf(names []string, id string) string {
	if len(names) == 0 {
		return id
	}
	return strings.TrimPrefix(names[0], "/")
}

// documents collects.
type documents struct {
	files map[string]json.RawMessage
	errs  []error
}

func (d *documents) add(name string, value any, err error) {
	var data []byte
	if err == nil {
		data, err = json.MarshalIndent(value, "", "  ")
	}
	if err != nil {
		d.errs = append(d.errs, fmt.Errorf("%s: %w", name, err))
		return
	}
	d.files[name] = data
}
