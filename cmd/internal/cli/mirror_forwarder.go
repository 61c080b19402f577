package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/bpf"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/afpacket"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/filter"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// liveCapture is a capture as the forwarder uses it.
type liveCapture interface {
	// Sources are where frames come from, one for each worker. After Stop they
	// yield what was captured before, and then io.EOF.
	Sources() []forward.Source
	// Exclude replaces the tunnels whose packets are not captured.
	Exclude(tunnels []afpacket.Tunnel) error
	// Counts are by interface, at any time.
	Counts() ([]afpacket.Counts, error)
	Stop() error
	// Interrupt makes the sources fail with context.Canceled while it is on.
	Interrupt(on bool)
	Close() error
}

// ringCapture is a liveCapture by packet rings.
type ringCapture struct{ *afpacket.Capture }

// Sources implements liveCapture.
func (c ringCapture) Sources() (list []forward.Source) {
	for _, w := range c.Workers() {
		list = append(list, w)
	}
	return list
}

var _ liveCapture = ringCapture{}

// openCapture begins to capture, by packet rings where there are any.
func (m *mirror) openCapture(ctx context.Context, say func(string)) (liveCapture, error) {
	if m.target.Via == viaSidecar && m.o.workers > 1 {
		m.warn(errors.New("a sidecar takes its frames one after the other: --workers is of no use"))
		m.o.workers = 1
	}
	o := afpacket.Options{Workers: m.o.workers, Exclude: m.tunnels(), Streams: m.streams(ctx),
		Buffer: min(afpacket.DefaultBuffer, max(ringMemory/len(m.interfaces), leastRing))}
	mtu := 0
	for _, name := range m.interfaces {
		i, err := afpacket.Find(name)
		if errors.Is(err, errors.ErrUnsupported) {
			return openTcpdump(m.interfaces, tcpdumpFilter(m.o.filter, o.Exclude, o.Streams), say)
		}
		if err != nil {
			return nil, err
		}
		if i.Filter, err = m.compile(ctx, i); err != nil {
			return nil, err
		}
		if !i.Up {
			say(fmt.Sprintf("%s is down; it is mirrored once it is up", name))
		}
		mtu = max(mtu, i.MTU)
		o.Interfaces = append(o.Interfaces, i)
	}
	c, err := afpacket.Open(o)
	if errors.Is(err, os.ErrPermission) {
		return nil, orchestrate.WithHint(err, "run it as root, or grant the program what it needs: sudo setcap cap_net_raw=ep "+programPath())
	}
	if err != nil {
		return nil, err
	}
	if !c.Merging() { // then merged packets are told by their size
		m.config.ResegmentAll, m.config.MTU = true, mtu
	}
	go func() {
		for news := range c.News() {
			say(news.Interface + " " + news.Text)
		}
	}()
	return ringCapture{c}, nil
}

// streams are the engine's addresses, where it is elsewhere: the frames go there if
// they go by sidecar.
func (m *mirror) streams(ctx context.Context) (list []netip.AddrPort) {
	if m.target.Via != viaSidecar || m.engine == nil {
		return nil
	}
	info, err := m.engine.Info(ctx)
	if err != nil || !info.Remote {
		return nil
	}
	at, err := url.Parse(info.Address)
	if err != nil {
		return nil
	}
	port, err := strconv.ParseUint(cmp.Or(at.Port(), map[string]string{"ssh": "22", "https": "443"}[at.Scheme], "2375"), 10, 16)
	if err != nil {
		return nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", at.Hostname())
	if err != nil { // an alias of ssh's configuration
		m.warn(fmt.Errorf("the engine's address is not known (%w): leave its connection out with --filter, if it passes %s", err, strings.Join(m.interfaces, ", ")))
	}
	for _, addr := range addrs {
		list = append(list, netip.AddrPortFrom(addr.Unmap(), uint16(port)))
	}
	return list
}

// The rings are memory of the kernel's that cannot be swapped out: all of them
// together take no more than the first, unless that leaves less than the second for
// an interface.
const ringMemory, leastRing = 256 << 20, 8 << 20

func programPath() string {
	path, err := orchestrate.RunningProgram()
	if err != nil {
		return "zeekdemo"
	}
	return path
}

// compile compiles --filter for an interface; nil takes everything.
func (m *mirror) compile(ctx context.Context, i afpacket.Interface) ([]bpf.RawInstruction, error) {
	if m.o.filter == "" {
		return nil, nil
	}
	p, err := filter.CompileLive(ctx, m.o.filter, i.Name, i.LinkType)
	if err != nil {
		return nil, err
	}
	return p.Raw(), nil
}

// liveRun is a mirror by the forwarder under way.
type liveRun struct {
	*mirror
	capture liveCapture
	begun   time.Time

	// hope ends when the mirror is to end: then nothing more is captured and no
	// sensor is waited for. hard ends some time later, and everything with it.
	hope, hard context.Context
	giveUp     context.CancelCauseFunc

	mu       sync.Mutex
	counts   []afpacket.Counts // of captures that are over
	accounts []losslessDocument
	reports  []forward.Report
	stalls   uint64 // how often and how long sensors were waited for, but by sidecars
	stalled  time.Duration
	kernel   transmit.Stats
	about    transmit.Description
	shown    *ui.Ticker // nil before and after the run
}

// errPatience ends a run whose sensor takes nothing any more.
var errPatience = fmt.Errorf("the sensor has taken nothing for %s", patience)

func (m *mirror) runForwarder(ctx context.Context) error {
	r := &liveRun{mirror: m}
	capture, err := m.openCapture(ctx, r.say)
	if err != nil {
		return err
	}
	return r.from(ctx, capture)
}

// from forwards what is captured until the mirror is to end, closes the capture,
// and reports. A container that is started again has other interfaces: where only
// containers are mirrored, those are captured on as soon as they are there.
func (r *liveRun) from(ctx context.Context, capture liveCapture) error {
	var end context.CancelFunc
	r.hope, end = r.untilEnd(ctx)
	defer end()
	r.hard, r.giveUp = context.WithCancelCause(context.WithoutCancel(ctx))
	defer r.giveUp(nil)
	r.begun = time.Now()
	for {
		r.capture = capture
		counts, err := r.through()
		r.counts = append(r.counts, counts...)
		if errors.Is(err, afpacket.ErrGone) && len(r.o.interfaces) == 0 {
			r.say("The container's interface has gone; waiting until it is back")
			if capture, err = r.captureAgain(); err == nil && capture != nil {
				continue
			}
		}
		return r.report(r.outcome(r.counts, err))
	}
}

// through forwards all of one capture, closes it, and returns its counts.
func (r *liveRun) through() ([]afpacket.Counts, error) {
	over := make(chan struct{})
	var ending sync.WaitGroup
	ending.Go(func() { r.endInTime(over) })
	err := r.forward()
	close(over)
	ending.Wait()
	counts, countErr := r.capture.Counts()
	return counts, errors.Join(err, countErr, r.capture.Close())
}

// captureAgain waits for the containers' interfaces and captures on them. It is nil
// where the mirror ends before.
func (r *liveRun) captureAgain() (liveCapture, error) {
	for {
		select {
		case <-r.hope.Done():
			return nil, nil
		case <-time.After(comesBack):
		}
		if r.findInterfaces(r.hope) != nil {
			continue // not there yet
		}
		switch c, err := r.openCapture(r.hope, r.say); {
		case err == nil:
			return c, nil
		case errors.Is(err, os.ErrPermission):
			return nil, err
		}
	}
}

// comesBack is the pause between two looks for a container's interfaces.
const comesBack = 300 * time.Millisecond

// untilEnd is a context that ends when the mirror is to end.
func (m *mirror) untilEnd(ctx context.Context) (context.Context, context.CancelFunc) {
	if m.o.duration > 0 {
		return context.WithTimeout(ctx, m.o.duration)
	}
	return context.WithCancel(ctx)
}

// endInTime ends the capture when the mirror is to end, and everything if what
// was captured is not taken for long.
func (r *liveRun) endInTime(over <-chan struct{}) {
	select {
	case <-over:
		return
	case <-r.hope.Done():
	}
	r.warn(r.capture.Stop())
	select {
	case <-over:
	case <-time.After(patience):
		r.giveUp(errPatience)
		r.capture.Interrupt(true)
	}
}

// forward forwards until the capture is at its end.
func (r *liveRun) forward() error {
	if r.target.Via == viaSidecar {
		return r.feedSidecars()
	}
	if most := transmit.MaxPayload(r.target.Address.Addr()); r.config.MaxDatagram == 0 || r.config.MaxDatagram > most {
		r.config.MaxDatagram = most
	}
	first, err := r.stretchTo(r.target)
	if err != nil {
		return err
	}
	follow := newFollowing(first, r.target.Via != viaTo)
	workers, err := r.hire(follow)
	if err != nil {
		_, settleErr := first.settle(r.hope, nil)
		return errors.Join(err, settleErr)
	}
	r.announce(workers[0].out.about)
	defer r.show()()
	watching, stopWatching := context.WithCancel(r.hope)
	var watch sync.WaitGroup
	if follow.follows {
		watch.Go(func() { r.followSensor(watching, follow) })
	}
	err = r.work(workers)
	stopWatching()
	watch.Wait()
	now, _ := follow.current()
	return errors.Join(err, r.settle(now, err))
}

// worker is one thread of the forwarder.
type worker struct {
	out      *courier
	pipeline forward.Pipeline
	stats    forward.Stats
	cpu      transmit.CPU
}

// hire makes the workers ready, their transmissions open.
func (r *liveRun) hire(follow *following) (list []*worker, err error) {
	sources := r.capture.Sources()
	cpus := []transmit.CPU{r.cpu}
	if len(sources) > 1 && r.cpu == transmit.CPUAuto {
		cpus = transmit.Spread(len(sources))
	}
	now, _ := follow.current()
	for i, source := range sources {
		w := &worker{cpu: cpus[i%len(cpus)], out: &courier{run: r.hard, hope: r.hope, follow: follow,
			options: transmit.Options{Mode: r.mode, Kind: r.config.Kind, PortMin: r.config.PortMin, PortMax: r.config.PortMax}}}
		list = append(list, w)
		encapsulator, err := encap.New(r.config)
		if err == nil {
			err = w.out.open(now)
		}
		if err != nil {
			for _, w := range list {
				w.out.Close()
			}
			if errors.Is(err, os.ErrPermission) {
				err = orchestrate.WithHint(err, "--tx udp needs no privilege; packet sockets need root or CAP_NET_RAW")
			}
			return nil, err
		}
		w.pipeline = forward.Pipeline{Source: source, Encapsulator: encapsulator, Sink: w.out, Clock: pace.NewClock(), Stats: &w.stats}
	}
	return list, nil
}

// work runs all workers until they are at their ends.
func (r *liveRun) work(workers []*worker) error {
	errs := make([]error, len(workers))
	var all sync.WaitGroup
	for i, w := range workers {
		all.Go(func() {
			errs[i] = transmit.Pinned(w.cpu, func() error {
				return errors.Join(w.pipeline.Run(r.hard), w.out.Close())
			})
			if errs[i] != nil && !errors.Is(errs[i], afpacket.ErrGone) { // the others cannot do its work
				r.giveUp(errs[i])
				r.capture.Interrupt(true)
			}
		})
	}
	all.Wait()
	for _, w := range workers {
		r.reports = append(r.reports, w.stats.Snapshot())
		r.kernel, r.about = addStats(r.kernel, w.out.counted), w.out.about
	}
	if cause := context.Cause(r.hard); cause != nil {
		return cause // the first error, of which others are consequences
	}
	return errors.Join(errs...)
}

// settle closes the books of a stretch.
func (r *liveRun) settle(s *stretch, runErr error) error {
	doc, err := s.settle(r.hard, runErr)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accounts = append(r.accounts, doc)
	r.stalls, r.stalled = r.stalls+s.held.Load(), r.stalled+time.Duration(s.took.Load())
	var gone *pace.GoneError
	if errors.As(err, &gone) {
		return nil // what it did not take is in the ledger
	}
	return err
}

// followSensor makes a new stretch whenever the sensor is another one.
func (r *liveRun) followSensor(ctx context.Context, follow *following) {
	for {
		next, err := r.watchSensor(ctx, r.target.Sensor, follow.trouble, func() {
			r.say("The sensor has gone; packets wait in the ring until it is back")
		})
		if err != nil {
			return
		}
		t := r.target
		t.Sensor, t.Address = next, r.way.address(next)
		s, err := r.arrive(ctx, t)
		if err != nil {
			return
		}
		was := r.target
		r.mu.Lock()
		r.target = t
		r.mu.Unlock()
		r.warn(r.capture.Exclude(r.tunnels(was.Sensor)))
		before := follow.turn(s)
		r.say(fmt.Sprintf("Following the sensor to %s", t.Address))
		r.warn(r.settle(before, &pace.GoneError{Socket: was.Address.String() + " of the sensor"}))
	}
}

// arriveLimit is how long a new sensor's socket is waited for.
const arriveLimit = time.Minute

// arrive waits until a sensor that has just been started listens, as far as that
// can be seen.
func (r *liveRun) arrive(ctx context.Context, t target) (*stretch, error) {
	limit := time.Now().Add(arriveLimit)
	for {
		s, err := r.stretchTo(t)
		if err == nil && (s.feedback != nil || time.Now().After(limit) || !t.Sensor.Container.RunsHere() && r.healthy(ctx, t)) {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// healthy asks the engine, whose check of a sensor's health is that it listens.
func (r *liveRun) healthy(ctx context.Context, t target) bool {
	now, err := orchestrate.FindSensor(ctx, r.engine, r.config.Kind.String())
	return err == nil && identityOf(now) == identityOf(t.Sensor) && (now.Container.Health == "" || now.Container.Health == "healthy")
}

// feedSidecars hands the frames to a sidecar, and to another one when the sensor
// is replaced.
func (r *liveRun) feedSidecars() error {
	source := r.capture.Sources()[0]
	streams, err := r.firstSidecar()
	if err != nil {
		return err
	}
	defer r.show()()
	for {
		s := newSidecarClient(r.engine, r.target.Address, streams)
		last, err := s.send(r.hard, r.job(), source, func() { r.capture.Interrupt(true) }, func() func() {
			r.announce(s.Describe())
			return func() {}
		})
		s.end()
		r.capture.Interrupt(false)
		r.reports, r.kernel, r.about = append(r.reports, last.Report), addStats(r.kernel, last.Kernel), last.Transmission
		if last.Account != nil {
			r.accounts = append(r.accounts, *last.Account)
		}
		if _, final := s.newest(); err == nil || final && last.Error == "" || r.hope.Err() != nil || r.hard.Err() != nil {
			return err // if there is one it is the capture's
		}
		r.say("The sidecar has ended: " + err.Error())
		trouble := make(chan struct{}, 1)
		trouble <- struct{}{}
		next, watchErr := r.watchSensor(r.hope, r.target.Sensor, trouble, func() {
			r.say("The sensor has gone; packets wait until it is back")
		})
		if watchErr != nil {
			return err
		}
		r.target.Sensor = next
		if streams, err = r.o.out.via.startSidecar(r.hope, r.engine, next, r.mode); err != nil {
			return err
		}
	}
}

// firstSidecar is the one that was started to try the way, or another one if that
// has been used.
func (r *liveRun) firstSidecar() (orchestrate.SidecarStreams, error) {
	streams := r.way.sidecar
	if streams.Stdin == nil {
		return r.o.out.via.startSidecar(r.hope, r.engine, r.target.Sensor, r.mode)
	}
	r.way.sidecar = orchestrate.SidecarStreams{}
	return streams, nil
}

// job describes the run to a sidecar.
func (r *liveRun) job() sidecarJob {
	return sidecarJob{Protocol: sidecarProtocol, Destination: r.target.Address, Config: r.config, CPU: r.cpu, Lossless: r.lossless,
		Pace: paceJob{Pace: "max", Speed: "1x", Given: map[string]bool{"pace": true}}}
}

// announce says what is about to happen, for a run may take days.
func (r *liveRun) announce(d transmit.Description) {
	d.Reasons = nil // the report has them
	r.say(fmt.Sprintf("Run %d: %s to %s %s by %s; Ctrl-C ends it", r.config.VNI, strings.Join(r.interfaces, ", "), r.config.Kind, r.target.Address, d))
}

// show begins to show what is seen on each interface, and returns what ends that.
func (r *liveRun) show() (end func()) {
	last, lastAt := map[string]afpacket.Counts{}, time.Now()
	t := ui.NewTicker(r.app.Err, r.app.Terminal, func() (lines []string) {
		counts, err := r.capture.Counts()
		if err != nil {
			return nil
		}
		gap := time.Since(lastAt).Seconds()
		lastAt = time.Now()
		for _, c := range counts {
			lines = append(lines, countsLine(c, last[c.Interface], gap))
			last[c.Interface] = c
		}
		return lines
	})
	set := func(t *ui.Ticker) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.shown = t
	}
	set(t)
	return func() { set(nil); t.Close() }
}

// say prints a line between what is shown.
func (r *liveRun) say(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shown != nil {
		r.shown.Say(line)
		return
	}
	fmt.Fprintln(r.app.Err, line)
}

// countsLine is, for example:
//
//	eth0: 1 203 456 packets, 421 MB, 168 kpps, 471 Mbit/s, 0 dropped
func countsLine(now, last afpacket.Counts, gap float64) string {
	pps, bits := 0.0, 0.0
	if gap > 0 {
		pps, bits = float64(now.Packets-last.Packets)/gap, 8*float64(now.Bytes-last.Bytes)/gap
	}
	return fmt.Sprintf("%s: %s packets, %s, %s, %s, %s dropped", now.Interface, ui.Count(now.Packets), ui.Bytes(int64(now.Bytes)),
		ui.PacketRate(pps), ui.BitRate(bits), ui.Count(now.Dropped))
}
