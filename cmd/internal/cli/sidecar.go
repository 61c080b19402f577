package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/sidecar"
)

func newSidecar(app *App) *cobra.Command {
	return &cobra.Command{
		Use:    sidecar.Command,
		Short:  "Send the frames that come by standard input (what runs in the container of --via sidecar)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return runSidecar(cmd.Context(), app) },
	}
}

func runSidecar(ctx context.Context, app *App) error {
	err := sidecar.Server{In: app.In, Out: app.Out, Interpose: app.interpose}.Serve(ctx)
	if told := (*sidecar.ToldError)(nil); errors.As(err, &told) {
		return silentError{err} // the client prints it
	}
	return err
}
