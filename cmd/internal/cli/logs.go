package cli

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

type logsOptions struct {
	service string
	follow  bool
	tail    string
	log     string
}

func newLogs(app *App) *cobra.Command {
	var o logsOptions
	cmd := &cobra.Command{
		Use:   "logs [SERVICE]",
		Short: "Show what the services print, or a log that Zeek writes",
		Long: `Show what the services print. With --log, show one of the logs that a sensor
writes instead, as it is in the sensor's folder:

  zeekdemo logs loki --tail 20
  zeekdemo logs zeek --log conn -f`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return serviceNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.service = args[0]
			}
			return runLogs(cmd.Context(), app, o)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with new lines until interrupted")
	f.StringVar(&o.tail, "tail", "all", `how many lines to show from the end, or "all"`)
	f.StringVar(&o.log, "log", "", "show this log of a sensor (conn, dns, http, ...)")
	return cmd
}

func serviceNames() []string {
	var names []string
	for _, s := range orchestrate.Services() {
		names = append(names, s.Name)
	}
	return names
}

// zeekLogName is a log's name as Zeek writes them; nothing else may reach the
// command in the container.
var zeekLogName = regexp.MustCompile(`^[a-z0-9_]+$`)

func (o logsOptions) validate() error {
	var service orchestrate.Service
	if o.service != "" {
		var err error
		if service, err = orchestrate.ServiceByName(o.service); err != nil {
			return usageError{err}
		}
	}
	if n, err := strconv.Atoi(o.tail); o.tail != "all" && (err != nil || n < 0) {
		return usagef("--tail %q: want a number of lines or \"all\"", o.tail)
	}
	switch {
	case o.log == "":
		return nil
	case !service.IsSensor():
		return usagef("--log %s: only the sensors write logs: `zeekdemo logs zeek --log %s`", o.log, o.log)
	case !zeekLogName.MatchString(o.log):
		return usagef("--log %q: want a log's name, e.g. conn", o.log)
	}
	return nil
}

func runLogs(ctx context.Context, app *App, o logsOptions) error {
	if err := o.validate(); err != nil {
		return err
	}
	err := app.withEngine(func(e orchestrate.Engine) error {
		if o.log != "" {
			return zeekLog(ctx, app, e, o)
		}
		return serviceLogs(ctx, app, e, o)
	})
	if ctx.Err() != nil && o.follow {
		return silentError{err} // an interrupt is how following ends
	}
	return err
}

func serviceLogs(ctx context.Context, app *App, e orchestrate.Engine, o logsOptions) error {
	if _, err := orchestrate.Status(ctx, e); err != nil {
		return err
	}
	return e.Logs(ctx, orchestrate.LogRequest{Project: orchestrate.ProjectName, Service: o.service, Follow: o.follow, Tail: o.tail,
		Line: func(service, line string) {
			if o.service != "" {
				fmt.Fprintln(app.Out, line)
				return
			}
			fmt.Fprintf(app.Out, "%-12s %s\n", service, line)
		}})
}

// finishedScript lists the finished files of a log, the oldest first: Zeek goes on in a
// new file now and then, and a sensor that starts moves what there is aside. With
// several loggers each but the first has a folder.
const finishedScript = `finished() { ls -tr "$2".*.log logger-*/"$2".*.log logger-*/"$2".log 2>/dev/null; }
`

// readScript prints the last lines of a log; it fails where there is no file of it.
const readScript = finishedScript + `files=$(finished "$@"; ls "$2".log 2>/dev/null)
[ -n "$files" ] && cat $files | tail -n "$1"`

// followScript prints the last lines of a log, and follows its file by the name, for it
// may come later, and Zeek may start a new one. An engine does not end what it runs in
// a container when nobody reads it any more, but closes its standard input; tail does
// not read that, and busybox's has no --pid. The shell waits for that end, and sees to
// tail's.
const followScript = finishedScript + `here=$(cat "$2".log 2>/dev/null | wc -l)
old=$(finished "$@")
if [ -n "$old" ]; then
  case $1 in
  +1) cat $old ;;
  *) [ "$1" -le "$here" ] || cat $old | tail -n $(($1 - here)) ;;
  esac
fi
tail -n "$1" -F "$2".log & cat >/dev/null; kill $!`

// zeekLog reads a log in the sensor's container, where its working directory
// is the folder of its logs.
func zeekLog(ctx context.Context, app *App, e orchestrate.Engine, o logsOptions) error {
	service, err := orchestrate.ServiceByName(o.service)
	if err != nil {
		return err
	}
	sensor, err := orchestrate.FindSensor(ctx, e, service.Encap)
	if err != nil {
		return err
	}
	lines := "+1" // from the first line
	if o.tail != "all" {
		lines = o.tail
	}
	cmd := []string{"sh", "-c", readScript, "read", lines, o.log}
	if o.follow {
		cmd = []string{"sh", "-c", followScript, "follow", lines, o.log}
	}
	code, err := e.Exec(ctx, sensor.Container.ID, cmd, app.Out, io.Discard)
	switch {
	case err != nil:
		return err
	case code != 0:
		return orchestrate.WithHint(fmt.Errorf("read %s.log of %s: there is none yet", o.log, o.service),
			"Zeek writes a log with its first line: replay something, or wait until its connections end")
	}
	return nil
}
