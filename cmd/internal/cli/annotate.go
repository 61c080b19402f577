package cli

import (
	"context"
	"fmt"
	"html"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
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
	app     *App
	grafana orchestrate.Grafana
	made    chan madeMark // receives once, when Grafana has answered
}

// madeMark is Grafana's answer to a new annotation.
type madeMark struct {
	id  int64
	err error
}

// mark begins the run's annotation and returns what ends it. It does nothing
// where the run does not go into the stack.
func (r *replay) mark(ctx context.Context) (end func()) {
	if r.target.Grafana.URL == "" {
		return func() {}
	}
	start := time.Now()
	m := &mark{app: r.app, grafana: r.target.Grafana, made: make(chan madeMark, 1)}
	ctx = context.WithoutCancel(ctx) // an interrupted run has an end as well
	go m.begin(ctx, r.annotation(start))
	return func() { m.end(ctx, r.endAnnotation(start)) }
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
func (m *mark) end(ctx context.Context, last orchestrate.Annotation) {
	ctx, cancel := context.WithTimeout(ctx, markEnd)
	defer cancel()
	var made madeMark
	select {
	case made = <-m.made:
	case <-ctx.Done():
		made.err = fmt.Errorf("annotate in Grafana: no answer from %s", m.grafana.URL)
	}
	err := made.err
	if err == nil {
		err = m.grafana.Amend(ctx, made.id, last)
	}
	if err != nil {
		fmt.Fprintf(m.app.Err, "The run is not marked in the dashboards: %v\n", err)
	}
}

// annotation says what the run is.
func (r *replay) annotation(start time.Time) orchestrate.Annotation {
	return orchestrate.Annotation{Start: start, Tags: []string{"zeekdemo", fmt.Sprintf("run:%d", r.config.VNI)},
		Text: fmt.Sprintf("Run %d: %s to %s, %s", r.config.VNI, html.EscapeString(r.fileNames()), r.target.Sensor.Service.Name, r.target.Via)}
}

// endAnnotation says what became of it as well, and leads to its connections.
func (r *replay) endAnnotation(start time.Time) orchestrate.Annotation {
	a := r.annotation(start)
	a.End = time.Now()
	if r.done == nil { // it never began; the error is on the terminal
		a.Text += "<br>failed"
		return a
	}
	rep := r.done.Report
	if !rep.Start.IsZero() {
		a.Start, a.End = rep.Start, rep.End
	}
	a.Text += fmt.Sprintf("<br>%s: %s packets in %s", r.done.Verdict, ui.Count(rep.DatagramsSent), ui.Duration(seconds(rep.ElapsedSeconds)))
	if r.done.Error != "" && r.done.Verdict != "interrupted" { // which says no more
		a.Text += "<br>" + html.EscapeString(r.done.Error)
	}
	a.Text += fmt.Sprintf(`<br><a href="%s">connections</a>`, html.EscapeString(grafanaLink("", r.config.VNI, rep, r.o.uniqueFlows)))
	return a
}
