// Package mirror sends what passes live interfaces to a sensor, or to any monitor.
//
// There are two ways to do it ([How]). In the kernel (kernel.go, attend.go): a
// traffic-control filter copies every packet into a tunnel device, which
// orchestrate/tcmirror makes. By the forwarder (forwarder.go): a packet ring, or
// the system's tcpdump, whose frames go out as a replay's do, by workers.
//
// A live mirror outlives its sensor's container (follow.go). The time during which
// the sensor stays what and where it is, is a stretch: it has its own transmission,
// governor and ledger. An outlet is what a worker's pipeline sends to: it carries
// datagrams to where the sensor is now, and waits while there is none; meanwhile
// the ring fills. Nothing of a batch is dropped or sent twice on a turn.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/afpacket"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/offload"
)

// How names a way to mirror.
type How string

// The ways to mirror, as --how names them.
const (
	Auto      How = "auto"      // the kernel where it can and nothing has to be cut
	Kernel    How = "kernel"    // traffic control: no packet crosses user space
	Forwarder How = "forwarder" // a packet ring, and the transmission that replays use
)

// ParseHow reads the value of --how.
func ParseHow(s string) (How, error) {
	switch h := How(s); h {
	case Auto, Kernel, Forwarder:
		return h, nil
	}
	return "", fmt.Errorf("--how %q: want kernel, forwarder or auto", s)
}

// Options say what is to be mirrored, where to and how.
type Options struct {
	Interfaces []string
	Containers []string  // whose interfaces are mirrored as well
	To         *way.Host // any monitor; nil for the stack's sensor
	Way        way.Request
	Config     encap.Config // its VNI is the run
	Preset     bool         // Config encapsulates as a cloud does
	Filter     string       // pcap-filter; empty takes all
	How        How
	Tx         transmit.Mode // of the forwarder
	CPU        transmit.CPU  // of the forwarder
	TxGiven    bool          // the forwarder's transmission was asked for
	Workers    int           // threads of the forwarder
	Lossless   watch.Mode
	Waiting    watch.Waiting // for a sensor that takes nothing; its End is that of the mirror
	Duration   time.Duration // 0 until interrupted
	Detach     bool          // leave it to the kernel, and end
	Unmerge    bool          // switch the interfaces' merging of packets off meanwhile
	Observer   delivery.Observer
}

// NeedsEngine is true unless it sends to any monitor and names no container.
func (o Options) NeedsEngine() bool { return o.To == nil || len(o.Containers) > 0 }

// mirror is a run made ready.
type mirror struct {
	Options
	engine     orchestrate.Engine // nil without one
	interfaces []string           // those named, and the containers'
	target     way.Target
	way        way.Opened           // to a sensor of the stack
	others     []orchestrate.Sensor // of the stack: two mirrors must not mirror each other's tunnels
	how        How
	howReason  string // why not the kernel
	cleanup    []func()
}

// Run mirrors until ctx ends or the duration is over, and returns what it came to.
// The document is nil where it has not begun; otherwise it is right whatever the
// error, which then is the one that the verdict stands for. e may be nil where none
// is needed.
func Run(ctx context.Context, e orchestrate.Engine, o Options) (*Document, error) {
	m := &mirror{Options: o, engine: e}
	defer m.clean()
	if err := m.prepare(ctx); err != nil {
		return nil, err
	}
	end := m.mark(ctx)
	doc, err := m.run(ctx)
	end(doc)
	return doc, err
}

func (m *mirror) run(ctx context.Context) (*Document, error) {
	if m.how == Kernel {
		return m.runKernel(ctx)
	}
	return m.runForwarder(ctx)
}

// mark annotates the mirror in the stack's Grafana, from now until end. One that goes
// on without this program has no end there.
func (m *mirror) mark(ctx context.Context) (end func(*Document)) {
	marked := delivery.Mark(ctx, m.target, m.Config, delivery.Marked{Kind: "mirror", What: strings.Join(m.interfaces, ", ")}, m.Observer)
	return func(doc *Document) {
		switch {
		case doc == nil:
			marked(nil)
		case m.Detach:
			marked(&delivery.Document{})
		default:
			marked(&doc.Document)
		}
	}
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
	for _, step := range []func(context.Context) error{m.findInterfaces, m.findTarget, m.decide} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return m.switchOffloads()
}

// findInterfaces adds the containers' interfaces to those that were named.
func (m *mirror) findInterfaces(ctx context.Context) error {
	m.interfaces = slices.Clone(m.Interfaces)
	for _, name := range m.Containers {
		found, err := containerInterfaces(ctx, m.engine, name)
		if err != nil {
			return fmt.Errorf("mirror container %s: %w", name, err)
		}
		m.say(fmt.Sprintf("Container %s: %s", name, strings.Join(found, ", ")))
		m.interfaces = append(m.interfaces, found...)
	}
	for i, name := range m.interfaces {
		if slices.Contains(m.interfaces[:i], name) {
			return way.Usagef("interface %s is named twice", name)
		}
	}
	return nil
}

// findTarget finds out where to send.
func (m *mirror) findTarget(ctx context.Context) (err error) {
	if m.To != nil {
		m.target, err = m.To.Target(ctx)
		return err
	}
	sensor, err := orchestrate.FindSensor(ctx, m.engine, m.Config.Kind.String())
	if err != nil {
		return orchestrate.WithHint(err, "--to HOST mirrors to any monitor without an engine")
	}
	if port := sensor.Service.Port; m.Config.Port != 0 && m.Config.Port != port {
		return way.Usagef("--port %d: the stack's sensor listens on %d (use --to for another receiver)", m.Config.Port, port)
	}
	if err := way.CheckMode(m.Config, sensor); err != nil {
		return err
	}
	m.findOthers(ctx)
	if err := m.openWay(ctx, sensor); err != nil {
		return err
	}
	if news := m.way.Announcement(); news != "" {
		m.say(news)
	}
	m.target, err = m.way.Find(ctx, m.engine, sensor)
	return err
}

// findOthers finds the stack's sensors, as far as they run.
func (m *mirror) findOthers(ctx context.Context) {
	for _, service := range orchestrate.Services() {
		if !service.IsSensor() {
			continue
		}
		if other, err := orchestrate.FindSensor(ctx, m.engine, service.Encap); err == nil {
			m.others = append(m.others, other)
		}
	}
}

// openWay chooses the way to the sensor. For the kernel only the sensor's own
// address will do.
func (m *mirror) openWay(ctx context.Context, sensor orchestrate.Sensor) (err error) {
	if m.How != Kernel {
		m.way, err = m.Way.Open(ctx, m.engine, sensor)
		m.atEnd(func() { m.way.Discard(m.engine) })
		return err
	}
	if err := sensor.Reaches(ctx, m.engine); err != nil {
		return orchestrate.WithHint(fmt.Errorf("mirror in the kernel: %w", err), "--how forwarder reaches the sensor by a sidecar")
	}
	m.way = way.Straight()
	return nil
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
	if m.target.Kind != way.Sidecar { // whose loopback is not this machine's
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
	if !m.Unmerge {
		return nil
	}
	for _, name := range m.interfaces {
		h, err := offload.Off(offload.StateDir, name)
		if err != nil {
			return orchestrate.WithHint(err, "--offloads off needs root; without it packets that were merged are cut again")
		}
		end := h.Release
		if m.Detach {
			end = h.Detach
		}
		m.atEnd(func() { m.warn(end()) })
	}
	return nil
}

func (m *mirror) say(line string) { m.Observer.Say(line) }

// warn says what went wrong with what the result does not depend on.
func (m *mirror) warn(err error) {
	if err != nil {
		m.say("warning: " + err.Error())
	}
}

// untilEnd is a context that ends when the mirror is to end.
func (m *mirror) untilEnd(ctx context.Context) (context.Context, context.CancelFunc) {
	if m.Duration > 0 {
		return context.WithTimeout(ctx, m.Duration)
	}
	return context.WithCancel(ctx)
}
