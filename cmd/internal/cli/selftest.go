package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/forward/selftest"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
)

type selftestOptions struct {
	files    []string
	encap    string
	pace     paceOptions
	limit    uint64
	duration time.Duration
	openLoop bool
	cpu      string
	json     bool
}

func newSelftest(app *App) *cobra.Command {
	var o selftestOptions
	cmd := &cobra.Command{
		Use:   "selftest [FILE...]",
		Short: "Check that this machine forwards faithfully, without engine or privilege",
		Long: `Forward captures, or synthetic frames, to a receiver of its own over loopback,
through the same code as a replay, and compare every frame: loss, duplicates,
reordering within flows, corruption, rate. It needs no engine and no privilege,
and is the first thing to run on a machine that shows trouble.

The exit code is 3 if anything is amiss.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.files = args
			return runSelftest(cmd.Context(), app, o)
		},
	}
	f := cmd.Flags()
	o.pace.flags(f, "max")
	encapFlag(f, &o.encap)
	limitFlag(f, &o.limit)
	durationFlag(f, &o.duration)
	f.BoolVar(&o.openLoop, "open-loop", false, "do not wait for the receiver: shows what an unregulated sender loses here")
	cpuFlag(f, &o.cpu)
	jsonFlag(f, &o.json, "the result")
	return cmd
}

// options looks at the flags alone.
func (o selftestOptions) options() (so selftest.Options, err error) {
	so = selftest.Options{Limit: o.limit, Duration: o.duration, OpenLoop: o.openLoop, Stats: &forward.Stats{}}
	if so.Config.Kind, err = encap.ParseKind(o.encap); err != nil {
		return so, usageError{err}
	}
	spec, err := o.pace.spec()
	if err != nil {
		return so, err
	}
	if so.Pacer, err = spec.Pacer(); err != nil {
		return so, err
	}
	if so.CPU, err = transmit.ParseCPU(o.cpu); err != nil {
		return so, usageError{err}
	}
	return so, nil
}

func runSelftest(ctx context.Context, app *App, o selftestOptions) error {
	so, err := o.options()
	if err != nil {
		return err
	}
	if len(o.files) > 0 {
		files, err := pcapfile.OpenAll(o.files, pcapfile.Options{Stdin: app.In, Stop: ctx.Done()})
		if err != nil {
			return err
		}
		defer files.Close()
		if err := encap.CheckLinkTypes(files.LinkTypes()); err != nil {
			return fmt.Errorf("replay %s: %w", strings.Join(o.files, ", "), err)
		}
		so.Source = files
	}
	result, err := selftest.Run(ctx, so)
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("selftest: %w", delivery.ErrInterrupted)
	case err == nil && !result.Passed:
		err = watch.Lossf("selftest: %s", result.Verdict)
	}
	if o.json {
		return errors.Join(err, ui.JSON(app.Out, result))
	}
	writeSelftest(app.Out, result)
	return err
}

func writeSelftest(w io.Writer, r selftest.Result) {
	if r.Verdict == "" {
		return // it never began
	}
	rows := [][]string{
		{"sent", fmt.Sprintf("%s datagrams in %d flows", units.Count(r.Sent), r.Flows)},
		{"received", fmt.Sprintf("%s datagrams, %s", units.Count(r.Received), units.PacketRate(r.ReceivedPerSecond))},
		{"buffer", units.Bytes(int64(r.ReceiveBufferBytes)) + " at the receiver's socket"},
		{"by", r.Transmission.String()},
	}
	for _, p := range r.Problems {
		rows = append(rows, []string{strings.ToLower(string(p.Kind)), p.String()})
	}
	for _, refused := range r.Report.Refused {
		rows = append(rows, []string{"refused", fmt.Sprintf("%s frames: %s (%s)", units.Count(refused.Frames), refused.Reason, refused.LinkType)})
	}
	ui.Table(w, append(rows, []string{"verdict", r.Verdict}))
}
