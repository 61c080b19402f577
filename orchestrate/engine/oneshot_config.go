package engine

import (
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// oneShotConfig translates the fields of a sensor.
func oneShotConfig(s types.ServiceConfig, o orchestrate.OneShot) (*container.Config, *container.HostConfig, error) {
	config, host := sensorConfig(s), sensorHost(s)
	if o.Seeds != nil {
		config.Env = append(config.Env, "ZEEK_SEED_FILE="+path.Join(path.Dir(s.WorkingDir), seedsName))
	}
	config.Cmd = orchestrate.WithScript(config.Cmd, o.Script)
	if o.Publish {
		config.ExposedPorts, host.PortBindings = publishAnywhere(s.Ports)
	}
	if o.Capture == "" {
		return config, host, nil
	}
	host.NetworkMode = "none"
	command, err := orchestrate.ReadsFile(config.Cmd, path.Join(path.Dir(s.WorkingDir), captureName))
	config.Cmd = command
	return config, host, err
}

// sensorConfig is what runs.
func sensorConfig(s types.ServiceConfig) *container.Config {
	config := &container.Config{Image: s.Image, Cmd: []string(s.Command), Entrypoint: []string(s.Entrypoint), User: s.User, WorkingDir: s.WorkingDir}
	for _, name := range slices.Sorted(maps.Keys(s.Environment)) {
		if v := s.Environment[name]; v != nil && !slices.Contains(keepsOrder(), name) {
			config.Env = append(config.Env, name+"="+*v)
		}
	}
	return config
}

// keepsOrder are the variables by which a sensor's logs go on in new files and are
// removed in time. One that lives for a single question keeps them all, as they are.
func keepsOrder() []string { return []string{"SENSOR_DISK", "SENSOR_KEEP", "SENSOR_ROTATE"} }

// sensorHost is what it may use. Its named volumes become anonymous ones, which
// are removed together with the container.
func sensorHost(s types.ServiceConfig) *container.HostConfig {
	host := &container.HostConfig{CapDrop: s.CapDrop, CapAdd: s.CapAdd, SecurityOpt: s.SecurityOpt, ReadonlyRootfs: s.ReadOnly, Tmpfs: map[string]string{}}
	host.Memory, host.CPUShares = int64(s.MemLimit), s.CPUShares
	if s.PidsLimit != 0 {
		host.PidsLimit = &s.PidsLimit
	}
	for _, server := range s.DNS {
		if addr, err := netip.ParseAddr(server); err == nil {
			host.DNS = append(host.DNS, addr)
		}
	}
	if s.Logging != nil {
		host.LogConfig = container.LogConfig{Type: s.Logging.Driver, Config: s.Logging.Options}
	}
	for _, target := range s.Tmpfs {
		target, options, _ := strings.Cut(target, ":")
		host.Tmpfs[target] = options
	}
	for _, v := range s.Volumes {
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeVolume, Target: v.Target})
	}
	return host
}

// publishAnywhere publishes a service's ports on ports of this machine's loopback
// that the engine chooses.
func publishAnywhere(ports []types.ServicePortConfig) (exposed network.PortSet, bound network.PortMap) {
	exposed, bound = network.PortSet{}, network.PortMap{}
	for _, p := range ports {
		if port, ok := network.PortFrom(uint16(p.Target), network.IPProtocol(p.Protocol)); ok {
			exposed[port] = struct{}{}
			bound[port] = []network.PortBinding{{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1})}}
		}
	}
	return exposed, bound
}
