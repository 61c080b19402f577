package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/record"
	"github.com/zeekdemo/zeekdemo/forward/relay"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
)

// sidecarCommand is the hidden command that runs inside a sidecar.
const sidecarCommand = "sidecar"

// sidecarProtocol is the version of job and messages. Both ends must have the
// same: --sidecar-binary may be of another release.
const sidecarProtocol = 2

// sidecarJob is what the client wants sent.
type sidecarJob struct {
	Protocol    int            `json:"protocol"`
	Destination netip.AddrPort `json:"destination"` // on the namespace's loopback
	Config      encap.Config   `json:"config"`
	Pace        paceJob        `json:"pace"`
	CPU         transmit.CPU   `json:"cpu"`
	Limit       uint64         `json:"limit"`
	Duration    time.Duration  `json:"duration"`
	Lossless    losslessMode   `json:"lossless"`
	Journal     bool           `json:"journal"` // tell what was sent when
}

// paceJob are the flags of the pace, and which of them were given.
type paceJob struct {
	Pace  string          `json:"pace"`
	Speed string          `json:"speed"`
	PPS   float64         `json:"pps"`
	Rate  string          `json:"rate"`
	Delay time.Duration   `json:"delay"`
	Given map[string]bool `json:"given"`
}

// sidecarMessage is what the sidecar tells, one a line: the first when it is
// about to send, then how far it is, the last with Final.
type sidecarMessage struct {
	Taken        int64                `json:"taken"` // bytes of frame records, the client's credit
	Transmission transmit.Description `json:"transmission"`
	Kernel       transmit.Stats       `json:"kernel"`
	Report       forward.Report       `json:"report"`
	Journal      []byte               `json:"journal,omitempty"` // continues the one before, see package record
	Account      *losslessDocument    `json:"account,omitempty"` // with Final
	Final        bool                 `json:"final,omitempty"`
	Error        string               `json:"error,omitempty"`
}

// sidecarJob describes the run to the sidecar.
func (r *replay) sidecarJob() sidecarJob {
	return sidecarJob{Protocol: sidecarProtocol, Destination: r.target.Address, Config: r.config, Pace: r.o.pace.job(),
		CPU: r.cpu, Limit: r.o.limit, Duration: r.o.duration, Lossless: r.lossless}
}

// job is the pace for a sidecar.
func (o paceOptions) job() paceJob {
	p := paceJob{Pace: o.pace, Speed: o.speed, PPS: o.pps, Rate: o.rate, Delay: o.delay, Given: map[string]bool{}}
	for _, flag := range []string{"pace", "speed", "pps", "rate", "delay"} {
		p.Given[flag] = o.given(flag)
	}
	return p
}

func (p paceJob) pacer() (forward.Pacer, error) {
	return paceOptions{pace: p.Pace, speed: p.Speed, pps: p.PPS, rate: p.Rate, delay: p.Delay,
		given: func(flag string) bool { return p.Given[flag] }}.pacer()
}

func newSidecar(app *App) *cobra.Command {
	return &cobra.Command{
		Use:    sidecarCommand,
		Short:  "Send the frames that come by standard input (what runs in the container of --via sidecar)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return runInsideSidecar(cmd.Context(), app) },
	}
}

// runInsideSidecar receives a job, does it, and tells how it goes.
func runInsideSidecar(ctx context.Context, app *App) error {
	var job sidecarJob
	source, err := relay.Receive(app.In, &job, silence)
	if err != nil {
		return err
	}
	defer source.Close()
	err = job.run(ctx, app, source)
	if err != nil && !errors.Is(err, relay.ErrLost) {
		// The client prints it; what is gone cannot be told anything.
		err = errors.Join(silentError{err}, writeMessage(app.Out, sidecarMessage{Final: true, Error: err.Error()}))
	}
	return err
}

// run does the job. An error of the run itself is told to the client, not
// returned, unless the client is gone.
func (j sidecarJob) run(ctx context.Context, app *App, source *relay.Source) error {
	if j.Protocol != sidecarProtocol {
		return fmt.Errorf("the sidecar's program is of another release (it speaks version %d, this one %d)", sidecarProtocol, j.Protocol)
	}
	encapsulator, err := encap.New(j.Config)
	if err != nil {
		return err
	}
	pacer, err := j.Pace.pacer()
	if err != nil {
		return err
	}
	// What was sent until a stop is still to be reported, so the transmission
	// is not bound to the run's context.
	tx, err := transmit.Open(context.WithoutCancel(ctx), transmit.Options{Destination: j.Destination, Mode: transmit.UDP, Kind: j.Config.Kind,
		PortMin: j.Config.PortMin, PortMax: j.Config.PortMax})
	if err != nil {
		return err
	}
	watched, reason, err := j.watch()
	if err != nil {
		return errors.Join(err, tx.Close())
	}
	if watched != nil {
		defer func() { _ = watched.close() }() // nothing was written
		watched.by(tx)
	}
	stats := &forward.Stats{}
	teller := &teller{out: app.Out, source: source, tx: tx, stats: stats}
	sink := app.sink(tx)
	if j.Journal {
		sink = record.NewJournal(sink, &teller.journal)
	}
	pipeline := forward.Pipeline{Source: source, Encapsulator: encapsulator, Sink: sink, Pacer: pacer, Clock: pace.NewClock(),
		Limit: j.Limit, Duration: j.Duration, Stats: stats}
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() { // a stop or a lost client ends the run at once, whatever is due when
		<-source.Ended()
		stop(source.Err())
	}()
	told := teller.start()
	account, runErr := forwardWatched(running, pipeline, j.CPU, j.Lossless, watched, reason)
	told()
	runErr = errors.Join(runErr, sink.Close())
	if errors.Is(runErr, relay.ErrLost) {
		return runErr
	}
	return teller.finish(account, runErr)
}

// watch opens the feedback: the sensor's sockets are in this very namespace.
func (j sidecarJob) watch() (*feedback, string, error) {
	f, err := ownRoute(j.Destination.Port()).watch()
	if err == nil {
		return f, "", nil
	}
	reason, err := j.Lossless.without(err)
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
	journal journalBuffer
}

// journalBuffer keeps what one goroutine writes for another.
type journalBuffer struct {
	mu   sync.Mutex
	data []byte
}

// Write implements io.Writer.
func (b *journalBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	return len(p), nil
}

// take empties the buffer.
func (b *journalBuffer) take() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	data := b.data
	b.data = nil
	return data
}

// tellInterval is the pause between two messages.
const tellInterval = 200 * time.Millisecond

// start tells at once, and again and again until the function it returns is
// called.
func (t *teller) start() (stop func()) {
	done := make(chan struct{})
	description := t.tx.Describe()
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(tellInterval)
		defer tick.Stop()
		_, taken := t.source.Taken()
		for {
			_ = writeMessage(t.out, t.message(description)) // without a client the stream ends as well
			select {
			case <-done:
				return
			case <-tick.C:
			case <-taken:
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

func (t *teller) message(description transmit.Description) sidecarMessage {
	taken, _ := t.source.Taken()
	return sidecarMessage{Taken: taken, Transmission: description, Kernel: t.tx.Stats(), Report: t.stats.Snapshot(), Journal: t.journal.take()}
}

// finish tells the result.
func (t *teller) finish(account losslessDocument, runErr error) error {
	m := t.message(t.tx.Describe())
	m.Final, m.Account = true, &account
	if runErr != nil && !errors.Is(runErr, relay.ErrStopped) {
		m.Error = runErr.Error()
	}
	return writeMessage(t.out, m)
}
