package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

type openOptions struct {
	service string
}

func newOpen(app *App) *cobra.Command {
	var o openOptions
	cmd := &cobra.Command{
		Use:       "open [grafana|prometheus|loki]",
		Short:     "Print a service's URL and open it in a browser",
		Long:      "Print the URL of Grafana, Prometheus or Loki, and open it in a browser where there is one.",
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"grafana", "prometheus", "loki"},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.service = "grafana"
			if len(args) == 1 {
				o.service = args[0]
			}
			return runOpen(cmd.Context(), app, o)
		},
	}
	return cmd
}

func runOpen(ctx context.Context, app *App, o openOptions) error {
	service, err := orchestrate.ServiceByName(o.service)
	if err != nil {
		return usageError{err}
	}
	return app.withEngine(func(e orchestrate.Engine) error {
		list, err := orchestrate.Status(ctx, e)
		if err != nil {
			return err
		}
		for _, s := range list {
			if s.Service == service.Name && s.URL != "" {
				fmt.Fprintln(app.Out, s.URL)
				if err := app.OpenBrowser(ctx, s.URL); err != nil {
					fmt.Fprintf(app.Err, "No browser was opened: %v\n", err)
				}
				return nil
			}
		}
		return orchestrate.WithHint(fmt.Errorf("open %s: it is not running", service.Title), "`zeekdemo up` completes the stack")
	})
}

// openBrowser asks the desktop to show a page.
func openBrowser(ctx context.Context, url string) error {
	if runtime.GOOS == "darwin" {
		return exec.CommandContext(ctx, "open", url).Run()
	}
	if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
		return errors.New("this session has no display")
	}
	return exec.CommandContext(ctx, "xdg-open", url).Run()
}
