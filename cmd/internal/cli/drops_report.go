package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
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

// verdictLines are the verdict, its reason and its cure, as far as these are
// known.
func verdictLines(r drops.Report) []string {
	lines := []string{r.Sentence}
	reason, cure := r.Why()
	if reason != "" {
		lines = append(lines, "why:  "+reason)
	}
	if cure != "" {
		lines = append(lines, "cure: "+cure)
	}
	for i := range r.Hops {
		reason, cure := r.Hint(&r.Hops[i])
		if cure != "" {
			reason += " (" + cure + ")"
		}
		if reason != "" {
			lines = append(lines, r.Hops[i].Name+": "+reason)
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
		return units.Count(*n)
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
	return units.Count(uint64(*perSecond))
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
		text = fmt.Sprintf("connections that miss bytes: %s", units.Count(h.Counters[0].Grown))
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
		text += fmt.Sprintf("; weird: %s", units.Count(h.Weird))
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
	text := units.Count(q.Used) + " " + q.Unit
	if q.Unit == "bytes" {
		text = units.Bytes(q.Used)
	}
	switch {
	case q.Size > 0 && q.Unit == "bytes":
		text += " of " + units.Bytes(q.Size)
	case q.Size > 0:
		text = fmt.Sprintf("%s of %s %s", units.Count(q.Used), units.Count(q.Size), q.Unit)
	}
	return text
}

// writeInterval writes one interval of a watch on a line.
func writeInterval(app *App, report drops.Report, asJSON bool) error {
	if !asJSON {
		_, err := fmt.Fprintln(app.Out, intervalLine(report))
		return err
	}
	line, err := json.Marshal(report)
	if err == nil {
		_, err = fmt.Fprintf(app.Out, "%s\n", line)
	}
	return err
}

// intervalLine is, for example:
//
//	15:04:05  lost 32 065  32065 packets lost in 2s: ...; cure: zeekdemo replay --direct
func intervalLine(r drops.Report) string {
	parts := []string{r.To.Format(time.TimeOnly), string(r.Verdict), r.Sentence}
	if r.Culprit != nil && r.Culprit.Cure != "" {
		parts[2] += "; cure: " + r.Culprit.Cure
	}
	return strings.Join(parts, "  ")
}

// dropsScreen is the live screen: a table that fits the terminal, with what
// happened lately as a line of bars for each hop.
type dropsScreen struct {
	options       dropsOptions
	ledger        *dropsLedger
	width, height int // of the terminal, as it is drawn
	color         bool
	intervals     int
	report        *drops.Report
	past          map[string][]moment // by hop
	busy          map[string]bool     // sensors to which something has come
	lost          uint64              // packets and lines so far
}

var _ ui.Watched[dropsNews] = (*dropsScreen)(nil)

func newDropsScreen(o dropsOptions, l *dropsLedger, color bool) *dropsScreen {
	return &dropsScreen{options: o, ledger: l, color: color, past: map[string][]moment{}, busy: map[string]bool{}}
}

// moment is one interval of a hop.
type moment struct {
	in   float64 // per second
	lost bool
}

// moments is how many intervals the line of bars remembers.
const moments = 120

// dropsNews is what an interval brought.
type dropsNews struct{ interval, shown drops.Report }

// Next implements [ui.Watched].
func (s *dropsScreen) Next() time.Time { return s.ledger.last.At.Add(s.options.interval) }

// Look implements [ui.Watched].
func (s *dropsScreen) Look(ctx context.Context) (dropsNews, error) {
	interval, shown, err := s.ledger.next(ctx)
	return dropsNews{interval, shown}, err
}

// Take implements [ui.Watched].
func (s *dropsScreen) Take(news dropsNews) (more bool) {
	s.remember(news)
	s.intervals++
	return s.options.count == 0 || s.intervals < s.options.count
}

func (s *dropsScreen) remember(news dropsNews) {
	s.report = &news.shown
	s.lost += news.interval.Lost + news.interval.LostLines
	for _, h := range news.interval.Hops {
		m := moment{lost: h.Verdict == drops.VerdictLost || h.Verdict == drops.VerdictSuspect || h.Verdict == drops.VerdictMissed}
		if h.In != nil && news.interval.Seconds > 0 {
			m.in = float64(*h.In) / news.interval.Seconds
		}
		if h.Hop == drops.HopUDP {
			s.busy[h.Sensor] = s.busy[h.Sensor] || !idleSensor(news.interval, h.Sensor)
		}
		key := string(h.Hop) + "/" + h.Sensor
		past := append(s.past[key], m)
		s.past[key] = past[max(0, len(past)-moments):]
	}
}

// Draw implements [ui.Watched].
func (s *dropsScreen) Draw(width, height int) string {
	s.width, s.height = width, height
	title := fmt.Sprintf("zeekdemo drops   every %s   q quits", s.options.interval)
	if s.report == nil {
		return s.cut(title) + "\n\nReading for the first interval."
	}
	r := *s.report
	title += fmt.Sprintf("   %s   lost so far: %s", r.To.Format(time.TimeOnly), units.Count(s.lost))
	var foot []string
	for _, line := range verdictLines(r) {
		foot = append(foot, ui.Wrap(line, s.width)...)
	}
	foot = foot[:min(len(foot), max(1, s.height/3))]
	lines := append([]string{s.cut(title), ""}, s.table(r, s.height-3-len(foot))...)
	lines = append(append(lines, ""), foot...)
	return strings.Join(lines[:min(len(lines), s.height)], "\n")
}

// The widths of the columns, in cells. The bars take what is left, up to a
// limit. All of it fits 80.
const (
	nameWidth    = 28
	numberWidth  = 10
	verdictWidth = 18
	leastBars    = 8
	mostBars     = 40
)

// table shows as many hops as there are rows for: those that lose before those
// that do not, in the order of the way.
func (s *dropsScreen) table(r drops.Report, rows int) []string {
	hops, folded := s.busyHops(r)
	bars := min(mostBars, s.width-nameWidth-2*numberWidth-verdictWidth-4)
	lines := []string{s.line("HOP", "IN", "LOST", "LATELY", bars, "VERDICT")}
	left := max(0, min(len(hops), len(hops)-(rows-1-len(folded))))
	if left > 0 {
		left++ // the line that says so
	}
	for _, h := range hops {
		if left > 0 && quiet(h) {
			left--
			continue
		}
		lines = append(lines, s.row(r, h, bars))
	}
	if shown := len(lines) - 1; shown < len(hops) {
		lines = append(lines, s.cut(fmt.Sprintf("(%d more hops without a loss: the window is too small for them)", len(hops)-shown)))
	}
	for _, name := range folded {
		lines = append(lines, s.line(name, "0", "0", "", bars, "no packets"))
	}
	return lines
}

// busyHops are those worth a row, and the sensors to which nothing has come.
func (s *dropsScreen) busyHops(r drops.Report) (hops []drops.HopReport, folded []string) {
	for _, h := range r.Hops {
		switch {
		case h.Sensor == "" || s.options.all || s.busy[h.Sensor]:
			hops = append(hops, h)
		case h.Hop == drops.HopUDP:
			folded = append(folded, h.Sensor)
		}
	}
	return hops, folded
}

// quiet reports whether a hop may be left out where rows are few.
func quiet(h drops.HopReport) bool {
	return h.Verdict == drops.VerdictClean || h.Verdict == drops.VerdictIdle || h.Verdict == drops.VerdictUnknown
}

func (s *dropsScreen) row(r drops.Report, h drops.HopReport, bars int) string {
	line := s.line(h.Name, counted(h, h.In), counted(h, h.Lost), sparkline(s.past[string(h.Hop)+"/"+h.Sensor], bars), bars, s.verdict(r, h))
	if s.color && (h.Verdict == drops.VerdictLost || h.Verdict == drops.VerdictMissed) {
		return "\x1b[31m" + line + "\x1b[0m"
	}
	return line
}

// line is one of the table, without the bars where there is no room for them.
func (s *dropsScreen) line(name, in, lost, lately string, bars int, verdict string) string {
	text := ui.Pad(ui.Cut(name, nameWidth-1), nameWidth) + fmt.Sprintf("%*s%*s  ", numberWidth, in, numberWidth, lost)
	if bars >= leastBars {
		text += ui.Pad(lately, bars) + "  "
	}
	return s.cut(text + verdict)
}

// verdict is a hop's verdict, in few words where there is no room for more.
func (s *dropsScreen) verdict(r drops.Report, h drops.HopReport) string {
	if s.width >= 120 {
		return hopVerdict(r, h)
	}
	q := fullest(h.Queues)
	switch {
	case h.Verdict == drops.VerdictSuspect:
		return "lost, maybe ours"
	case h.Verdict == drops.VerdictMissed:
		return fmt.Sprintf("%d miss bytes", h.Counters[0].Grown)
	case q != nil && q.Unit == "bytes" && h.Verdict == drops.VerdictClean:
		return "ok, " + units.Bytes(q.Used) + " wait"
	}
	h.Queues = nil
	return hopVerdict(r, h)
}

// cut keeps a line within the screen.
func (s *dropsScreen) cut(line string) string { return ui.Cut(line, s.width) }

// sparkline draws the last intervals: higher for more packets, a cross where
// some were lost.
func sparkline(past []moment, width int) string {
	past = past[max(0, len(past)-max(0, width)):]
	highest := 0.0
	for _, m := range past {
		highest = max(highest, m.in)
	}
	bars := []rune(" ▁▂▃▄▅▆▇█")
	var out strings.Builder
	for _, m := range past {
		switch {
		case m.lost:
			out.WriteRune('×')
		case m.in == 0 || highest == 0:
			out.WriteRune(bars[0])
		default:
			out.WriteRune(bars[max(1, int(m.in/highest*float64(len(bars)-1)))])
		}
	}
	return out.String()
}
