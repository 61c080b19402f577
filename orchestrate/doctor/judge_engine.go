package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// notLooked is why something is not known without an engine.
const notLooked = "not looked at: the engine does not answer"

func judgeEngine(f Facts) Line {
	if f.Engine.Why != "" {
		return problem(f.Engine.Why, f.Engine.Remedy)
	}
	e := f.Engine.Value
	if e.OS != "" && e.OS != "linux" {
		return problem(fmt.Sprintf("it runs %s containers; the stack's are Linux ones", e.OS), "switch the engine to Linux containers")
	}
	where := "in a machine of its own, at " + e.Address
	switch {
	case f.Here && f.Machine.Value.Rootless:
		where = "on this machine, rootless"
	case f.Here:
		where = "on this machine"
	case f.Machine.Why != "":
		where = "at " + e.Address
	}
	return ok(fmt.Sprintf("Docker %s, %s, %s", e.Version, platform(e), where))
}

func platform(e orchestrate.EngineInfo) string {
	goos, goarch := e.Platform()
	return goos + "/" + goarch
}

// The versions of the engine with known defects.
const (
	yearVersions     = "17.0"   // Docker's are no older; Podman, which calls itself by its own, is
	neighboursKept   = "28.0"   // before it, neighbours reach ports that are published on loopback
	udpLostOnRestart = "29.5.0" // published UDP ports are lost when a container restarts
	udpPortMismatch  = "29.5.1" // from here on UDP is broken where host and container port differ
)

func judgeDefects(f Facts) Line {
	if line, missing := f.Engine.unknown(); missing {
		line.Fact, line.Remedy = notLooked, ""
		return line
	}
	v, err := parseVersion(f.Engine.Value.Version)
	if err != nil {
		return unknown(fmt.Sprintf("none can be told of a version called %q", f.Engine.Value.Version))
	}
	switch {
	case v.compare(mustVersion(udpLostOnRestart)) == 0:
		return warning("29.5.0 loses published UDP ports when a container restarts; direct and sidecar do not need them",
			"upgrade the engine, or `zeekdemo down && zeekdemo up` after each restart")
	case v.compare(mustVersion(yearVersions)) >= 0 && v.compare(mustVersion(neighboursKept)) < 0 && neighboursReach(f):
		return warning("before 28.0, who is on one network with the engine's machine reaches what is published on 127.0.0.1 as well",
			"upgrade the engine, or close published ports to that network: sudo iptables -I DOCKER-USER -i eth0 -m conntrack --ctstate NEW -j DROP")
	case v.compare(mustVersion(udpPortMismatch)) < 0:
		return ok("none is known of this version that matters here")
	}
	for _, p := range f.Ports.Value {
		if p.Protocol == "udp" && p.Inside != p.Address.Port() {
			return warning(fmt.Sprintf("from 29.5.1 on UDP is lost where the published port differs from the container's, as %d from %d",
				p.Address.Port(), p.Inside), fmt.Sprintf("publish %d as %d", p.Inside, p.Inside))
		}
	}
	return ok("UDP is lost where published and inner port differ; none do")
}

// neighboursReach reports whether there is something for neighbours to reach: ports
// on the loopback address of a machine whose own kernel forwards to containers.
// Docker Desktop's machine has no neighbours, and a rootless engine forwards in a
// namespace of its own.
func neighboursReach(f Facts) bool {
	return (f.Here || f.Engine.Value.Remote) && !f.Machine.Value.Rootless &&
		slices.ContainsFunc(f.Ports.Value, func(p Port) bool { return p.Address.Addr().IsLoopback() })
}

// minAPI is the oldest API that the client library speaks, that of Docker 19.03.
const minAPI = "1.40"

// judgeFeatures looks for what the Compose file asks of an engine. Its inline
// configurations need nothing: Compose copies them in.
func judgeFeatures(f Facts) Line {
	if line, missing := f.Machine.unknown(); missing {
		return line
	}
	m := f.Machine.Value
	api := f.Engine.Value.APIVersion
	v, err := parseVersion(api)
	switch {
	case err == nil && v.compare(mustVersion(minAPI)) < 0:
		return problem(fmt.Sprintf("its API %s is older than %s", api, minAPI), "upgrade the engine to Docker 19.03 or later")
	case !m.Forwarding:
		return problem("the kernel forwards no IPv4 packets: published ports lead nowhere", "sudo sysctl -w net.ipv4.ip_forward=1")
	case !m.MemoryLimits:
		return warning("the kernel enforces no memory limits: a service can take all there is", "start Linux with cgroup_enable=memory swapaccount=1")
	}
	return ok(fmt.Sprintf("API %s, memory limits, forwarding: all that the stack needs", api))
}

func judgeImages(f Facts) Line {
	if line, missing := f.Images.unknown(); missing {
		return line
	}
	want := platform(f.Engine.Value)
	var foreign, pulled, late, refused []string
	refusal := ""
	for _, i := range f.Images.Value {
		switch {
		case i.Here && i.Platform != "" && i.Platform != want:
			foreign = append(foreign, i.Ref)
		case i.Here:
		case i.Late:
			late = append(late, i.Ref)
		case i.Refusal != "":
			refused, refusal = append(refused, i.Ref), i.Refusal
		case len(i.Platforms) > 0 && !slices.Contains(i.Platforms, want):
			refused, refusal = append(refused, i.Ref), "none for "+want
		default:
			pulled = append(pulled, i.Ref)
		}
	}
	switch {
	case len(refused) > 0:
		return problem(fmt.Sprintf("%d of %d are neither here nor to be had (%s): %s", len(refused), len(f.Images.Value), refusal, list(refused)),
			"make images && zeekdemo up --pull never, or zeekdemo up --image NAME=REF")
	case len(late) > 0:
		return warning(list(late)+": not here, and the registry did not answer in time", "docker pull "+late[0])
	case len(foreign) > 0:
		return warning(fmt.Sprintf("%s: not made for %s, so it is emulated", list(foreign), want), "docker pull "+foreign[0])
	case len(pulled) > 0:
		return ok(fmt.Sprintf("%d of %d are here; `up` pulls %s", len(f.Images.Value)-len(pulled), len(f.Images.Value), list(pulled)))
	}
	return ok(fmt.Sprintf("all %d are here", len(f.Images.Value)))
}

// list names up to two things, and how many more there are.
func list(names []string) string {
	if len(names) > 2 {
		return fmt.Sprintf("%s and %d more", names[0], len(names)-1)
	}
	return strings.Join(names, ", ")
}

func judgePorts(f Facts) Line {
	if line, missing := f.Ports.unknown(); missing {
		return line
	}
	ours := 0
	for _, p := range f.Ports.Value {
		if f.Engine.Why != "" && perhapsOurs(p.Owner) {
			return unknown(fmt.Sprintf("%s/%s is taken by %s; that may be the stack", p.Address, p.Protocol, p.Owner))
		}
		if p.Owner != "" && !p.Ours {
			return problem(fmt.Sprintf("%s/%s is taken by %s", p.Address, p.Protocol, p.Owner), "stop that, or zeekdemo up --bind 127.0.0.2")
		}
		if p.Ours {
			ours++
		}
	}
	if ours == 0 && f.Engine.Value.Remote {
		return ok("no container has the stack's; processes over there cannot be seen")
	}
	state := "free"
	switch {
	case ours == len(f.Ports.Value):
		state = "the stack's"
	case ours > 0:
		state = "the stack's or free"
	}
	return ok(state + ": " + portList(f.Ports.Value))
}

// perhapsOurs reports whether an owner may be the engine's, which nobody can
// tell of whom it is without the engine.
func perhapsOurs(owner string) bool {
	return slices.ContainsFunc([]string{"docker", "rootless", "com.docker", "a process of another user"}, func(s string) bool { return strings.HasPrefix(owner, s) })
}

// portList names ports such as "4789 6081/udp, 13000/tcp".
func portList(ports []Port) string {
	numbers := map[string][]uint16{}
	for _, p := range ports {
		numbers[p.Protocol] = append(numbers[p.Protocol], p.Address.Port())
	}
	var groups []string
	for _, protocol := range slices.Backward(slices.Sorted(maps.Keys(numbers))) {
		slices.Sort(numbers[protocol])
		groups = append(groups, strings.Trim(fmt.Sprint(numbers[protocol]), "[]")+"/"+protocol)
	}
	return strings.Join(groups, ", ")
}

func judgeNetworks(f Facts) Line {
	if line, missing := f.Networks.unknown(); missing {
		return line
	}
	ours, others := split(f.Networks.Value)
	if f.Bridge && !slices.ContainsFunc(f.Networks.Value, func(n Network) bool { return n.Device == f.Stack.Value.Bridge }) {
		return problem(fmt.Sprintf("a device %s is here, but none of the engine's networks has it", f.Stack.Value.Bridge),
			"sudo ip link delete "+f.Stack.Value.Bridge)
	}
	if len(ours) == 0 {
		return judgePools(f, others)
	}
	hidden := ""
	var subnets []string
	for _, n := range ours {
		for _, subnet := range n.Subnets {
			clash, all := conflict(subnet, n, others, f.Routes.Value)
			if clash != "" && !all {
				return problem(fmt.Sprintf("%s %s clashes with %s", n.Name, subnet, clash), renumber)
			}
			if clash != "" {
				hidden = fmt.Sprintf("%s %s hides a part of %s", n.Name, subnet, clash)
			}
			subnets = append(subnets, subnet.String())
		}
	}
	if hidden != "" {
		return warning(hidden, renumber)
	}
	return ok(fmt.Sprintf("%s clash with nothing", strings.Join(subnets, " and ")))
}

// renumber lets the engine choose again: it takes no range that a route leads
// to at that time.
const renumber = "zeekdemo down && zeekdemo up (the engine then chooses other addresses)"

// stackNetworks is how many networks the stack has.
const stackNetworks = 4

func judgePools(f Facts, others []Network) Line {
	free := freeSubnets(f.Machine.Value.Pools, others, f.Routes.Value, 100)
	switch {
	case free < stackNetworks:
		return problem(fmt.Sprintf("%d address ranges are left for networks, the stack needs %d", free, stackNetworks), "docker network prune")
	case free >= 100:
		return ok("enough address ranges are free")
	}
	return ok(fmt.Sprintf("%d address ranges are free, the stack needs %d", free, stackNetworks))
}
