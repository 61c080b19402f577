package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/mirror"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/verify"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/hosttune"
)

type downOptions struct {
	volumes bool
	all     bool
	lock    time.Duration
}

func newDown(app *App) *cobra.Command {
	var o downOptions
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Remove the stack",
		Long: `Remove exactly what "up" made: the containers and networks of the stack, and
with --volumes the logs and metrics it collected. What a "verify" or a sidecar
left behind that was killed goes as well. Images stay. Doing it twice is fine.

An engine may serve several people. What another process runs beside the stack is
left alone and named: a "verify" with its sensors, a sidecar that sends, a helper
that tunes. So is what belongs to a process that cannot be seen from here, on
another machine or in another container; --all removes these too.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDown(cmd.Context(), app, o) },
	}
	cmd.Flags().BoolVar(&o.volumes, "volumes", false, "remove the collected logs and metrics as well")
	cmd.Flags().BoolVar(&o.all, "all", false, "remove what others run beside the stack as well, which fails their runs")
	lockFlag(cmd.Flags(), &o.lock)
	return cmd
}

func runDown(ctx context.Context, app *App, o downOptions) error {
	if err := checkLock(o.lock); err != nil {
		return err
	}
	verify.RemoveForgotten()
	return app.withEngine(func(e orchestrate.Engine) error {
		return app.locked(ctx, e, "down", o.lock, func() error { return o.remove(ctx, app, e) })
	})
}

// remove removes the stack, and says what stays.
func (o downOptions) remove(ctx context.Context, app *App, e orchestrate.Engine) error {
	removed := 0
	tuned := hosttune.StaysTuned(ctx, e, app.tuningStore())
	var left []orchestrate.Remaining
	err := app.progress(func(p orchestrate.Progress) (err error) {
		left, err = orchestrate.Down(ctx, e, orchestrate.DownRequest{Volumes: o.volumes, All: o.all}, func(event orchestrate.Event) {
			if event.State == orchestrate.Done {
				removed++
			}
			p(event)
		})
		return err
	})
	if err != nil {
		return interrupted(ctx, err, "`zeekdemo down` again removes the rest")
	}
	if tuned {
		fmt.Fprintln(app.Err, "The machine stays tuned; `zeekdemo tune-host --revert` takes that back.")
	}
	if removed == 0 {
		fmt.Fprintln(app.Err, "Nothing to remove: no stack is here.")
	}
	tellRemaining(app, left)
	tellMirrors(app)
	return nil
}

// tellRemaining says what others run that was left alone.
func tellRemaining(app *App, left []orchestrate.Remaining) {
	for _, r := range left {
		fmt.Fprintf(app.Err, "Left alone: %s.\n", r)
	}
	if len(left) > 0 {
		fmt.Fprintln(app.Err, "It goes when its process ends; `zeekdemo down --all` removes it now.")
	}
}

// tellMirrors says which mirrors to the stack remain, when the stack has gone.
func tellMirrors(app *App) {
	all, _ := app.kernelMirrors() // without the right to look none is ours
	if names := mirror.ToStack(all); len(names) > 0 {
		fmt.Fprintf(app.Err, "Still mirrored, to nowhere until the next `zeekdemo up`: %s. `zeekdemo mirror --stop` ends that.\n", strings.Join(names, ", "))
	}
}
