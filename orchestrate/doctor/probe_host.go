package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
)

// elsewhere is why something of the engine's machine is not known.
const elsewhere = "not seen from here: the engine's machine is another one"

// defaultRoot is where Docker keeps its data if it was told nothing else.
const defaultRoot = "/var/lib/docker"

// probeHost looks at the engine's machine: where that is this one at its files,
// else at what the engine tells.
func (p *Prober) probeHost(ctx context.Context, f *Facts) {
	m := f.Machine.Value
	if !f.Here {
		probeAfar(f)
		return
	}
	f.Memory = look(ctx, p.Limit, func(context.Context) (Memory, error) { return p.memory() })
	f.CPUs = look(ctx, p.Limit, func(context.Context) (int, error) { return p.cpus() })
	f.Routes = look(ctx, p.Limit, func(context.Context) ([]Route, error) { return p.routes() })
	root := m.Root
	if root == "" {
		root = defaultRoot
	}
	f.Disk = look(ctx, p.Limit, func(ctx context.Context) (Disk, error) { return p.Disk(ctx, root) })
	if f.Engine.Why == "" {
		f.Proxy = look(ctx, p.Limit, func(context.Context) (Proxy, error) { return p.userlandProxy(m.Rootless) })
	}
	if name := f.Stack.Value.Bridge; name != "" && !m.Rootless {
		_, err := os.Stat(p.path("sys/class/net", name))
		f.Bridge = err == nil
	}
}

// probeAfar takes what the engine tells of its machine.
func probeAfar(f *Facts) {
	m, why := f.Machine.Value, f.Machine.Why
	f.Memory, f.CPUs = Known(Memory{Total: m.Memory, Available: -1}), Known(m.CPUs)
	if why != "" {
		f.Memory, f.CPUs = NotKnown[Memory](why), NotKnown[int](why)
	} else {
		why = elsewhere
	}
	f.Proxy = NotKnown[Proxy](why)
}

func (p *Prober) path(elem ...string) string {
	return filepath.Join(append([]string{p.Root}, elem...)...)
}

func (p *Prober) read(elem ...string) (string, error) {
	data, err := os.ReadFile(p.path(elem...))
	return strings.TrimSpace(string(data)), err
}

// isHere compares the engine's description of its machine with this one: a
// virtual machine on this one has a name of its own, though perhaps the same
// kernel.
func (p *Prober) isHere(m Machine) bool {
	name, nameErr := p.read("proc/sys/kernel/hostname")
	kernel, kernelErr := p.read("proc/sys/kernel/osrelease")
	return nameErr == nil && kernelErr == nil && name == m.Name && kernel == m.Kernel
}

// memory is what the kernel has and could give.
func (p *Prober) memory() (Memory, error) {
	text, err := p.read("proc/meminfo")
	if err != nil {
		return Memory{}, err
	}
	m, err := procfs.MemInfo(text)
	if err != nil {
		return Memory{}, fmt.Errorf("read /proc/meminfo: %w", err)
	}
	return Memory{Total: m.Total, Available: m.Available}, nil
}

// cpus counts the processors that are online, from a list such as "0-3,8".
func (p *Prober) cpus() (int, error) {
	text, err := p.read("sys/devices/system/cpu/online")
	if err != nil {
		return 0, err
	}
	n := 0
	for _, part := range strings.Split(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.Atoi(first)
		b, errB := strconv.Atoi(last)
		if errA != nil || errB != nil || b < a {
			return 0, fmt.Errorf("read the list of processors: %q", text)
		}
		n += b - a + 1
	}
	return n, nil
}

// routes lists the routes to a range of addresses, which default routes are not.
func (p *Prober) routes() ([]Route, error) {
	text, err := p.read("proc/net/route")
	if err != nil {
		return nil, err
	}
	routes := []Route{}
	for _, r := range procfs.Routes(text) {
		if r.To.Bits() > 0 {
			routes = append(routes, Route{Device: r.Device, To: r.To})
		}
	}
	return routes, nil
}

// userlandProxy finds out whether the engine runs docker-proxy. It tells nobody,
// so this is evidence: such processes, the engine's own command line, and its
// configuration file.
func (p *Prober) userlandProxy(rootless bool) (Proxy, error) {
	const name = "docker-proxy"
	daemon := []string(nil)
	for _, pid := range p.processes() {
		args := p.commandLine(pid)
		if len(args) == 0 {
			continue
		}
		switch filepath.Base(args[0]) {
		case name, "rootlesskit-" + name:
			return Proxy{On: true, Evidence: "it runs"}, nil
		case "dockerd":
			daemon = args
		}
	}
	for _, arg := range daemon {
		if value, found := strings.CutPrefix(strings.TrimPrefix(arg, "-"), "-userland-proxy"); found && (value == "" || value[0] == '=') {
			return Proxy{On: value != "=false", Evidence: "as dockerd was started"}, nil
		}
	}
	if rootless {
		return Proxy{}, errors.New("not known: the configuration of a rootless engine is its user's")
	}
	file := "/etc/docker/daemon.json"
	if i := slices.IndexFunc(daemon, func(a string) bool { return strings.HasPrefix(a, "--config-file") }); i >= 0 {
		if _, value, found := strings.Cut(daemon[i], "="); found {
			file = value
		} else if i+1 < len(daemon) {
			file = daemon[i+1]
		}
	}
	return p.configuredProxy(file, daemon != nil)
}

// configuredProxy reads the engine's configuration file. An engine that was
// told nothing has a proxy.
func (p *Prober) configuredProxy(file string, running bool) (Proxy, error) {
	var config struct {
		Proxy *bool `json:"userland-proxy"`
	}
	data, err := os.ReadFile(p.path(file))
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &config); err != nil {
			return Proxy{}, fmt.Errorf("not known: read %s: %w", file, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return Proxy{}, fmt.Errorf("not known: %s may not be read", file)
	}
	switch {
	case config.Proxy != nil:
		return Proxy{On: *config.Proxy, Evidence: file}, nil
	case running:
		return Proxy{On: true, Evidence: "the default"}, nil
	}
	return Proxy{}, errors.New("not known: no process of the engine can be seen")
}

// processes lists the PIDs in /proc.
func (p *Prober) processes() []string {
	entries, err := os.ReadDir(p.path("proc"))
	if err != nil {
		return nil
	}
	var pids []string
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, e.Name())
		}
	}
	return pids
}

// commandLine returns a process's arguments; none if they cannot be read.
func (p *Prober) commandLine(pid string) []string {
	data, err := os.ReadFile(p.path("proc", pid, "cmdline"))
	if err != nil {
		return nil
	}
	return procfs.CommandLine(string(data))
}
