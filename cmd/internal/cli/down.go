package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/mirror"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/verify"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/hosttune"
)

type downOptions struct {
	volumes bool
}

func newDown(app *App) *cobra.Command {
	var o downOptions
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Remove the stack",
		Long: `Remove exactly what "up" made: the containers and networks of the stack, and
with --volumes the logs and metrics it collected. What a "verify" left behind
that was killed goes as well. Images stay. Doing it twice is fine.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDown(cmd.Context(), app, o) },
	}
	cmd.Flags().BoolVar(&o.volumes, "volumes", false, "remove the collected logs and metrics as well")
	return cmd
}

func runDown(ctx context.Context, app *App, o downOptions) error {
	verify.RemoveForgotten()
	return app.withEngine(func(e orchestrate.Engine) error {
		removed := 0
		store, err := app.tuningStore()
		tuned := err == nil && hosttune.StaysTuned(ctx, e, store)
		err = app.progress(func(p orchestrate.Progress) error {
			return orchestrate.Down(ctx, e, o.volumes, func(event orchestrate.Event) {
				if event.State == orchestrate.Done {
					removed++
				}
				p(event)
			})
		})
		if shots, ok := e.(orchestrate.OneShots); ok && err == nil {
			var n int
			n, err = shots.RemoveOneShots(ctx, orchestrate.Removal{Gone: orchestrate.Client.NotHere})
			removed += n
		}
		if err != nil {
			return interrupted(ctx, err, "`zeekdemo down` again removes the rest")
		}
		if tuned {
			fmt.Fprintln(app.Err, "The machine stays tuned; `zeekdemo tune-host --revert` takes that back.")
		}
		if removed == 0 {
			fmt.Fprintln(app.Err, "Nothing to remove: no stack is here.")
		}
		tellMirrors(app)
		return nil
	})
}

// tellMirrors says which mirrors to the stack remain, when the stack has gone.
func tellMirrors(app *App) {
	all, _ := app.kernelMirrors() // without the right to look none is ours
	if names := mirror.ToStack(all); len(names) > 0 {
		fmt.Fprintf(app.Err, "Still mirrored, to nowhere until the next `zeekdemo up`: %s. `zeekdemo mirror --stop` ends that.\n", strings.Join(names, ", "))
	}
}
