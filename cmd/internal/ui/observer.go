package ui

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
)

// Observer shows a person what a delivery tells: news as lines, and below them
// what changes. It implements delivery.Observer.
type Observer struct {
	w    io.Writer
	term Terminal

	mu    sync.Mutex
	flows *Ticker   // nil while none are shown
	steps *Progress // nil before the first step
}

var _ delivery.Observer = (*Observer)(nil)

// NewObserver shows on w. Close must be called where steps are told.
func NewObserver(w io.Writer, term Terminal) *Observer { return &Observer{w: w, term: term} }

// Say implements delivery.Observer.
func (o *Observer) Say(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.flows != nil {
		o.flows.Say(line)
		return
	}
	fmt.Fprintln(o.w, line)
}

// Meter implements delivery.Observer. The rate of the moment is that since the
// reading before.
func (o *Observer) Meter(read func() delivery.Reading) (end func()) {
	var last uint64
	lastAt := time.Now()
	m := NewMeter(o.w, o.term, func() Reading {
		now, at := read(), time.Now()
		r := Reading{Packets: now.Packets, Bytes: now.Bytes, Elapsed: now.Elapsed, Mean: now.Mean, Done: now.Done, Total: now.Total}
		if gap := at.Sub(lastAt).Seconds(); gap > 0 {
			r.Now = float64(now.Packets-last) / gap
		}
		last, lastAt = now.Packets, at
		return r
	})
	return m.Close
}

// Flows implements delivery.Observer.
func (o *Observer) Flows(read func() []delivery.Flow) (end func()) {
	last, lastAt := map[string]delivery.Flow{}, time.Now()
	t := NewTicker(o.w, o.term, func() (lines []string) {
		gap := time.Since(lastAt).Seconds()
		lastAt = time.Now()
		for _, f := range read() {
			lines = append(lines, flowLine(f, last[f.Name], gap))
			last[f.Name] = f
		}
		return lines
	})
	o.show(t)
	return func() { o.show(nil); t.Close() }
}

// show puts news above the lines of t, from now on.
func (o *Observer) show(t *Ticker) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flows = t
}

// flowLine is, for example:
//
//	eth0: 1 203 456 packets, 421 MB, 168 kpps, 471 Mbit/s, 0 dropped
func flowLine(now, last delivery.Flow, gap float64) string {
	pps, bits := 0.0, 0.0
	if gap > 0 {
		pps, bits = float64(now.Packets-last.Packets)/gap, 8*float64(now.Bytes-last.Bytes)/gap
	}
	return fmt.Sprintf("%s: %s packets, %s, %s, %s, %s dropped", now.Name, units.Count(now.Packets), units.Bytes(int64(now.Bytes)),
		units.PacketRate(pps), units.BitRate(bits), units.Count(now.Dropped))
}

// Step implements delivery.Observer.
func (o *Observer) Step(s delivery.Step) {
	o.mu.Lock()
	if o.steps == nil {
		o.steps = NewProgress(o.w, o.term)
	}
	steps := o.steps
	o.mu.Unlock()
	state := map[delivery.StepState]StepState{delivery.Working: StepWorking, delivery.Succeeded: StepDone, delivery.Unsuccessful: StepFailed}[s.State]
	steps.Update(Step{ID: s.ID, Text: s.Text, Detail: s.Detail, State: state, Current: s.Done, Total: s.Total})
}

// Close leaves the last picture of the steps on the screen.
func (o *Observer) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.steps != nil {
		o.steps.Close()
		o.steps = nil
	}
}
