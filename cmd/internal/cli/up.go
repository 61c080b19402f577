package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/assets"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/mirror"
	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/hosttune"
)

type upOptions struct {
	waitTimeout     time.Duration
	lockTimeout     time.Duration
	pull            string
	images          []string
	grafanaUser     string
	grafanaPassword string
	bind            string
	expose          bool
	tune            bool
	geneveMode      string
	nodes           nodesOptions
	retention       string
	maxDisk         string
	dns             string
}

func newUp(app *App) *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the stack and wait until every service answers",
		Long: `Start Zeek (one sensor for VXLAN, one for GENEVE), the log collector, Loki,
Prometheus, Grafana and what reads the kernel's counters for them, and wait until
every one of them answers.

It can be repeated: what is right is left alone, what differs from the flags is
changed, and a half-started stack is completed. The flags are the whole
configuration; those of an earlier "up" are not remembered. Sensors that are new
on a machine that tune-host has tuned are tuned as the others were.

One "up", "down" or "tune-host" at a time works on an engine, on whatever machine
it was typed; the next one says which one that is, and waits for --lock-timeout.

What is stored has bounds, which "status" shows beside what is used: --retention for
its age, --max-disk for its size. Loki gets three fifths of that and keeps less long
when it runs short, each sensor's files an eighth, Prometheus a tenth. The files are
the buffer of the way to Loki and kept a day at most.

An image can also be replaced by a variable: ZEEKDEMO_IMAGE_ZEEK=REF, and
likewise for collector, exporter, gateway, grafana, loki and prometheus.
ZEEKDEMO_GRAFANA_PASSWORD sets the password without showing it in the list of
processes.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runUp(cmd.Context(), app, o) },
	}
	f := cmd.Flags()
	f.DurationVar(&o.waitTimeout, "wait-timeout", 3*time.Minute, "how long to wait for the services to answer once they were started")
	lockFlag(f, &o.lockTimeout)
	f.StringVar(&o.pull, "pull", string(orchestrate.PullMissing), "when to pull images: missing, always or never")
	imageFlag(f, &o.images)
	f.StringVar(&o.grafanaUser, "grafana-user", "", `Grafana's user (default "zeek")`)
	f.StringVar(&o.grafanaPassword, "grafana-password", "", `Grafana's password (default "zeek")`)
	f.BoolVar(&o.tune, "tune", false, "tune the machine first, and the sensors afterwards, as tune-host does")
	f.StringVar(&o.geneveMode, "geneve-mode", string(orchestrate.GeneveEthernet), `what the GENEVE sensor takes: ethernet, ip (IP packets without Ethernet, as
AWS Gateway Load Balancer and Google NSI send them), or gwlb (Ethernet in VXLAN,
as AWS Traffic Mirroring sends it through a Gateway Load Balancer)`)
	o.nodes.flags(f)
	f.StringVar(&o.retention, "retention", orchestrate.FormatAge(orchestrate.DefaultRetention), "delete what is older in Loki and Prometheus, e.g. 7d, 36h, 90m")
	f.StringVar(&o.maxDisk, "max-disk", "20G", "what Loki, Prometheus and the sensors' files may take together, e.g. 20G, 500M")
	f.StringVar(&o.dns, "dns", "", `let Zeek look up names of the addresses it sees, at the name server with this
address; the sensors then have a way out (default: they ask nobody)`)
	f.StringVar(&o.bind, "bind", "127.0.0.1", `address of this machine on which Grafana and the sensors' ports are published;
with an address of this machine only, Loki and Prometheus too`)
	f.BoolVar(&o.expose, "expose-unauthenticated", false, `publish Loki and Prometheus on the address of --bind as well: whoever reaches it
reads every log line and number, without a password`)
	return cmd
}

// settings turns flags and environment into settings. A flag goes before the
// variable of the same meaning.
func (o upOptions) settings(getenv func(string) string) (orchestrate.Settings, error) {
	s := orchestrate.Settings{Pull: orchestrate.PullPolicy(o.pull), Images: map[string]string{},
		GrafanaUser: o.grafanaUser, GrafanaPassword: o.grafanaPassword, Geneve: orchestrate.GeneveMode(o.geneveMode)}
	if err := o.bounds(&s.Bounds); err != nil {
		return s, err
	}
	if _, err := orchestrate.ParseGeneveMode(o.geneveMode); err != nil {
		return s, usagef("--geneve-mode %q: want ethernet, ip or gwlb", o.geneveMode)
	}
	var err error
	if s.Cluster, err = o.nodes.parse(); err != nil {
		return s, err
	}
	bind, err := netip.ParseAddr(o.bind)
	if err != nil {
		return s, usagef("--bind %q: want an IP address", o.bind)
	}
	s.Bind, s.Expose = bind, o.expose
	if o.dns != "" {
		if s.DNS, err = netip.ParseAddr(o.dns); err != nil {
			return s, usagef("--dns %q: want the IP address of a name server", o.dns)
		}
	}
	if s.GrafanaUser == "" {
		s.GrafanaUser = getenv("ZEEKDEMO_GRAFANA_USER")
	}
	if s.GrafanaPassword == "" {
		s.GrafanaPassword = getenv("ZEEKDEMO_GRAFANA_PASSWORD")
	}
	for _, name := range orchestrate.ImageNames() {
		if ref := getenv(orchestrate.ImageVariable(name)); ref != "" {
			s.Images[name] = ref
		}
	}
	for _, arg := range o.images {
		name, ref, err := orchestrate.ParseImage(arg)
		if err != nil {
			return s, usageError{err}
		}
		s.Images[name] = ref
	}
	if o.waitTimeout <= 0 {
		return s, usagef("--wait-timeout %s: want a time above zero", o.waitTimeout)
	}
	if err := checkLock(o.lockTimeout); err != nil {
		return s, err
	}
	if err := s.Validate(); err != nil {
		return s, usageError{err}
	}
	return s, nil
}

// bounds reads what is kept; nothing means the Compose file's defaults.
func (o upOptions) bounds(b *orchestrate.Bounds) (err error) {
	if o.retention != "" {
		if b.Retention, err = orchestrate.ParseAge(o.retention); err != nil {
			return usagef("--retention %q: %w", o.retention, err)
		}
	}
	if o.maxDisk != "" {
		if b.MaxDisk, err = orchestrate.ParseSize(o.maxDisk); err != nil {
			return usagef("--max-disk %q: %w", o.maxDisk, err)
		}
	}
	return nil
}

func runUp(ctx context.Context, app *App, o upOptions) error {
	settings, err := o.settings(app.Getenv)
	if err != nil {
		return err
	}
	var services []orchestrate.ServiceStatus
	err = app.withEngine(func(e orchestrate.Engine) error {
		return app.locked(ctx, e, "up", o.lockTimeout, func() (err error) {
			if settings.Cluster, err = settings.Cluster.Fit(ctx, e); err != nil {
				return err
			}
			services, err = o.start(ctx, app, e, settings)
			return err
		})
	})
	if err != nil {
		return err
	}
	printWelcome(app, services, settings)
	followDetached(app, services)
	return nil
}

// start starts the stack, and tunes as was asked for now or before.
func (o upOptions) start(ctx context.Context, app *App, e orchestrate.Engine, settings orchestrate.Settings) (services []orchestrate.ServiceStatus, err error) {
	start := func() error {
		err := app.progress(func(p orchestrate.Progress) (err error) {
			services, err = orchestrate.Up(ctx, e, assets.Compose(), settings, o.waitTimeout, p)
			return err
		})
		tellLate(app.Err, err)
		return interrupted(ctx, err, "`zeekdemo up` again completes the stack, `zeekdemo down` removes what is there of it")
	}
	if o.tune {
		err = tuneAround(ctx, app, e, settings, start)
		return services, err
	}
	if err := start(); err != nil {
		return nil, err
	}
	tuneAgain(ctx, app, e)
	return services, nil
}

// tellLate shows what a service printed that does not answer.
func tellLate(to io.Writer, err error) {
	var late *orchestrate.NotReadyError
	if !errors.As(err, &late) {
		return
	}
	fmt.Fprintf(to, "\nThe last lines of %s:\n", late.Service)
	for _, line := range late.Tail {
		fmt.Fprintln(to, "  "+line)
	}
}

// tuneAround tunes the machine before it starts the stack, and the sensors after
// it. What it changes is told on standard error, for standard output is up's.
func tuneAround(ctx context.Context, app *App, e orchestrate.Engine, s orchestrate.Settings, start func() error) error {
	t, err := app.openTuner(ctx, e, hosttune.Options{Image: s.Images["zeek"], Pull: s.Pull})
	if err != nil {
		return tuningInterrupted(ctx, err)
	}
	show := tuneReport{out: app.Err, err: app.Err}
	err = tuningInterrupted(ctx, show.tuned(t.BeforeUp(ctx)))
	if err == nil {
		err = start()
	}
	if err == nil {
		err = tuningInterrupted(ctx, show.tuned(t.AfterUp(ctx)))
	}
	return errors.Join(err, t.Close())
}

// tuneAgain tunes new sensors where the others were tuned. The stack is up by
// then: what fails is told, and does not fail the command.
func tuneAgain(ctx context.Context, app *App, e orchestrate.Engine) {
	changed, err := hosttune.AgainAfterUp(ctx, e, app.tuning(hosttune.Options{}))
	if len(changed) > 0 {
		fmt.Fprintf(app.Err, "Tuned new sensors as before: %s changed (zeekdemo tune-host --status)\n", settings(len(changed)))
	}
	if err != nil {
		fmt.Fprintf(app.Err, "note: the new sensors are not tuned as the others were: %v\n", err)
	}
}

// printWelcome tells where to look and what to type next.
func printWelcome(app *App, services []orchestrate.ServiceStatus, s orchestrate.Settings) {
	var rows [][]string
	for _, service := range services {
		if service.URL == "" {
			continue
		}
		row := []string{service.Service, service.URL}
		if service.Service == "grafana" {
			row = append(row, "user "+grafanaUser(s))
		}
		rows = append(rows, row)
	}
	for _, service := range services {
		if service.Takes != "" {
			for _, port := range service.Ports {
				rows = append(rows, []string{service.Service, port, takes(service)})
			}
		}
	}
	fmt.Fprintln(app.Err)
	ui.Table(app.Out, rows)
	if s.Expose {
		fmt.Fprintf(app.Err, "\nLoki and Prometheus are open to whoever reaches %s: every log line and number, without a password.\n", s.Bind)
	}
	fmt.Fprintln(app.Err, "\nNext: zeekdemo replay        (the embedded sample; or: zeekdemo replay FILE)")
}

func grafanaUser(s orchestrate.Settings) string {
	user, password := s.GrafanaUser, "as you set it"
	if user == "" {
		user = orchestrate.DefaultGrafanaUser
	}
	if s.GrafanaPassword == "" || s.GrafanaPassword == orchestrate.DefaultGrafanaPassword {
		password = orchestrate.DefaultGrafanaPassword
	}
	return user + ", password " + password
}

// followDetached points the mirrors that no process watches to where the sensors
// are now.
func followDetached(app *App, services []orchestrate.ServiceStatus) {
	running, err := app.kernelMirrors()
	if err != nil {
		fmt.Fprintln(app.Err, "warning:", err)
	}
	mirror.FollowDetached(running, services, func(line string) { fmt.Fprintln(app.Err, line) })
}
