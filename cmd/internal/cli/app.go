// Package cli is the command line: one file per command, each with an options
// struct, a constructor that only parses, and a run function that only works.
// What commands do lies below: in packages delivery, orchestrate and forward.
//
// Exit codes: 0 done; 1 failed; 2 wrong usage; 3 it ran, and the evidence
// shows loss; 130 interrupted.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/engine"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
)

// The exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitLoss        = 3
	exitInterrupted = 130
)

// App is what commands need of the outside world; tests put other things here.
type App struct {
	ui.Streams
	Version string
	Getenv  func(string) string
	// Connect prepares the container engine of the current Docker context.
	Connect func(warnings io.Writer) (orchestrate.Engine, error)
	// Mirrors lists what this machine's kernel mirrors; nil where it cannot.
	Mirrors func() ([]tcmirror.Mirror, error)
	// OpenBrowser shows a page to the person at this machine, or says why not.
	OpenBrowser func(ctx context.Context, url string) error
	// Exec replaces the process, as execve does.
	Exec func(path string, args, env []string) error
	// interpose stands before the way out; tests put faults there. Nil: nothing.
	interpose func(forward.Sink) forward.Sink
}

// System returns the real outside world.
func System(version string) *App {
	return &App{
		Streams: ui.Standard(os.Getenv),
		Version: version,
		Getenv:  os.Getenv,
		Connect: func(warnings io.Writer) (orchestrate.Engine, error) {
			e, err := engine.Connect(warnings)
			if err != nil {
				return nil, err
			}
			return e, nil
		},
		Mirrors:     tcmirror.List,
		OpenBrowser: openBrowser,
		Exec:        syscall.Exec,
	}
}

// usageError is a mistake in the command line itself.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// silentError carries an exit code where everything has been said already.
type silentError struct{ error }

// overError is what went wrong in a run that an interrupt only ended, as it ends
// every one of its kind.
type overError struct{ error }

func (o overError) Unwrap() error { return o.error }

// Main runs one command line and returns the exit code. All that it says goes
// to the app's streams.
func Main(ctx context.Context, args []string, app *App) int {
	root := newRoot(app)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	var silent silentError
	if !errors.As(err, &silent) {
		ui.Error(app.Err, err)
	}
	var usage usageError
	var late *delivery.UsageError
	var loss *delivery.LossError
	var over overError
	switch {
	case errors.As(err, &usage), errors.As(err, &late):
		fmt.Fprintf(app.Err, "hint: `%s --help` shows the usage\n", cmd.CommandPath())
		return exitUsage
	case ctx.Err() != nil && !errors.As(err, &over):
		return exitInterrupted
	case errors.As(err, &loss):
		return exitLoss
	}
	return exitFailed
}

func newRoot(app *App) *cobra.Command {
	root := &cobra.Command{
		Use:   "zeekdemo",
		Short: "See your own packets through Zeek, and prove that none was lost on the way",
		Long: `zeekdemo brings up Zeek with Prometheus, Loki and Grafana, replays captures
and mirrors live traffic into it, encapsulated in VXLAN or GENEVE, and tells
where packets die.

  zeekdemo up                  start the stack and wait until it answers
  zeekdemo replay              replay the embedded sample
  zeekdemo replay big.pcap     replay a capture of your own
  sudo zeekdemo mirror eth0    mirror live traffic
  zeekdemo drops               show where packets die, and what cures it
  zeekdemo doctor              look for what would go wrong
  zeekdemo down --volumes      remove everything again`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              cobra.NoArgs,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(app.In)
	root.SetOut(app.Out)
	root.SetErr(app.Err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newUp(app), newStatus(app), newDown(app), newLogs(app), newOpen(app),
		newReplay(app), newMirror(app), newVerify(app), newDrops(app), newSelftest(app), newDoctor(app), newTuneHost(app), newKernelFile(app), newSidecar(app), newVersion(app), newCompletion(app))
	root.SetHelpCommand(newHelp(root))
	classifyArgs(root)
	return root
}

// newHelp replaces cobra's, for which a command that does not exist is no error.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show how a command is used",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err == nil && len(rest) > 0 {
				err = fmt.Errorf("unknown command %q for %q", rest[0], cmd.CommandPath())
			}
			if err != nil {
				return usageError{err}
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// classifyArgs makes errors about arguments usage errors, in every command.
func classifyArgs(cmd *cobra.Command) {
	check := cmd.Args
	if check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		classifyArgs(sub)
	}
}

// withEngine connects, runs f and disconnects.
func (a *App) withEngine(f func(orchestrate.Engine) error) error {
	e, err := a.Connect(a.Err)
	if err != nil {
		return err
	}
	if c, ok := e.(io.Closer); ok {
		defer c.Close()
	}
	return f(e)
}

// locked runs f while no other command changes the engine's stack or its machine.
func (a *App) locked(ctx context.Context, e orchestrate.Engine, command string, timeout time.Duration, f func() error) error {
	info, err := e.Info(ctx)
	if err != nil {
		return interrupted(ctx, err, "nothing was changed")
	}
	return a.lockedWith(ctx, e, info, command, timeout, f)
}

// lockedWith is locked where the engine has been asked already.
func (a *App) lockedWith(ctx context.Context, e orchestrate.Engine, info orchestrate.EngineInfo, command string, timeout time.Duration, f func() error) error {
	unlock, err := orchestrate.Lock(ctx, e, info, command, timeout, func(line string) {
		fmt.Fprintln(a.Err, line)
	})
	if err != nil {
		return interrupted(ctx, err, "nothing was changed")
	}
	return errors.Join(f(), unlock())
}

// observer shows a person what a delivery tells.
func (a *App) observer() *ui.Observer { return ui.NewObserver(a.Err, a.Terminal) }

// kernelMirrors lists the mirrors of this machine's kernel, which are none where
// it cannot mirror.
func (a *App) kernelMirrors() ([]tcmirror.Mirror, error) {
	if a.Mirrors == nil {
		return nil, nil
	}
	mirrors, err := a.Mirrors()
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, nil
	}
	return mirrors, err
}

// progress shows the steps of the engine while f runs.
func (a *App) progress(f func(orchestrate.Progress) error) error {
	shown := ui.NewProgress(a.Err, a.Terminal)
	defer shown.Close()
	return f(func(e orchestrate.Event) {
		shown.Update(ui.Step{ID: e.ID, Parent: e.Parent, Text: e.Text, Detail: e.Detail,
			State: ui.StepState(e.State), Current: e.Current, Total: e.Total})
	})
}

// interrupted says what was left behind where the user stopped a command.
func interrupted(ctx context.Context, err error, advice string) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	return orchestrate.WithHint(fmt.Errorf("%w: %w", delivery.ErrInterrupted, trimCanceled(err)), advice)
}

// trimCanceled drops the "context canceled" that only repeats the interruption.
func trimCanceled(err error) error {
	text := strings.TrimSuffix(strings.TrimSuffix(err.Error(), context.Canceled.Error()), ": ")
	if text == err.Error() || text == "" {
		return err
	}
	return errors.New(text)
}
