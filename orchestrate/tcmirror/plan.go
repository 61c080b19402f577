package tcmirror

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Directions, from the interface's point of view.
const (
	directionBoth = "both"
	directionIn   = "in"
)

// Overheads, in bytes.
const (
	headerEther  = 14
	tags         = 2 * 4      // VLAN tags, which no MTU counts
	headerTunnel = 20 + 8 + 8 // IPv4, UDP, VXLAN or GENEVE without options
	headerIPv6   = 20         // what IPv6 has more
	maxDatagram  = 65535
)

// preferred is the priority of our filters: before most others, with room for
// those that have to be before us.
const preferred = 100

// classifier is a kind of filter.
type classifier string

// The kinds, the best first. Only the first can leave out tunnels and take an
// expression; the others take every frame.
const (
	classifierBPF      classifier = "bpf"
	classifierMatchAll classifier = "matchall"
	classifierU32      classifier = "u32"
)

// facts are what the kernel told.
type facts struct {
	iface      iface
	ingress    string   // kind of the queueing discipline where clsact goes: "", "clsact", "ingress" or another
	priorities [2][]int // of the filters there, in and out
	route      route
	classifier classifier // the best that works
}

// iface is the interface.
type iface struct {
	name     string
	index    int
	mtu      int
	linkType string // "ether", "loopback", ...
	related  []int  // indices of its bridge, bond or underlying interface
	isLoop   bool
	isTunnel bool // one of ours
}

// route is the way to the sensor.
type route struct {
	device  int // index of the interface it leaves by
	related []int
	local   bool // to this machine itself
	onLink  bool // the sensor is in the device's own network
	mtu     int
}

// plan is what is going to be done; nothing in it is decided later.
type plan struct {
	direction  string
	clsact     clsact // ours: it has to be added
	parent     string // "clsact" or "ingress"
	priority   [2]int // in and out
	classifier classifier
	limit      int  // the longest frame, in bytes with its Ethernet header
	detour     bool // frames may be too long for the path to the sensor, see [gate]
	notes      []string
}

// String is the plan as a person reads it, one step in a line.
func (p plan) String() string {
	var b strings.Builder
	if p.clsact == clsactOurs {
		b.WriteString("add clsact\n")
	}
	fmt.Fprintf(&b, "filter what comes in: %s by %s, priority %d\n", p.parent, p.classifier, p.priority[0])
	if p.direction == directionBoth {
		fmt.Fprintf(&b, "filter what goes out: %s by %s, priority %d\n", p.parent, p.classifier, p.priority[1])
	}
	fmt.Fprintf(&b, "send frames of up to %d bytes\n", p.limit)
	if p.detour {
		b.WriteString("take the original's route off each copy\n")
	}
	for _, n := range p.notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	return b.String()
}

// obstacle says what the kernel cannot do here. It is an errors.ErrUnsupported.
type obstacle struct{ error }

// Is makes it one; what it wraps stays to be found.
func (o obstacle) Is(target error) bool { return target == errors.ErrUnsupported }

func (o obstacle) Unwrap() error { return o.error }

func unsupportedf(format string, args ...any) error {
	return obstacle{fmt.Errorf(format, args...)}
}

// decide makes a plan, or says why the kernel cannot mirror so.
func decide(s Spec, f facts) (plan, error) {
	p := plan{direction: directionBoth, parent: "clsact", classifier: f.classifier, clsact: clsactTheirs}
	if f.iface.isLoop {
		// What lo sends it receives: as capture programs do, take it once.
		p.direction = directionIn
	}
	if err := f.possible(s); err != nil {
		return plan{}, err
	}
	if err := p.place(f); err != nil {
		return plan{}, err
	}
	p.limit = maxDatagram - tunnelHeader(s.Sensor) - tags
	longest := f.longest(s)
	if longest > maxDatagram {
		p.notes = append(p.notes, fmt.Sprintf("frames of more than %d bytes do not fit into a datagram: they count as dropped", p.limit))
		longest = maxDatagram
	}
	if longest > f.route.mtu {
		p.detour = true
		p.notes = append(p.notes, fmt.Sprintf("frames of more than %d bytes go to the sensor in fragments, for the path there takes %d bytes",
			f.route.mtu-tunnelHeader(s.Sensor), f.route.mtu))
	}
	return p, nil
}

// place finds the filters' place on the interface.
func (p *plan) place(f facts) error {
	switch f.ingress {
	case "":
		p.clsact = clsactOurs
	case "clsact":
	case "ingress":
		if p.direction == directionBoth {
			return unsupportedf("mirror what %s sends: its ingress queueing discipline, which another program made, takes the only place", f.iface.name)
		}
		p.parent = "ingress"
	default:
		return unsupportedf("mirror %s: its %s queueing discipline takes the place", f.iface.name, f.ingress)
	}
	for i := range p.priority {
		p.priority[i] = priority(f.priorities[i])
		if i == 1 && p.direction != directionBoth || len(f.priorities[i]) == 0 || p.priority[i] < slices.Min(f.priorities[i]) {
			continue
		}
		p.notes = append(p.notes, fmt.Sprintf("a filter that was there has priority %d: what it decides about is not seen", slices.Min(f.priorities[i])))
	}
	return nil
}

// longest is the size of the longest datagram.
func (f facts) longest(s Spec) int {
	return f.iface.mtu + headerEther + tags + tunnelHeader(s.Sensor)
}

func tunnelHeader(sensor netip.AddrPort) int {
	if sensor.Addr().Unmap().Is6() {
		return headerTunnel + headerIPv6
	}
	return headerTunnel
}

// possible says what makes it impossible.
func (f facts) possible(s Spec) error {
	name := f.iface.name
	switch {
	case f.iface.isTunnel:
		return fmt.Errorf("mirror %s: it is a mirror's own tunnel", name)
	case f.iface.linkType != "ether" && f.iface.linkType != "loopback":
		return unsupportedf("mirror %s: its frames have no Ethernet header (%s), and the kernel does not make one", name, f.iface.linkType)
	case f.longest(s) > maxDatagram && (!s.Oversize || f.classifier != classifierBPF):
		return unsupportedf("mirror %s: its frames have up to %d bytes, which is too long for one datagram", name, f.iface.mtu+headerEther)
	case f.route.local:
		return unsupportedf("mirror to %s: it is this machine itself, to which the kernel's tunnels do not send", s.Sensor.Addr())
	case f.classifier == "":
		return unsupportedf("mirror %s: this kernel has no classifier bpf (cls_bpf), matchall or u32", name)
	case f.classifier == classifierBPF:
		return nil
	case len(s.Filter) > 0:
		return unsupportedf("mirror %s: the filter needs the kernel's classifier bpf (cls_bpf), which is missing", name)
	case f.carriesTunnel():
		return unsupportedf("mirror %s: the way to the sensor goes through it, and leaving that out needs the kernel's classifier bpf (cls_bpf), which is missing", name)
	}
	return nil
}

// carriesTunnel reports whether the interface or a relative of it is on the way
// to the sensor.
func (f facts) carriesTunnel() bool {
	way := append(slices.Clone(f.route.related), f.route.device)
	for _, i := range append(slices.Clone(f.iface.related), f.iface.index) {
		if slices.Contains(way, i) {
			return true
		}
	}
	return false
}

// priority is one that none of the filters has, before all of them if there is
// room.
func priority(taken []int) int {
	p := preferred
	if len(taken) > 0 {
		p = min(p, slices.Min(taken)-1)
	}
	for p = max(p, 1); slices.Contains(taken, p); {
		p++
	}
	return p
}

// validate looks at the spec alone.
func (s Spec) validate() error {
	switch {
	case s.Interface == "":
		return errors.New("mirror: no interface is named")
	case s.Encap != VXLAN && s.Encap != GENEVE:
		return fmt.Errorf("mirror %s: encapsulation %q: want %s or %s", s.Interface, s.Encap, VXLAN, GENEVE)
	case s.VNI >= 1<<24:
		return fmt.Errorf("mirror %s: VNI %d has more than 24 bits", s.Interface, s.VNI)
	case !s.Sensor.IsValid() || s.Sensor.Port() == 0 || s.Sensor.Addr().IsUnspecified():
		return fmt.Errorf("mirror %s: %v is no address of a sensor", s.Interface, s.Sensor)
	case s.Sensor.Addr().IsMulticast():
		return fmt.Errorf("mirror %s: %v is a group, not a sensor", s.Interface, s.Sensor)
	case strings.ContainsAny(s.Service, " \t\n"):
		return fmt.Errorf("mirror %s: service %q has a blank", s.Interface, s.Service)
	}
	return nil
}

// receivers are all whose tunnels are left out.
func receivers(sensor netip.AddrPort, exclude []netip.AddrPort) []netip.AddrPort {
	all := []netip.AddrPort{netip.AddrPortFrom(sensor.Addr().Unmap(), sensor.Port())}
	for _, r := range exclude {
		r = netip.AddrPortFrom(r.Addr().Unmap(), r.Port())
		if r.IsValid() && !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return all
}
