package verify

import (
	"errors"
	"path/filepath"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/orchestrate/zeeklog"
)

// Verdict is what a capture came to.
type Verdict string

// The verdicts, from good to bad.
const (
	Equal      Verdict = "equal"
	Incomplete Verdict = "incomplete" // equal in what could be sent; some frames could not
	Unmet      Verdict = "unmet"      // equal, but not as expected
	Differs    Verdict = "differs"
	Failed     Verdict = "failed" // could not be verified
)

// Worse reports whether v is worse than o.
func (v Verdict) Worse(o Verdict) bool {
	order := map[Verdict]int{Equal: 0, Incomplete: 1, Unmet: 2, Differs: 3, Failed: 4}
	return order[v] > order[o]
}

// listed is how many differences of one kind are kept and put into JSON: a
// capture of many connections that all differ tells no more with all of them.
const listed = 1000

// Row is what one capture came to. Differences are faults of the path; Own, what
// Zeek itself does otherwise in every process, and Pace are information. Of all
// three the first ones are listed.
type Row struct {
	Capture        string               `json:"capture"`
	Verdict        Verdict              `json:"verdict"`
	Error          string               `json:"error,omitempty"`
	Hint           string               `json:"hint,omitempty"`       // what to do about the error
	Via            way.Kind             `json:"via"`                  // direct, sidecar or published
	ViaReason      string               `json:"via_reason,omitempty"` // why not by a better way
	Lossless       *delivery.Account    `json:"lossless,omitempty"`
	Connections    int                  `json:"connections"`
	Lines          int                  `json:"lines"` // of all logs of the live sensor
	Path           zeeklog.Path         `json:"path"`
	Findings       []zeeklog.Finding    `json:"findings,omitempty"`
	Different      int                  `json:"different"` // how many differences there are
	Differences    []zeeklog.Difference `json:"differences,omitempty"`
	ByZeek         int                  `json:"different_by_zeek"`
	Own            []zeeklog.Difference `json:"changed_by_zeek,omitempty"`
	OwnKinds       []zeeklog.Kind       `json:"changed_by_zeek_kinds,omitempty"`
	ByPace         int                  `json:"different_by_pace"`
	Pace           []zeeklog.Difference `json:"changed_by_pace,omitempty"`
	PaceKinds      []zeeklog.Kind       `json:"changed_by_pace_kinds,omitempty"`
	PaceNote       string               `json:"changed_by_pace_note,omitempty"`
	TypesNote      string               `json:"types_note,omitempty"` // where Zeek's own are not known
	Expected       int                  `json:"expectations"`
	Unmet          []string             `json:"unmet,omitempty"`
	Report         forward.Report       `json:"report"`
	ElapsedSeconds float64              `json:"elapsed_seconds"`
}

// marked is the row as the dashboard Runs shows it.
func (r *Row) marked(sensor string) delivery.Marked {
	m := delivery.Marked{Kind: "verify", What: filepath.Base(r.Capture), Sensor: sensor, Way: r.Via, Verdict: string(r.Verdict)}
	known := watch.OnlySent
	if r.Lossless != nil {
		known = r.Lossless.Delivery()
	}
	return m.Outcome(r.Report.DatagramsSent, known, r.Lossless)
}

// fail makes it the row of a capture that could not be verified.
func (r *Row) fail(err error) {
	r.Verdict, r.Error = Failed, err.Error()
	var advice interface{ Hint() string }
	if errors.As(err, &advice) {
		r.Hint = advice.Hint()
	}
}

// interrupt makes it the row of a capture whose verification was ended.
func (r *Row) interrupt() {
	r.Verdict, r.Error, r.Hint = Failed, delivery.ErrInterrupted.Error(), ""
}
