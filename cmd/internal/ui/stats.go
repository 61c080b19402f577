package ui

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
)

// Stats is an [Observer] whose meter is a line every so often, on a terminal as well:
// for logs, and as JSON for programs. Then news are JSON lines too.
type Stats struct {
	*Observer
	w     io.Writer
	pause time.Duration
	json  bool
}

var _ delivery.Observer = Stats{}

// NewStats makes one that shows on w.
func NewStats(w io.Writer, term Terminal, pause time.Duration, asJSON bool) Stats {
	return Stats{Observer: NewObserver(w, term), w: w, pause: pause, json: asJSON}
}

// statsLine is a reading as a JSON line. The first rate is that since the line
// before, the mean that since the start.
type statsLine struct {
	Elapsed float64 `json:"elapsed_seconds"`
	Packets uint64  `json:"packets"`
	Bytes   uint64  `json:"bytes"` // of the packets
	Now     float64 `json:"packets_per_second"`
	Mean    float64 `json:"mean_packets_per_second"`
	Done    int64   `json:"input_done_bytes"`
	Total   int64   `json:"input_total_bytes,omitempty"` // 0 where it is not known
}

// Say implements delivery.Observer.
func (s Stats) Say(line string) {
	if !s.json {
		s.Observer.Say(line)
		return
	}
	s.line(struct {
		News string `json:"news"`
	}{line})
}

// Meter implements delivery.Observer. The last line is written at the end.
func (s Stats) Meter(read func() delivery.Reading) (end func()) {
	var last uint64
	lastAt := time.Now()
	show := func() {
		r, at := read(), time.Now()
		line := statsLine{r.Elapsed.Seconds(), r.Packets, r.Bytes, 0, r.Mean, r.Done, r.Total}
		if gap := at.Sub(lastAt).Seconds(); gap > 0 {
			line.Now = float64(r.Packets-last) / gap
		}
		last, lastAt = r.Packets, at
		s.show(line)
	}
	b := every(s.pause, show)
	return func() {
		b.end()
		show()
	}
}

func (s Stats) show(l statsLine) {
	if s.json {
		s.line(l)
		return
	}
	elapsed := time.Duration(l.Elapsed * float64(time.Second))
	s.Observer.Say(fmt.Sprintf("%s: %s", units.Duration(elapsed), meterLine(Reading{l.Packets, l.Bytes, elapsed, l.Now, l.Mean, l.Done, l.Total})))
}

// line writes a document in one line.
func (s Stats) line(document any) {
	text, err := json.Marshal(document)
	if err != nil {
		return // cannot happen: the documents are plain
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.w, "%s\n", text)
}
