package delivery

import (
	"context"
	"fmt"
	"html"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// How long Grafana may take. The first is spent beside the run, the second after
// its report was printed.
const (
	markStart = 5 * time.Second
	markEnd   = 2 * time.Second
)

// mark is a run's annotation in Grafana: a moment while the run lasts, a region
// when it is over. A run neither waits for it nor fails with it.
type mark struct {
	grafana orchestrate.Grafana
	made    chan madeMark // receives once, when Grafana has answered
}

// madeMark is Grafana's answer to a new annotation.
type madeMark struct {
	id  int64
	err error
}

// Mark begins the run's annotation in Grafana and returns what ends it, with the
// run's document or nil if it never began. It does nothing where the run does not
// go into the stack.
func (r *Run) Mark(ctx context.Context) (end func(*Document)) {
	return Mark(ctx, r.sender.target(), r.Config, Marked{Kind: "replay", What: r.Captures.Title()}, r.Observer)
}

// Mark is [Run.Mark] for a run of any kind.
func Mark(ctx context.Context, t way.Target, c encap.Config, about Marked, o Observer) (end func(*Document)) {
	if t.Grafana.URL == "" {
		return func(*Document) {}
	}
	about.Run, about.Sensor, about.Way, about.Verdict = c.VNI, t.Sensor.Service.Name, t.Kind, underWay
	start := time.Now()
	m := &mark{grafana: t.Grafana, made: make(chan madeMark, 1)}
	ctx = context.WithoutCancel(ctx) // an interrupted run has an end as well
	go m.begin(ctx, about.annotation(start))
	return func(doc *Document) {
		if err := m.end(ctx, about.ended(start, doc, c)); err != nil {
			o.Say(notMarked(err))
		}
	}
}

func notMarked(err error) string {
	return fmt.Sprintf("The run is not marked in the dashboards: %v", err)
}

func (m *mark) begin(ctx context.Context, first orchestrate.Annotation) {
	ctx, cancel := context.WithTimeout(ctx, markStart)
	defer cancel()
	if m.grafana.Away {
		m.made <- madeMark{err: fmt.Errorf("annotate in Grafana: it listens on the engine's machine only, at %s", m.grafana.URL)}
		return
	}
	id, err := m.grafana.Annotate(ctx, first)
	m.made <- madeMark{id, err}
}

// end makes a region of the annotation, or says why there is none.
func (m *mark) end(ctx context.Context, last orchestrate.Annotation) error {
	ctx, cancel := context.WithTimeout(ctx, markEnd)
	defer cancel()
	select {
	case made := <-m.made:
		if made.err != nil {
			return made.err
		}
		return m.grafana.Amend(ctx, made.id, last)
	case <-ctx.Done():
		return fmt.Errorf("annotate in Grafana: no answer from %s", m.grafana.URL)
	}
}

// underWay stands where a verdict will be.
const underWay = "under way"

// Marked is what the dashboard Runs shows of a run: the data of its annotation, whose
// names are the columns there (assets/internal/boards).
type Marked struct {
	Kind     string    `json:"kind"` // replay, mirror or verify
	Run      uint32    `json:"run,omitempty"`
	What     string    `json:"what"`   // captures or interfaces
	Sensor   string    `json:"sensor"` // of the stack; for verify, one like it
	Way      way.Kind  `json:"way"`
	Packets  uint64    `json:"packets"`        // sent
	Lost     *uint64   `json:"lost,omitempty"` // nil: not known
	Verdict  string    `json:"verdict"`
	Delivery Delivered `json:"delivery,omitempty"`
}

// Outcome says how many packets were sent, and how many of them were lost, where
// that is known.
func (m Marked) Outcome(packets uint64, known Delivered, account *Account) Marked {
	m.Packets, m.Delivery = packets, known
	if account == nil || account.Ledger == nil {
		return m
	}
	if lost := account.Ledger.Lost; lost > 0 || known == watch.AllTaken {
		m.Lost = &lost
	}
	return m
}

// annotation says what the run is. Its text is HTML.
func (m Marked) annotation(start time.Time) orchestrate.Annotation {
	name := "Run"
	if m.Kind != "replay" {
		name += " (" + m.Kind + ")"
	}
	return orchestrate.Annotation{Start: start, Tags: []string{"zeekdemo", fmt.Sprintf("run:%d", m.Run)}, Data: m,
		Text: fmt.Sprintf("%s %d: %s to %s, %s", name, m.Run, html.EscapeString(m.What), m.Sensor, m.Way)}
}

// ended says what became of it as well, and leads to its connections. A document
// without a verdict is of a run that goes on.
func (m Marked) ended(start time.Time, doc *Document, c encap.Config) orchestrate.Annotation {
	if doc != nil && doc.Verdict == "" {
		return m.annotation(start)
	}
	m.Verdict = string(Failed)
	if doc != nil {
		m = m.Outcome(doc.Report.DatagramsSent, doc.Delivery, doc.Lossless)
		m.Verdict = string(doc.Verdict)
	}
	a := m.annotation(start)
	a.End = time.Now()
	if doc == nil { // the error is on the terminal
		a.Text += "<br>failed"
		return a
	}
	rep := doc.Report
	if !rep.Start.IsZero() {
		a.Start, a.End = rep.Start, rep.End
	}
	elapsed := time.Duration(rep.ElapsedSeconds * float64(time.Second))
	a.Text += fmt.Sprintf("<br>%s: %s packets in %s", doc.Verdict, units.Count(rep.DatagramsSent), units.Duration(elapsed))
	if doc.Error != "" && doc.Verdict != Interrupted { // which says no more
		a.Text += "<br>" + html.EscapeString(doc.Error)
	}
	a.Text += fmt.Sprintf(`<br><a href="%s">connections</a>`, html.EscapeString(linkPath(c, rep)))
	return a
}

// MarkOver annotates what is over already, from start to end; text is what went wrong.
func MarkOver(ctx context.Context, grafana orchestrate.Grafana, about Marked, text string, start, end time.Time) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markEnd)
	defer cancel()
	m := &mark{grafana: grafana, made: make(chan madeMark, 1)}
	a := orchestrate.Annotation{Start: start, End: end, Tags: []string{"zeekdemo", about.Kind}, Data: about,
		Text: fmt.Sprintf("%s %s: %s", about.Kind, html.EscapeString(about.What), about.Verdict)}
	if text != "" {
		a.Text += "<br>" + html.EscapeString(text)
	}
	m.begin(ctx, a)
	return (<-m.made).err
}
