package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/offload"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
)

// decide chooses between the kernel and the forwarder.
func (m *mirror) decide(ctx context.Context) error {
	if m.o.how == howForwarder {
		m.how = howForwarder
		return nil
	}
	obstacle, err := m.obstacle(ctx)
	switch {
	case err != nil:
		return err
	case obstacle == nil:
		m.how = howKernel
	case m.o.how == howKernel || m.o.detach:
		return kernelHint(fmt.Errorf("mirror in the kernel: %w", obstacle))
	default:
		m.how, m.howReason = howForwarder, obstacle.Error()
		fmt.Fprintf(m.app.Err, "Mirroring by the forwarder: %s\n", m.howReason)
	}
	return nil
}

func kernelHint(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return withDefaultHint(err, "it needs root or CAP_NET_ADMIN")
	}
	return withDefaultHint(err, "--how forwarder needs none of this")
}

// obstacle is why the kernel cannot mirror so, or ought not to.
func (m *mirror) obstacle(ctx context.Context) (why, err error) {
	switch {
	case m.o.workers > 1 || m.o.encap.given("tx"):
		return errors.New("--workers and --tx are the forwarder's"), nil
	case m.target.Via != viaDirect && m.target.Via != viaTo:
		return fmt.Errorf("a tunnel device needs the sensor's own address, which is reached %s", viaWords[m.target.Via]), nil
	case len(m.config.Options) > 0 || m.o.encap.preset != "":
		return errors.New("a tunnel device adds no GENEVE options"), nil
	}
	switch err := m.request().possible(ctx); {
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, os.ErrPermission):
		return err, nil
	case err != nil:
		return nil, err
	}
	if m.o.how == howAuto && !m.o.detach {
		return m.merged(), nil
	}
	return nil, nil
}

// merged says which interface merges packets. The kernel cuts them as well, but in
// the way of the traffic itself, of which the forwarder is out.
func (m *mirror) merged() error {
	if m.o.offloads == offloadsOff {
		return nil
	}
	for _, name := range m.interfaces {
		if on, err := offload.Merging(name); err == nil && len(on) > 0 {
			if more := len(on) - 2; more > 1 {
				on = append(on[:2:2], fmt.Sprintf("and %d more features", more))
			}
			return fmt.Errorf("%s merges packets (%s), which have to be cut", name, strings.Join(on, ", "))
		}
	}
	return nil
}

// request describes the mirrors to the kernel.
func (m *mirror) request() kernelRequest {
	return kernelRequest{Interfaces: m.interfaces, Encap: m.config.Kind.String(), VNI: m.config.VNI, To: m.target.Address,
		Service: m.target.Sensor.Service.Name, Exclude: m.excluded(), Expression: m.o.filter, Detached: m.o.detach,
		Oversize: m.o.how == howKernel || m.o.detach}
}

// excluded are the tunnels' receivers, for the kernel.
func (m *mirror) excluded() (list []netip.AddrPort) {
	for _, t := range m.tunnels() {
		list = append(list, t.To)
	}
	return list
}

// runKernel starts the mirrors and, unless they are to stay, looks after them
// until it is interrupted.
func (m *mirror) runKernel(ctx context.Context) error {
	hope, end := m.untilEnd(ctx)
	defer end()
	books := &kernelBooks{m: m}
	if !m.o.detach {
		books.open(nil)
	}
	run, err := m.request().start(hope)
	if err != nil {
		books.drop()
		return kernelHint(fmt.Errorf("mirror in the kernel: %w", err))
	}
	begun := time.Now()
	for _, k := range run.mirrors {
		for _, note := range k.Notes {
			fmt.Fprintf(m.app.Err, "%s: %s\n", k.Interface, note)
		}
	}
	fmt.Fprintf(m.app.Err, "Run %d: %s to %s %s in the kernel; %s\n", m.config.VNI, strings.Join(m.interfaces, ", "), m.config.Kind, m.target.Address, m.howItEnds())
	if m.o.detach {
		return m.reportKernel(run.mirrors, begun, nil, nil)
	}
	runErr := m.attend(hope, run, books)
	last, err := run.finish()
	err = errors.Join(runErr, err)
	err = errors.Join(err, books.close(hope, last, err))
	return m.reportKernel(last, begun, books.accounts, err)
}

func (m *mirror) howItEnds() string {
	if m.o.detach {
		return "`zeekdemo mirror --stop` ends it"
	}
	return "Ctrl-C ends it"
}

// attend shows what the mirrors do, and lets them follow the sensor, until ctx
// ends or one of them is stopped by somebody else.
func (m *mirror) attend(ctx context.Context, run *kernelRun, books *kernelBooks) error {
	last, lastAt := map[string]tcmirror.Mirror{}, time.Now()
	gone := make(chan error, 1)
	var mu sync.Mutex // of run
	shown := ui.NewTicker(m.app.Err, m.app.Terminal, func() (lines []string) {
		mu.Lock()
		defer mu.Unlock()
		gap := time.Since(lastAt).Seconds()
		lastAt = time.Now()
		now, err := run.look()
		for _, k := range now {
			lines = append(lines, kernelLine(k, last[k.Device], gap))
			last[k.Device] = k
		}
		if err != nil {
			select {
			case gone <- err:
			default:
			}
		}
		return lines
	})
	defer shown.Close()
	moved := make(chan orchestrate.Sensor)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	if m.target.Via != viaTo {
		go m.tellMoves(watching, moved, shown.Say)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-gone:
			return err
		case next := <-moved:
			mu.Lock()
			m.follow(ctx, run, books, next)
			mu.Unlock()
			shown.Say(fmt.Sprintf("Following the sensor to %s", m.target.Address))
		}
	}
}

// follow turns to the sensor's next life: what waited for the last one is lost.
func (m *mirror) follow(ctx context.Context, run *kernelRun, books *kernelBooks, next orchestrate.Sensor) {
	now, _ := run.look()
	m.warn(books.close(ctx, now, &pace.GoneError{Socket: m.target.Sensor.Service.Name}))
	was := m.target.Sensor
	m.target.Sensor, m.target.Address = next, m.way.address(next)
	books.open(now)
	m.warn(run.follow(m.target.Address, append(m.excluded(), was.Direct)))
}

// tellMoves tells whenever the sensor is another one, or elsewhere.
func (m *mirror) tellMoves(ctx context.Context, moved chan<- orchestrate.Sensor, say func(string)) {
	was := m.target.Sensor
	for {
		next, err := m.watchSensor(ctx, was, nil, func() { say("The sensor has gone; what is mirrored until it is back is lost") })
		if err != nil {
			return
		}
		was = next
		select {
		case moved <- next:
		case <-ctx.Done():
			return
		}
	}
}

func kernelLine(now, last tcmirror.Mirror, gap float64) string {
	packets := now.Stats.Received.Packets + now.Stats.Sent.Packets
	bytes := now.Stats.Received.Bytes + now.Stats.Sent.Bytes
	pps, bits := 0.0, 0.0
	if gap > 0 {
		pps = float64(packets-last.Stats.Received.Packets-last.Stats.Sent.Packets) / gap
		bits = 8 * float64(bytes-last.Stats.Received.Bytes-last.Stats.Sent.Bytes) / gap
	}
	return fmt.Sprintf("%s: %s packets, %s, %s, %s, %s dropped", now.Interface, ui.Count(packets), ui.Bytes(int64(bytes)),
		ui.PacketRate(pps), ui.BitRate(bits), ui.Count(now.Stats.Lost()))
}

// kernelRows tell what a mirror in the kernel has done.
func kernelRows(k tcmirror.Mirror) [][]string {
	rows := [][]string{{k.Interface, fmt.Sprintf("%s packets in, %s out; %s packets into the tunnel, %s lost",
		ui.Count(k.Stats.Received.Packets), ui.Count(k.Stats.Sent.Packets), ui.Count(k.Stats.Tunnel.Packets), ui.Count(k.Stats.Lost()))}}
	for _, note := range k.Notes {
		rows = append(rows, []string{"", note})
	}
	return rows
}

// reportKernel prints what the mirrors did.
func (m *mirror) reportKernel(running []tcmirror.Mirror, begun time.Time, accounts []losslessDocument, runErr error) error {
	rep := forward.Report{Finished: !m.o.detach, Refused: []forward.RefusedCount{}}
	var lost uint64
	for _, k := range running {
		rep.DatagramsSent += k.Stats.Tunnel.Packets
		rep.FramesRead += k.Stats.Received.Packets + k.Stats.Sent.Packets
		rep.InnerBytes += k.Stats.Received.Bytes + k.Stats.Sent.Bytes
		lost += k.Stats.Lost()
	}
	setTime(&rep, begun, time.Now())
	doc := m.document(rep)
	doc.Mirrors = running
	result := runErr
	if len(accounts) > 0 {
		account := joinAccounts(accounts)
		doc.Lossless = &account
		if result == nil {
			result = account.result()
		}
	}
	if result == nil && lost > 0 {
		result = lossError{fmt.Errorf("%s packets did not leave this machine", ui.Count(lost))}
	}
	return m.report(outcome{doc, result})
}

// stopDocument is what `mirror --stop --json` prints.
type stopDocument struct {
	Stopped  []tcmirror.Mirror `json:"stopped"`
	Offloads []string          `json:"offloads_restored"` // interfaces
}

// runStop ends mirrors in the kernel and takes back what killed ones left.
func (m *mirror) runStop() error {
	stopped, err := stopKernelMirrors(m.app, m.o.interfaces)
	doc := stopDocument{Stopped: append([]tcmirror.Mirror{}, stopped...), Offloads: []string{}}
	var errs []error
	if err != nil {
		errs = append(errs, kernelHint(fmt.Errorf("stop mirrors in the kernel: %w", err)))
	}
	names := m.o.interfaces
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		restored, err := offload.RestoreDetached(offload.StateDir, name)
		doc.Offloads = append(doc.Offloads, restored...)
		if !errors.Is(err, offload.ErrHeld) { // a forwarder that runs
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, m.printStopped(doc))...)
}

func (m *mirror) printStopped(doc stopDocument) error {
	if m.o.json {
		return ui.JSON(m.app.Out, doc)
	}
	for _, k := range doc.Stopped {
		fmt.Fprintf(m.app.Out, "%s is no longer mirrored to %s (VNI %d)\n", k.Interface, k.Sensor, k.VNI)
	}
	for _, name := range doc.Offloads {
		fmt.Fprintf(m.app.Out, "%s merges packets again, as before\n", name)
	}
	if len(doc.Stopped)+len(doc.Offloads) == 0 {
		fmt.Fprintln(m.app.Err, "Nothing is mirrored in the kernel, and nothing was left")
	}
	return nil
}
