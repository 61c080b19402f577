package doctor

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/hosttune"
)

// healthy are the facts of a machine on which all is well, with a stack.
func healthy() Facts {
	port := func(service string, number uint16, protocol string) Port {
		return Port{Service: service, Address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), number), Protocol: protocol, Inside: number, Ours: true, Owner: "container zeekdemo-" + service + "-1"}
	}
	return Facts{
		Here: true, Platform: "linux/amd64",
		Engine:   Known(orchestrate.EngineInfo{Version: "28.3.1", APIVersion: "1.51", OS: "linux", Arch: "x86_64", Address: "unix:///var/run/docker.sock"}),
		Machine:  Known(Machine{Name: "desk", CPUs: 8, Memory: 16e9, MemoryLimits: true, Forwarding: true}),
		Stack:    Known(Stack{Bridge: "br-zeekmon0"}),
		Images:   Known([]Image{{Ref: "zeek/zeek:9.0", Here: true, Platform: "linux/amd64"}, {Ref: "prom/prometheus:v3.14.0", Here: true, Platform: "linux/amd64"}}),
		Ports:    Known([]Port{port("zeek", 4789, "udp"), port("grafana", 13000, "tcp")}),
		Memory:   Known(Memory{Total: 16e9, Available: 9e9}),
		Disk:     Known(Disk{Path: "/var/lib/docker", Free: 80e9, Total: 250e9}),
		CPUs:     Known(8),
		Clock:    Known(Clock{Ahead: 300 * time.Microsecond, Uncertain: time.Millisecond, Synchronised: &[]bool{true}[0]}),
		Networks: Known([]Network{{Name: "bridge", Subnets: prefixes("172.17.0.0/16"), Device: "docker0"}, monitoring("172.18.0.0/16")}),
		Routes:   Known([]Route{{To: netip.MustParsePrefix("172.18.0.0/16"), Device: "br-zeekmon0"}, {To: netip.MustParsePrefix("192.168.1.0/24"), Device: "eth0"}}),
		Bridge:   true,
		Proxy:    Known(Proxy{On: false, Evidence: "/etc/docker/daemon.json"}),
		Services: Known([]orchestrate.ServiceStatus{{Service: "zeek", State: "running", Health: "healthy", Healthy: true}}),
		Sensors:  Known([]Sensor{{Service: "zeek", Sockets: buffersOf(64 << 20)}}),
		Tuning:   Known(tuning(hosttune.Tuned)),
		Filter:   Known("/usr/bin/tcpdump compiles filters"),
	}
}

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}

func monitoring(subnet string) Network {
	return Network{Name: "zeekdemo_monitoring", Project: "zeekdemo", Subnets: prefixes(subnet), Device: "br-zeekmon0"}
}

func buffersOf(buffers ...int) Fact[[]SensorSocket] {
	var list []SensorSocket
	for _, b := range buffers {
		list = append(list, SensorSocket{Buffer: b})
	}
	return Known(list)
}

// tuning has net.core.rmem_max and one more setting, both in a state.
func tuning(s hosttune.State) hosttune.Status {
	line := func(name, now string) hosttune.Line {
		return hosttune.Line{Item: hosttune.Item{Setting: name, Where: hosttune.Host, Now: now, Wanted: "33554432", Needed: s == hosttune.Wants || s == hosttune.Drift}, State: s}
	}
	now := map[bool]string{true: "33554432", false: "212992"}[s == hosttune.Tuned || s == hosttune.Fine]
	return hosttune.Status{Tuned: s == hosttune.Tuned || s == hosttune.Fine, Recorded: s == hosttune.Tuned || s == hosttune.Drift,
		Lines: []hosttune.Line{line("net.core.rmem_max", now), line("net.core.wmem_max", now)}}
}

// Every check, in every state that it has: what is different from a healthy
// machine, and what the line says.
func TestChecks(t *testing.T) {
	stopped := func(f *Facts) {
		f.Engine = Fact[orchestrate.EngineInfo]{Why: "reach the Docker engine: no such file", Remedy: "start the engine"}
		blank(f, notLooked)
	}
	version := func(v string) func(*Facts) { return func(f *Facts) { f.Engine.Value.Version = v } }
	inVM := func(f *Facts) { f.Here = false }
	for _, tc := range []struct {
		check, name  string
		change       func(*Facts)
		state        State
		fact, remedy string // parts
	}{
		{"engine", "here", nil, OK, "Docker 28.3.1, linux/amd64, on this machine", ""},
		{"engine", "in a virtual machine", inVM, OK, "in a machine of its own, at unix:///var/run/docker.sock", ""},
		{"engine", "rootless", func(f *Facts) { f.Machine.Value.Rootless = true }, OK, "on this machine, rootless", ""},
		{"engine", "stopped", stopped, Problem, "reach the Docker engine: no such file", "start the engine"},
		{"engine", "Windows containers", func(f *Facts) { f.Engine.Value.OS = "windows" }, Problem, "runs windows containers", "switch"},

		{"defects", "none", nil, OK, "none is known", ""},
		{"defects", "before", version("29.4.3"), OK, "none is known", ""},
		{"defects", "open to neighbours", version("27.5.1"), Warning, "reaches what is published on 127.0.0.1", "upgrade the engine"},
		{"defects", "open to neighbours, Debian's", version("20.10.24+dfsg1"), Warning, "reaches what is published on 127.0.0.1", "DOCKER-USER"},
		{"defects", "closed to neighbours", version("28.0.0"), OK, "none is known", ""},
		{"defects", "no neighbours", func(f *Facts) { version("27.5.1")(f); inVM(f) }, OK, "none is known", ""},
		{"defects", "forwards elsewhere", func(f *Facts) { version("27.5.1")(f); f.Machine.Value.Rootless = true }, OK, "none is known", ""},
		{"defects", "Podman's number", version("4.3.1"), OK, "none is known", ""},
		{"defects", "the worst", version("29.5.0"), Warning, "29.5.0 loses published UDP ports", "upgrade"},
		{"defects", "after, harmless", version("29.6.0-rc.1"), OK, "none do", ""},
		{"defects", "after, ports differ", func(f *Facts) { version("29.5.1")(f); f.Ports.Value[0].Inside = 4790 }, Warning, "as 4789 from 4790", "publish 4790 as 4790"},
		{"defects", "another engine", version("podman"), Unknown, `called "podman"`, ""},
		{"defects", "stopped", stopped, Unknown, "not looked at", ""},

		{"features", "all", nil, OK, "API 1.51", ""},
		{"features", "too old", func(f *Facts) { f.Engine.Value.APIVersion = "1.39" }, Problem, "older than 1.40", "upgrade"},
		{"features", "as old as can be", func(f *Facts) { f.Engine.Value.APIVersion = "1.40" }, OK, "API 1.40", ""},
		{"features", "no forwarding", func(f *Facts) { f.Machine.Value.Forwarding = false }, Problem, "forwards no IPv4", "net.ipv4.ip_forward=1"},
		{"features", "no memory limits", func(f *Facts) { f.Machine.Value.MemoryLimits = false }, Warning, "memory limits", "cgroup_enable=memory"},
		{"features", "stopped", stopped, Unknown, "not looked at", ""},

		{"images", "here", nil, OK, "all 2 are here", ""},
		{"images", "to be had", func(f *Facts) {
			f.Images.Value[0] = Image{Ref: "zeek/zeek:9.0", Platforms: []string{"linux/amd64", "linux/arm64"}}
		}, OK, "1 of 2 are here; `up` pulls zeek/zeek:9.0", ""},
		{"images", "not to be had", func(f *Facts) {
			f.Images.Value[0] = Image{Ref: "zeek/zeek:9.0", Refusal: "its registry's name cannot be looked up"}
		}, Problem, "1 of 2 are neither here nor to be had (its registry's name cannot be looked up): zeek/zeek:9.0", "make images"},
		{"images", "not for this platform", func(f *Facts) { f.Images.Value[0] = Image{Ref: "a:1", Platforms: []string{"linux/arm64"}} }, Problem, "none for linux/amd64", "--image"},
		{"images", "registry is late", func(f *Facts) { f.Images.Value[0] = Image{Ref: "a:1", Late: true, Refusal: "no answer within 5s"} }, Warning, "did not answer in time", "docker pull a:1"},
		{"images", "emulated", func(f *Facts) { f.Images.Value[0].Platform = "linux/arm64" }, Warning, "it is emulated", "docker pull zeek/zeek:9.0"},
		{"images", "stopped", stopped, Unknown, "not looked at", ""},

		{"ports", "the stack's", nil, OK, "the stack's: 4789/udp, 13000/tcp", ""},
		{"ports", "free", func(f *Facts) {
			for i := range f.Ports.Value {
				f.Ports.Value[i].Ours, f.Ports.Value[i].Owner = false, ""
			}
		}, OK, "free: 4789/udp, 13000/tcp", ""},
		{"ports", "taken", func(f *Facts) { f.Ports.Value[1].Ours, f.Ports.Value[1].Owner = false, "nginx (PID 812)" }, Problem, "127.0.0.1:13000/tcp is taken by nginx (PID 812)", "--bind 127.0.0.2"},
		{"ports", "taken, perhaps by the stack", func(f *Facts) {
			ports := f.Ports
			stopped(f)
			f.Ports = ports
			f.Ports.Value[1].Owner, f.Ports.Value[1].Ours = "docker-proxy (PID 9)", false
		}, Unknown, "may be the stack", ""},
		{"ports", "on another machine", func(f *Facts) {
			f.Engine.Value.Remote = true
			for i := range f.Ports.Value {
				f.Ports.Value[i].Ours, f.Ports.Value[i].Owner = false, ""
			}
		}, OK, "cannot be seen", ""},

		{"memory", "enough", nil, OK, "16 GB of memory, 9.0 GB available", ""},
		{"memory", "a little", func(f *Facts) { f.Memory.Value.Total = 3e9 }, Warning, "the stack wants 4.0 GB", "more memory"},
		{"memory", "far too little", func(f *Facts) { f.Memory.Value.Total = 1e9 }, Problem, "1.0 GB of memory", "more memory"},
		{"memory", "used by others", func(f *Facts) { f.Memory.Value.Available = 5e8; f.Services.Value = nil }, Warning, "500 MB available", "ps aux"},
		{"memory", "used by the stack", func(f *Facts) { f.Memory.Value.Available = 5e8 }, OK, "500 MB available", ""},
		{"memory", "a virtual machine's", func(f *Facts) { inVM(f); f.Memory.Value = Memory{Total: 2.1e9, Available: -1} }, Warning, "2.1 GB of memory; ", "Docker Desktop: Settings"},

		{"disk", "enough", nil, OK, "80 GB free in /var/lib/docker", ""},
		{"disk", "a little", func(f *Facts) { f.Disk.Value = Disk{"/", 2e9, 3e9, 10e9} }, Warning, "2.0 GB free", "docker system prune"},
		{"disk", "nothing", func(f *Facts) { f.Disk.Value = Disk{"/", 1e8, 0, 1e9} }, Problem, "100 MB free", "docker system prune"},
		{"disk", "large and nearly full", func(f *Facts) { f.Disk.Value = Disk{"/", 79e9, 875e9, 1000e9} }, Warning, "it is 88 % full, and from 92 % on Loki takes no log lines", "docker system prune"},
		{"disk", "large and full", func(f *Facts) { f.Disk.Value = Disk{"/", 30e9, 921e9, 1000e9} }, Problem, "it is 92 % full, and from 92 % on Loki takes no log lines", "docker system prune"},
		{"disk", "of unknown size", func(f *Facts) { f.Disk.Value = Disk{"/", 99e9, 1, 0} }, OK, "99 GB free", ""},
		{"disk", "elsewhere", func(f *Facts) { f.Disk = NotKnown[Disk](elsewhere) }, Unknown, "machine is another one", ""},

		{"cpus", "enough", nil, OK, "8 CPUs for the sender and 1 worker of a sensor", ""},
		{"cpus", "one", func(f *Facts) { f.CPUs = Known(1) }, Warning, "1 CPU for the sender and 1 worker of a sensor: they wait", "more CPUs"},
		{"cpus", "many workers", func(f *Facts) { f.Sensors.Value[0].Sockets = buffersOf(make([]int, 8)...) }, Warning, "8 workers of zeek", "fewer workers"},
		{"cpus", "as many as it takes", func(f *Facts) { f.Sensors.Value[0].Sockets = buffersOf(make([]int, 7)...) }, OK, "7 workers of zeek", ""},

		{"clock", "this machine's", nil, OK, "is this machine's; a time server steers it", ""},
		{"clock", "not steered", func(f *Facts) { f.Clock.Value.Synchronised = new(bool) }, OK, "no time server", ""},
		{"clock", "a slow answer", func(f *Facts) { inVM(f); f.Clock.Value = Clock{Ahead: 3 * time.Second, Uncertain: 2 * time.Second} }, OK, "agrees with", ""},
		{"clock", "a virtual machine that slept", func(f *Facts) { inVM(f); f.Clock.Value.Ahead = -90 * time.Second }, Warning, "1m30s behind this machine's", "set-ntp"},
		{"clock", "hours", func(f *Facts) { inVM(f); f.Clock.Value.Ahead = 2 * time.Hour }, Problem, "2h0m0s ahead of this machine's", "set-ntp"},

		{"networks", "no clash", nil, OK, "172.18.0.0/16 clash with nothing", ""},
		{"networks", "a VPN's route inside", func(f *Facts) {
			f.Routes.Value = append(f.Routes.Value, Route{netip.MustParsePrefix("172.18.4.0/24"), "tun0"})
		}, Problem, "zeekdemo_monitoring 172.18.0.0/16 clashes with the route 172.18.4.0/24 by tun0", "zeekdemo down"},
		{"networks", "a VPN's route around", func(f *Facts) {
			f.Routes.Value = append(f.Routes.Value, Route{netip.MustParsePrefix("172.16.0.0/12"), "tun0"})
		}, Warning, "hides a part of the route 172.16.0.0/12 by tun0", "zeekdemo down"},
		{"networks", "another network", func(f *Facts) {
			f.Networks.Value = append(f.Networks.Value, Network{Name: "lab", Subnets: prefixes("172.18.9.0/24")})
		}, Problem, "network lab (172.18.9.0/24)", "zeekdemo down"},
		{"networks", "the name of the bridge", func(f *Facts) { f.Networks.Value = f.Networks.Value[:1] }, Problem, "a device br-zeekmon0 is here", "ip link delete br-zeekmon0"},
		{"networks", "none yet", func(f *Facts) { f.Networks.Value, f.Bridge = f.Networks.Value[:1], false }, OK, "28 address ranges are free", ""},
		{"networks", "no range left", func(f *Facts) {
			f.Networks.Value, f.Bridge = f.Networks.Value[:1], false
			f.Routes.Value = []Route{{netip.MustParsePrefix("192.168.0.0/16"), "wg0"}, {netip.MustParsePrefix("172.16.0.0/12"), "tun0"}}
		}, Problem, "0 address ranges are left", "docker network prune"},
		{"networks", "ranges of its own", func(f *Facts) {
			f.Networks.Value, f.Bridge = f.Networks.Value[:1], false
			f.Machine.Value.Pools = []Pool{{netip.MustParsePrefix("10.200.0.0/16"), 24}}
		}, OK, "enough", ""},

		{"proxy", "off", nil, OK, "off (/etc/docker/daemon.json)", ""},
		{"proxy", "on", func(f *Facts) { f.Proxy = Known(Proxy{true, "it runs"}) }, OK, "on (it runs): at speed", ""},
		{"proxy", "not known", func(f *Facts) { f.Proxy = NotKnown[Proxy]("not known: no process of the engine can be seen") }, Unknown, "not known", ""},

		{"stack", "answers", nil, OK, "all 1 services answer", ""},
		{"stack", "none", func(f *Facts) { f.Services.Value = nil }, OK, "none is here yet", ""},
		{"stack", "killed", func(f *Facts) {
			f.Services.Value[0] = orchestrate.ServiceStatus{Service: "zeek", State: "restarting", Health: "container is restarting, out of memory"}
		}, Problem, "zeek: container is restarting, out of memory", "zeekdemo logs zeek"},
		{"stack", "incomplete", func(f *Facts) {
			f.Services.Value[0] = orchestrate.ServiceStatus{Service: "loki", State: "missing", Health: "has no container"}
		}, Problem, "loki: has no container", "zeekdemo up"},

		{"direct", "reached", nil, OK, "zeek: reached at the container's own address", ""},
		{"direct", "a firewall", func(f *Facts) { f.Sensors.Value[0].Reach = "172.18.0.2 does not answer from here: i/o timeout" }, Warning, "i/o timeout", "--via sidecar"},
		{"direct", "a virtual machine", func(f *Facts) {
			inVM(f)
			f.Platform, f.Sensors.Value[0].Reach = "darwin/arm64", "i/o timeout"
		}, OK, "`replay` goes by sidecar, with --sidecar-binary and the build for linux/amd64", ""},
		{"direct", "no sensor", func(f *Facts) { f.Sensors.Value = nil }, Unknown, "not tested", ""},

		{"tuning", "tuned", nil, OK, "--revert` takes it back", ""},
		{"tuning", "good by itself", func(f *Facts) { f.Tuning = Known(tuning(hosttune.Fine)) }, OK, "fit for bursts as it is", ""},
		{"tuning", "not tuned", func(f *Facts) { f.Tuning = Known(tuning(hosttune.Wants)) }, Warning, "2 of 2 settings not fit", "zeekdemo tune-host"},
		{"tuning", "changed since", func(f *Facts) { f.Tuning = Known(tuning(hosttune.Drift)) }, Warning, "changed since: net.core.rmem_max, net.core.wmem_max", "zeekdemo tune-host"},
		{"tuning", "elsewhere", func(f *Facts) {
			f.Tuning = Fact[hosttune.Status]{Why: elsewhere, Remedy: "zeekdemo tune-host --status"}
		}, Unknown, "machine is another one", "tune-host --status"},

		{"buffers", "large", nil, OK, "zeek 64 MiB", ""},
		{"buffers", "untuned", func(f *Facts) {
			f.Tuning = Known(tuning(hosttune.Wants))
			f.Sensors.Value[0].Sockets = buffersOf(425984)
		}, Warning, "zeek 416 KiB; a burst of 387 packets fills it", "tune-host --restart-sensors"},
		{"buffers", "tuned later", func(f *Facts) { f.Sensors.Value[0].Sockets = buffersOf(64<<20, 425984) }, Warning, "zeek 416 KiB; opened before the tuning", "--restart-sensors"},
		{"buffers", "large, and yet", func(f *Facts) { f.Sensors.Value[0].Sockets.Value[0].Drops = 17 }, Warning, "17 datagrams dropped", "slower"},
		{"buffers", "without root", func(f *Facts) { f.Sensors.Value[0].Sockets = buffersOf(0) }, Unknown, "only root", "sudo zeekdemo doctor"},
		{"buffers", "no socket", func(f *Facts) { f.Sensors.Value[0].Sockets = buffersOf() }, Warning, "has no socket", "zeekdemo logs zeek"},
		{"buffers", "no sensor", func(f *Facts) { f.Sensors.Value = nil }, Unknown, "no sensor runs", ""},
		{"buffers", "elsewhere", func(f *Facts) { f.Sensors.Value[0].Sockets = NotKnown[[]SensorSocket](elsewhere) }, Unknown, "machine is another one", ""},

		{"tcpdump", "here", nil, OK, "compiles filters", ""},
		{"tcpdump", "missing", func(f *Facts) {
			f.Filter = Fact[string]{Why: "not here: --filter does not work", Remedy: "sudo apt-get install tcpdump"}
		}, Warning, "--filter does not work", "apt-get install tcpdump"},
	} {
		t.Run(tc.check+"/"+tc.name, func(t *testing.T) {
			f := healthy()
			if tc.change != nil {
				tc.change(&f)
			}
			lines := Diagnose(f).Lines
			i := slices.IndexFunc(lines, func(l Line) bool { return l.Check == tc.check })
			if i < 0 {
				t.Fatalf("no such check in %v", lines)
			}
			l := lines[i]
			if l.State != tc.state || !strings.Contains(l.Fact, tc.fact) || !strings.Contains(l.Remedy, tc.remedy) || (tc.remedy == "") != (l.Remedy == "") {
				t.Errorf("got  %s: %q -> %q\nwant %s: %q -> %q", l.State, l.Fact, l.Remedy, tc.state, tc.fact, tc.remedy)
			}
			if l.State != OK && l.State != Unknown && l.Remedy == "" {
				t.Error("nothing is said to mend it")
			}
		})
	}
}

// The verdict is the worst line; what is unknown is not bad.
func TestVerdict(t *testing.T) {
	for want, change := range map[State]func(*Facts){
		OK:      func(f *Facts) { f.Disk = NotKnown[Disk](elsewhere) },
		Warning: func(f *Facts) { f.Disk.Value.Free = 2e9 },
		Problem: func(f *Facts) { f.Disk.Value.Free, f.Memory.Value.Total = 1, 3e9 },
	} {
		f := healthy()
		change(&f)
		if got := Diagnose(f).Verdict; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestVersions(t *testing.T) {
	for text, want := range map[string]version{"29.5.1-rc.1": {29, 5, 1}, "20.10.24+dfsg1": {20, 10, 24}, "1.41": {1, 41}, "v28": {28}, "4.9.2.1": {4, 9, 2}} {
		if got, err := parseVersion(text); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "dev", "x.1"} {
		if v, err := parseVersion(text); err == nil {
			t.Errorf("%q: %v, want an error", text, v)
		}
	}
}
