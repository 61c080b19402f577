package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"time"

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
	reach                  reachOptions
	image                  string
	binary                 string
	json                   bool
	lock                   time.Duration
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
What somebody else has changed since is left alone then. The record lies on the
engine's machine, so that whoever may tune it sees what was changed, by whomever
and from wherever, and takes it back.

Root on the engine's machine changes its settings directly. Anybody else who may
use the engine does it by a helper container, which is gone afterwards; that
reaches the virtual machine of Docker Desktop or colima as well.

  zeekdemo tune-host --dry-run           show what would be changed, and why
  zeekdemo tune-host --restart-sensors   change it, and restart the sensors whose
                                         sockets have the old, small buffers
  zeekdemo tune-host --status            show what is tuned and what is not
  zeekdemo tune-host --revert            take it back`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runTuneHost(cmd.Context(), app, o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "only show what would be changed (with --revert: restored)")
	f.BoolVar(&o.revert, "revert", false, "restore what was changed, where it still is as we set it")
	f.BoolVar(&o.status, "status", false, "show how each setting stands, and what has drifted")
	f.BoolVar(&o.persist, "persist", false, "make the limits last over reboots, in "+hosttune.PersistFile+" of the engine's machine")
	f.BoolVar(&o.restart, "restart-sensors", false, "restart the sensors whose sockets were opened before the limits were raised")
	f.StringArrayVar(&o.interfaces, "interface", nil, "turn the offloads of this interface of the engine's machine off (repeatable)")
	o.reach.flags(f, "way to the engine's machine: direct (as root on it), helper (by a container) or auto")
	f.StringVar(&o.image, "image", "", "image of the helper container (default: that of the sensors)")
	f.StringVar(&o.binary, "sidecar-binary", "", `this program built for the engine's platform, where that is not this machine's;
only --interface by way of a helper needs it`)
	jsonFlag(f, &o.json, "")
	lockFlag(f, &o.lock)
	return cmd
}

// validate looks at the flags alone.
func (o tuneOptions) validate() error {
	if _, err := o.reach.parse(); err != nil {
		return err
	}
	if err := checkLock(o.lock); err != nil {
		return err
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

func runTuneHost(ctx context.Context, app *App, o tuneOptions) error {
	if err := o.validate(); err != nil {
		return err
	}
	o.reach.note(app.Err)
	return app.withEngine(func(e orchestrate.Engine) error {
		info, unreachable := e.Info(ctx)
		tune := func() error {
			options := o.hosttune()
			options.Answer = &hosttune.Answer{Info: info, Err: unreachable}
			t, err := app.openTuner(ctx, e, options)
			if err == nil {
				err = errors.Join(o.run(ctx, app, t), t.Close())
			}
			return tuningInterrupted(ctx, err)
		}
		// What only reads needs no lock, and root on the engine's machine no engine.
		if o.status || o.dryRun || unreachable != nil {
			return tune()
		}
		return app.lockedWith(ctx, e, info, "tune-host", o.lock, tune)
	})
}

// run does what was asked for, and prints it.
func (o tuneOptions) run(ctx context.Context, app *App, t *hosttune.Tuner) error {
	show := tuneReport{out: app.Out, err: app.Err, json: o.json}
	switch {
	case o.status:
		return show.status(t.Status(ctx))
	case o.revert && o.dryRun:
		return show.reverted(t.PlanRevert(ctx))
	case o.revert:
		return show.reverted(t.Revert(ctx))
	case o.dryRun:
		return show.tuned(t.Plan(ctx))
	}
	var doc *hosttune.TuneDocument
	err := app.progress(func(p orchestrate.Progress) (err error) {
		t.Observer.Progress = p
		doc, err = t.Apply(ctx, hosttune.Request{Persist: o.persist, RestartSensors: o.restart})
		return err
	})
	return show.tuned(doc, err)
}

// hosttune are the options that concern the machine.
func (o tuneOptions) hosttune() hosttune.Options {
	return hosttune.Options{Way: nsenter.Way(o.reach.way), Image: o.image, Pull: orchestrate.PullNever, Interfaces: o.interfaces,
		Program: func(info orchestrate.EngineInfo) (string, error) { return helperProgram(info, o.binary) }}
}

// openTuner completes the options by what this process knows, and opens the
// engine's machine.
func (a *App) openTuner(ctx context.Context, e orchestrate.Engine, o hosttune.Options) (*hosttune.Tuner, error) {
	return hosttune.Open(ctx, e, a.tuning(o))
}

// tuning completes options.
func (a *App) tuning(o hosttune.Options) hosttune.Options {
	o.UpImage = sensorImage(a.Getenv)
	o.Observer = hosttune.Observer{
		Progress: func(e orchestrate.Event) {
			if e.Parent == "" { // else it is a layer of an image
				fmt.Fprintf(a.Err, "%s: %s\n", e.ID, e.Text)
			}
		},
		Note: func(text string) { fmt.Fprintln(a.Err, "note: "+text) },
	}
	o.Store = a.tuningStore()
	return o
}

// tuningStore is what this client keeps of what was changed.
func (a *App) tuningStore() hosttune.Store {
	return hosttune.UserStore(a.Getenv, os.Geteuid())
}

// tuningInterrupted says that the user interrupted, with the advice that the
// error carries.
func tuningInterrupted(ctx context.Context, err error) error {
	var advice interface{ Hint() string }
	if !errors.As(err, &advice) {
		return err
	}
	return interrupted(ctx, err, advice.Hint())
}

// defaultZeek finds the image of the sensors in the stack's Compose file.
var defaultZeek = regexp.MustCompile(regexp.QuoteMeta("${"+orchestrate.ImageVariable("zeek")+":-") + `([^}]+)}`)

// sensorImage is what `up` would make sensors of.
func sensorImage(getenv func(string) string) string {
	if ref := getenv(orchestrate.ImageVariable("zeek")); ref != "" {
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
