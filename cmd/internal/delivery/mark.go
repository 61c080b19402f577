package delivery

import (
	"context"
	"fmt"
	"html"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
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
	grafana := r.sender.target().Grafana
	if grafana.URL == "" {
		return func(*Document) {}
	}
	start := time.Now()
	m := &mark{grafana: grafana, made: make(chan madeMark, 1)}
	ctx = context.WithoutCancel(ctx) // an interrupted run has an end as well
	go m.begin(ctx, r.annotation(start))
	return func(doc *Document) {
		if err := m.end(ctx, r.endAnnotation(start, doc)); err != nil {
			r.Observer.Say(fmt.Sprintf("The run is not marked in the dashboards: %v", err))
		}
	}
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

// annotation says what the run is.
func (r *Run) annotation(start time.Time) orchestrate.Annotation {
	t := r.sender.target()
	return orchestrate.Annotation{Start: start, Tags: []string{"zeekdemo", fmt.Sprintf("run:%d", r.Config.VNI)},
		Text: fmt.Sprintf("Run %d: %s to %s, %s", r.Config.VNI, html.EscapeString(r.Captures.Title()), t.Sensor.Service.Name, t.Kind)}
}

// endAnnotation says what became of it as well, and leads to its connections.
func (r *Run) endAnnotation(start time.Time, doc *Document) orchestrate.Annotation {
	a := r.annotation(start)
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
	a.Text += fmt.Sprintf(`<br><a href="%s">connections</a>`, html.EscapeString(linkPath(r.Config, rep)))
	return a
}
