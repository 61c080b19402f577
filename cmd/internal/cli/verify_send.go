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
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/forward/record"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/zeeklog"
)

// errUnpublished says that only a published port is left as a way, and that the
// sensor has none yet.
var errUnpublished = errors.New("its port is not published")

// sending is one capture on its way to a sensor.
type sending struct {
	*subject
	sensor orchestrate.Sensor
	way    chosenWay
	to     netip.AddrPort
	config encap.Config
}

// send replays the capture over the chosen way and records what was sent.
func (s *subject) send(ctx context.Context, sensor orchestrate.Sensor) error {
	source, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	way, err := s.o.via.choose(ctx, s.engine, sensor, s.mode)
	if err != nil {
		return err
	}
	x := sending{subject: s, sensor: sensor, way: way, to: way.address(sensor)}
	if err := x.check(); err != nil {
		return err
	}
	s.row.Via, s.row.ViaReason = way.via, strings.Join(way.reasons, "; ")
	x.config = encap.Config{Kind: s.kind, VNI: freshVNI(), MaxDatagram: transmit.MaxPayload(x.to.Addr())}
	defer x.show(source)()
	if way.via == viaSidecar {
		return x.bySidecar(ctx, source)
	}
	return x.fromHere(ctx, source)
}

// show shows how far the capture is until the function that it returns is
// called.
func (x sending) show(source forward.Progress) (stop func()) {
	update := func() {
		done, total := source.Progress()
		x.steps.Update(ui.Step{ID: x.name, Text: "Sending", Detail: viaWords[x.way.via], Current: done, Total: total})
	}
	update()
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(tellInterval)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				update()
			}
		}
	})
	return func() { close(ended); wg.Wait() }
}

// open opens the capture, as often as it is needed: it is a plain file.
func (s *subject) open(ctx context.Context) (*pcapfile.Files, error) {
	source, err := pcapfile.OpenAll([]string{s.plain}, pcapfile.Options{Stop: ctx.Done()})
	if err != nil {
		return nil, err
	}
	if err := refuseLinkTypes(source.LinkTypes(), []string{s.name}); err != nil {
		return nil, errors.Join(err, source.Close())
	}
	return source, nil
}

// check looks whether the way leads anywhere.
func (x sending) check() error {
	switch {
	case x.way.via != viaPublished:
		return nil
	case x.remote:
		return x.unreached("the engine's machine is not this one, so its published ports are out of reach")
	case !x.to.IsValid():
		return errUnpublished
	}
	return nil
}

// unreached says that no way leads to the sensor.
func (x sending) unreached(why string) error {
	return orchestrate.WithHint(fmt.Errorf("reach sensor %s: %s", x.sensor.Service.Name, strings.Join(append(x.way.reasons, why), "; ")),
		"--via sidecar sends from beside the sensor, wherever the engine is")
}

// fromHere sends from this process and records on the way.
func (x sending) fromHere(ctx context.Context, source forward.Source) error {
	encapsulator, err := encap.New(x.config)
	if err != nil {
		return err
	}
	pacer, err := x.o.pace.pacer() // one for each run: it has a state
	if err != nil {
		return err
	}
	watched, reason, err := x.watch()
	if err != nil {
		return err
	}
	if watched != nil {
		defer func() { _ = watched.close() }() // nothing was written
	}
	tx, err := transmit.Open(ctx, transmit.Options{Destination: x.to, Mode: x.mode, Kind: x.kind})
	if err != nil {
		return err
	}
	if watched != nil {
		watched.by(tx)
	}
	file, err := os.Create(x.sent)
	if err != nil {
		return errors.Join(fmt.Errorf("record what is sent: %w", err), tx.Close())
	}
	defer file.Close()
	recorder, err := record.New(x.app.sink(tx), x.kind, file, x.sent)
	if err != nil {
		return errors.Join(err, tx.Close())
	}
	stats := &forward.Stats{}
	account, err := forwardWatched(ctx, forward.Pipeline{Source: source, Encapsulator: encapsulator, Sink: recorder, Pacer: pacer,
		Clock: pace.NewClock(), Stats: stats}, x.cpu, x.lossless, watched, reason)
	x.row.Path.Sent, x.row.Path.SentBytes = recorder.Sent()
	x.row.Path.Refused = tx.Stats().Refused
	x.row.Report, x.row.Lossless = stats.Snapshot(), &account
	if x.way.via == viaPublished && x.row.Path.Refused > 0 {
		err = errors.Join(err, x.unreached(fmt.Sprintf("nobody listens at %s of this machine", x.to)))
	}
	return errors.Join(x.untilDamage(err), recorder.Close(), file.Close())
}

// watch opens the feedback, or says why there is none.
func (x sending) watch() (f *feedback, reason string, err error) {
	var proxy netip.AddrPort
	if x.way.via == viaPublished {
		proxy = x.to
	}
	way, err := containerRoute(x.sensor.Container, x.sensor.Service.Port, proxy)
	if err == nil {
		f, err = way.onBridge(orchestrate.VerifyBridge(x.id)).watch()
	}
	if err != nil {
		reason, err = x.lossless.without(err)
	}
	return f, reason, err
}

// bySidecar lets a sidecar send. What it sent is rebuilt from its journal and
// the capture, so that what happens to frames on the way to the sidecar is found
// as well.
func (x sending) bySidecar(ctx context.Context, source forward.Source) error {
	client := newSidecarClient(x.engine, x.to, x.way.sidecar)
	defer client.end()
	journal, err := os.Create(x.journal)
	if err != nil {
		return fmt.Errorf("record what is sent: %w", err)
	}
	defer journal.Close()
	client.journal = journal
	job := sidecarJob{Protocol: sidecarProtocol, Destination: x.to, Config: x.config, Pace: x.o.pace.job(), CPU: x.cpu, Lossless: x.lossless, Journal: true}
	last, err := client.send(ctx, job, source, func() {}, func() func() { return func() {} })
	x.row.Path.Sent, x.row.Path.Refused = last.Report.DatagramsSent, last.Kernel.Refused
	x.row.Report, x.row.Lossless = last.Report, last.Account
	if err = errors.Join(x.untilDamage(err), context.Cause(ctx)); err != nil {
		return err
	}
	return x.rebuild(ctx)
}

// rebuild records what a sidecar sent.
func (x sending) rebuild(ctx context.Context) error {
	encapsulator, err := encap.New(x.config)
	if err != nil {
		return err
	}
	source, err := x.open(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	journal, err := os.Open(x.journal)
	if err != nil {
		return fmt.Errorf("record what was sent: %w", err)
	}
	defer journal.Close()
	file, err := os.Create(x.sent)
	if err != nil {
		return fmt.Errorf("record what was sent: %w", err)
	}
	defer file.Close()
	sent, payload, err := record.Rebuild(ctx, journal, source, encapsulator, x.kind, file, x.sent)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	x.row.Path.Sent, x.row.Path.SentBytes = sent, payload
	if told := x.row.Report.DatagramsSent; told != sent {
		return fmt.Errorf("record what was sent: the sidecar told of %d packets, its journal of %d", told, sent)
	}
	return nil
}

// untilDamage leaves damage of the capture out of an error. Everything before it
// was sent, and is compared: Zeek stops there as well.
func (x sending) untilDamage(err error) error {
	var several interface{ Unwrap() []error }
	if errors.As(err, &several) {
		var rest []error
		for _, e := range several.Unwrap() {
			rest = append(rest, x.untilDamage(e))
		}
		return errors.Join(rest...)
	}
	var damage *pcapfile.DamageError
	if !errors.As(err, &damage) {
		return err
	}
	x.row.PaceNote = strings.TrimSpace(damage.Error())
	return nil
}

// explain adds to a path what the kernel's counters tell of it.
func (d *losslessDocument) explain(p *zeeklog.Path) {
	if d == nil || d.Ledger == nil {
		return
	}
	p.Taken, p.TakenKnown = d.Ledger.Taken, true
	for _, s := range d.Sockets {
		if s.Place == "host" {
			p.ProxyDropped += s.Dropped
		}
	}
	if p.Counted && p.Received >= p.Sent {
		return
	}
	for _, c := range d.Ledger.Counters {
		if !ofSocket(c) && !strings.HasSuffix(c.Name, "time_squeeze") { // a sign of load
			p.Elsewhere = append(p.Elsewhere, c.String())
		}
	}
}
