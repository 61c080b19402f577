// Package watch is the governor's eyes on a sensor, and the books of a run.
//
// The nouns, from smallest to largest:
//
//   - A Route says where a run's packets may wait and die: the sensor's socket,
//     docker-proxy's before it, and the counters of the namespaces on the way.
//   - A probe reads the queues of a route for the governor of forward/pace, by
//     orchestrate/sockets.
//   - A Watch is a probe with its governor and the counters from before the run.
//   - An Account is what became of the run: whether it was held back, by what, and
//     the ledger of orchestrate/drops.
//
// [Forward] closes the loop: a pipeline that waits for what a Watch sees.
package watch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
)

// Mode is the value of --lossless.
type Mode string

// The modes.
const (
	Auto    Mode = "auto"    // governed where feedback is at hand
	Require Mode = "require" // or not at all
	Off     Mode = "off"     // open loop; the ledger is kept nevertheless
)

// openLoop is why a run was not governed that could have been.
const openLoop = "--lossless off"

// ParseMode reads the value of the flag.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case Auto, Require, Off:
		return m, nil
	}
	return "", fmt.Errorf("--lossless %q: want auto, require or off", s)
}

// Without says what it means that there is no feedback because of err: a reason
// to be reported, or the end of a run that requires it.
func (m Mode) Without(err error) (reason string, failure error) {
	if m == Require {
		return "", fmt.Errorf("require a lossless run: %w", err)
	}
	return err.Error(), nil
}

// Watch is what is known of the receiver while a run goes on. It belongs to one
// goroutine; where several send to one receiver they share it under a lock.
type Watch struct {
	governor *pace.Governor
	probe    *probe
	route    Route
	before   drops.Snapshot
	first    []drops.Socket
}

// Open opens what tells about the receiver and opens the books.
func (r Route) Open() (*Watch, error) {
	p, err := openProbe(r)
	if err != nil {
		return nil, err
	}
	w := &Watch{probe: p, route: r}
	if w.governor, err = pace.NewGovernor(p, pace.NewClock()); err == nil {
		w.first = w.sockets()
		w.before, err = drops.Take(r.places, w.first)
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return w, nil
}

// Close releases the files.
func (w *Watch) Close() error { return w.probe.close() }

// By tells the governor the transmission that is used. Behind docker-proxy there
// is a second way, of which nothing is known.
func (w *Watch) By(tx transmit.Transmitter) {
	if !w.route.Proxy.IsValid() {
		w.governor.PathMTU(tx.Describe().MTU)
	}
}

// Governor holds datagrams back. It is of the same goroutine as the Watch.
func (w *Watch) Governor() *pace.Governor { return w.governor }

// sockets are those of the last look, for the ledger. Those that share an
// address are told apart by their number.
func (w *Watch) sockets() []drops.Socket {
	list := w.governor.Sockets()
	var out []drops.Socket
	for _, s := range list {
		d := drops.Socket{Place: place(s.Stage), Name: w.probe.address(s.ID), Drops: s.Drops}
		for _, other := range list {
			if other.ID != s.ID && other.Name == s.Name {
				d.Name = fmt.Sprintf("%s #%d", w.probe.address(s.ID), s.ID)
			}
		}
		out = append(out, d)
	}
	return out
}

// Patience is how long a sensor may take nothing at the end of a run until it
// counts as stuck. Zeek stops reading for seconds where a script keeps it.
const Patience = 10 * time.Second

// hurry is the same where the run was interrupted.
const hurry = time.Second

// Begin is the account of a run before it is settled. A nil w is one of which
// nothing is known because of reason.
func (w *Watch) Begin(mode Mode, reason string) Account {
	if w == nil {
		return Account{Reason: reason}
	}
	a := Account{Governed: mode != Off, Feedback: FromProc}
	if !a.Governed {
		a.Reason = openLoop
	}
	if w.probe.exact() {
		a.Feedback = FromSockDiag
	}
	return a
}

// Forward forwards p on a thread of its own CPU, held back by what w sees of the
// receiver unless mode forbids it, waits until everything has been taken, and
// closes the books. w is nil where nothing is known of the receiver; reason says
// why. The account is right whatever the error.
func Forward(ctx context.Context, p forward.Pipeline, cpu transmit.CPU, mode Mode, w *Watch, reason string) (Account, error) {
	account := w.Begin(mode, reason)
	if account.Governed {
		p.Gate = w.governor
	}
	err := transmit.Pinned(cpu, func() error { return p.Run(ctx) })
	if w == nil {
		return account, err
	}
	return account, errors.Join(err, w.Settle(ctx, &account, p.Stats.Snapshot().DatagramsSent, err))
}

// Settle waits for the receiver and writes the ledger of a run that has sent
// datagrams and ended with runErr. An interrupt shortens the wait. A receiver
// that has gone is not waited for.
func (w *Watch) Settle(ctx context.Context, a *Account, sent uint64, runErr error) error {
	var gone *pace.GoneError
	var err error
	if !errors.As(runErr, &gone) {
		err = w.drain(ctx)
		errors.As(err, &gone)
	}
	last := w.sockets()
	after, takeErr := drops.Take(w.route.places, last)
	if gone == nil { // else its counters went with it
		err = errors.Join(err, takeErr)
	}
	a.Sockets = w.watched(last)
	seen := w.governor.Feedback()
	ledger := drops.Settle(w.before, after, drops.Run{Sent: sent, Taken: seen.Taken, QueuedBytes: w.queued()})
	if gone != nil {
		ledger.Verdict = fmt.Sprintf("%d of %d packets had been taken when %s had gone", seen.Taken, sent, gone.Socket)
	}
	a.Seen, a.Ledger = &seen, &ledger
	return err
}

// drain waits until all has been taken, or nothing is any more.
func (w *Watch) drain(ctx context.Context) error {
	wait := Patience
	if ctx.Err() != nil {
		wait = hurry
	}
	_, err := w.governor.Drain(context.WithoutCancel(ctx), wait)
	return err
}

// queued is how much waits at all sockets, in bytes of kernel memory.
func (w *Watch) queued() (sum int) {
	for _, s := range w.governor.Sockets() {
		sum += s.Queued
	}
	return sum
}

// watched are the sockets of the last look with what they dropped in this run.
func (w *Watch) watched(last []drops.Socket) (list []Socket) {
	for i, s := range w.governor.Sockets() {
		dropped := s.Drops
		for _, was := range w.first {
			if was.Name == last[i].Name && was.Place == last[i].Place {
				dropped -= min(was.Drops, dropped)
			}
		}
		list = append(list, Socket{Place: last[i].Place, Address: last[i].Name, BufferBytes: s.Buffer, Dropped: dropped})
	}
	return list
}
