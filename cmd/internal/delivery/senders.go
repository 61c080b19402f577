package delivery

import (
	"context"
	"errors"
	"net/netip"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/sidecar"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// The three senders: into a capture, from this process, by a sidecar.
var (
	_ sender = (*intoFile)(nil)
	_ sender = (*fromHere)(nil)
	_ sender = (*bySidecar)(nil)
)

// pipeline is what a run does in this process.
func (r *Replay) pipeline(sink forward.Sink) (p forward.Pipeline, err error) {
	p = forward.Pipeline{Source: r.source(), Sink: sink, Clock: r.clock(), Limit: r.Limit, Duration: r.Duration, Stats: &forward.Stats{}}
	if p.Encapsulator, err = encap.New(r.Config); err != nil {
		return p, err
	}
	p.Pacer, err = r.Pace.Pacer()
	return p, err
}

// intoFile writes a capture, at once: its times are the recorded ones, or those of the
// pace that was asked for.
type intoFile struct {
	path   string
	sink   forward.Sink
	closed bool
}

func (f *intoFile) target() way.Target  { return way.Target{Choice: way.Choice{Kind: way.File}} }
func (f *intoFile) destination() string { return f.path }

func (f *intoFile) send(ctx context.Context, r *Replay, started started) (Sent, error) {
	p, err := r.pipeline(f.sink)
	if err != nil {
		return Sent{}, err
	}
	p.Waiting = forward.NoWait // a pace is for receivers
	if r.Pace.Named() {
		p.Waiting = forward.NoWaitStamp
	}
	over := started(f.path, p.Stats.Snapshot)
	_, err = watch.Forward(ctx, p, r.CPU, r.Lossless, nil, "")
	over()
	f.closed = true
	closed := f.sink.Close()
	rep := p.Stats.Snapshot()
	if closed != nil {
		rep = f.held(rep)
	}
	return Sent{Report: rep}, errors.Join(err, closed)
}

// held counts as sent no more packets than the file holds.
func (f *intoFile) held(rep forward.Report) forward.Report {
	w, ok := f.sink.(interface{ Packets() uint64 })
	if !ok || w.Packets() >= rep.DatagramsSent {
		return rep
	}
	rep.DatagramsUnsent += rep.DatagramsSent - w.Packets()
	rep.DatagramsSent = w.Packets()
	return rep
}

func (f *intoFile) close() {
	if !f.closed {
		f.closed = true
		_ = f.sink.Close() // nothing was written
	}
}

// fromHere sends from this process.
type fromHere struct {
	to     way.Target
	tx     transmit.Transmitter
	closed bool
}

func (f *fromHere) target() way.Target  { return f.to }
func (f *fromHere) destination() string { return f.to.Address.String() }

func (f *fromHere) send(ctx context.Context, r *Replay, started started) (Sent, error) {
	p, err := r.pipeline(f.tx)
	if err != nil {
		return Sent{}, err
	}
	watched, reason, err := f.watch(r.Lossless)
	if err != nil {
		return Sent{}, err
	}
	if watched != nil {
		defer func() { _ = watched.Close() }() // nothing was written
		watched.By(f.tx)
		watched.Wait(r.Waiting, r.Observer.Say)
	}
	over := started(describe(r.Config.Kind, f.to, f.tx.Describe()), p.Stats.Snapshot)
	account, err := watch.Forward(ctx, p, r.CPU, r.Lossless, watched, reason)
	over()
	if watched == nil { // else the receiver's own counters tell
		f.tx.Settle(ctx)
	}
	f.closed = true
	err = errors.Join(err, f.tx.Close())
	description, kernel := f.tx.Describe(), f.tx.Stats()
	return Sent{Report: p.Stats.Snapshot(), Transmission: &description, Kernel: &kernel, Account: &account}, err
}

func (f *fromHere) close() {
	if !f.closed {
		f.closed = true
		_ = f.tx.Close() // nothing was sent
	}
}

// watch opens the feedback that the run can have, or says why there is none.
func (f *fromHere) watch(mode watch.Mode) (*watch.Watch, string, error) {
	w, err := Feedback(f.to)
	if err == nil {
		return w, "", nil
	}
	reason, err := mode.Without(err)
	if err != nil {
		err = orchestrate.WithHint(err, "feedback needs a sensor of the stack, on an engine of this machine; --lossless auto sends without")
	}
	return nil, reason, err
}

// Feedback opens what can be seen of a receiver from this process.
func Feedback(t way.Target) (*watch.Watch, error) {
	if t.Kind == way.To {
		return nil, errors.New("nothing is known of the receiver that --to names")
	}
	var proxy netip.AddrPort
	if t.Kind == way.Published {
		proxy = t.Address
	}
	route, err := watch.ToContainer(t.Sensor, proxy)
	if err != nil {
		return nil, err
	}
	return route.Open()
}

// bySidecar lets a sidecar send.
type bySidecar struct {
	to     way.Target
	client *sidecar.Client
}

func (s *bySidecar) target() way.Target  { return s.to }
func (s *bySidecar) destination() string { return s.to.Address.String() }

func (s *bySidecar) send(ctx context.Context, r *Replay, started started) (Sent, error) {
	s.client.StopSource, s.client.Say = r.Captures.Stop, r.Observer.Say
	s.client.Started = func() func() {
		m, _ := s.client.Newest()
		return started(describe(r.Config.Kind, s.to, m.Transmission), func() forward.Report {
			m, _ := s.client.Newest()
			return m.Report
		})
	}
	source, err := r.announcing(r.source())
	if err != nil {
		return Sent{}, err
	}
	last, err := s.client.Run(ctx, s.job(r), source)
	left := r.filtered()
	last.Report.FramesFiltered += left
	last.Report.FramesRead += left
	return Sent{Report: last.Report, Transmission: &last.Transmission, Kernel: &last.Kernel, Account: last.Account}, err
}

// job describes the run to the sidecar.
func (s *bySidecar) job(r *Replay) sidecar.Job {
	return sidecar.Job{Destination: s.to.Address, Nodes: s.to.Sensor.Nodes, Config: r.Config, Pace: r.Pace, CPU: r.CPU, Limit: r.Limit, Duration: r.Duration, Lossless: r.Lossless, Waiting: r.Waiting}
}

func (s *bySidecar) close() { s.client.Close() }
