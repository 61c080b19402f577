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
	"sync/atomic"
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
	waiting  Waiting
	before   drops.Snapshot
	first    []drops.Socket
	others   bystanders
	names    map[uint64]string // of sockets in the ledger
	stalled  atomic.Bool       // see Stalled
}

// Open opens what tells about the receiver and opens the books.
func (r Route) Open() (*Watch, error) {
	p, err := openProbe(r)
	if err != nil {
		return nil, err
	}
	w := &Watch{probe: p, route: r, names: map[uint64]string{}}
	if w.governor, err = pace.NewGovernor(p, pace.NewClock()); err == nil {
		w.Wait(Waits(), nil)
		w.first = w.sockets()
		w.before, err = drops.Take(r.places, w.first)
	}
	if err == nil {
		w.others, err = lookAround(p.sensor, r.witness)
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
	if w.route.inside {
		w.others.sender(tx)
	}
}

// Governor holds datagrams back. It is of the same goroutine as the Watch.
func (w *Watch) Governor() *pace.Governor { return w.governor }

// sockets are those that there were at the last look or before, for the ledger.
// Those that share an address are told apart by their number; a name once given
// stays.
func (w *Watch) sockets() (out []drops.Socket) {
	list := w.governor.Queues()
	for i := range list {
		s := &list[i]
		name, ok := w.names[s.ID]
		if !ok {
			name = w.probe.address(s.ID)
			for j := range list {
				if j != i && list[j].Name == s.Name {
					name = fmt.Sprintf("%s #%d", w.probe.address(s.ID), s.ID)
				}
			}
			w.names[s.ID] = name
		}
		out = append(out, drops.Socket{Place: place(s.Stage), Name: name, Drops: s.Drops})
	}
	return out
}

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
	err := GaveUp(transmit.Pinned(cpu, func() error { return p.Run(ctx) }))
	if w == nil {
		return account, err
	}
	settling := context.WithoutCancel(ctx)
	if ctx.Err() != nil { // who interrupts wants an answer
		w.waiting.End = min(w.waiting.End, hurry)
		var answered context.CancelFunc
		settling, answered = context.WithTimeout(settling, answer)
		defer answered()
	}
	return account, errors.Join(err, w.settle(settling, &account, p.Stats.Snapshot().DatagramsSent, err))
}

// Settle waits for the receiver and writes the ledger of a run that has sent
// datagrams and ended with runErr. An interrupt shortens the wait. A receiver
// that has gone is not waited for.
func (w *Watch) Settle(ctx context.Context, a *Account, sent uint64, runErr error) error {
	if ctx.Err() != nil {
		w.waiting.End = min(w.waiting.End, hurry)
	}
	return w.settle(context.WithoutCancel(ctx), a, sent, runErr)
}

func (w *Watch) settle(ctx context.Context, a *Account, sent uint64, runErr error) error {
	var gone *pace.GoneError
	var err error
	if !errors.As(runErr, &gone) {
		wait := w.atEnd(runErr)
		err = w.drain(ctx, wait)
		errors.As(err, &gone)
		if w.queued() > 0 {
			a.WaitedSeconds = wait.Seconds()
		}
	}
	last := w.sockets()
	after, takeErr := drops.Take(w.route.places, last)
	if gone == nil { // else its counters went with it
		err = errors.Join(err, takeErr)
	}
	a.Sockets = w.watched(last)
	seen := w.governor.Feedback()
	run := drops.Run{Sent: sent, Taken: seen.Taken, QueuedBytes: w.queued(), InGone: seen.InGone}
	if gone == nil { // else none was left
		run.Gone, run.Died = w.gone(last)
	}
	w.others.bound(w.probe.sensor, &run)
	ledger := drops.Settle(w.before, after, run)
	if ledger.Doubt > 0 && gone == nil {
		run.Witness = w.others.testimony(ctx, sent)
		ledger = drops.Settle(w.before, after, run)
	}
	if gone != nil {
		ledger.Verdict = fmt.Sprintf("%d of %d packets had been taken when %s had gone", ledger.Taken, sent, gone.Socket)
	}
	a.Seen, a.Ledger = &seen, &ledger
	return err
}

// atEnd is how long the sensor is waited for at the end of a run. Who has been
// waited for in vain is not waited for again.
func (w *Watch) atEnd(runErr error) time.Duration {
	var stuck *pace.StuckError
	if errors.As(runErr, &stuck) {
		return min(w.waiting.End, hurry)
	}
	return w.waiting.End
}

// drain waits until all has been taken, or nothing is any more, or ctx ends.
func (w *Watch) drain(ctx context.Context, wait time.Duration) error {
	_, err := w.governor.Drain(ctx, wait)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // what waits still is in the ledger
	}
	return err
}

// queued is how much waits at all sockets, in bytes of kernel memory.
func (w *Watch) queued() (sum int) {
	for _, q := range w.governor.Queues() {
		if !q.Gone {
			sum += q.Queued
		}
	}
	return sum
}

// gone names the sockets that went while others went on, and those of them that were
// the sensor's own, whose processes held what they had taken.
func (w *Watch) gone(last []drops.Socket) (names, died []string) {
	for i, q := range w.governor.Queues() {
		if !q.Gone {
			continue
		}
		names = append(names, fmt.Sprintf("%s of the %s", last[i].Name, last[i].Place))
		if last[i].Place == AtSensor {
			died = append(died, last[i].Name)
		}
	}
	return names, died
}

// watched are the sockets with what they dropped in this run.
func (w *Watch) watched(last []drops.Socket) (list []Socket) {
	for i, q := range w.governor.Queues() {
		dropped := q.Drops
		for _, was := range w.first {
			if was.Name == last[i].Name && was.Place == last[i].Place {
				dropped -= min(was.Drops, dropped)
			}
		}
		s := Socket{Place: last[i].Place, Address: last[i].Name, BufferBytes: q.Buffer, Dropped: dropped, Gone: q.Gone, WaitedSeconds: q.Waited.Seconds()}
		if q.Held > 0 {
			s.HeldBytes, s.BelievedBytes = q.Held, q.Believed
		}
		list = append(list, s)
	}
	return list
}
