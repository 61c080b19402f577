package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/hosttune"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// tree writes an archive of files below a new folder. "^@" stands for a zero
// byte.
func tree(t *testing.T, archive string) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range txtar.Parse([]byte(archive)).Files {
		path := filepath.Join(root, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(f.Data), "^@", "\x00")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestUserlandProxy(t *testing.T) {
	const dockerd = "-- proc/812/cmdline --\n/usr/bin/dockerd^@-H^@fd://^@"
	for name, tc := range map[string]struct {
		archive  string
		rootless bool
		want     Proxy
		err      string
	}{
		"it runs":            {dockerd + "\n-- proc/900/cmdline --\n/usr/bin/docker-proxy^@-proto^@udp^@", false, Proxy{true, "it runs"}, ""},
		"in a rootless one":  {"-- proc/900/cmdline --\nrootlesskit-docker-proxy^@-proto^@udp^@", true, Proxy{true, "it runs"}, ""},
		"the default":        {dockerd, false, Proxy{true, "the default"}, ""},
		"switched off":       {dockerd + "\n-- etc/docker/daemon.json --\n{\"userland-proxy\": false}\n", false, Proxy{false, "/etc/docker/daemon.json"}, ""},
		"switched on":        {dockerd + "\n-- etc/docker/daemon.json --\n{\"userland-proxy\": true}\n", false, Proxy{true, "/etc/docker/daemon.json"}, ""},
		"another file":       {"-- proc/812/cmdline --\ndockerd^@--config-file^@/etc/my.json^@\n-- etc/my.json --\n{\"userland-proxy\": false}\n", false, Proxy{false, "/etc/my.json"}, ""},
		"off by option":      {"-- proc/812/cmdline --\ndockerd^@--userland-proxy=false^@\n-- etc/docker/daemon.json --\n{}\n", false, Proxy{false, "as dockerd was started"}, ""},
		"on by option":       {"-- proc/812/cmdline --\ndockerd^@--userland-proxy^@", false, Proxy{true, "as dockerd was started"}, ""},
		"another option":     {"-- proc/812/cmdline --\ndockerd^@--userland-proxy-path=/x^@", false, Proxy{true, "the default"}, ""},
		"a broken file":      {dockerd + "\n-- etc/docker/daemon.json --\n{\n", false, Proxy{}, "read /etc/docker/daemon.json"},
		"no engine is seen":  {"-- proc/1/cmdline --\n/sbin/init^@", false, Proxy{}, "no process of the engine can be seen"},
		"rootless, not seen": {dockerd, true, Proxy{}, "rootless"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Prober{Root: tree(t, tc.archive)}
			got, err := p.userlandProxy(tc.rootless)
			if got != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got %+v, %v, want %+v, %q", got, err, tc.want, tc.err)
			}
		})
	}
}

func TestReadingTheMachine(t *testing.T) {
	p := &Prober{Root: tree(t, `
-- proc/meminfo --
MemTotal:       16303428 kB
MemFree:          802112 kB
MemAvailable:    9110784 kB
HugePages_Total:       0
-- proc/net/route --
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0101A8C0	0003	0	0	100	00000000	0	0	0
eth0	0001A8C0	00000000	0001	0	0	100	00FFFFFF	0	0	0
tun0	000010AC	00000000	0001	0	0	0	0000F0FF	0	0	0
-- sys/devices/system/cpu/online --
0-3,8,10-11
`)}
	memory, err := p.memory()
	if want := (Memory{Total: 16303428 << 10, Available: 9110784 << 10}); err != nil || memory != want {
		t.Errorf("memory: %+v, %v, want %+v", memory, err, want)
	}
	cpus, err := p.cpus()
	if err != nil || cpus != 7 {
		t.Errorf("%d processors, %v, want 7", cpus, err)
	}
	routes, err := p.routes()
	want := []Route{{netip.MustParsePrefix("192.168.1.0/24"), "eth0"}, {netip.MustParsePrefix("172.16.0.0/12"), "tun0"}}
	if err != nil || !reflect.DeepEqual(routes, want) {
		t.Errorf("routes %v, %v, want %v", routes, err, want)
	}
	disk, err := parseDf("Filesystem     1024-blocks     Used Available Capacity Mounted on\n/dev/vda1         61255492 21400380  36711132      37% /logs\n")
	if want := (Disk{Path: "the engine's volumes", Free: 36711132 << 10, Used: 21400380 << 10, Total: 61255492 << 10}); err != nil || disk != want {
		t.Errorf("disk: %+v, %v, want %+v", disk, err, want)
	}
	for _, wrong := range []string{"", "a-b", "3-1", "1,,2"} {
		p := &Prober{Root: tree(t, "-- sys/devices/system/cpu/online --\n"+wrong+"\n")}
		if n, err := p.cpus(); err == nil {
			t.Errorf("%q: %d processors, want an error", wrong, n)
		}
	}
}

func TestFreeSubnets(t *testing.T) {
	for name, tc := range map[string]struct {
		pools []Pool
		taken []string
		want  int
	}{
		"an engine's own": {nil, nil, 15 + 16},
		"one is used":     {nil, []string{"172.17.0.0/16"}, 14 + 16},
		"a VPN has most":  {nil, []string{"172.16.0.0/12", "192.168.0.0/17"}, 8},
		"a host's route":  {nil, []string{"192.168.1.7/32"}, 15 + 15},
		"one of its own":  {[]Pool{{netip.MustParsePrefix("10.9.0.0/22"), 24}}, []string{"10.9.1.0/24"}, 3},
		"more than asked": {[]Pool{{netip.MustParsePrefix("10.0.0.0/8"), 24}}, nil, 100},
		"IPv6 as well":    {[]Pool{{netip.MustParsePrefix("fd00::/8"), 64}, {netip.MustParsePrefix("10.9.0.0/24"), 25}}, nil, 2},
		"nonsense":        {[]Pool{{netip.MustParsePrefix("10.0.0.0/16"), 8}}, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := freeSubnets(tc.pools, []Network{{Subnets: prefixes(tc.taken...)}}, nil, 100); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

// stub is an engine of which every answer can be replaced.
type stub struct {
	orchestrate.Engine
	info    func(context.Context) (orchestrate.EngineInfo, error)
	machine func(context.Context) (Machine, error)
	offers  func(ctx context.Context, ref string) ([]string, error)
}

func (s stub) Info(ctx context.Context) (orchestrate.EngineInfo, error) { return s.info(ctx) }
func (s stub) Containers(context.Context, string) ([]orchestrate.Container, error) {
	return nil, nil
}
func (s stub) Machine(ctx context.Context) (Machine, error) { return s.machine(ctx) }
func (s stub) Image(context.Context, string) (Image, error) { return Image{}, nil }
func (s stub) Registry(ctx context.Context, ref string) ([]string, error) {
	return s.offers(ctx, ref)
}
func (s stub) Networks(context.Context) ([]Network, error) { return []Network{}, nil }
func (s stub) Complete(context.Context, orchestrate.Project) (Stack, error) {
	return Stack{Images: []string{"quick:1", "late:1", "none:1"}, Ports: []Port{{Service: "grafana", Address: netip.MustParseAddrPort("127.0.0.1:13000"), Protocol: "tcp"}}}, nil
}
func (s stub) Documents(context.Context, string) (map[string]json.RawMessage, error) { return nil, nil }

// files is the kernel of a fixture tree.
type files struct{ root string }

func (m files) Read(_ context.Context, _ nsenter.Namespace, patterns ...string) (map[string]string, error) {
	found := map[string]string{}
	for _, pattern := range patterns {
		matches, _ := filepath.Glob(filepath.Join(m.root, pattern))
		for _, file := range matches {
			if data, err := os.ReadFile(file); err == nil {
				found[strings.TrimPrefix(file, m.root)] = string(data)
			}
		}
	}
	return found, nil
}

func (files) Write(context.Context, nsenter.Namespace, string, string) error {
	return errors.New("a doctor writes nothing")
}
func (files) Lock(context.Context, string) (func(), error) {
	return nil, errors.New("a doctor locks nothing")
}
func (files) Close() error { return nil }

func newStub(t *testing.T, s stub) *Prober {
	t.Helper()
	p := NewProber(s, orchestrate.Project{}, hosttune.Store{Dir: t.TempDir()})
	p.Root, p.Platform, p.Limit = tree(t, `
-- proc/sys/kernel/hostname --
desk
-- proc/sys/kernel/osrelease --
6.8.0
-- proc/meminfo --
MemTotal: 8000000 kB
-- sys/devices/system/cpu/online --
0-1
-- proc/net/route --
-- proc/1/cmdline --
init
`), "linux/amd64", 200*time.Millisecond
	p.Filter = func(context.Context) (string, error) { return "compiles", nil }
	p.PortOwner = func(context.Context, string, string) string { return "nginx (PID 1)" }
	p.Disk = func(_ context.Context, path string) (Disk, error) { return Disk{Path: path, Free: 1e12}, nil }
	p.Settings = func(context.Context, bool) (nsenter.Machine, error) { return files{p.Root}, nil }
	return p
}

// answers is an engine on the machine of the fixture tree.
func answers() stub {
	return stub{
		info: func(context.Context) (orchestrate.EngineInfo, error) {
			return orchestrate.EngineInfo{OS: "linux", Arch: "amd64"}, nil
		},
		machine: func(context.Context) (Machine, error) {
			return Machine{Name: "desk", Kernel: "6.8.0", Root: "/data", Time: time.Now()}, nil
		},
		offers: func(context.Context, string) ([]string, error) { return []string{"linux/amd64"}, nil },
	}
}

// What hangs is given up, and everything else is known all the same.
func TestNothingHangs(t *testing.T) {
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	engine := answers()
	engine.offers = func(ctx context.Context, ref string) ([]string, error) {
		switch ref {
		case "late:1":
			<-ctx.Done()
			return nil, ctx.Err()
		case "none:1":
			return nil, errors.New("denied")
		}
		return []string{"linux/amd64"}, nil
	}
	p := newStub(t, engine)
	p.Disk = func(context.Context, string) (Disk, error) { <-hang; return Disk{}, nil } // a file system that cannot be interrupted
	begin := time.Now()
	f := p.Probe(t.Context())
	if took := time.Since(begin); took > 5*p.Limit+5*time.Second {
		t.Errorf("it took %s", took)
	}
	if !f.Here || f.Disk.Why != "no answer within 200ms" || !f.Disk.Late {
		t.Errorf("here %t, disk %+v", f.Here, f.Disk)
	}
	if f.Memory.Value.Total != 8000000<<10 || f.CPUs.Value != 2 || f.Ports.Value[0].Owner != "nginx (PID 1)" || f.Clock.Why != "" {
		t.Errorf("memory %+v, CPUs %+v, ports %+v, clock %+v", f.Memory, f.CPUs, f.Ports, f.Clock)
	}
	want := []Image{{Ref: "quick:1", Platforms: []string{"linux/amd64"}}, {Ref: "late:1", Refusal: "no answer within 200ms", Late: true}, {Ref: "none:1", Refusal: "denied"}}
	if !reflect.DeepEqual(f.Images.Value, want) {
		t.Errorf("images %+v, want %+v", f.Images.Value, want)
	}
}

// What is not this machine is not looked at, however its engine is reached.
func TestWhoseMachineItIs(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*stub)
		here   bool
		memory string // why it is not known
		ports  string
	}{
		"here":              {func(*stub) {}, true, "", ""},
		"a virtual machine": {func(s *stub) { s.machine = machineNamed("docker-desktop", "6.8.0") }, false, "", ""},
		"another kernel":    {func(s *stub) { s.machine = machineNamed("desk", "6.12.5-linuxkit") }, false, "", ""},
		"another machine":   {func(s *stub) { s.info = infoOf(true, nil) }, false, "", ""},
		"nobody answers":    {func(s *stub) { s.info = infoOf(false, errors.New("no such file")) }, true, "", ""},
		"nobody answers from afar": {func(s *stub) { s.info = infoOf(true, errors.New("timeout")) }, false,
			notLooked, notLooked},
		"its machine is not told": {func(s *stub) {
			s.machine = func(context.Context) (Machine, error) { return Machine{}, errors.New("500") }
		}, false, "500", ""},
	} {
		t.Run(name, func(t *testing.T) {
			engine := answers()
			tc.change(&engine)
			f := newStub(t, engine).Probe(t.Context())
			if f.Here != tc.here || f.Memory.Why != tc.memory || f.Ports.Why != tc.ports {
				t.Errorf("here %t, memory %+v, ports %+v", f.Here, f.Memory, f.Ports)
			}
			if !tc.here && (f.Disk.Why == "" || f.Proxy.Why == "" || f.Routes.Value != nil) {
				t.Errorf("looked at this machine: disk %+v, proxy %+v, routes %+v", f.Disk, f.Proxy, f.Routes)
			}
			for _, line := range Diagnose(f).Lines {
				if line.Fact == "" {
					t.Errorf("%s says nothing", line.Check)
				}
			}
		})
	}
}

func machineNamed(name, kernel string) func(context.Context) (Machine, error) {
	return func(context.Context) (Machine, error) {
		return Machine{Name: name, Kernel: kernel, Memory: 4e9, CPUs: 4, Time: time.Now()}, nil
	}
}

func infoOf(remote bool, err error) func(context.Context) (orchestrate.EngineInfo, error) {
	return func(context.Context) (orchestrate.EngineInfo, error) {
		return orchestrate.EngineInfo{OS: "linux", Arch: "amd64", Remote: remote}, err
	}
}

// Without any engine the lines that need one say so, and the others are there.
func TestNoEngineAtAll(t *testing.T) {
	p := newStub(t, stub{})
	p.Engine, p.ConnectErr = nil, orchestrate.WithHint(fmt.Errorf("no context %q", "x"), "docker context ls")
	r := Diagnose(p.Probe(t.Context()))
	if r.Verdict != Problem || r.Lines[0].Fact != `no context "x"` || r.Lines[0].Remedy != "docker context ls" {
		t.Errorf("%+v", r)
	}
	states := map[State]int{}
	for _, line := range r.Lines {
		states[line.State]++
	}
	if states[Problem] != 1 || states[OK] != 1 || states[Unknown] != len(r.Lines)-2 {
		t.Errorf("%v in %+v", states, r.Lines)
	}
}
