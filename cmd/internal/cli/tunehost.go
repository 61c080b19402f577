package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/assets"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/hosttune"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

type tuneOptions struct {
	dryRun, revert, status bool
	persist                bool
	restart                bool
	interfaces             []string
	via                    string
	image                  string
	binary                 string
	json                   bool
}

func newTuneHost(app *App) *cobra.Command {
	var o tuneOptions
	cmd := &cobra.Command{
		Use:   "tune-host",
		Short: "Raise the kernel's limits on the packets' way, and take that back",
		Long: `Raise the settings of the kernel that runs the containers that decide whether
packets survive the way to a sensor: the limits and defaults of socket buffers,
the queues between network interfaces, and the spreading of received packets
over the processors (RPS), on the machine's lo and on each sensor's interface.
With --interface, the offloads of an interface of that machine that you capture
on are turned off as well.

It never lowers a value, changes only what must be changed, and records the old
values before it changes anything: --revert restores them, also after a crash.
What somebody else has changed since is left alone then.

Root on the engine's machine changes its settings directly. Anybody else who may
use the engine does it by a helper container, which is gone afterwards; that
reaches the virtual machine of Docker Desktop or colima as well.

  zeekdemo tune-host --dry-run           show what would be changed, and why
  zeekdemo tune-host --restart-sensors   change it, and restart the sensors whose
                                         sockets have the old, small buffers
  zeekdemo tune-host --status            show what is tuned and what is not
  zeekdemo tune-host --revert            take it back`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTuneHost(cmd.Context(), app, o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "only show what would be changed (with --revert: restored)")
	f.BoolVar(&o.revert, "revert", false, "restore what was changed, where it still is as we set it")
	f.BoolVar(&o.status, "status", false, "show how each setting stands, and what has drifted")
	f.BoolVar(&o.persist, "persist", false, "make the limits last over reboots, in "+hosttune.PersistFile+" of the engine's machine")
	f.BoolVar(&o.restart, "restart-sensors", false, "restart the sensors whose sockets were opened before the limits were raised")
	f.StringArrayVar(&o.interfaces, "interface", nil, "turn the offloads of this interface of the engine's machine off (repeatable)")
	f.StringVar(&o.via, "via", string(nsenter.Auto), "way to the engine's machine: direct (as root on it), helper (by a container) or auto")
	f.StringVar(&o.image, "image", "", "image of the helper container (default: that of the sensors)")
	f.StringVar(&o.binary, "sidecar-binary", "", `this program built for the engine's platform, where that is not this machine's;
only --interface by way of a helper needs it`)
	f.BoolVar(&o.json, "json", false, "print one JSON document")
	return cmd
}

// validate looks at the flags alone.
func (o tuneOptions) validate() error {
	switch nsenter.Way(o.via) {
	case nsenter.Auto, nsenter.Direct, nsenter.Helper:
	default:
		return usagef("--via %q: want direct, helper or auto", o.via)
	}
	for _, name := range o.interfaces {
		if !deviceName.MatchString(name) || name == "." || name == ".." {
			return usagef("--interface %q: want the name of a network interface, e.g. eth0", name)
		}
	}
	for _, pair := range []struct {
		a, b         bool
		nameA, nameB string
	}{
		{o.status, o.revert, "--status", "--revert"},
		{o.status, o.dryRun, "--status", "--dry-run"},
		{o.status, o.persist, "--status", "--persist"},
		{o.status, o.restart, "--status", "--restart-sensors"},
		{o.revert, o.persist, "--revert", "--persist"},
		{o.revert, o.restart, "--revert", "--restart-sensors"},
		{o.revert, len(o.interfaces) > 0, "--revert", "--interface"},
	} {
		if pair.a && pair.b {
			return usagef("%s and %s exclude each other", pair.nameA, pair.nameB)
		}
	}
	return nil
}

// deviceName matches what the kernel takes as a name (dev_valid_name in
// net/core/dev.c), without what would be a pattern.
var deviceName = regexp.MustCompile(`^[0-9A-Za-z_.@-]{1,15}$`)

// tuner is one call of tune-host, once the machine is open.
type tuner struct {
	app     *App
	o       tuneOptions
	engine  orchestrate.Engine // nil without one
	id      string             // the engine's; empty if it is not known
	machine nsenter.Machine
	way     nsenter.Way
	store   hosttune.Store
	sensors []hosttune.Place
	// beforeUp leaves the sensors' sockets to a later call: they may be new then.
	beforeUp bool
}

func runTuneHost(ctx context.Context, app *App, o tuneOptions) error {
	if err := o.validate(); err != nil {
		return err
	}
	e, err := app.Connect(app.Err)
	if err != nil {
		return err
	}
	if c, ok := e.(io.Closer); ok {
		defer c.Close()
	}
	t, err := openTuner(ctx, app, e, o, orchestrate.PullNever)
	if err != nil {
		return interrupted(ctx, err, "nothing was changed")
	}
	return errors.Join(t.run(ctx), t.close())
}

func (t *tuner) run(ctx context.Context) error {
	switch {
	case t.o.status:
		return t.showStatus(ctx)
	case t.o.revert:
		return t.revert(ctx)
	case t.o.dryRun:
		return t.showPlan(ctx)
	}
	return t.apply(ctx)
}

// openTuner finds the sensors and the way to the machine, and changes nothing.
func openTuner(ctx context.Context, app *App, e orchestrate.Engine, o tuneOptions, pull orchestrate.PullPolicy) (*tuner, error) {
	t := &tuner{app: app, o: o, engine: e}
	var err error
	if t.store, err = hosttune.UserStore(app.Getenv, os.Geteuid()); err != nil {
		return nil, err
	}
	info, infoErr := e.Info(ctx)
	if infoErr == nil {
		err = t.findSensors(ctx)
	} else if o.via != string(nsenter.Direct) || ctx.Err() != nil {
		err = orchestrate.WithHint(infoErr, "start the engine")
	}
	if err != nil {
		return nil, err
	}
	options := nsenter.Options{Way: nsenter.Way(o.via), Image: o.image, Pull: pull,
		Progress: func(e orchestrate.Event) { fmt.Fprintf(app.Err, "%s: %s\n", e.ID, e.Text) }}
	if options.Image == "" {
		options.Image = t.helperImage(ctx)
	}
	if len(o.interfaces) > 0 || t.recordedInterfaces() {
		options.Program = func() (string, error) { return helperProgram(info, o.binary) }
	}
	t.machine, t.way, err = nsenter.Open(ctx, e, options)
	if err != nil {
		return nil, err
	}
	if infoErr != nil {
		fmt.Fprintf(app.Err, "note: this machine alone, without sensors: %v\n", infoErr)
	}
	return t, nil
}

// recordedInterfaces reports whether some record tells of offloads, so that a
// helper will have to look at them.
func (t *tuner) recordedInterfaces() bool {
	return slices.ContainsFunc(t.store.All(), func(r hosttune.Record) bool { return len(r.Interfaces) > 0 })
}

func (t *tuner) close() error { return t.machine.Close() }

// findSensors asks the engine which sensors run.
func (t *tuner) findSensors(ctx context.Context) error {
	list, err := t.engine.Containers(ctx, orchestrate.ProjectName)
	if err != nil {
		return err
	}
	t.sensors = hosttune.Sensors(list)
	if h, ok := t.engine.(orchestrate.HelperEngine); ok && t.id == "" {
		if host, err := h.Host(ctx); err == nil {
			t.id = host.ID
		}
	}
	return nil
}

// defaultZeek finds the image of the sensors in the stack's Compose file.
var defaultZeek = regexp.MustCompile(regexp.QuoteMeta("${"+orchestrate.ImageVariable("zeek")+":-") + `([^}]+)}`)

// helperImage is the image of the sensors: as they are, else as `up` would make
// them.
func (t *tuner) helperImage(ctx context.Context) string {
	if list, err := t.engine.Containers(ctx, orchestrate.ProjectName); err == nil {
		for _, c := range list {
			if s, err := orchestrate.ServiceByName(c.Service); err == nil && s.Encap != "" {
				return c.Image
			}
		}
	}
	if ref := t.app.Getenv(orchestrate.ImageVariable("zeek")); ref != "" {
		return ref
	}
	if m := defaultZeek.FindSubmatch(assets.Compose()); m != nil {
		return string(m[1])
	}
	return ""
}

// helperProgram is the file of this program that runs in a helper.
func helperProgram(info orchestrate.EngineInfo, given string) (string, error) {
	self, err := orchestrate.RunningProgram()
	if err != nil {
		return "", err
	}
	return orchestrate.SidecarBinary(info, runtime.GOOS, runtime.GOARCH, self, given)
}
