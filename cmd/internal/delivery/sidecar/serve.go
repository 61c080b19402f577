package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/record"
	"github.com/zeekdemo/zeekdemo/forward/relay"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
)

// ToldError is a failure that the client has been told: it prints it.
type ToldError struct{ error }

// Unwrap returns the failure.
func (t *ToldError) Unwrap() error { return t.error }

// Server is the end inside the container.
type Server struct {
	In  io.Reader // the client's job and frames
	Out io.Writer // messages to the client
	// Interpose stands before the way out; nil for nothing. Tests put faults there.
	Interpose func(forward.Sink) forward.Sink

	silence time.Duration // after which the client counts as gone; 0 for [silence]
}

// Serve receives a job, does it, and tells how it goes, until the client has
// been told the end or is gone.
func (s Server) Serve(ctx context.Context) error {
	var job Job
	source, err := relay.Receive(s.In, &job, cmp.Or(s.silence, silence))
	if err != nil {
		return err
	}
	defer source.Close()
	err = s.do(ctx, job, source)
	if err != nil && !errors.Is(err, relay.ErrLost) {
		// What is gone cannot be told anything.
		return errors.Join(&ToldError{err}, Message{Final: true, Error: err.Error()}.write(s.Out))
	}
	return err
}

// do does the job. An error of the run itself is told to the client, not
// returned, unless the client is gone.
func (s Server) do(ctx context.Context, job Job, source *relay.Source) error {
	if job.Protocol != protocol {
		return fmt.Errorf("the sidecar's program is of another release (it speaks version %d, this one %d)", protocol, job.Protocol)
	}
	encapsulator, err := encap.New(job.Config)
	if err != nil {
		return err
	}
	pacer, err := job.Pace.Pacer()
	if err != nil {
		return err
	}
	// What was sent until a stop is still to be reported, so the transmission
	// is not bound to the run's context.
	tx, err := transmit.Open(context.WithoutCancel(ctx), transmit.Options{Destination: job.Destination, Mode: transmit.UDP, Kind: job.Config.Kind,
		PortMin: job.Config.PortMin, PortMax: job.Config.PortMax})
	if err != nil {
		return err
	}
	watched, reason, err := job.watch(tx)
	if err != nil {
		return errors.Join(err, tx.Close())
	}
	stats := &forward.Stats{}
	t := &teller{out: s.Out, source: source, tx: tx, stats: stats}
	if watched != nil {
		defer func() { _ = watched.Close() }() // nothing was written
		watched.Wait(job.Waiting, t.say)
	}
	sink := s.sink(job, t)
	account, err := t.tellDuring(func() (watch.Account, error) {
		running, stop := untilEnded(ctx, source)
		defer stop()
		account, err := watch.Forward(running, forward.Pipeline{Source: source, Encapsulator: encapsulator, Sink: sink, Pacer: pacer,
			Clock: pace.NewClock(), Limit: job.Limit, Duration: job.Duration, Stats: stats}, job.CPU, job.Lossless, watched, reason)
		return account, err
	})
	if watched == nil { // else the receiver's own counters tell
		tx.Settle(context.WithoutCancel(ctx))
	}
	if err = errors.Join(err, sink.Close()); errors.Is(err, relay.ErrLost) {
		return err
	}
	return t.finish(account, err)
}

// sink is the way out of a job, with what stands before it.
func (s Server) sink(job Job, t *teller) forward.Sink {
	var out forward.Sink = t.tx
	if s.Interpose != nil {
		out = s.Interpose(out)
	}
	if job.Journal {
		out = record.NewJournal(out, &t.journal)
	}
	return out
}

// untilEnded is a context that a stop or a lost client ends at once, whatever is
// due when.
func untilEnded(ctx context.Context, source *relay.Source) (context.Context, func()) {
	running, stop := context.WithCancelCause(ctx)
	go func() {
		<-source.Ended()
		stop(source.Err())
	}()
	return running, func() { stop(nil) }
}

// watch opens the feedback: the sensor's sockets are in this very namespace.
func (j Job) watch(tx transmit.Transmitter) (*watch.Watch, string, error) {
	w, err := watch.Own(j.Destination.Port(), j.Nodes).Open()
	if err == nil {
		w.By(tx)
		return w, "", nil
	}
	reason, err := j.Lossless.Without(err)
	return nil, reason, err
}

// teller tells the client how far the run is: often enough for a meter, and
// whenever the client needs credit.
type teller struct {
	out    io.Writer
	source *relay.Source
	tx     transmit.Transmitter
	stats  *forward.Stats
	// journal is what was sent since the last message, if that is wanted.
	journal buffer

	mu   sync.Mutex
	news []string // since the last message
}

// say tells news with the next message.
func (t *teller) say(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.news = append(t.news, line)
}

// told returns the news since it was called last.
func (t *teller) told() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	news := t.news
	t.news = nil
	return news
}

// buffer keeps what one goroutine writes for another.
type buffer struct {
	mu   sync.Mutex
	data []byte
}

// Write implements io.Writer.
func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	return len(p), nil
}

// take empties the buffer.
func (b *buffer) take() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	data := b.data
	b.data = nil
	return data
}

// tellInterval is the pause between two messages.
const tellInterval = 200 * time.Millisecond

// tellDuring tells at once, and again and again until run has ended.
func (t *teller) tellDuring(run func() (watch.Account, error)) (watch.Account, error) {
	done := make(chan struct{})
	description := t.tx.Describe()
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(tellInterval)
		defer tick.Stop()
		_, taken := t.source.Taken()
		for {
			_ = t.message(description).write(t.out) // without a client the stream ends as well
			select {
			case <-done:
				return
			case <-tick.C:
			case <-taken:
			}
		}
	})
	defer wg.Wait()
	defer close(done)
	return run()
}

func (t *teller) message(description transmit.Description) Message {
	taken, _ := t.source.Taken()
	return Message{Taken: taken, Transmission: description, Kernel: t.tx.Stats(), Report: t.stats.Snapshot(), Journal: t.journal.take(), News: t.told()}
}

// finish tells the result.
func (t *teller) finish(account watch.Account, runErr error) error {
	m := t.message(t.tx.Describe())
	m.Final, m.Account = true, &account
	if runErr != nil && !errors.Is(runErr, relay.ErrStopped) {
		var loss *watch.LossError
		m.Error, m.Loss = runErr.Error(), errors.As(runErr, &loss)
	}
	return m.write(t.out)
}
