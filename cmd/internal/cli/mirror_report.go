package cli

import (
	"fmt"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/mirror"
	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
	"github.com/zeekdemo/zeekdemo/forward/afpacket"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
)

// report prints what happened.
func (o mirrorOptions) report(app *App, doc mirror.Document) error {
	if o.json {
		return ui.JSON(app.Out, doc)
	}
	ui.Table(app.Out, o.rows(doc))
	return nil
}

// rows are the report for a person.
func (o mirrorOptions) rows(doc mirror.Document) [][]string {
	rows := [][]string{{"run", runLine(doc.Document)}}
	for _, c := range doc.Interfaces {
		rows = append(rows, interfaceRows(c)...)
	}
	for _, k := range doc.Mirrors {
		rows = append(rows, kernelRows(k)...)
	}
	how := string(doc.How)
	if doc.HowReason != "" {
		how += ", not in the kernel: " + doc.HowReason
	}
	rows = append(rows, []string{"how", how})
	if doc.Transmission != nil {
		rows = append(rows, sentRows(doc.Document)...)
		rows = append(rows, frameRows(doc.Report)...)
		rows = append(rows, sendRows(doc.Document)...)
	}
	for _, t := range doc.Troubles {
		rows = append(rows, []string{"trouble", troubleLine(t, doc.Verdict)})
	}
	rows = append(rows, losslessRows(doc.Document)...)
	if doc.GrafanaURL != "" {
		rows = append(rows, []string{"grafana", doc.GrafanaURL})
	}
	return append(rows, []string{"verdict", o.verdict(doc)})
}

func (o mirrorOptions) verdict(doc mirror.Document) string {
	switch {
	case doc.Verdict != delivery.Complete:
		return string(doc.Verdict) + ": " + doc.Error
	case o.detach:
		return "it runs in the kernel; `zeekdemo status` shows it, `zeekdemo mirror --stop` ends it"
	}
	return "every packet was sent" + taken(doc.Document)
}

// interfaceRows tell what was captured on one interface.
func interfaceRows(c afpacket.Counts) [][]string {
	rows := [][]string{{c.Interface, fmt.Sprintf("%s packets, %s, %s dropped in the ring", units.Count(c.Packets), units.Bytes(int64(c.Bytes)), units.Count(c.Dropped))}}
	for _, more := range []struct {
		n    uint64
		text string
	}{
		{c.Merged, "packets that offloads had merged were cut into what was on the wire"},
		{c.Whole, "packets that offloads had merged could not be cut and were sent whole"},
		{c.Late, "packets came later than those of other interfaces are waited for, and out of order"},
		{c.Checksums, "checksums that were left to the network card were completed"},
		{c.Cut, "packets were longer than the ring takes, and cut"},
		{c.Abandoned, "packets were still in the ring at the end"},
	} {
		if more.n > 0 {
			rows = append(rows, []string{"", units.Count(more.n) + " " + more.text})
		}
	}
	return rows
}

// kernelRows tell what a mirror in the kernel has done.
func kernelRows(k tcmirror.Mirror) [][]string {
	rows := [][]string{{k.Interface, fmt.Sprintf("%s packets in, %s out; %s packets into the tunnel, %s lost",
		units.Count(k.Stats.Received.Packets), units.Count(k.Stats.Sent.Packets), units.Count(k.Stats.Tunnel.Packets), units.Count(k.Stats.Lost()))}}
	for _, note := range k.Notes {
		rows = append(rows, []string{"", note})
	}
	return rows
}

func (o mirrorOptions) reportStopped(app *App, doc mirror.Stopped) error {
	if o.json {
		return ui.JSON(app.Out, doc)
	}
	for _, k := range doc.Mirrors {
		fmt.Fprintf(app.Out, "%s is no longer mirrored to %s (VNI %d)\n", k.Interface, k.Sensor, k.VNI)
	}
	for _, name := range doc.Offloads {
		fmt.Fprintf(app.Out, "%s merges packets again, as before\n", name)
	}
	if len(doc.Mirrors)+len(doc.Offloads) == 0 {
		fmt.Fprintln(app.Err, "Nothing is mirrored in the kernel, and nothing was left")
	}
	return nil
}
