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
	"github.com/zeekdemo/zeekdemo/forward/relay"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
)

// sidecarCommand is the hidden command that runs inside a sidecar.
const sidecarCommand = "sidecar"

// sidecarProtocol is the version of job and messages. Both ends must have the
// same: --sidecar-binary may be of another release.
const sidecarProtocol = 1

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
	Account      *losslessDocument    `json:"account,omitempty"` // with Final
	Final        bool                 `json:"final,omitempty"`
	Error        string               `json:"error,omitempty"`
}

// sidecarJob describes the run to the sidecar.
func (r *replay) sidecarJob() sidecarJob {
	p := paceJob{Pace: r.o.pace.pace, Speed: r.o.pace.speed, PPS: r.o.pace.pps, Rate: r.o.pace.rate, Delay: r.o.pace.delay, Given: map[string]bool{}}
	for _, flag := range []string{"pace", "speed", "pps", "rate", "delay"} {
		p.Given[flag] = r.o.pace.given(flag)
	}
	return sidecarJob{Protocol: sidecarProtocol, Destination: r.target.Address, Config: r.config, Pace: p,
		CPU: r.cpu, Limit: r.o.limit, Duration: r.o.duration, Lossless: r.lossless}
}

func (p paceJob) pacer() (forward.Pacer, error) {
	return paceOptions{pace: p.Pace, speed: p.Speed, pps: p.PPS, rate: p.Rate, delay: p.Delay,
		given: func(flag string) bool { return p.Given[flag] }}.pacer()
}

func newSidecar(app *App) *cobra.Command {
	return &cobra.Command{
		Use:    sidecarCommand,
		Short:  "Send the frames that come by standard input (what `replay --via sidecar` runs in its container)",
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
	err = job.run(ctx, source, app.Out)
	if err != nil && !errors.Is(err, relay.ErrLost) {
		// The client prints it; what is gone cannot be told anything.
		err = errors.Join(silentError{err}, writeMessage(app.Out, sidecarMessage{Final: true, Error: err.Error()}))
	}
	return err
}

// run does the job. An error of the run itself is told to the client, not
// returned, unless the client is gone.
func (j sidecarJob) run(ctx context.Context, source *relay.Source, out io.Writer) error {
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
	teller := &teller{out: out, source: source, tx: tx, stats: stats}
	pipeline := forward.Pipeline{Source: source, Encapsulator: encapsulator, Sink: tx, Pacer: pacer, Clock: pace.NewClock(),
		Limit: j.Limit, Duration: j.Duration, Stats: stats}
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() { // a stop or a lost client ends the run at once, whatever is due when
		<-source.Ended()
		if err := source.Err(); !errors.Is(err, io.EOF) {
			stop(err)
		}
	}()
	told := teller.start()
	account, runErr := forwardWatched(running, pipeline, j.CPU, j.Lossless, watched, reason)
	told()
	runErr = errors.Join(runErr, tx.Close())
	if errors.Is(runErr, relay.ErrLost) {
		return runErr
	}
	return teller.finish(account, runErr)
}

// watch opens the feedback: the sensor's sockets are in this very namespace.
func (j sidecarJob) watch() (*feedback, string, error) {
	f, err := ownRoute(j.Destination.Port()).watch()
	switch {
	case err == nil:
		return f, "", nil
	case j.Lossless == losslessRequire:
		return nil, "", fmt.Errorf("require a lossless run: %w", err)
	}
	return nil, err.Error(), nil
}

// teller tells the client how far the run is: often enough for a meter, and
// whenever the client needs credit.
type teller struct {
	out    io.Writer
	source *relay.Source
	tx     transmit.Transmitter
	stats  *forward.Stats
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
	return sidecarMessage{Taken: taken, Transmission: description, Kernel: t.tx.Stats(), Report: t.stats.Snapshot()}
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
