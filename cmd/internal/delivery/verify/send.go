package verify

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/sidecar"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/forward/record"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// errUnpublished says that only a published port is left as a way, and that the
// sensor has none yet.
var errUnpublished = errors.New("its port is not published")

// sending is one capture on its way to a sensor.
type sending struct {
	*subject
	sensor orchestrate.Sensor
	way    way.Opened
	to     netip.AddrPort
	config encap.Config
}

// send replays the capture over the chosen way and records what was sent.
func (s *subject) send(ctx context.Context, sensor orchestrate.Sensor) error {
	source, err := s.capture(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	opened, err := s.open(ctx, sensor)
	if err != nil {
		return err
	}
	x := sending{subject: s, sensor: sensor, way: opened, to: opened.Address(sensor)}
	if err := x.check(); err != nil {
		return err
	}
	s.row.Via, s.row.ViaReason = opened.Kind, strings.Join(opened.Reasons, "; ")
	x.config = encap.Config{Kind: s.Kind, VNI: encap.FreshVNI(), MaxDatagram: transmit.MaxPayload(x.to.Addr())}
	defer x.show(source)()
	if opened.Kind == way.Sidecar {
		return x.bySidecar(ctx, source)
	}
	return x.fromHere(ctx, source)
}

// showInterval is the pause between two readings of how far a capture is.
const showInterval = 200 * time.Millisecond

// show shows how far the capture is until the function that it returns is
// called.
func (x sending) show(source forward.Progress) (stop func()) {
	update := func() {
		done, total := source.Progress()
		x.Observer.Step(delivery.Step{ID: x.name, Text: "Sending", Detail: x.way.Kind.Phrase(), Done: done, Total: total})
	}
	update()
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(showInterval)
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

// open starts the way to a sensor. All sensors of a run are in one network: where
// one was reached directly, the others are.
func (s *subject) open(ctx context.Context, sensor orchestrate.Sensor) (way.Opened, error) {
	if s.reached.Load() {
		return way.Straight(), nil
	}
	opened, err := s.Way.Open(ctx, s.engine, sensor)
	if err == nil && opened.Kind == way.Direct {
		s.reached.Store(true)
	}
	return opened, err
}

// capture opens the capture, as often as it is needed: it is a plain file.
func (s *subject) capture(ctx context.Context) (*pcapfile.Files, error) {
	source, err := pcapfile.OpenAll([]string{s.plain}, pcapfile.Options{Stop: ctx.Done()})
	if err != nil {
		return nil, err
	}
	if err := encap.CheckLinkTypes(source.LinkTypes()); err != nil {
		return nil, errors.Join(fmt.Errorf("replay %s: %w", s.name, err), source.Close())
	}
	return source, nil
}

// check looks whether the way leads anywhere.
func (x sending) check() error {
	switch {
	case x.way.Kind != way.Published:
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
	return orchestrate.WithHint(fmt.Errorf("reach sensor %s: %s", x.sensor.Service.Name, strings.Join(append(x.way.Reasons, why), "; ")),
		"--via sidecar sends from beside the sensor, wherever the engine is")
}

// fromHere sends from this process and records on the way.
func (x sending) fromHere(ctx context.Context, source forward.Source) error {
	watched, reason, err := x.watch()
	if err != nil {
		return err
	}
	if watched != nil {
		defer func() { _ = watched.Close() }() // nothing was written
	}
	tx, err := transmit.Open(ctx, transmit.Options{Destination: x.to, Mode: x.Tx, Kind: x.Kind})
	if err != nil {
		return err
	}
	if watched != nil {
		watched.By(tx)
		watched.Wait(x.Waiting, x.Observer.Say)
	}
	file, recorder, err := x.recorder(tx)
	if err != nil {
		return errors.Join(err, tx.Close())
	}
	defer file.Close()
	p, err := x.pipeline(source, recorder)
	if err != nil {
		return errors.Join(err, recorder.Close())
	}
	account, err := watch.Forward(ctx, p, x.CPU, x.Lossless, watched, reason)
	if watched == nil { // else the receiver's own counters tell
		tx.Settle(ctx)
	}
	x.row.Path.Sent, x.row.Path.SentBytes = recorder.Sent()
	x.row.Path.Refused = tx.Stats().Refused
	x.row.Report, x.row.Lossless = p.Stats.Snapshot(), &account
	if x.way.Kind == way.Published && x.row.Path.Refused > 0 {
		err = errors.Join(err, x.unreached(fmt.Sprintf("nobody listens at %s of this machine", x.to)))
	}
	return errors.Join(x.untilDamage(err), recorder.Close(), file.Close())
}

// recorder records what goes out by tx.
func (x sending) recorder(tx forward.Sink) (*os.File, *record.Recorder, error) {
	if x.Interpose != nil {
		tx = x.Interpose(tx)
	}
	file, err := os.Create(x.sent)
	if err != nil {
		return nil, nil, fmt.Errorf("record what is sent: %w", err)
	}
	recorder, err := record.New(tx, x.Kind, file, x.sent)
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return file, recorder, nil
}

// pipeline is what a run from here does. Its pacer has a state, so each has its
// own.
func (x sending) pipeline(source forward.Source, sink forward.Sink) (p forward.Pipeline, err error) {
	p = forward.Pipeline{Source: source, Sink: sink, Clock: pace.NewClock(), Stats: &forward.Stats{}}
	if p.Encapsulator, err = encap.New(x.config); err != nil {
		return p, err
	}
	p.Pacer, err = x.Pace.Pacer()
	return p, err
}

// watch opens the feedback, or says why there is none.
func (x sending) watch() (w *watch.Watch, reason string, err error) {
	var proxy netip.AddrPort
	if x.way.Kind == way.Published {
		proxy = x.to
	}
	route, err := watch.ToContainer(x.sensor, proxy)
	if err == nil {
		w, err = route.OnBridge(orchestrate.VerifyBridge(x.id)).Open()
	}
	if err != nil {
		reason, err = x.Lossless.Without(err)
	}
	return w, reason, err
}

// bySidecar lets a sidecar send. What it sent is rebuilt from its journal and
// the capture, so that what happens to frames on the way to the sidecar is found
// as well.
func (x sending) bySidecar(ctx context.Context, source forward.Source) error {
	client, err := x.way.Client(ctx, x.engine, x.sensor)
	if err != nil {
		return err
	}
	defer client.Close()
	journal, err := os.Create(x.journal)
	if err != nil {
		return fmt.Errorf("record what is sent: %w", err)
	}
	defer journal.Close()
	client.Journal, client.Say = journal, x.Observer.Say
	last, err := client.Run(ctx, sidecar.Job{Destination: x.to, Nodes: x.sensor.Nodes, Config: x.config, Pace: x.Pace, CPU: x.CPU, Lossless: x.Lossless, Waiting: x.Waiting, Journal: true}, source)
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
	source, err := x.capture(ctx)
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
	sent, payload, err := record.Rebuild(ctx, journal, source, encapsulator, x.Kind, file, x.sent)
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
