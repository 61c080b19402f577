package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/forward/afpacket"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/offload"
)

// The ways to mirror, as --how names them.
const (
	howAuto      = "auto"
	howKernel    = "kernel"    // traffic control: no packet crosses user space
	howForwarder = "forwarder" // a packet ring, and the transmission that replays use
)

// maxWorkers bounds --workers: more than there are processors is of no use.
const maxWorkers = 64

type mirrorOptions struct {
	interfaces []string
	containers []string
	out        outOptions
	encap      encapOptions
	filter     string
	how        string
	offloads   string
	lossless   string
	duration   time.Duration
	workers    int
	detach     bool
	stop       bool
	json       bool
}

func newMirror(app *App) *cobra.Command {
	var o mirrorOptions
	cmd := &cobra.Command{
		Use:   "mirror INTERFACE...",
		Short: "Mirror live traffic of interfaces into Zeek, or into any monitor",
		Long: `Mirror what passes network interfaces of this machine, in both directions, into the
stack's sensor, encapsulated in VXLAN or GENEVE, or with --to into any monitor. It
runs until it is interrupted, and then reports what was captured, sent, taken by
the sensor and lost; a loss is exit code 3.

There are two ways. In the kernel: a traffic-control filter on the interface copies
every packet into a tunnel device; no packet crosses user space. By the forwarder:
this program reads a ring of captured packets and sends them as ` + "`replay`" + ` does; it
cuts packets that network cards merged into what was on the wire, completes their
checksums, waits for the sensor where it has to, and can tell what was lost. It
needs CAP_NET_RAW; the kernel way, and --offloads off, need CAP_NET_ADMIN.
--how auto takes the kernel where it can and nothing has to be cut, and says why.

The tunnel's own packets are never mirrored, whichever interface they pass. When
the sensor's container is recreated, the mirror follows it.

Where there are no packet rings (macOS) the packets are captured by tcpdump.`,
		Example: `  sudo zeekdemo mirror eth0                        until Ctrl-C
  sudo zeekdemo mirror eth0 wlan0 --filter 'not port 22' --duration 1m
  sudo zeekdemo mirror --container web             a container's traffic, by its name
  sudo zeekdemo mirror eth0 --how kernel --detach  and go on without this program
  sudo zeekdemo mirror --stop                      take back what is left of any mirror
  sudo zeekdemo mirror eth0 --to 192.0.2.7 --encap geneve`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.interfaces = args
			return runMirror(cmd.Context(), app, o)
		},
	}
	o.flags(cmd)
	return cmd
}

func (o *mirrorOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.encap.given = f.Changed
	o.encap.mtu = encap.DefaultMTU
	f.StringArrayVar(&o.containers, "container", nil, "mirror this container's traffic (repeatable)")
	f.StringVar(&o.filter, "filter", "", "mirror only packets that match this pcap-filter(7) expression (needs tcpdump)")
	f.StringVar(&o.how, "how", howAuto, "kernel, forwarder or auto")
	f.StringVar(&o.out.to, "to", "", "send to HOST[:PORT] instead of the stack; needs no engine")
	o.out.via.flags(f)
	f.StringVar(&o.out.tx, "tx", "auto", "the forwarder's transmission: packet (packet socket), udp or auto")
	f.StringVar(&o.out.cpu, "cpu", "auto", "pin the forwarder to this CPU: a number, auto or off")
	f.StringVar(&o.encap.kind, "encap", "vxlan", "encapsulation: vxlan or geneve")
	f.StringVar(&o.encap.preset, "as", "", "encapsulate as a cloud's mirror does: "+strings.Join(encap.Presets(), ", "))
	f.Int64Var(&o.encap.vni, "vni", -1, "VNI of the run, 0 to 16777215 (default a fresh one)")
	f.Lookup("vni").DefValue = "0" // what help takes for "no default to show"
	f.Uint16Var(&o.encap.port, "port", 0, "destination port (default 4789 for vxlan, 6081 for geneve)")
	f.IntVar(&o.encap.maxDatagram, "max-datagram", 0, "longest UDP payload that the receiver takes, in bytes (default what UDP allows)")
	f.DurationVar(&o.duration, "duration", 0, "stop after this time")
	f.IntVar(&o.workers, "workers", 1, "threads of the forwarder, which share each interface's traffic by flow")
	f.StringVar(&o.offloads, "offloads", offloadsKeep, "keep, or off: switch the interfaces' merging of packets off, and on again at the end")
	f.StringVar(&o.lossless, "lossless", string(losslessAuto), "wait rather than overrun the sensor: auto (where its queue can be seen), require or off")
	f.BoolVar(&o.detach, "detach", false, "leave the mirror running in the kernel, and end; \"zeekdemo status\" shows it, --stop ends it")
	f.BoolVar(&o.stop, "stop", false, "end mirrors in the kernel (of the given interfaces, or all), and take back what killed ones left")
	f.BoolVar(&o.json, "json", false, "print the report as one JSON document")
}

// The values of --offloads.
const (
	offloadsKeep = "keep"
	offloadsOff  = "off"
)

// mirror is a run made ready.
type mirror struct {
	app      *App
	o        mirrorOptions
	config   encap.Config
	cpu      transmit.CPU
	mode     transmit.Mode
	lossless losslessMode

	engine     orchestrate.Engine // nil without one
	interfaces []string           // those named, and the containers'
	target     target
	way        chosenWay            // to a sensor of the stack
	others     []orchestrate.Sensor // of the stack: two mirrors must not mirror each other's tunnels
	how        string
	howReason  string // why not the kernel
	cleanup    []func()
}

// validate looks at the flags alone.
func (o *mirrorOptions) validate() (*mirror, error) {
	m := &mirror{o: *o}
	var err error
	if m.config, err = o.encap.config(false); err != nil {
		return nil, usageError{err}
	}
	if _, err := encap.New(m.config); err != nil {
		return nil, usageError{err}
	}
	if m.cpu, err = transmit.ParseCPU(o.out.cpu); err != nil {
		return nil, usageError{err}
	}
	if m.mode, err = transmit.ParseMode(o.out.tx); err != nil {
		return nil, usageError{err}
	}
	if m.lossless, err = parseLossless(o.lossless); err != nil {
		return nil, usageError{err}
	}
	if err := o.out.via.validate(m.mode); err != nil {
		return nil, err
	}
	return m, o.validateChoices()
}

// validateChoices looks at values, and at what flags want of each other.
func (o *mirrorOptions) validateChoices() error {
	switch {
	case !slices.Contains([]string{howAuto, howKernel, howForwarder}, o.how):
		return usagef("--how %q: want kernel, forwarder or auto", o.how)
	case !slices.Contains([]string{offloadsKeep, offloadsOff}, o.offloads):
		return usagef("--offloads %q: want keep or off", o.offloads)
	case o.workers < 1 || o.workers > maxWorkers:
		return usagef("--workers %d: want 1 to %d", o.workers, maxWorkers)
	case o.duration < 0:
		return usagef("--duration %s: want a time above zero", o.duration)
	}
	forwarder := o.how == howForwarder || o.workers > 1 || o.encap.given("tx")
	for _, c := range []struct {
		wrong bool
		text  string
	}{
		{o.out.to != "" && o.out.via.given(), "--to and --via (or --direct) exclude each other"},
		{o.how == howKernel && forwarder, "--how kernel has no --workers and no --tx: no packet crosses user space"},
		{o.how == howKernel && (o.out.via.via == viaPublished || o.out.via.via == viaSidecar),
			"--how kernel and --via " + o.out.via.via + " exclude each other: a tunnel device needs the sensor's own address"},
		{o.detach && forwarder, "--detach needs --how kernel: the forwarder is this program"},
		{o.detach && o.duration > 0, "--detach and --duration exclude each other"},
		{o.stop && (o.detach || o.duration > 0 || len(o.containers) > 0), "--stop takes interfaces only"},
		{!o.stop && len(o.interfaces)+len(o.containers) == 0, "name an interface, or a container with --container"},
	} {
		if c.wrong {
			return usageError{errors.New(c.text)}
		}
	}
	return nil
}

func runMirror(ctx context.Context, app *App, o mirrorOptions) error {
	m, err := o.validate()
	if err != nil {
		return err
	}
	m.app = app
	if o.stop {
		return m.runStop()
	}
	defer m.clean()
	if err := m.prepare(ctx); err != nil {
		return err
	}
	if m.how == howKernel {
		return m.runKernel(ctx)
	}
	return m.runForwarder(ctx)
}

func (m *mirror) atEnd(f func()) { m.cleanup = append(m.cleanup, f) }

func (m *mirror) clean() {
	for _, f := range slices.Backward(m.cleanup) {
		f()
	}
}

// prepare finds the interfaces and the sensor, and decides how.
func (m *mirror) prepare(ctx context.Context) error {
	if _, err := offload.Restore(offload.StateDir, ""); err != nil && !errors.Is(err, offload.ErrHeld) {
		return err
	}
	if err := m.connect(); err != nil {
		return err
	}
	if err := m.findInterfaces(ctx); err != nil {
		return err
	}
	if err := m.findTarget(ctx); err != nil {
		return err
	}
	if err := m.decide(ctx); err != nil {
		return err
	}
	return m.switchOffloads()
}

// connect reaches the engine, where it is needed.
func (m *mirror) connect() error {
	if m.o.out.to != "" && len(m.o.containers) == 0 {
		return nil
	}
	e, err := m.app.Connect(m.app.Err)
	if err != nil {
		return err
	}
	if c, ok := e.(io.Closer); ok {
		m.atEnd(func() { c.Close() })
	}
	m.engine = e
	return nil
}

// findInterfaces adds the containers' interfaces to those that were named.
func (m *mirror) findInterfaces(ctx context.Context) error {
	m.interfaces = slices.Clone(m.o.interfaces)
	for _, name := range m.o.containers {
		found, err := containerInterfaces(ctx, m.engine, name)
		if err != nil {
			return fmt.Errorf("mirror container %s: %w", name, err)
		}
		fmt.Fprintf(m.app.Err, "Container %s: %s\n", name, strings.Join(found, ", "))
		m.interfaces = append(m.interfaces, found...)
	}
	for i, name := range m.interfaces {
		if slices.Contains(m.interfaces[:i], name) {
			return usagef("interface %s is named twice", name)
		}
	}
	return nil
}

// findTarget finds out where to send. For the kernel way only the sensor's own
// address will do.
func (m *mirror) findTarget(ctx context.Context) error {
	if m.o.out.to != "" {
		address, err := resolve(ctx, m.o.out.to, m.config.DestinationPort())
		m.target = target{Address: address, Via: viaTo}
		return err
	}
	sensor, err := orchestrate.FindSensor(ctx, m.engine, m.config.Kind.String())
	if err != nil {
		return withDefaultHint(err, "--to HOST mirrors to any monitor without an engine")
	}
	if port := sensor.Service.Port; m.config.Port != 0 && m.config.Port != port {
		return usagef("--port %d: the stack's sensor listens on %d (use --to for another receiver)", m.config.Port, port)
	}
	for _, service := range orchestrate.Services() {
		if other, err := orchestrate.FindSensor(ctx, m.engine, service.Encap); err == nil && service.Encap != "" {
			m.others = append(m.others, other)
		}
	}
	if m.o.how == howKernel {
		if err := sensor.Reaches(ctx, m.engine); err != nil {
			return orchestrate.WithHint(fmt.Errorf("mirror in the kernel: %w", err), "--how forwarder reaches the sensor by a sidecar")
		}
		m.way = chosenWay{via: viaDirect}
	} else if m.way, err = m.o.out.via.choose(ctx, m.engine, sensor, m.mode); err != nil {
		return err
	}
	m.way.announce(m.app.Err)
	m.target = target{Address: m.way.address(sensor), Via: m.way.via, Reasons: m.way.reasons,
		Grafana: orchestrate.FindGrafana(ctx, m.engine), Sensor: sensor}
	if !m.target.Address.IsValid() {
		return orchestrate.WithHint(fmt.Errorf("find sensor %s: its port is not published", sensor.Service.Name),
			"--direct sends to the container's own address, or by sidecar")
	}
	return nil
}

// withDefaultHint adds a hint to an error that has none.
func withDefaultHint(err error, hint string) error {
	var has interface{ Hint() string }
	if errors.As(err, &has) {
		return err
	}
	return orchestrate.WithHint(err, hint)
}

// tunnels are the receivers whose packets must not be mirrored: the one that is
// sent to, and all ways to the stack's sensors, for docker-proxy sends on what
// comes to the published port.
func (m *mirror) tunnels(sensors ...orchestrate.Sensor) (list []afpacket.Tunnel) {
	add := func(to netip.AddrPort) {
		t := afpacket.Tunnel{To: to}
		if to.IsValid() && !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	if m.target.Via != viaSidecar { // whose loopback is not this machine's
		add(m.target.Address)
	}
	for _, s := range slices.Concat([]orchestrate.Sensor{m.target.Sensor}, m.others, sensors) {
		add(s.Direct)
		add(s.Published)
	}
	return list
}

// switchOffloads keeps the interfaces from merging packets, until the end.
func (m *mirror) switchOffloads() error {
	if m.o.offloads != offloadsOff {
		return nil
	}
	for _, name := range m.interfaces {
		h, err := offload.Off(offload.StateDir, name)
		if err != nil {
			return orchestrate.WithHint(err, "--offloads off needs root; without it packets that were merged are cut again")
		}
		if m.o.detach {
			m.atEnd(func() { m.warn(h.Detach()) })
			continue
		}
		m.atEnd(func() { m.warn(h.Release()) })
	}
	return nil
}

// warn says what went wrong with what the result does not depend on.
func (m *mirror) warn(err error) {
	if err != nil {
		fmt.Fprintf(m.app.Err, "warning: %v\n", err)
	}
}
