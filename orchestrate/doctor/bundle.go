package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
)

// Bundle is what a bug report needs, without secrets.
type Bundle struct {
	Files   []File   // by name
	Missing []string // what could not be had, and why
}

// File is one of them.
type File struct {
	Name string // with slashes, relative
	Data []byte
}

// How much of a log is taken: its last lines, and of these the last bytes.
const (
	tailLines = "1000"
	tailBytes = 1 << 20
)

// Collector gathers a bundle.
type Collector struct {
	*Prober
	Facts   Facts
	Report  Report
	Version json.RawMessage // what the program says of itself
	Text    []byte          // the report as people see it
	Environ []string        // of this process, NAME=VALUE; only what concerns the stack is taken
	// Secrets are files of this machine that may hold secrets, such as Docker's
	// login file. They are not taken, but what they hold is removed elsewhere.
	Secrets []string
}

// Collect gathers everything it can, all at the same time and each for a bounded
// time, and takes the secrets out. What it cannot get is missing.
func (c *Collector) Collect(ctx context.Context) Bundle {
	g := &gathering{files: map[string][]byte{}}
	var wg sync.WaitGroup
	for _, part := range []func(context.Context, *gathering){c.own, c.machine, c.counters, c.engineSays, c.serviceLogs, c.sensorLogs} {
		wg.Go(func() { part(ctx, g) })
	}
	wg.Wait()
	return c.clean(g)
}

// gathering takes what several goroutines find.
type gathering struct {
	mu      sync.Mutex
	files   map[string][]byte
	missing []string
}

func (g *gathering) add(name string, data []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.files[name] = data
}

func (g *gathering) lack(what string, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.missing = append(g.missing, what+": "+why)
}

func (g *gathering) addJSON(name string, value any) {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		g.lack(name, err.Error())
		return
	}
	g.add(name, append(data, '\n'))
}

// own is what the program knows without looking.
func (c *Collector) own(_ context.Context, g *gathering) {
	g.add("version.json", c.Version)
	g.add("doctor.txt", c.Text)
	g.addJSON("doctor.json", c.Report)
	g.addJSON("facts.json", c.Facts)
	var concerns []string
	for _, e := range c.Environ {
		if name, _, _ := strings.Cut(e, "="); concernsStack(name) {
			concerns = append(concerns, e)
		}
	}
	slices.Sort(concerns)
	g.add("environment.txt", []byte(strings.Join(concerns, "\n")+"\n"))
	if c.Facts.Stack.Why != "" {
		g.lack("compose.json", c.Facts.Stack.Why)
	} else {
		g.add("compose.json", c.Facts.Stack.Value.JSON)
	}
}

// concernsStack reports whether a variable can change what the program does.
func concernsStack(name string) bool {
	upper := strings.ToUpper(name)
	for _, prefix := range []string{"ZEEKDEMO_", "DOCKER_", "COMPOSE_", "XDG_STATE_HOME", "LANG", "LC_ALL", "TERM", "NO_COLOR"} {
		if strings.HasPrefix(upper, prefix) {
			return true
		}
	}
	return strings.HasSuffix(upper, "_PROXY")
}

// machineFiles are those of this machine that tell how it is set up; patterns
// as of filepath.Match, relative to the root.
func machineFiles() []string {
	return []string{"proc/version", "proc/meminfo", "proc/loadavg", "proc/net/route", "proc/net/softnet_stat", "proc/interrupts", "proc/softirqs",
		"proc/sys/net/core/[rw]mem_*", "proc/sys/net/core/netdev_*", "proc/sys/net/core/rps_sock_flow_entries", "proc/sys/net/ipv4/udp_*", "proc/sys/net/ipv4/ip_forward",
		"proc/sys/net/ipv4/conf/*/rp_filter", "proc/sys/net/ipv4/conf/*/route_localnet", "sys/devices/system/cpu/online", "sys/class/net/*/queues/rx-*/rps_cpus",
		"sys/class/net/*/mtu", "etc/os-release", "etc/docker/daemon.json", "etc/sysctl.d/60-zeekdemo.conf"}
}

// machine takes files of this machine.
func (c *Collector) machine(ctx context.Context, g *gathering) {
	for _, pattern := range machineFiles() {
		files, err := filepath.Glob(c.path(pattern))
		if err != nil || len(files) == 0 {
			continue // not every system has all of them
		}
		for _, file := range files {
			relative, err := filepath.Rel(c.Root, file)
			if err == nil {
				c.take(ctx, g, "machine/"+filepath.ToSlash(relative), file)
			}
		}
	}
}

// take reads a file of this machine.
func (c *Collector) take(ctx context.Context, g *gathering, name, file string) {
	content := look(ctx, c.Limit, func(context.Context) ([]byte, error) { return os.ReadFile(file) })
	if content.Why != "" {
		g.lack(name, content.Why)
		return
	}
	g.add(name, content.Value)
}

// namespaceFiles are a network namespace's counters, below /proc/net.
func namespaceFiles() []string {
	return []string{"snmp", "snmp6", "netstat", "dev", "udp", "udp6", "sockstat"}
}

// counters takes those of this machine's namespace and of each sensor's.
func (c *Collector) counters(ctx context.Context, g *gathering) {
	places := []drops.Place{{Name: "host", Net: c.path("proc/net"), Softnet: true}}
	for _, name := range namespaceFiles() {
		if file := c.path("proc/net", name); exists(file) {
			c.take(ctx, g, "counters/host/"+name, file)
		}
	}
	for _, sensor := range c.running(ctx, g) {
		if !c.Facts.Here {
			c.countersInside(ctx, g, sensor)
			continue
		}
		net := c.path("proc", strconv.Itoa(sensor.PID), "net")
		for _, name := range namespaceFiles() {
			if file := filepath.Join(net, name); exists(file) {
				c.take(ctx, g, "counters/"+sensor.Service+"/"+name, file)
			}
		}
		places = append(places, drops.Place{Name: sensor.Service, Net: net})
	}
	ledger := look(ctx, c.Limit, func(context.Context) (drops.Snapshot, error) { return drops.Take(places, nil) })
	if ledger.Why != "" {
		g.lack("counters/drops.json", ledger.Why)
		return
	}
	g.addJSON("counters/drops.json", ledger.Value)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// countersInside reads them in the sensor's container.
func (c *Collector) countersInside(ctx context.Context, g *gathering, sensor orchestrate.Container) {
	for _, name := range namespaceFiles() {
		c.inside(ctx, g, "counters/"+sensor.Service+"/"+name, bytes.Clone, sensor, "cat", "/proc/net/"+name)
	}
}

// inside takes of what a command prints in a container what keep leaves of it.
func (c *Collector) inside(ctx context.Context, g *gathering, name string, keep func([]byte) []byte, in orchestrate.Container, cmd ...string) {
	printed := c.print(ctx, in, cmd...)
	if printed.Why != "" {
		g.lack(name, printed.Why)
		return
	}
	g.add(name, keep(printed.Value))
}

// print runs a command in a container.
func (c *Collector) print(ctx context.Context, in orchestrate.Container, cmd ...string) Fact[[]byte] {
	return look(ctx, c.Limit, func(ctx context.Context) ([]byte, error) {
		var out, errs tail
		code, err := c.Engine.Exec(ctx, in.ID, cmd, &out, &errs)
		if err == nil && code != 0 {
			err = errors.New(strings.TrimSpace(string(errs.last())))
		}
		return out.last(), err
	})
}

// running lists the containers of the sensors that run. Those of the other
// services have no counters of interest.
func (c *Collector) running(ctx context.Context, g *gathering) (sensors []orchestrate.Container) {
	if c.Facts.Engine.Why != "" {
		g.lack("counters of the sensors", notLooked)
		return nil
	}
	all := look(ctx, c.Limit, func(ctx context.Context) ([]orchestrate.Container, error) {
		return c.Engine.Containers(ctx, orchestrate.ProjectName)
	})
	if all.Why != "" {
		g.lack("counters of the sensors", all.Why)
	}
	for _, container := range all.Value {
		service, err := orchestrate.ServiceByName(container.Service)
		if err == nil && service.IsSensor() && container.Running() {
			sensors = append(sensors, container)
		}
	}
	return sensors
}

// engineSays takes the engine's own documents.
func (c *Collector) engineSays(ctx context.Context, g *gathering) {
	d, asked := c.Engine.(Engine)
	if !asked || c.Facts.Engine.Why != "" {
		g.lack("engine/ and containers/", notLooked)
		return
	}
	documents := look(ctx, c.Limit, func(ctx context.Context) (map[string]json.RawMessage, error) {
		return d.Documents(ctx, orchestrate.ProjectName)
	})
	if documents.Why != "" {
		for line := range strings.Lines(documents.Why) {
			g.lack("engine", strings.TrimSpace(line))
		}
	}
	for name, data := range documents.Value {
		g.add(name, data)
	}
}

// serviceLogs takes the end of what each service prints.
func (c *Collector) serviceLogs(ctx context.Context, g *gathering) {
	if c.Facts.Engine.Why != "" {
		g.lack("logs/", notLooked)
		return
	}
	if len(c.Facts.Services.Value) == 0 {
		g.lack("logs/", "no stack is here")
		return
	}
	var wg sync.WaitGroup
	for _, service := range orchestrate.Services() {
		wg.Go(func() {
			printed := look(ctx, c.Limit, func(ctx context.Context) ([]byte, error) {
				var out tail
				err := c.Engine.Logs(ctx, orchestrate.LogRequest{Project: orchestrate.ProjectName, Service: service.Name, Tail: tailLines,
					Line: func(_, line string) { fmt.Fprintln(&out, line) }})
				return out.last(), err
			})
			if printed.Why != "" {
				g.lack("logs/"+service.Name+".log", printed.Why)
				return
			}
			g.add("logs/"+service.Name+".log", printed.Value)
		})
	}
	wg.Wait()
}

// sensorLogs takes the ends of those logs of Zeek that tell of Zeek itself, and
// not of the packets that it saw; of those reporter.log may quote some.
func (c *Collector) sensorLogs(ctx context.Context, g *gathering) {
	if c.Facts.Engine.Why != "" {
		return // said already
	}
	var wg sync.WaitGroup
	for _, sensor := range c.running(ctx, &gathering{}) {
		wg.Go(func() {
			script := `for f in stats capture_loss reporter; do [ -r "$f.log" ] && echo "== $f.log" && tail -n 100 "$f.log"; done; true`
			c.inside(ctx, g, "logs/"+sensor.Service+"-itself.log", quiet, sensor, "sh", "-c", script)
		})
	}
	wg.Wait()
}

// clean takes the secrets out of all that was gathered.
func (c *Collector) clean(g *gathering) Bundle {
	r := NewRedactor()
	r.LearnEnvironment(c.Environ)
	for _, file := range c.Secrets {
		if data, err := os.ReadFile(file); err == nil {
			r.Learn(data)
		}
	}
	for _, data := range g.files {
		r.Learn(data)
	}
	b := Bundle{Missing: []string{}}
	for _, m := range g.missing {
		b.Missing = append(b.Missing, strings.TrimSpace(string(r.Redact([]byte(m)))))
	}
	slices.Sort(b.Missing)
	for _, name := range slices.Sorted(maps.Keys(g.files)) {
		b.Files = append(b.Files, File{name, r.Redact(g.files[name])})
	}
	b.Files = slices.Insert(b.Files, 0, File{"README.txt", []byte(readme(b))})
	return b
}

// readme tells who opens the bundle what it is.
func readme(b Bundle) string {
	var s strings.Builder
	s.WriteString("A bundle for a bug report about zeekdemo: `zeekdemo doctor --bundle` made it.\n\n" +
		"Passwords, tokens and other secrets that were recognised have been replaced by\n" + removed +
		". Addresses and names of machines have not. Logs of the traffic that\nZeek saw are not in here, nor what its reporter.log quotes of it. Look through it before you give it away.\n\nIn here:\n")
	for _, f := range b.Files {
		fmt.Fprintf(&s, "  %s\n", f.Name)
	}
	if len(b.Missing) > 0 {
		s.WriteString("\nMissing:\n")
		for _, m := range b.Missing {
			fmt.Fprintf(&s, "  %s\n", m)
		}
	}
	return s.String()
}

// tail keeps the last bytes of what is written to it.
type tail struct{ data []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if len(t.data) > 2*tailBytes {
		t.data = append(t.data[:0], t.data[len(t.data)-tailBytes:]...)
	}
	return len(p), nil
}

// last returns whole lines, as many as fit.
func (t *tail) last() []byte {
	if len(t.data) <= tailBytes {
		return t.data
	}
	cut := t.data[len(t.data)-tailBytes:]
	if i := slices.Index(cut, '\n'); i >= 0 {
		cut = cut[i+1:]
	}
	return cut
}
