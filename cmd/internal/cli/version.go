package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
)

// versionDocument is what `version --json` prints.
type versionDocument struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a changed work tree
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersion(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := describeVersion(app.Version)
			if asJSON {
				return ui.JSON(app.Out, v)
			}
			fmt.Fprintf(app.Out, "zeekdemo %s (%s, %s)\n", v.Version, v.Go, v.Platform)
			return nil
		},
	}
	jsonFlag(cmd.Flags(), &asJSON, "")
	return cmd
}

// describeVersion takes the release's own version, else what the Go tool noted
// when it built the program.
func describeVersion(release string) versionDocument {
	v := versionDocument{Version: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v.Version == "" && info.Main.Version != "" {
			v.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Commit = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
	}
	if v.Version == "" {
		v.Version = "(devel)"
	}
	return v
}
