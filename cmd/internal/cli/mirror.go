package cli

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/mirror"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// maxWorkers bounds --workers: more than there are processors is of no use.
const maxWorkers = 64

type mirrorOptions struct {
	interfaces []string
	containers []string
	to         toOption
	via        viaOptions
	send       sendOptions
	encap      encapOptions
	filter     string
	how        string
	offloads   string
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
	f.StringArrayVar(&o.containers, "container", nil, "mirror this container's traffic (repeatable)")
	filterFlag(f, &o.filter, "mirror only packets")
	f.StringVar(&o.how, "how", string(mirror.Auto), "kernel, forwarder or auto")
	o.to.flags(f)
	o.via.flags(f)
	o.send.flags(f, 0) // a mirror outlives its sensor
	o.encap.flags(f)
	durationFlag(f, &o.duration)
	f.IntVar(&o.workers, "workers", 1, "threads of the forwarder, which share each interface's traffic by flow")
	f.StringVar(&o.offloads, "offloads", offloadsKeep, "keep, or off: switch the interfaces' merging of packets off, and on again at the end")
	f.BoolVar(&o.detach, "detach", false, "leave the mirror running in the kernel, and end; \"zeekdemo status\" shows it, --stop ends it")
	f.BoolVar(&o.stop, "stop", false, "end mirrors in the kernel (of the given interfaces, or all), and take back what killed ones left")
	jsonFlag(f, &o.json, "the report")
}

// The values of --offloads.
const (
	offloadsKeep = "keep"
	offloadsOff  = "off"
)

// parse looks at the flags alone.
func (o *mirrorOptions) parse() (m mirror.Options, err error) {
	m = mirror.Options{Interfaces: o.interfaces, Containers: o.containers, Preset: o.encap.preset != "", Filter: o.filter,
		TxGiven: o.encap.given("tx"), Workers: o.workers, Duration: o.duration, Detach: o.detach, Unmerge: o.offloads == offloadsOff}
	if m.Config, err = o.encap.config(); err != nil {
		return m, err
	}
	sending, err := o.send.parse()
	if err != nil {
		return m, err
	}
	m.CPU, m.Tx, m.Lossless, m.Waiting = sending.cpu, sending.tx, sending.lossless, sending.waiting
	if m.Way, err = o.via.request(m.Tx); err != nil {
		return m, err
	}
	if m.How, err = mirror.ParseHow(o.how); err != nil {
		return m, usageError{err}
	}
	if m.To, err = o.to.host(m.Config); err != nil {
		return m, err
	}
	if err := o.checkValues(); err != nil {
		return m, err
	}
	return m, o.checkTogether(m)
}

// checkValues looks at each value.
func (o *mirrorOptions) checkValues() error {
	switch {
	case !slices.Contains([]string{offloadsKeep, offloadsOff}, o.offloads):
		return usagef("--offloads %q: want keep or off", o.offloads)
	case o.workers < 1 || o.workers > maxWorkers:
		return usagef("--workers %d: want 1 to %d", o.workers, maxWorkers)
	case o.duration < 0:
		return usagef("--duration %s: want a time above zero", o.duration)
	}
	for _, name := range o.interfaces {
		if strings.HasPrefix(name, "-") {
			return usagef("interface %q: want its name", name)
		}
	}
	return nil
}

// checkTogether looks at what flags want of each other.
func (o *mirrorOptions) checkTogether(m mirror.Options) error {
	forwarder := m.How == mirror.Forwarder || m.Workers > 1 || m.TxGiven
	kernel := m.How == mirror.Kernel
	for _, c := range []struct {
		wrong bool
		text  string
	}{
		{o.to.text != "" && o.via.given(), "--to and --via (or --direct) exclude each other"},
		{kernel && forwarder, "--how kernel has no --workers and no --tx: no packet crosses user space"},
		{kernel && (m.Way.Kind == way.Published || m.Way.Kind == way.Sidecar),
			"--how kernel and --via " + o.via.via + " exclude each other: a tunnel device needs the sensor's own address"},
		{o.detach && forwarder, "--detach needs --how kernel: the forwarder is this program"},
		{o.detach && o.duration > 0, "--detach and --duration exclude each other"},
		{o.stop && (o.detach || o.duration > 0 || len(o.containers) > 0), "--stop takes interfaces only"},
		{kernel && m.Config.RawIP, "--how kernel and --raw-ip exclude each other: a tunnel device carries Ethernet"},
		{!o.stop && len(o.interfaces)+len(o.containers) == 0, "name an interface, or a container with --container"},
	} {
		if c.wrong {
			return usageError{errors.New(c.text)}
		}
	}
	return nil
}

func runMirror(ctx context.Context, app *App, o mirrorOptions) error {
	m, err := o.parse()
	if err != nil {
		return err
	}
	if o.stop {
		return o.runStop(app)
	}
	m.Observer = app.observer()
	if !m.NeedsEngine() {
		return o.run(ctx, app, nil, m)
	}
	return app.withEngine(func(e orchestrate.Engine) error { return o.run(ctx, app, e, m) })
}

// run mirrors and reports. An interrupt is how a mirror ends, not what went wrong
// with it.
func (o mirrorOptions) run(ctx context.Context, app *App, e orchestrate.Engine, m mirror.Options) error {
	doc, err := mirror.Run(ctx, e, m)
	if doc == nil {
		return err
	}
	if err = errors.Join(err, o.report(app, *doc)); err != nil {
		return overError{err}
	}
	return nil
}

// runStop ends mirrors in the kernel and takes back what killed ones left.
func (o mirrorOptions) runStop(app *App) error {
	running, err := app.kernelMirrors()
	if err != nil {
		err = mirror.KernelHint(err)
	}
	stopped, stopErr := mirror.Stop(running, o.interfaces)
	return errors.Join(err, stopErr, o.reportStopped(app, stopped))
}
