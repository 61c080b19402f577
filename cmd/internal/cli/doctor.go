package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/assets"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/filter"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/doctor"
)

type doctorOptions struct {
	json    bool
	bundles bool   // a bundle was asked for,
	bundle  string // in this file
}

func newDoctor(app *App) *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what would go wrong, and say what mends it",
		Long: `Look at the engine, this machine and the stack, if there is one, and say of each
thing that matters whether it is ok, a warning or a problem, and what mends it.
Nothing is changed. It works without root, without a stack, and with an engine
that is stopped or hangs; what could not be looked at is said so. The exit code
is 1 if there is a problem.

With --bundle, everything that a bug report needs is written into a file:
versions, configuration, the ends of the logs, counters, and what the doctor
says. Passwords and tokens are removed, and logs of your traffic are left out.
The file is for your eyes first: what is in it is listed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.bundles = cmd.Flags().Changed("bundle")
			return runDoctor(cmd.Context(), app, o)
		},
	}
	f := cmd.Flags()
	jsonFlag(f, &o.json, "")
	f.StringVar(&o.bundle, "bundle", "", "write a bundle for a bug report into this `FILE`.tar.gz")
	return cmd
}

func (o doctorOptions) validate() error {
	if o.bundles && !strings.HasSuffix(o.bundle, ".tar.gz") && !strings.HasSuffix(o.bundle, ".tgz") {
		return usagef("--bundle %q: want a name that ends in .tar.gz", o.bundle)
	}
	return nil
}

func runDoctor(ctx context.Context, app *App, o doctorOptions) error {
	if err := o.validate(); err != nil {
		return err
	}
	if o.bundles {
		return runBundle(ctx, app, o)
	}
	engine, connectErr := app.Connect(app.Err)
	if c, ok := engine.(io.Closer); ok {
		defer c.Close()
	}
	p := newProber(app, engine, connectErr)
	report := doctor.Diagnose(p.Probe(ctx))
	if ctx.Err() != nil {
		return delivery.ErrInterrupted
	}
	if o.json {
		if err := ui.JSON(app.Out, report); err != nil {
			return err
		}
	} else {
		writeDoctor(app.Out, report)
	}
	return verdict(report)
}

// runBundle collects and writes. That there are problems is the reason to do
// so, and no failure of it.
func runBundle(ctx context.Context, app *App, o doctorOptions) error {
	if err := doctor.CanWrite(o.bundle); err != nil {
		return err
	}
	fmt.Fprintln(app.Err, "Collecting what a bug report needs")
	engine, connectErr := app.Connect(app.Err)
	if c, ok := engine.(io.Closer); ok {
		defer c.Close()
	}
	c, err := newCollector(ctx, app, newProber(app, engine, connectErr))
	if err != nil {
		return err
	}
	b := c.Collect(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("%w: no bundle was written", delivery.ErrInterrupted)
	}
	size, err := b.WriteFile(o.bundle, time.Now())
	if err != nil {
		return err
	}
	doc := bundleDocument{Bundle: o.bundle, Bytes: size, Files: []bundleFile{}, Missing: b.Missing, Report: c.Report}
	for _, f := range b.Files {
		doc.Files = append(doc.Files, bundleFile{f.Name, len(f.Data)})
	}
	if o.json {
		return ui.JSON(app.Out, doc)
	}
	listBundle(app, doc)
	return nil
}

// newCollector looks first, for what the doctor says goes into the bundle.
func newCollector(ctx context.Context, app *App, p *doctor.Prober) (*doctor.Collector, error) {
	c := &doctor.Collector{Prober: p, Facts: p.Probe(ctx), Environ: os.Environ(), Secrets: dockerLogins(app.Getenv)}
	c.Report = doctor.Diagnose(c.Facts)
	var text bytes.Buffer
	writeDoctor(&text, c.Report)
	c.Text = text.Bytes()
	var err error
	if c.Version, err = json.MarshalIndent(describeVersion(app.Version), "", "  "); err != nil {
		return nil, fmt.Errorf("describe the version: %w", err)
	}
	return c, nil
}

// dockerLogins are the files in which Docker's client keeps logins and proxies.
func dockerLogins(getenv func(string) string) []string {
	dir := getenv("DOCKER_CONFIG")
	if dir == "" {
		dir = filepath.Join(getenv("HOME"), ".docker")
	}
	return []string{filepath.Join(dir, "config.json")}
}

// newProber looks at the stack as `up` would make it with the variables that
// are set.
func newProber(app *App, engine orchestrate.Engine, connectErr error) *doctor.Prober {
	p := doctor.NewProber(engine, orchestrate.Project{Name: orchestrate.ProjectName, Compose: assets.Compose(),
		Env: stackEnvironment(app.Getenv), Pull: orchestrate.PullMissing}, app.tuningStore())
	p.ConnectErr = connectErr
	p.Filter = tryFilter
	return p
}

// stackEnvironment are the variables that complete the Compose file. Of their
// values nothing is checked: `up` does that.
func stackEnvironment(getenv func(string) string) map[string]string {
	env := map[string]string{}
	names := []string{"ZEEKDEMO_GRAFANA_USER", "ZEEKDEMO_GRAFANA_PASSWORD"}
	for _, name := range orchestrate.ImageNames() {
		names = append(names, orchestrate.ImageVariable(name))
	}
	for _, name := range names {
		if value := getenv(name); value != "" {
			env[name] = value
		}
	}
	return env
}

// verdict makes problems an exit code.
func verdict(r doctor.Report) error {
	n := 0
	for _, line := range r.Lines {
		if line.State == doctor.Problem {
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case 1:
		return errors.New("the doctor found a problem")
	}
	return fmt.Errorf("the doctor found %d problems", n)
}

// tryFilter compiles a filter, as replay does.
func tryFilter(ctx context.Context) (string, error) {
	path, err := exec.LookPath("tcpdump")
	if err != nil {
		return "", orchestrate.WithHint(errors.New("not here: --filter does not work"), installTcpdump())
	}
	if _, err := filter.Compile(ctx, "udp port 4789", forward.LinkEthernet, 0); err != nil {
		return "", orchestrate.WithHint(err, "tcpdump --version (it has to run without an error)")
	}
	return path + " compiles filters", nil
}

// installTcpdump is how this machine installs it.
func installTcpdump() string {
	for _, manager := range []string{"apt-get", "dnf", "zypper", "apk", "pacman", "brew"} {
		if _, err := exec.LookPath(manager); err != nil {
			continue
		}
		switch manager {
		case "apk":
			return "sudo apk add tcpdump"
		case "pacman":
			return "sudo pacman -S tcpdump"
		case "brew":
			return "brew install tcpdump"
		}
		return "sudo " + manager + " install tcpdump"
	}
	return "install tcpdump"
}
