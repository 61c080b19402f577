package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
)

type dropsOptions struct {
	interval   time.Duration
	watch      bool
	count      int
	sinceStart bool
	all        bool
	json       bool
	reach      reachOptions
}

func newDrops(app *App) *cobra.Command {
	var o dropsOptions
	cmd := &cobra.Command{
		Use:   "drops",
		Short: "Show where packets die between the sender and Zeek's log",
		Long: `Read every counter on the way from the sender to Zeek's log twice, and show the
difference: how many packets came to each hop, how many died there, which hop is
the first that loses, and, as far as that was seen, why, and what cures it.

Counters are read on the engine's machine: directly where that is this one (as
root all of them, else those that anybody may read), otherwise by a helper
container, which is removed at the end. What cannot be read is named, never
shown as zero.

Packets are counted as the kernel passes them: with segmentation offload one of
them may hold several datagrams, until UDP takes it apart. Hops that other
traffic of the machine shares are marked; what dies there is not counted as
lost, for it may be somebody else's.

  zeekdemo drops                    for two seconds
  zeekdemo drops --watch            a live screen; lines where there is no terminal
  zeekdemo drops --since-start      since the sensors started
  zeekdemo drops --watch --count 60 --interval 1s --json

The exit code is 3 if anything was lost, with --watch in any interval; without a
terminal Ctrl-C ends a watch with 130. Log lines that only wait are not lost, and
bytes that Zeek misses though nothing was lost are reported as that: the capture
has gaps, or packets came in another order.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDrops(cmd.Context(), app, o) },
	}
	f := cmd.Flags()
	f.DurationVar(&o.interval, "interval", 2*time.Second, "time between two looks")
	f.BoolVarP(&o.watch, "watch", "w", false, "go on until q or Ctrl-C")
	f.IntVar(&o.count, "count", 0, "with --watch: end after this many intervals; 0 for none")
	f.BoolVar(&o.sinceStart, "since-start", false, "count since the sensors started, not for an interval")
	f.BoolVar(&o.all, "all", false, "show every hop, also of sensors to which nothing came")
	o.reach.flags(f, "how to read counters: direct (this machine's), helper (by a container) or auto")
	f.BoolVar(&o.json, "json", false, "print one JSON document; with --watch one for each interval, each on a line")
	return cmd
}

// leastInterval keeps the looking cheap.
const leastInterval = 100 * time.Millisecond

func (o dropsOptions) validate() error {
	switch {
	case o.interval < leastInterval:
		return usagef("--interval %s: want at least %s", o.interval, leastInterval)
	case o.count < 0:
		return usagef("--count %d: want 0 or more", o.count)
	case o.count > 0 && !o.watch:
		return usagef("--count %d: only with --watch", o.count)
	}
	return nil
}

func runDrops(ctx context.Context, app *App, o dropsOptions) error {
	if err := o.validate(); err != nil {
		return err
	}
	way, err := o.reach.parse()
	if err != nil {
		return err
	}
	o.reach.note(app.Err)
	return app.withEngine(func(e orchestrate.Engine) error {
		reader, err := drops.Open(ctx, e, way)
		if err != nil {
			return err
		}
		if reader.Away {
			fmt.Fprintln(app.Err, "The sensors do not run on this machine: their counters are read by a helper container.")
		}
		if o.sinceStart {
			reader.WholeLogs()
		}
		ledger := &dropsLedger{reader: reader.Reader, sinceStart: o.sinceStart}
		switch {
		case o.watch && !o.json && app.Interactive(app.Getenv):
			err = watchScreen(ctx, app, o, ledger)
		case o.watch:
			err = watchLines(ctx, app, o, ledger)
		default:
			err = dropsOnce(ctx, app, o, ledger)
		}
		return errors.Join(err, reader.Close())
	})
}

// dropsLedger takes pictures and compares each with the one before.
type dropsLedger struct {
	reader      *drops.Reader
	sinceStart  bool
	first, last *drops.Picture
	lost        bool // in any interval
}

// begin takes the first picture.
func (l *dropsLedger) begin(ctx context.Context) error {
	p, err := l.reader.Read(ctx)
	if err != nil {
		return err
	}
	l.first, l.last = &p, &p
	return nil
}

// next takes a picture and returns what happened since the one before, and
// since the sensors started where that was asked for.
func (l *dropsLedger) next(ctx context.Context) (interval, shown drops.Report, err error) {
	p, err := l.reader.Read(ctx)
	if err != nil {
		return interval, shown, err
	}
	interval = drops.Compare(*l.last, p)
	shown = interval
	if l.sinceStart {
		shown = drops.Compare(drops.Origin(p), p)
	}
	l.last = &p
	l.lost = l.lost || shown.Lost > 0 || shown.LostLines > 0
	return interval, shown, nil
}

// whole is what happened since the first picture.
func (l *dropsLedger) whole() drops.Report {
	if l.sinceStart {
		return drops.Compare(drops.Origin(*l.last), *l.last)
	}
	return drops.Compare(*l.first, *l.last)
}

// result is the command's: everything has been said already.
func (l *dropsLedger) result() error {
	if !l.lost {
		return nil
	}
	err := errors.New("packets were lost")
	return errors.Join(silentError{err}, &delivery.LossError{Err: err})
}

func dropsOnce(ctx context.Context, app *App, o dropsOptions, l *dropsLedger) error {
	if !o.sinceStart {
		if err := l.begin(ctx); err != nil {
			return err
		}
		fmt.Fprintf(app.Err, "Looking for %s\n", o.interval)
		if err := l.pause(ctx, o.interval); err != nil {
			return err
		}
	}
	report, err := l.once(ctx)
	if err != nil {
		return err
	}
	if o.json {
		err = ui.JSON(app.Out, report)
	} else {
		writeDrops(app.Out, report, o.all)
	}
	return errors.Join(l.result(), err)
}

// once is the report of a command that does not watch.
func (l *dropsLedger) once(ctx context.Context) (drops.Report, error) {
	if l.last == nil {
		if err := l.begin(ctx); err != nil {
			return drops.Report{}, err
		}
		report := l.whole()
		l.lost = report.Lost > 0 || report.LostLines > 0
		return report, nil
	}
	_, report, err := l.next(ctx)
	return report, err
}

// watchLines writes a line for each interval until it is interrupted.
func watchLines(ctx context.Context, app *App, o dropsOptions, l *dropsLedger) error {
	if err := l.begin(ctx); err != nil {
		return err
	}
	for n := 0; o.count == 0 || n < o.count; n++ {
		if err := l.pause(ctx, o.interval); err != nil {
			return silentError{err} // an interrupt is how watching ends
		}
		_, report, err := l.next(ctx)
		if ctx.Err() != nil {
			return silentError{ctx.Err()}
		}
		if err != nil {
			return err
		}
		if err := writeInterval(app, report, o.json); err != nil {
			return err
		}
	}
	return l.result()
}

// watchScreen shows the hops live until q or Ctrl-C, and leaves the account of
// the whole time on the terminal.
func watchScreen(ctx context.Context, app *App, o dropsOptions, l *dropsLedger) error {
	if err := l.begin(ctx); err != nil {
		return err
	}
	if err := ui.Watch(ctx, app.In, app.Out, newDropsScreen(o, l, app.Getenv("NO_COLOR") == "")); err != nil {
		return fmt.Errorf("watch the hops: %w", err)
	}
	if l.first != l.last {
		writeDrops(app.Out, l.whole(), o.all)
	}
	return l.result()
}

// pause waits until an interval after the last picture, or returns why it did not.
func (l *dropsLedger) pause(ctx context.Context, interval time.Duration) error {
	timer := time.NewTimer(time.Until(l.last.At.Add(interval)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("interrupted: %w", ctx.Err())
	}
}
