package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
)

// writeDrops shows a report to a person: the table, what is to be known beside
// it, and the verdict with its reason and cure.
func writeDrops(w io.Writer, r drops.Report, all bool) {
	rows := [][]string{{"HOP", "IN", "LOST", "LOST/S", "VERDICT"}}
	var notes []string
	for _, h := range shownHops(r, all) {
		rows = append(rows, []string{h.Name, counted(h, h.In), counted(h, h.Lost), rate(h), hopVerdict(r, h)})
		for _, n := range h.Notes {
			notes = append(notes, h.Name+": "+n)
		}
	}
	for _, name := range foldedSensors(r, all) {
		rows = append(rows, []string{name, "0", "0", "0", "no packets; --all shows its hops"})
	}
	ui.Table(w, rows)
	fmt.Fprintln(w)
	for _, n := range append(notes, unknowns(r, all)...) {
		fmt.Fprintln(w, n)
	}
	for _, line := range verdictLines(r) {
		fmt.Fprintln(w, line)
	}
}

// verdictLines are the verdict, its reason and its cure.
func verdictLines(r drops.Report) []string {
	lines := []string{r.Sentence}
	if r.Culprit != nil {
		lines = append(lines, "why:  "+r.Culprit.Reason, "cure: "+r.Culprit.Cure)
	}
	if r.Verdict == drops.VerdictReordered {
		lines = append(lines, "why:  docker-proxy and several CPUs at once may let one packet overtake another",
			"cure: zeekdemo replay --direct   (`zeekdemo verify FILE` tells whether the capture itself has gaps)")
	}
	for i := range r.Hops {
		if reason, cure := r.Hops[i].Hint(); reason != "" {
			lines = append(lines, fmt.Sprintf("%s: %s (%s)", r.Hops[i].Name, reason, cure))
		}
	}
	return lines
}

// idleSensor reports whether nothing came to a sensor, and all is known.
func idleSensor(r drops.Report, sensor string) bool {
	idle := false
	for _, h := range r.Hops {
		if h.Sensor != sensor {
			continue
		}
		if h.Verdict == drops.VerdictLost || h.Verdict == drops.VerdictMissed || len(h.Notes) > 0 || h.Waiting() {
			return false
		}
		if h.Hop == drops.HopUDP {
			idle = h.In != nil && *h.In == 0
		}
	}
	return idle
}

// shownHops leaves out sensors to which nothing came.
func shownHops(r drops.Report, all bool) (list []drops.HopReport) {
	for _, h := range r.Hops {
		if all || h.Sensor == "" || !idleSensor(r, h.Sensor) {
			list = append(list, h)
		}
	}
	return list
}

func foldedSensors(r drops.Report, all bool) (names []string) {
	for _, h := range r.Hops {
		if h.Hop == drops.HopUDP && !all && idleSensor(r, h.Sensor) {
			names = append(names, h.Sensor)
		}
	}
	return names
}

// unknowns says what could not be read, once for each reason.
func unknowns(r drops.Report, all bool) []string {
	var order []string
	what := map[string][]string{}
	for _, h := range shownHops(r, all) {
		for _, u := range h.Unknown {
			if what[u.Why] == nil {
				order = append(order, u.Why)
			}
			what[u.Why] = append(what[u.Why], h.Name+" "+u.What)
		}
	}
	var lines []string
	for _, why := range order {
		lines = append(lines, fmt.Sprintf("not known: %s: %s", strings.Join(what[why], ", "), why))
	}
	return lines
}

// counted writes a number: "?" if it is not known, "-" where there is none.
func counted(h drops.HopReport, n *uint64) string {
	switch {
	case n != nil:
		return ui.Count(*n)
	case h.Verdict == drops.VerdictUnknown:
		return "?"
	}
	return "-"
}

func rate(h drops.HopReport) string {
	perSecond := h.PerSec
	switch {
	case perSecond == nil:
		return counted(h, nil)
	case *perSecond > 0 && *perSecond < 10:
		return fmt.Sprintf("%.1f", *perSecond)
	}
	return ui.Count(uint64(*perSecond))
}

// hopVerdict is a hop's verdict in words.
func hopVerdict(r drops.Report, h drops.HopReport) string {
	text := string(h.Verdict)
	switch h.Verdict {
	case drops.VerdictClean:
		text = "ok"
	case drops.VerdictIdle:
		text = "nothing came"
	case drops.VerdictLost:
		text = "LOST"
		if r.Culprit != nil && r.Culprit.Hop == h.Hop && r.Culprit.Sensor == h.Sensor {
			text = "LOST HERE FIRST"
		}
	case drops.VerdictHeld:
		text = "lines wait"
	case drops.VerdictSuspect:
		text = "lost on this machine, ours or not"
	case drops.VerdictMissed:
		text = fmt.Sprintf("connections that miss bytes: %s", ui.Count(h.Counters[0].Grown))
	}
	if q := fullest(h.Queues); q != nil {
		text += "; queue " + queueText(*q)
	}
	return text + oddities(h)
}

// behind is the lag from which on Zeek is said to be behind, in seconds.
const behind = 0.1

// oddities are what Zeek says of itself beside what it counts.
func oddities(h drops.HopReport) (text string) {
	if h.Lag > behind && h.In != nil && *h.In > 0 {
		text += fmt.Sprintf("; %.1f s behind", h.Lag)
	}
	if h.Weird > 0 {
		text += fmt.Sprintf("; weird: %s", ui.Count(h.Weird))
	}
	if h.CaptureLoss != nil && *h.CaptureLoss > 0 {
		text += fmt.Sprintf("; capture loss up to %.2g %%", *h.CaptureLoss)
	}
	return text
}

// fullest is the queue worth showing: the fullest one that holds anything.
func fullest(queues []drops.Queue) (best *drops.Queue) {
	for i, q := range queues {
		if q.Unit != "connections" && q.Used > 0 && (best == nil || q.Used > best.Used) {
			best = &queues[i]
		}
	}
	return best
}

func queueText(q drops.Queue) string {
	text := ui.Count(q.Used) + " " + q.Unit
	if q.Unit == "bytes" {
		text = ui.Bytes(q.Used)
	}
	switch {
	case q.Size > 0 && q.Unit == "bytes":
		text += " of " + ui.Bytes(q.Size)
	case q.Size > 0:
		text = fmt.Sprintf("%s of %s %s", ui.Count(q.Used), ui.Count(q.Size), q.Unit)
	}
	return text
}
