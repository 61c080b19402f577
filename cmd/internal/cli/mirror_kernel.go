package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/filter"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
)

// kernelRequest is what is to be mirrored by the kernel, and where to.
type kernelRequest struct {
	Interfaces []string
	Encap      string         // "vxlan" or "geneve"
	VNI        uint32         // of the run
	To         netip.AddrPort // an address of the sensor that this machine reaches
	Service    string         // the stack's name of the sensor; empty with --to
	Exclude    []netip.AddrPort
	Expression string // pcap-filter; empty takes all
	Detached   bool
	Oversize   bool // frames may be too long for a datagram: count those as dropped
}

// kernelRun are the mirrors of one run, one per interface.
type kernelRun struct {
	mirrors []tcmirror.Mirror
}

// specs compiles the expression: for files, since package tcmirror itself knows
// where the kernel keeps VLAN tags.
func (k kernelRequest) specs(ctx context.Context) ([]tcmirror.Spec, error) {
	spec := tcmirror.Spec{Encap: k.Encap, VNI: k.VNI, Sensor: k.To, Service: k.Service, Exclude: k.Exclude,
		Expression: k.Expression, Detached: k.Detached, Oversize: k.Oversize}
	if k.Expression != "" {
		program, err := filter.Compile(ctx, k.Expression, forward.LinkEthernet, 0)
		if err != nil {
			return nil, err
		}
		spec.Filter = program.Raw()
	}
	specs := make([]tcmirror.Spec, len(k.Interfaces))
	for i, name := range k.Interfaces {
		specs[i] = spec
		specs[i].Interface = name
	}
	return specs, nil
}

// possible says why the kernel cannot mirror so; errors.ErrUnsupported is in it
// where the forwarder may be able to. It leaves nothing behind.
func (k kernelRequest) possible(ctx context.Context) error {
	if k.Encap == tcmirror.GENEVE && len(k.Interfaces) > 1 {
		return fmt.Errorf("the kernel has one geneve device for a VNI and a sensor, so one interface: %w", errors.ErrUnsupported)
	}
	specs, err := k.specs(ctx)
	for _, s := range specs {
		if err == nil {
			err = tcmirror.Supports(s)
		}
	}
	return err
}

// start mirrors every interface, or none. One that is mirrored to the same
// sensor already is an error (tcmirror.ErrRunning).
func (k kernelRequest) start(ctx context.Context) (*kernelRun, error) {
	specs, err := k.specs(ctx)
	if err != nil {
		return nil, err
	}
	run := &kernelRun{}
	for _, s := range specs {
		m, err := tcmirror.Start(ctx, s)
		if errors.Is(err, tcmirror.ErrRunning) {
			err = orchestrate.WithHint(err, "`zeekdemo mirror --stop "+s.Interface+"` ends that one")
		}
		if err != nil {
			return nil, errors.Join(err, run.stop())
		}
		run.mirrors = append(run.mirrors, m)
	}
	return run, nil
}

// look reads the counters anew. An error that is tcmirror.ErrGone says that
// somebody else stopped a mirror; the last counters stay.
func (k *kernelRun) look() ([]tcmirror.Mirror, error) {
	now, err := tcmirror.List()
	if err != nil {
		return k.mirrors, err
	}
	for i, m := range k.mirrors {
		at := slices.IndexFunc(now, func(n tcmirror.Mirror) bool { return n.Device == m.Device })
		if at < 0 || !now[at].Complete {
			err = fmt.Errorf("mirror %s: %w", m.Interface, tcmirror.ErrGone)
			continue
		}
		now[at].Notes = m.Notes
		k.mirrors[i] = now[at]
	}
	return k.mirrors, err
}

// follow points every mirror to another address of the sensor.
func (k *kernelRun) follow(to netip.AddrPort, exclude []netip.AddrPort) error {
	var all error
	for _, m := range k.mirrors {
		_, err := m.Follow(to, exclude)
		all = errors.Join(all, err)
	}
	return all
}

// finish stops the mirrors, whose counters then are the last ones.
func (k *kernelRun) finish() (last []tcmirror.Mirror, err error) {
	var all error
	for _, m := range k.mirrors {
		all = errors.Join(all, m.Pause())
	}
	last, err = k.look()
	if errors.Is(err, tcmirror.ErrGone) {
		err = nil // which has been said, or is what was wanted
	}
	return last, errors.Join(all, err, k.stop())
}

// stop takes everything back.
func (k *kernelRun) stop() error {
	var all error
	for _, m := range k.mirrors {
		all = errors.Join(all, m.Stop())
	}
	return all
}

// kernelMirrors lists the mirrors of this machine's kernel, which are none where
// it cannot mirror.
func (a *App) kernelMirrors() ([]tcmirror.Mirror, error) {
	if a.Mirrors == nil {
		return nil, nil
	}
	mirrors, err := a.Mirrors()
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, nil
	}
	return mirrors, err
}

// stopKernelMirrors stops the mirrors of the named interfaces, or all if none is
// named, whoever started them, and returns those that it stopped.
func stopKernelMirrors(app *App, interfaces []string) ([]tcmirror.Mirror, error) {
	all, err := app.kernelMirrors()
	var stopped []tcmirror.Mirror
	for _, m := range all {
		if len(interfaces) > 0 && !slices.Contains(interfaces, m.Interface) {
			continue
		}
		if e := m.Stop(); e != nil {
			err = errors.Join(err, e)
			continue
		}
		stopped = append(stopped, m)
	}
	return stopped, err
}

// followDetached points the mirrors that no process watches to where the stack's
// sensors are now, and says of each what came of it.
func followDetached(app *App, services []orchestrate.ServiceStatus) {
	all, err := app.kernelMirrors()
	if err != nil {
		fmt.Fprintln(app.Err, "warning:", err)
	}
	at, exclude := sensorAddresses(services)
	for _, m := range all {
		to, ok := at[m.Service]
		if !m.Detached || !m.Alive || !ok {
			continue
		}
		changed, err := m.Follow(to, exclude)
		if err != nil {
			fmt.Fprintf(app.Err, "warning: point the mirror of %s to %s: %v; run `zeekdemo up` again as root\n", m.Interface, to, err)
		}
		if changed {
			fmt.Fprintf(app.Err, "The mirror of %s goes to %s at %s now.\n", m.Interface, m.Service, to)
		}
	}
}

// tellMirrors says which mirrors to the stack remain, when the stack has gone.
func tellMirrors(app *App) {
	all, _ := app.kernelMirrors() // without the right to look none is ours
	var names []string
	for _, m := range all {
		if m.Service != "" && !slices.Contains(names, m.Interface) {
			names = append(names, m.Interface)
		}
	}
	if len(names) > 0 {
		fmt.Fprintf(app.Err, "Still mirrored, to nowhere until the next `zeekdemo up`: %s. `zeekdemo mirror --stop` ends that.\n", strings.Join(names, ", "))
	}
}

// sensorAddresses are the sensors' own addresses by service, and every address
// at which tunnels arrive.
func sensorAddresses(services []orchestrate.ServiceStatus) (at map[string]netip.AddrPort, all []netip.AddrPort) {
	at = map[string]netip.AddrPort{}
	for _, s := range services {
		service, err := orchestrate.ServiceByName(s.Service)
		if err != nil || service.Encap == "" {
			continue
		}
		if addr, ok := s.Addresses[orchestrate.MonitoringNetwork]; ok && addr.IsValid() {
			at[s.Service] = netip.AddrPortFrom(addr, service.Port)
			all = append(all, at[s.Service])
		}
		for _, port := range s.Ports {
			text, _ := strings.CutSuffix(port, "/udp")
			if published, err := netip.ParseAddrPort(text); err == nil {
				all = append(all, published)
			}
		}
	}
	return at, all
}

// mirrorRows are the mirrors in the kernel as a table.
func mirrorRows(mirrors []tcmirror.Mirror) [][]string {
	rows := [][]string{{"MIRROR", "STATE", "DIRECTION", "SENSOR", "VNI", "PACKETS", "BYTES", "DROPPED", "FILTER"}}
	for _, m := range mirrors {
		sensor := m.Sensor.String()
		if m.Service != "" {
			sensor = m.Service + " " + sensor
		}
		received, sent := m.Stats.Received, m.Stats.Sent
		rows = append(rows, []string{dash(m.Interface), mirrorState(m), dash(m.Direction), sensor, strconv.Itoa(int(m.VNI)),
			strconv.FormatUint(received.Packets+sent.Packets, 10), strconv.FormatUint(received.Bytes+sent.Bytes, 10),
			strconv.FormatUint(m.Stats.Lost(), 10), dash(m.Expression)})
	}
	return rows
}

func mirrorState(m tcmirror.Mirror) string {
	switch {
	case !m.Alive:
		return "left behind"
	case !m.Complete:
		return "incomplete"
	case m.Detached:
		return "detached"
	}
	return "process " + strconv.Itoa(m.Process)
}

// kernelBooks are the accounts of a run in the kernel, one for each life of the
// sensor. The kernel waits for nobody, but what the sensor took can be seen.
type kernelBooks struct {
	m        *mirror
	now      *stretch
	before   uint64 // packets that had left the tunnels when the stretch began
	accounts []losslessDocument
}

// packets left the tunnels so far.
func packets(mirrors []tcmirror.Mirror) (n uint64) {
	for _, m := range mirrors {
		n += m.Stats.Tunnel.Packets
	}
	return n
}

// open begins the account of the sensor, before anything is sent to it.
func (b *kernelBooks) open(mirrors []tcmirror.Mirror) {
	b.before = packets(mirrors)
	b.now = &stretch{address: b.m.target, mode: losslessOff}
	f, err := b.m.feedbackOf(b.m.target)
	if err != nil {
		b.now.reason = err.Error()
	}
	b.now.feedback = f
}

// drop gives up an account.
func (b *kernelBooks) drop() {
	if b.now != nil && b.now.feedback != nil {
		b.m.warn(b.now.feedback.close())
	}
}

// close ends it, as soon as the sensor has taken what waits for it.
func (b *kernelBooks) close(ctx context.Context, mirrors []tcmirror.Mirror, runErr error) error {
	b.now.sent.Store(packets(mirrors) - b.before)
	account, err := b.now.settle(ctx, runErr)
	if b.now.feedback != nil {
		account.Reason = "the kernel waits for nobody"
	}
	b.accounts = append(b.accounts, account)
	return err
}
