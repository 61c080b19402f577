package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"golang.org/x/term"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
)

// interactive reports whether a person sees standard output and can press keys.
func (a *App) interactive() bool {
	out, ok := a.Out.(*os.File)
	in, ok2 := a.In.(*os.File)
	return ok && ok2 && a.Getenv("TERM") != "dumb" && term.IsTerminal(int(out.Fd())) && term.IsTerminal(int(in.Fd()))
}

// watchScreen shows the hops live until q or Ctrl-C, and leaves the account of
// the whole time on the terminal.
func watchScreen(ctx context.Context, app *App, o dropsOptions, l *dropsLedger) error {
	if err := l.begin(ctx); err != nil {
		return err
	}
	s := &dropsScreen{ctx: ctx, options: o, ledger: l, width: 80, height: 24, color: app.Getenv("NO_COLOR") == "", past: map[string][]moment{}, busy: map[string]bool{}}
	_, err := tea.NewProgram(s, tea.WithContext(ctx), tea.WithInput(app.In), tea.WithOutput(app.Out), tea.WithAltScreen(), tea.WithoutSignalHandler()).Run()
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil // an interrupt is how watching ends
	}
	if err = errors.Join(err, s.err); err != nil {
		return fmt.Errorf("watch the hops: %w", err)
	}
	if l.first != l.last {
		writeDrops(app.Out, l.whole(), o.all)
	}
	return l.result()
}

// dropsScreen is the live screen: a table that fits the terminal, with what
// happened lately as a line of bars for each hop.
type dropsScreen struct {
	ctx           context.Context //nolint:containedctx // bubbletea's models have no other way to it
	options       dropsOptions
	ledger        *dropsLedger
	width, height int
	color         bool
	intervals     int
	report        *drops.Report
	past          map[string][]moment // by hop
	busy          map[string]bool     // sensors to which something has come
	lost          uint64              // packets and lines so far
	err           error
}

var _ tea.Model = (*dropsScreen)(nil)

// moment is one interval of a hop.
type moment struct {
	in   float64 // per second
	lost bool
}

// moments is how many intervals the line of bars remembers.
const moments = 120

// dropsNews is what an interval brought.
type dropsNews struct {
	interval, shown drops.Report
	err             error
}

// Init implements tea.Model.
func (s *dropsScreen) Init() tea.Cmd { return s.wait() }

// wait takes the next picture when the interval is over.
func (s *dropsScreen) wait() tea.Cmd {
	return tea.Tick(time.Until(s.ledger.last.At.Add(s.options.interval)), func(time.Time) tea.Msg {
		interval, shown, err := s.ledger.next(s.ctx)
		return dropsNews{interval, shown, err}
	})
}

// Update implements tea.Model.
func (s *dropsScreen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = msg.Width, msg.Height
	case tea.KeyMsg:
		if k := msg.String(); k == "q" || k == "ctrl+c" || k == "esc" {
			return s, tea.Quit
		}
	case dropsNews:
		if s.err = msg.err; s.err != nil {
			return s, tea.Quit
		}
		s.remember(msg)
		if s.intervals++; s.options.count > 0 && s.intervals >= s.options.count {
			return s, tea.Quit
		}
		return s, s.wait()
	}
	return s, nil
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

// View implements tea.Model.
func (s *dropsScreen) View() string {
	title := fmt.Sprintf("zeekdemo drops   every %s   q quits", s.options.interval)
	if s.report == nil {
		return s.cut(title) + "\n\nReading for the first interval."
	}
	r := *s.report
	title += fmt.Sprintf("   %s   lost so far: %s", r.To.Format(time.TimeOnly), ui.Count(s.lost))
	var foot []string
	for _, line := range verdictLines(r) {
		foot = append(foot, wrap(line, s.width)...)
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
	var hops []drops.HopReport
	var folded []string
	for _, h := range r.Hops {
		switch {
		case h.Sensor == "" || s.options.all || s.busy[h.Sensor]:
			hops = append(hops, h)
		case h.Hop == drops.HopUDP:
			folded = append(folded, h.Sensor)
		}
	}
	bars := min(mostBars, s.width-nameWidth-2*numberWidth-verdictWidth-4)
	lines := []string{s.line("HOP", "IN", "LOST", "LATELY", bars, "VERDICT")}
	room := rows - 1 - len(folded)
	left := 0
	for len(hops)-left > room && left < len(hops) {
		left++
	}
	if left > 0 {
		left++ // the line that says so
	}
	for _, h := range hops {
		quiet := h.Verdict == drops.VerdictClean || h.Verdict == drops.VerdictIdle || h.Verdict == drops.VerdictUnknown
		if left > 0 && quiet {
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

func (s *dropsScreen) row(r drops.Report, h drops.HopReport, bars int) string {
	line := s.line(shorten(h.Name, nameWidth-1), counted(h, h.In), counted(h, h.Lost), sparkline(s.past[string(h.Hop)+"/"+h.Sensor], bars), bars, s.verdict(r, h))
	if s.color && (h.Verdict == drops.VerdictLost || h.Verdict == drops.VerdictMissed) {
		return "\x1b[31m" + line + "\x1b[0m"
	}
	return line
}

// line is one of the table, without the bars where there is no room for them.
func (s *dropsScreen) line(name, in, lost, lately string, bars int, verdict string) string {
	text := fmt.Sprintf("%-*s%*s%*s  ", nameWidth, name, numberWidth, in, numberWidth, lost)
	if bars >= leastBars {
		text += fmt.Sprintf("%-*s  ", bars, lately)
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
		return "ok, " + ui.Bytes(q.Used) + " wait"
	}
	h.Queues = nil
	return hopVerdict(r, h)
}

// cut keeps a line within the screen.
func (s *dropsScreen) cut(line string) string { return shorten(line, s.width) }

func shorten(text string, width int) string {
	if r := []rune(text); len(r) > width {
		return string(r[:max(0, width-1)]) + "…"
	}
	return text
}

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

// wrap breaks a text between words into lines of at most width cells.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}
