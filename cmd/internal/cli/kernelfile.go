package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// newKernelFile is what a helper container runs for what has no file in the
// kernel's file systems: it prints the values that match a pattern, one a line
// behind its path, or writes one.
func newKernelFile(app *App) *cobra.Command {
	return &cobra.Command{
		Use:    "kernel-file PATH [VALUE]",
		Hidden: true,
		Args:   cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			m := nsenter.Local()
			if len(args) == 2 {
				return m.Write(cmd.Context(), nsenter.Namespace{}, args[0], args[1])
			}
			found, err := m.Read(cmd.Context(), nsenter.Namespace{}, args[0])
			for _, path := range slices.Sorted(maps.Keys(found)) {
				fmt.Fprintf(app.Out, "%s %s\n", path, strings.TrimSpace(found[path]))
			}
			return err
		},
	}
}
