package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
	"github.com/zeekdemo/zeekdemo/orchestrate/sockets"
)

// The loop is closed here: what orchestrate sees of the sensor's sockets is
// what the governor of forward/pace goes by, and the kernel's counters before
// and after a run are its ledger.

// losslessMode is the value of --lossless.
type losslessMode string

const (
	losslessAuto    losslessMode = "auto"    // governed where feedback is at hand
	losslessRequire losslessMode = "require" // or not at all
	losslessOff     losslessMode = "off"     // open loop; the ledger is kept nevertheless
)

func parseLossless(s string) (losslessMode, error) {
	switch m := losslessMode(s); m {
	case losslessAuto, losslessRequire, losslessOff:
		return m, nil
	}
	return "", fmt.Errorf("--lossless %q: want auto, require or off", s)
}

// without says what it means that there is no feedback because of err: a reason
// to be reported, or the end of a run that requires it.
func (m losslessMode) without(err error) (reason string, failure error) {
	if m == losslessRequire {
		return "", fmt.Errorf("require a lossless run: %w", err)
	}
	return err.Error(), nil
}

// losslessDocument says in a report whether the run was governed, by what, and
// what became of it.
type losslessDocument struct {
	Governed bool   `json:"governed"`
	Reason   string `json:"reason,omitempty"` // why it was not
	// Feedback is how the queues were read: "sock_diag", or "proc" where their
	// sizes had to be assumed; empty if they could not be.
	Feedback string          `json:"feedback,omitempty"`
	Sockets  []watchedSocket `json:"sockets,omitempty"`
	Seen     *pace.Feedback  `json:"seen,omitempty"`
	Ledger   *drops.Ledger   `json:"ledger,omitempty"`
}

// watchedSocket is a queue on the way of a run.
type watchedSocket struct {
	Place       string `json:"place"` // "sensor" or "host" (docker-proxy's)
	Address     string `json:"address"`
	BufferBytes int    `json:"buffer_bytes"`
	Dropped     uint64 `json:"dropped"` // in this run
}

// route says where a run's packets may wait and die.
type route struct {
	sensor sockets.Place  // namespace of the sensor
	port   uint16         // that the sensor listens on
	proxy  netip.AddrPort // docker-proxy's socket on this host; not valid without
	places []drops.Place  // whose counters go into the ledger
}

// monitoringBridge is the device of the monitoring network on the engine's
// machine, as the Compose file names it.
const monitoringBridge = "br-zeekmon0"

// containerRoute is the way into a container of an engine on this machine: by
// the port published at proxy, or straight to its address if proxy is not
// valid. It fails where the container's processes are not this kernel's.
func containerRoute(c orchestrate.Container, port uint16, proxy netip.AddrPort) (route, error) {
	if !c.RunsHere() {
		return route{}, errors.New("the sensor does not run on this machine")
	}
	return route{
		sensor: sockets.OfProcess(c.PID), port: port, proxy: proxy,
		places: []drops.Place{
			{Name: "sensor", Net: fmt.Sprintf("/proc/%d/net", c.PID)},
			{Name: "host", Net: "/proc/self/net", Devices: drops.BridgePorts("/sys", monitoringBridge), Softnet: true},
		},
	}, nil
}

// ownRoute is the way to a sensor in this process's own network namespace.
func ownRoute(port uint16) route {
	return route{port: port, places: []drops.Place{{Name: "sensor", Net: "/proc/self/net", Softnet: true}}}
}

// onBridge is the same way on another bridge than the stack's.
func (r route) onBridge(name string) route {
	r.places = slices.Clone(r.places)
	for i := range r.places {
		if r.places[i].Name == "host" {
			r.places[i].Devices = drops.BridgePorts("/sys", name)
		}
	}
	return r
}

// feedback is what is known of the receiver while a run goes on.
type feedback struct {
	governor *pace.Governor
	probe    *probe
	route    route
	before   drops.Snapshot
	first    []drops.Socket
}

// probe implements pace.Probe with the sockets of a route.
type probe struct {
	sensor *sockets.Watch
	proxy  *sockets.Watch // nil without docker-proxy
	buf    []sockets.Socket
	names  map[uint64]string // made once per socket
}

var _ pace.Probe = (*probe)(nil)

func openProbe(r route) (*probe, error) {
	p := &probe{names: map[uint64]string{}}
	var err error
	if p.sensor, err = sockets.Open(r.sensor, netip.AddrPortFrom(netip.IPv4Unspecified(), r.port), sockets.AsksForMuch); err != nil {
		return nil, err
	}
	if !r.proxy.IsValid() {
		return p, nil
	}
	p.proxy, err = sockets.Open(sockets.Place{}, r.proxy, sockets.AsksForNothing)
	if errors.Is(err, sockets.ErrNoSocket) {
		return p, nil // the engine publishes the port by packet filter alone
	}
	if err != nil {
		return nil, errors.Join(err, p.sensor.Close())
	}
	return p, nil
}

func (p *probe) close() error {
	err := p.sensor.Close()
	if p.proxy != nil {
		err = errors.Join(err, p.proxy.Close())
	}
	return err
}

// Taken implements pace.Probe.
func (p *probe) Taken() (uint64, error) { return p.sensor.Taken() }

// Sockets implements pace.Probe.
func (p *probe) Sockets(buf []pace.Socket) ([]pace.Socket, error) {
	buf, err := p.stage(buf, p.sensor, 0)
	if err == nil && p.proxy != nil {
		buf, err = p.stage(buf, p.proxy, 1)
	}
	return buf, err
}

func (p *probe) stage(buf []pace.Socket, w *sockets.Watch, stage int) ([]pace.Socket, error) {
	var err error
	if p.buf, err = w.Read(p.buf[:0]); err != nil {
		return buf, err
	}
	for i := range p.buf {
		s := &p.buf[i]
		// Cookies are of one kernel, so no two sockets have the same.
		name, ok := p.names[s.ID]
		if !ok {
			name = s.Local.String() + " of " + [...]string{"the sensor", "docker-proxy"}[stage]
			p.names[s.ID] = name
		}
		buf = append(buf, pace.Socket{ID: s.ID, Stage: stage, Name: name, Queued: s.Queued, Allocated: s.Allocated, Buffer: s.Buffer, Drops: s.Drops})
	}
	return buf, nil
}

// exact reports whether all buffer sizes are known.
func (p *probe) exact() bool { return p.sensor.Exact() && (p.proxy == nil || p.proxy.Exact()) }

// watch opens what tells about the receiver and opens the books.
func (r route) watch() (*feedback, error) {
	p, err := openProbe(r)
	if err != nil {
		return nil, err
	}
	f := &feedback{probe: p, route: r}
	if f.governor, err = pace.NewGovernor(p, pace.NewClock()); err == nil {
		f.first = f.sockets()
		f.before, err = drops.Take(r.places, f.first)
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return f, nil
}

func (f *feedback) close() error { return f.probe.close() }

// by tells the governor the transmission that is used. Behind docker-proxy
// there is a second way, of which nothing is known.
func (f *feedback) by(tx transmit.Transmitter) {
	if !f.route.proxy.IsValid() {
		f.governor.PathMTU(tx.Describe().MTU)
	}
}

// sockets are those of the last look, for the ledger. Those that share a port
// are told apart by their number.
func (f *feedback) sockets() []drops.Socket {
	list := f.governor.Sockets()
	var out []drops.Socket
	for _, s := range list {
		name, _, _ := strings.Cut(s.Name, " of ")
		d := drops.Socket{Place: placeOf(s.Stage), Name: name, Drops: s.Drops}
		for _, other := range list {
			if other.ID != s.ID && other.Name == s.Name {
				d.Name = fmt.Sprintf("%s #%d", name, s.ID)
			}
		}
		out = append(out, d)
	}
	return out
}

func placeOf(stage int) string { return [...]string{"sensor", "host"}[stage] }

// patience is how long a sensor may take nothing at the end of a run until it
// counts as stuck. Zeek stops reading for seconds where a script keeps it.
const patience = 10 * time.Second

// forwardWatched forwards p on a thread of its own CPU, held back by what f
// sees of the receiver unless mode forbids it, waits until everything has been
// taken, and closes the books. f is nil where nothing is known of the receiver;
// reason says why. The document is right whatever the error.
func forwardWatched(ctx context.Context, p forward.Pipeline, cpu transmit.CPU, mode losslessMode, f *feedback, reason string) (losslessDocument, error) {
	governed := f != nil && mode != losslessOff
	if governed {
		p.Gate = f.governor
	}
	doc := losslessDocument{Governed: governed, Reason: reason}
	if f != nil && !governed {
		doc.Reason = "--lossless off"
	}
	err := transmit.Pinned(cpu, func() error { return p.Run(ctx) })
	if f == nil {
		return doc, err
	}
	doc.Feedback = "proc"
	if f.probe.exact() {
		doc.Feedback = "sock_diag"
	}
	return doc, errors.Join(err, f.settle(ctx, &doc, p.Stats.Snapshot().DatagramsSent, err))
}

// settle waits for the receiver and writes the ledger. An interrupt shortens the
// wait. A receiver that has gone is not waited for.
func (f *feedback) settle(ctx context.Context, doc *losslessDocument, sent uint64, runErr error) error {
	wait := patience
	if ctx.Err() != nil {
		wait = time.Second
	}
	var gone *pace.GoneError
	var err error
	if !errors.As(runErr, &gone) {
		_, err = f.governor.Drain(context.WithoutCancel(ctx), wait)
	}
	last := f.sockets()
	after, takeErr := drops.Take(f.route.places, last)
	if takeErr != nil && gone == nil && !errors.As(err, &gone) {
		err = errors.Join(err, takeErr) // else: the counters went with the sensor
	}
	queued := 0
	for _, s := range f.governor.Sockets() {
		queued += s.Queued
		doc.Sockets = append(doc.Sockets, watchedSocket{placeOf(s.Stage), s.Name, s.Buffer, s.Drops})
	}
	for i := range doc.Sockets {
		for _, was := range f.first {
			if was.Name == last[i].Name && was.Place == last[i].Place {
				doc.Sockets[i].Dropped -= min(was.Drops, doc.Sockets[i].Dropped)
			}
		}
		doc.Sockets[i].Address = last[i].Name
	}
	seen := f.governor.Feedback()
	ledger := drops.Settle(f.before, after, sent, seen.Taken, queued)
	doc.Seen, doc.Ledger = &seen, &ledger
	if gone != nil {
		ledger.Verdict = fmt.Sprintf("%d of %d packets had been taken when %s had gone", seen.Taken, sent, gone.Socket)
	}
	return err
}

// result is nil if the receiver took everything, or nothing is known of it.
func (d losslessDocument) result() error {
	switch {
	case d.Ledger == nil:
		return nil
	case d.Ledger.Lost > 0:
		return lossError{errors.New(d.Ledger.Verdict)}
	case d.Ledger.QueuedBytes > 0: // it stopped reading before the end
		return orchestrate.WithHint(fmt.Errorf("wait for the sensor: it has taken nothing for %s: %s", patience, d.Ledger.Verdict),
			"`zeekdemo logs` and `zeekdemo status` tell how it is")
	}
	return nil
}

// watch opens the feedback that a replay can have, or says why there is none.
func (r *replay) watch() (f *feedback, reason string, err error) {
	switch {
	case r.o.out.write != "":
		return nil, "", nil
	case r.target.Via == "to":
		err = errors.New("nothing is known of the receiver that --to names")
	case r.target.Via == "published" || r.target.Via == "direct":
		var rt route
		if rt, err = containerRoute(r.target.Sensor.Container, r.target.Sensor.Service.Port, r.proxy()); err == nil {
			f, err = rt.watch()
		}
	default:
		err = fmt.Errorf("no feedback from a sensor by %s", r.target.Via)
	}
	if err == nil {
		return f, "", nil
	}
	if reason, err = r.lossless.without(err); err != nil {
		err = orchestrate.WithHint(err, "feedback needs a sensor of the stack, on an engine of this machine; --lossless auto sends without")
	}
	return nil, reason, err
}

// proxy is docker-proxy's address, where the run goes through it.
func (r *replay) proxy() netip.AddrPort {
	if r.target.Via != "published" {
		return netip.AddrPort{}
	}
	return r.target.Address
}

// governance says whether and by what the run was held back.
func (d losslessDocument) governance(stalled float64) string {
	switch {
	case d.Governed && stalled > 0:
		return fmt.Sprintf("governed by %s; waited %s for the sensor", d.queues(), ui.Duration(seconds(stalled)))
	case d.Governed:
		return fmt.Sprintf("governed by %s; the sensor was never waited for", d.queues())
	}
	return "not governed: " + d.Reason
}

// losslessRows show a run's account to a person.
func losslessRows(doc replayDocument) [][]string {
	l := doc.Lossless
	if l == nil {
		return nil
	}
	rows := [][]string{{"lossless", l.governance(doc.Report.StalledSeconds)}}
	if l.Ledger == nil {
		return rows
	}
	taken := ui.Count(l.Ledger.Taken) + " packets"
	if l.Ledger.QueuedBytes > 0 {
		taken += fmt.Sprintf(", %s still queued", ui.Bytes(int64(l.Ledger.QueuedBytes)))
	}
	rows = append(rows, []string{"taken", taken})
	for _, c := range l.Ledger.Counters {
		if l.Ledger.Lost > 0 || ofSocket(c) {
			rows = append(rows, []string{"counted", c.String()})
		}
	}
	return append(rows, []string{"ledger", l.Ledger.Verdict})
}

// ofSocket reports whether a counter is of a socket on the way: what that counts
// was lost on the way. The others count whatever the machine does, so they only
// explain what was lost.
func ofSocket(c drops.Counter) bool { return strings.HasPrefix(c.Name, "socket ") }

// queues names the buffers that were watched.
func (d losslessDocument) queues() string {
	if len(d.Sockets) == 0 {
		return "the sensor's socket" // which has gone
	}
	least, count := 0, map[string]int{}
	for _, s := range d.Sockets {
		count[s.Place]++
		if least == 0 || s.BufferBytes < least {
			least = s.BufferBytes
		}
	}
	text := "the sensor's socket"
	if n := count["sensor"]; n > 1 {
		text = fmt.Sprintf("the sensor's %d sockets", n)
	}
	if count["host"] > 0 {
		text += " and docker-proxy's"
	}
	if d.Feedback == "proc" {
		text += " (sizes assumed)"
	}
	return fmt.Sprintf("%s, least buffer %s", text, ui.Bytes(int64(least)))
}
