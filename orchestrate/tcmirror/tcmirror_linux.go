package tcmirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
)

// capNetAdmin is the number of CAP_NET_ADMIN.
const capNetAdmin = 12

// denied explains refusals.
func denied(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return needCapability(err)
	}
	return err
}

func needCapability(err error) error {
	return orchestrate.WithHint(fmt.Errorf("%w (CAP_NET_ADMIN is missing)", err),
		"run it as root, e.g. with sudo")
}

// missing explains what the kernel says where a module is not there.
func missing(what string, err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return unsupportedf("this kernel has no %s: %w", what, err)
	}
	return err
}

// capable says early, and at once, that the capability is missing.
func capable() error {
	text, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return nil // the kernel will say it
	}
	status, err := procfs.Status(string(text))
	if err == nil && status.Effective&(1<<capNetAdmin) == 0 {
		return needCapability(fmt.Errorf("change traffic control: %w", os.ErrPermission))
	}
	return nil
}

// job is a mirror in the making.
type job struct {
	spec    Spec
	plan    plan
	way     route
	tunnel  tunnel
	record  record
	program []bpf.RawInstruction
	gate    *ebpf.Program // nil: without
}

// step is one change of the kernel's objects. Whatever the number of steps that
// were done, Stop takes them back.
type step struct {
	name string
	do   func() error
}

func supports(spec Spec) error {
	j, err := prepare(spec)
	if err != nil {
		return err
	}
	defer j.gate.Close()
	return rehearse(j)
}

// prepare decides; it changes nothing but what rehearsals left behind.
func prepare(spec Spec) (*job, error) {
	if err := spec.validate(); err != nil {
		return nil, err
	}
	spec.Sensor = netip.AddrPortFrom(spec.Sensor.Addr().Unmap(), spec.Sensor.Port())
	if err := capable(); err != nil {
		return nil, err
	}
	f, err := probe(spec)
	if err != nil {
		return nil, err
	}
	return newJob(spec, f)
}

func newJob(spec Spec, f facts) (*job, error) {
	p, err := decide(spec, f)
	if err != nil {
		return nil, err
	}
	j := &job{spec: spec, plan: p, way: f.route}
	j.tunnel = tunnel{encap: spec.Encap, vni: spec.VNI, sensor: spec.Sensor, name: newName(os.Getpid())}
	j.record = record{iface: spec.Interface, index: f.iface.index, direction: p.direction, encap: spec.Encap, sensor: spec.Sensor,
		vni: spec.VNI, service: spec.Service, clsact: p.clsact, owner: orchestrate.ThisClient(), detached: spec.Detached,
		started: time.Now(), expression: spec.Expression}
	if p.classifier == classifierBPF {
		j.program, err = program(receivers(spec.Sensor, spec.Exclude), spec.Filter)
		if err != nil {
			return nil, err
		}
		j.gate, err = loadGate(gate(f.iface.index, int32(p.limit), p.detour))
	}
	if j.gate == nil {
		if p.detour || spec.Oversize {
			return nil, unsupportedf("mirror %s: its frames may be too long for the path to the sensor, and what prevents harm from that is missing (%v)", spec.Interface, err)
		}
		j.tunnel.single = true
		j.plan.notes = append(j.plan.notes, "all flows go from one source port, so to one worker of the sensor")
	}
	return j, nil
}

// probe asks for the facts.
func probe(spec Spec) (f facts, err error) {
	if f.iface, err = interfaceByName(spec.Interface); err != nil {
		return f, err
	}
	found, err := hooks()
	if err != nil {
		return f, err
	}
	f.ingress = found[f.iface.index]
	for i, parent := range []uint32{parentIn, parentOut} {
		there, err := filters(f.iface.index, parent)
		if err != nil {
			return f, err
		}
		for _, o := range there {
			f.priorities[i] = append(f.priorities[i], o.priority)
		}
	}
	if f.route, err = routeTo(spec.Sensor.Addr()); err != nil {
		return f, err
	}
	f.classifier, err = bestClassifier(spec)
	return f, err
}

func interfaceByName(name string) (iface, error) {
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return iface{}, fmt.Errorf("find interface %s: there is none of that name", name)
	}
	if err != nil {
		return iface{}, fmt.Errorf("find interface %s: %w", name, err)
	}
	a := link.Attrs()
	_, own := nameOwner(a.Name)
	return iface{name: a.Name, index: a.Index, mtu: a.MTU, linkType: a.EncapType,
		related: slices.DeleteFunc([]int{a.MasterIndex, lower(a)}, func(i int) bool { return i == 0 }),
		isLoop:  a.RawFlags&unix.IFF_LOOPBACK != 0, isTunnel: own}, nil
}

func routeTo(to netip.Addr) (route, error) {
	routes, err := netlink.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		return route{}, fmt.Errorf("find the way to the sensor %s: %w", to, cmp.Or(err, error(unix.ENETUNREACH)))
	}
	r := route{device: routes[0].LinkIndex, local: routes[0].Type == unix.RTN_LOCAL, mtu: routes[0].MTU,
		onLink: routes[0].Gw == nil && routes[0].Via == nil}
	link, err := netlink.LinkByIndex(r.device)
	if err != nil {
		return r, fmt.Errorf("find the way to the sensor %s: %w", to, err)
	}
	if a := link.Attrs(); r.mtu == 0 || a.MTU < r.mtu {
		r.mtu = a.MTU
	}
	r.related, err = relatives(link)
	return r, err
}

// destination is bound to the device behind which the sensor is.
func (r route) destination(to netip.AddrPort) destination {
	if r.onLink {
		return destination{to, r.device}
	}
	return destination{to: to}
}

// relatives are the bridge or bond over a device, what is under it, and its
// ports.
func relatives(link netlink.Link) ([]int, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	a := link.Attrs()
	var all []int
	for _, l := range links {
		b := l.Attrs()
		if b.Index == a.MasterIndex || b.Index == lower(a) || b.MasterIndex == a.Index {
			all = append(all, b.Index)
		}
	}
	return all, nil
}

// lower is the device under another; 0 if there is none, or in another namespace.
func lower(a *netlink.LinkAttrs) int {
	if a.NetNsID >= 0 {
		return 0
	}
	return a.ParentIndex
}

// bestClassifier tries them on a tunnel that is made for that, and removed.
func bestClassifier(spec Spec) (best classifier, err error) {
	t := tunnel{name: newName(os.Getpid()), encap: spec.Encap, vni: spec.VNI, sensor: spec.Sensor}
	if err := t.create(); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, removeDevice(t.name)) }()
	if err := netlink.QdiscAdd(clsactOf(t.index)); err != nil {
		return "", denied(missing("clsact (sch_ingress)", fmt.Errorf("add clsact: %w", err)))
	}
	for _, kind := range []classifier{classifierBPF, classifierMatchAll, classifierU32} {
		f := tcFilter{link: t.index, parent: parentIn, priority: 1, kind: kind, handle: kind.handle(), program: verdict(nothing)}
		if f.add(false) == nil {
			best = kind
			break
		}
	}
	if best == "" {
		return "", nil
	}
	f := tcFilter{link: t.index, parent: parentOut, priority: 1, kind: best, handle: best.handle(), program: verdict(nothing), target: t.index}
	if err := f.add(false); err != nil {
		return "", denied(missing("action mirred (act_mirred)", fmt.Errorf("add a mirred action: %w", err)))
	}
	return best, nil
}

// handle is the handle of our filters; u32 chooses its own.
func (c classifier) handle() uint32 {
	if c == classifierU32 {
		return 0
	}
	return 1
}

// rehearse sets a whole tunnel up and removes it.
func rehearse(j *job) error {
	return errors.Join(run(context.Background(), j.tunnelSteps()), removeDevice(j.tunnel.name))
}

// tunnelSteps make the tunnel; they do not touch the interface.
func (j *job) tunnelSteps() []step {
	t := &j.tunnel
	return []step{
		{"add the tunnel", t.create},
		{"write its alias", func() error { return t.write(j.record) }},
		{"keep it quiet", t.quiet},
		{"guard it", func() error { return t.guard(j.gate) }},
		{"point it to the sensor", func() error { return t.point(j.way.destination(j.spec.Sensor)) }},
		{"set it up", j.up},
	}
}

// up tries other ports to listen on where one is taken.
func (j *job) up() error {
	err := j.tunnel.up()
	for range 4 {
		if !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
		if err = removeDevice(j.tunnel.name); err != nil {
			return err
		}
		steps := j.tunnelSteps()
		if err = run(context.Background(), steps[:len(steps)-1]); err != nil {
			return err
		}
		err = j.tunnel.up()
	}
	return err
}

// steps make the mirror.
func (j *job) steps() []step {
	steps := j.tunnelSteps()
	if j.plan.clsact == clsactOurs {
		steps = append(steps, step{"add clsact", j.addClsact})
	}
	steps = append(steps, step{"filter what comes in", func() error { return j.addFilter(0) }})
	if j.plan.direction == directionBoth {
		steps = append(steps, step{"filter what goes out", func() error { return j.addFilter(1) }})
	}
	return steps
}

func (j *job) addClsact() error {
	err := netlink.QdiscAdd(clsactOf(j.record.index))
	if errors.Is(err, unix.EEXIST) {
		// Somebody else was faster: then it is theirs.
		j.record.clsact = clsactTheirs
		return j.tunnel.write(j.record)
	}
	if err != nil {
		return denied(missing("clsact (sch_ingress)", fmt.Errorf("add clsact to %s: %w", j.spec.Interface, err)))
	}
	return nil
}

func (j *job) addFilter(direction int) error {
	f := tcFilter{link: j.record.index, parent: []uint32{parentIn, parentOut}[direction], priority: j.plan.priority[direction],
		kind: j.plan.classifier, handle: j.plan.classifier.handle(), program: j.program, target: j.tunnel.index,
		cookie: cookie(j.tunnel.name, j.record.clsact)}
	err := f.add(false)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("add a filter to %s: %w", j.spec.Interface, err)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return obstacle{err} // a shared block, see tc(8)
	}
	return denied(err)
}

func start(ctx context.Context, spec Spec) (Mirror, error) {
	if err := sweep(); err != nil {
		return Mirror{}, err
	}
	mirrors, err := list()
	if err != nil {
		return Mirror{}, err
	}
	for _, m := range mirrors {
		if m.Interface == spec.Interface && m.Sensor == spec.Sensor && m.Encap == spec.Encap && m.Complete {
			return m, fmt.Errorf("mirror %s to %s: %w (%s)", spec.Interface, spec.Sensor, ErrRunning, m.Device)
		}
	}
	j, err := prepare(spec)
	if err != nil {
		return Mirror{}, err
	}
	defer j.gate.Close()
	err = run(ctx, j.steps())
	if err != nil {
		return Mirror{}, errors.Join(err, stop(Mirror{Device: j.tunnel.name}))
	}
	m, err := Get(j.tunnel.name)
	m.Notes = append(m.Notes, j.plan.notes...)
	return m, err
}

func run(ctx context.Context, steps []step) error {
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.do(); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes what processes left that died.
func sweep() error {
	mirrors, err := list()
	for _, m := range mirrors {
		if !m.Alive {
			err = errors.Join(err, stop(m))
		}
	}
	return err
}

// found is what a look at the kernel finds.
type found struct {
	devices map[string]netlink.Link
	filters map[string][]tcFilter // by tunnel
	clsact  map[string]clsact     // as the filters of a tunnel tell it
	names   map[int]string
}

func look() (found, error) {
	f := found{map[string]netlink.Link{}, map[string][]tcFilter{}, map[string]clsact{}, map[int]string{}}
	links, err := allLinks()
	if err != nil {
		return f, err
	}
	for _, l := range links {
		f.names[l.Attrs().Index] = l.Attrs().Name
		if _, ok := nameOwner(l.Attrs().Name); ok && (l.Type() == VXLAN || l.Type() == GENEVE) {
			f.devices[l.Attrs().Name] = l
		}
	}
	at, err := hooks()
	if err != nil {
		return f, err
	}
	for link := range at {
		for _, parent := range []uint32{parentIn, parentOut} {
			if parent == parentOut && at[link] != "clsact" {
				continue
			}
			there, err := filters(link, parent)
			if err != nil {
				return f, err
			}
			f.add(there)
		}
	}
	return f, nil
}

// allLinks asks again where interfaces came or went meanwhile.
func allLinks() (links []netlink.Link, err error) {
	for range 10 {
		if links, err = netlink.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return links, nil
}

func (f found) add(there []tcFilter) {
	for _, o := range there {
		if device, whose, ok := parseCookie(o.cookie); ok {
			f.filters[device] = append(f.filters[device], o)
			f.clsact[device] = whose
		}
	}
}

func list() ([]Mirror, error) {
	f, err := look()
	if err != nil {
		return nil, err
	}
	mirrors := []Mirror{}
	for name, link := range f.devices {
		mirrors = append(mirrors, f.mirror(name, link))
	}
	for name, there := range f.filters {
		if f.devices[name] == nil {
			m := Mirror{Device: name, Interface: f.names[there[0].link], clsact: f.clsact[name], Notes: []string{"its tunnel was removed by somebody else"}}
			m.index = there[0].link
			mirrors = append(mirrors, m)
		}
	}
	slices.SortFunc(mirrors, func(a, b Mirror) int {
		return cmp.Or(cmp.Compare(a.Interface, b.Interface), cmp.Compare(a.Device, b.Device))
	})
	return mirrors, nil
}

// mirror reads one from its tunnel and filters.
func (f found) mirror(name string, link netlink.Link) Mirror {
	a := link.Attrs()
	m := Mirror{Device: name, Encap: link.Type()}
	r, ok := parseRecord(a.Alias)
	if !ok {
		m.Process, _ = nameOwner(name)
		if there := f.filters[name]; len(there) > 0 { // somebody changed the alias
			m.index, m.Interface, m.clsact = there[0].link, f.names[there[0].link], f.clsact[name]
		}
		m.Alive = m.Process > 0 && !orchestrate.ClientOfProcess(m.Process).Gone()
		return m
	}
	m.Interface, m.Direction, m.VNI, m.Sensor, m.Service, m.Expression = r.iface, r.direction, r.vni, r.sensor, r.service, r.expression
	m.Process, _, _ = r.owner.Numbers()
	m.Detached, m.Started, m.clsact, m.index = r.detached, r.started, r.clsact, r.index
	m.record = r
	m.Alive = r.detached || !r.owner.Gone() // one of another PID namespace cannot be seen from here
	if now, ok := f.names[r.index]; ok {
		m.Interface = now
	} else {
		m.Notes = append(m.Notes, "interface "+r.iface+" is gone")
		m.Alive = m.Alive && !r.detached // nothing can come of it any more
	}
	m.Stats = f.stats(name, a.Statistics)
	want := 1
	if r.direction == directionBoth {
		want = 2
	}
	m.Complete = len(f.filters[name]) == want && a.RawFlags&unix.IFF_UP != 0
	return m
}

// stats are what the filters and the tunnel have counted.
func (f found) stats(name string, tunnel *netlink.LinkStatistics) (s Stats) {
	for _, o := range f.filters[name] {
		if o.parent == parentIn {
			s.Received = o.counted
		} else {
			s.Sent = o.counted
		}
	}
	if tunnel != nil {
		s.Tunnel = Counters{Packets: tunnel.TxPackets, Bytes: tunnel.TxBytes, Dropped: tunnel.TxDropped}
		s.Errors = tunnel.TxErrors
	}
	return s
}

// stop removes filters first, then clsact, and the tunnel, which tells of both,
// at last.
func stop(m Mirror) error {
	if err := capable(); err != nil {
		return err
	}
	f, err := look()
	if err != nil {
		return err
	}
	if link := f.devices[m.Device]; link != nil {
		m = f.mirror(m.Device, link)
	}
	for _, o := range f.filters[m.Device] {
		if err := o.remove(); err != nil {
			return denied(fmt.Errorf("remove a filter of %s: %w", m.Interface, err))
		}
	}
	if m.clsact == clsactOurs {
		if err := f.releaseClsact(m); err != nil {
			return err
		}
	}
	return removeDevice(m.Device)
}

// releaseClsact removes clsact where nobody uses it, and else leaves the duty to
// another mirror of the interface, if there is one.
func (f found) releaseClsact(m Mirror) error {
	for name, link := range f.devices {
		other := f.mirror(name, link)
		if name != m.Device && other.index == m.index && other.index != 0 {
			other.record.clsact = clsactOurs
			t := tunnel{name: name, index: link.Attrs().Index, encap: link.Type()}
			return t.write(other.record)
		}
	}
	at, err := hooks()
	if err != nil || at[m.index] != "clsact" {
		return err
	}
	for _, parent := range []uint32{parentIn, parentOut} {
		there, err := filters(m.index, parent)
		if err != nil || len(there) > 0 {
			return err
		}
	}
	err = netlink.QdiscDel(clsactOf(m.index))
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
		return denied(fmt.Errorf("remove clsact from %s: %w", m.Interface, err))
	}
	return nil
}

// pause has the filters match nothing; their actions, with the counters, stay.
func pause(m Mirror) error {
	f, err := look()
	if err != nil {
		return err
	}
	for _, o := range f.filters[m.Device] {
		if o.kind != classifierBPF {
			continue // it cannot: Stop will
		}
		o.program = verdict(nothing)
		if err := o.add(true); err != nil {
			return denied(fmt.Errorf("pause a filter of %s: %w", m.Interface, err))
		}
	}
	return nil
}

// follow leaves out the tunnel to the new address before there is one, and only
// then points to it.
func follow(m Mirror, sensor netip.AddrPort, exclude []netip.AddrPort) (bool, error) {
	sensor = netip.AddrPortFrom(sensor.Addr().Unmap(), sensor.Port())
	f, err := look()
	if err != nil {
		return false, err
	}
	link := f.devices[m.Device]
	if link == nil {
		return false, fmt.Errorf("follow the sensor to %s: device %s: %w", sensor, m.Device, ErrGone)
	}
	m = f.mirror(m.Device, link)
	t := &tunnel{name: m.Device, index: link.Attrs().Index, encap: m.Encap, vni: m.VNI, sensor: m.Sensor}
	way, err := routeTo(sensor.Addr())
	if err != nil {
		return false, err
	}
	before, err := t.destinations()
	d := way.destination(sensor)
	if err != nil || slices.Equal(before, []destination{d}) || t.encap == GENEVE && sensor == m.Sensor {
		return false, err
	}
	if sensor.Addr().Is6() != m.Sensor.Addr().Is6() || t.encap == GENEVE && sensor.Port() != m.Sensor.Port() {
		return false, unsupportedf("follow the sensor to %s: a %s device to %s cannot", sensor, t.encap, m.Sensor)
	}
	leaveOut := append([]netip.AddrPort{m.Sensor}, exclude...)
	m.record.sensor = sensor
	err = run(context.Background(), []step{
		{"look for the capability", capable},
		{"leave out the new receiver too", func() error { return f.reprogram(t, receivers(sensor, leaveOut)) }},
		{"point to it", func() error { return t.point(d) }},
		{"write the alias", func() error { return t.write(m.record) }},
		{"leave out only what has to be", func() error { return f.reprogram(t, receivers(sensor, exclude)) }},
	})
	return err == nil, denied(err)
}

// reprogram exchanges the part of the filters that depends on the receivers; the
// actions, and so the counters, stay.
func (f found) reprogram(t *tunnel, all []netip.AddrPort) (err error) {
	for _, o := range f.filters[t.name] {
		if o.kind != classifierBPF {
			continue // it leaves nothing out
		}
		if o.program, err = divert(o.program, all); err == nil {
			err = o.add(true)
		}
		if err != nil {
			return fmt.Errorf("change a filter of %s: %w", t.name, err)
		}
	}
	return nil
}
