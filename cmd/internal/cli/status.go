package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/hosttune"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
)

type statusOptions struct {
	json bool
}

func newStatus(app *App) *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show each service: state, health, address, ports",
		Long: `Show each service of the stack: the state of its container, whether it answers,
its image, addresses, ports and uptime. The exit code is 0 only if every service
is healthy. Shown as well: how much each store holds and may hold, and since when,
each alert that fires, with what to do, what this machine's kernel mirrors
("zeekdemo mirror"), and whether the engine's machine is tuned ("zeekdemo
tune-host").`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runStatus(cmd.Context(), app, o) },
	}
	jsonFlag(cmd.Flags(), &o.json, "")
	return cmd
}

// statusDocument is what `status --json` prints.
type statusDocument struct {
	Healthy  bool                        `json:"healthy"`
	Services []orchestrate.ServiceStatus `json:"services"`
	Alerts   []orchestrate.Alert         `json:"alerts,omitempty"` // those that fire
	Stores   []orchestrate.Store         `json:"stores,omitempty"` // as the janitor saw them last
	Mirrors  []tcmirror.Mirror           `json:"mirrors,omitempty"`
	Tuning   *hosttune.GlanceDocument    `json:"tuning,omitempty"` // of the engine's machine, as far as it can be seen
}

func runStatus(ctx context.Context, app *App, o statusOptions) error {
	return app.withEngine(func(e orchestrate.Engine) error {
		services, err := orchestrate.Status(ctx, e)
		if err != nil && (!o.json || !errors.Is(err, orchestrate.ErrNoStack)) {
			return err
		}
		healthy := err == nil && orchestrate.AllHealthy(services)
		alerts := app.alerts(ctx, e, err)
		stores := app.stores(ctx, e, err)
		mirrors, mirrorErr := app.kernelMirrors()
		if mirrorErr != nil {
			fmt.Fprintln(app.Err, "warning:", mirrorErr)
		}
		tuning := hosttune.Glance(ctx, e, app.tuningStore())
		if o.json {
			if services == nil {
				services = []orchestrate.ServiceStatus{}
			}
			if err := ui.JSON(app.Out, statusDocument{healthy, services, alerts, stores, mirrors, tuning}); err != nil {
				return err
			}
		} else {
			ui.Table(app.Out, statusRows(services))
			if len(stores) > 0 {
				fmt.Fprintln(app.Out)
				ui.Table(app.Out, storeRows(stores, time.Now()))
			}
			printAlerts(app.Out, alerts)
			if len(mirrors) > 0 {
				fmt.Fprintln(app.Out)
				ui.Table(app.Out, mirrorRows(mirrors))
			}
			printTuning(app.Out, tuning)
		}
		switch {
		case err != nil:
			return err
		case !healthy:
			return orchestrate.WithHint(errors.New("not every service is healthy"), "`zeekdemo up` completes the stack; `zeekdemo logs SERVICE` shows what a service prints")
		}
		return nil
	})
}

// alerts asks for what fires, where there is a stack.
func (a *App) alerts(ctx context.Context, e orchestrate.Engine, noStack error) []orchestrate.Alert {
	if noStack != nil {
		return nil
	}
	list, err := orchestrate.Alerts(ctx, e)
	if err != nil {
		fmt.Fprintln(a.Err, "warning:", err)
	}
	return list
}

// stores asks how large they are, where there is a stack.
func (a *App) stores(ctx context.Context, e orchestrate.Engine, noStack error) []orchestrate.Store {
	if noStack != nil {
		return nil
	}
	list, err := orchestrate.Stores(ctx, e)
	if err != nil {
		fmt.Fprintln(a.Err, "warning:", err)
	}
	return list
}

// storeRows are the stores as a table.
func storeRows(stores []orchestrate.Store, now time.Time) [][]string {
	rows := [][]string{{"STORE", "SIZE", "AT MOST", "OLDEST", "KEPT FOR", ""}}
	for _, s := range stores {
		row := []string{s.Name, units.Bytes(s.Bytes), "-", "-", "-", ""}
		if s.Most > 0 {
			row[2] = units.Bytes(s.Most)
		}
		if s.Oldest != nil {
			row[3] = units.Duration(max(0, now.Sub(*s.Oldest)).Truncate(time.Second))
		}
		if s.Keep > 0 {
			row[4] = orchestrate.FormatAge(s.Keep)
		}
		if s.Refuses {
			row[5] = "full: it refuses lines until there is room"
		}
		rows = append(rows, row)
	}
	return rows
}

// printAlerts says what is wrong, and below each what to do.
func printAlerts(w io.Writer, alerts []orchestrate.Alert) {
	for _, a := range alerts {
		fmt.Fprintf(w, "\n%s: %s\n  %s\n", a.Severity, a.Summary, a.Action)
	}
}

func statusRows(services []orchestrate.ServiceStatus) [][]string {
	rows := [][]string{{"SERVICE", "STATE", "HEALTH", "UPTIME", "ADDRESS", "PORTS", "TAKES", "IMAGE"}}
	for _, s := range services {
		uptime := "-"
		if s.UptimeSec > 0 {
			uptime = time.Duration(s.UptimeSec * float64(time.Second)).Round(time.Second).String()
		}
		var addresses []string
		for _, network := range slices.Sorted(maps.Keys(s.Addresses)) {
			addresses = append(addresses, fmt.Sprint(s.Addresses[network]))
		}
		ports := strings.Join(s.Ports, ",")
		if s.URL != "" {
			ports = s.URL
		}
		image, _, _ := strings.Cut(s.Image, "@") // a digest is for --json
		rows = append(rows, []string{s.Service, s.State, s.Health, uptime, dash(strings.Join(addresses, ",")), dash(ports), dash(takes(s)), dash(image)})
	}
	return rows
}

// takes says what a sensor takes, and with how many workers where it is a cluster.
func takes(s orchestrate.ServiceStatus) string {
	if s.Workers > 1 {
		return fmt.Sprintf("%s, %d workers", s.Takes, s.Workers)
	}
	return s.Takes
}

// mirrorRows are the mirrors in the kernel as a table.
func mirrorRows(mirrors []tcmirror.Mirror) [][]string {
	rows := [][]string{{"MIRROR", "STATE", "DIRECTION", "SENSOR", "VNI", "PACKETS", "BYTES", "DROPPED", "FILTER"}}
	for _, m := range mirrors {
		sensor := m.Sensor.String()
		if m.Service != "" {
			sensor = m.Service + " " + sensor
		}
		received, sent := m.Stats.Received, m.Stats.Sent
		rows = append(rows, []string{dash(m.Interface), mirrorState(m), dash(m.Direction), sensor, strconv.Itoa(int(m.VNI)),
			strconv.FormatUint(received.Packets+sent.Packets, 10), strconv.FormatUint(received.Bytes+sent.Bytes, 10),
			strconv.FormatUint(m.Stats.Lost(), 10), dash(m.Expression)})
	}
	return rows
}

func mirrorState(m tcmirror.Mirror) string {
	switch {
	case !m.Alive:
		return "left behind"
	case !m.Complete:
		return "incomplete"
	case m.Detached:
		return "detached"
	}
	return "process " + strconv.Itoa(m.Process)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
