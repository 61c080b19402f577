package ui

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
)

// plainInterval is the pause between two plain lines of a meter.
const plainInterval = 10 * time.Second

// Reading is how far a long transfer has come.
type Reading struct {
	Packets     uint64
	Bytes       uint64
	Elapsed     time.Duration
	Now, Mean   float64 // packets per second
	Done, Total int64   // bytes of the input; Total 0 where unknown
}

// Meter shows the readings of a transfer: one live line on a terminal, a plain
// line every ten seconds elsewhere.
type Meter struct {
	w     io.Writer
	term  Terminal
	beat  *beat
	drawn bool
}

// NewMeter starts showing what read returns. Close ends it and clears the live
// line.
func NewMeter(w io.Writer, term Terminal, read func() Reading) *Meter {
	m := &Meter{w: w, term: term}
	pause := plainInterval
	if term.Live {
		pause = 2 * redraw
	}
	m.beat = every(pause, func() { m.show(read()) })
	return m
}

// Close takes the live line away.
func (m *Meter) Close() {
	m.beat.end()
	if m.drawn {
		fmt.Fprint(m.w, "\r\x1b[K")
	}
}

func (m *Meter) show(r Reading) {
	line := meterLine(r)
	if !m.term.Live {
		fmt.Fprintln(m.w, line)
		return
	}
	width, _ := m.term.Size()
	fmt.Fprint(m.w, "\r"+Cut(line, width-1)+"\x1b[K")
	m.drawn = true
}

// meterLine is, for example:
//
//	42 %  1 203 456 packets, 421 MB, 168 kpps (mean 165 kpps), 12s left
func meterLine(r Reading) string {
	var parts []string
	percent := ""
	if r.Total > 0 {
		percent = fmt.Sprintf("%3d %%  ", min(100, r.Done*100/r.Total))
	}
	parts = append(parts, units.Count(r.Packets)+" packets", units.Bytes(int64(r.Bytes)),
		fmt.Sprintf("%s (mean %s)", units.PacketRate(r.Now), units.PacketRate(r.Mean)))
	if r.Total > 0 && r.Done > 0 && r.Done < r.Total {
		left := time.Duration(float64(r.Elapsed) * float64(r.Total-r.Done) / float64(r.Done))
		parts = append(parts, left.Round(time.Second).String()+" left")
	} else {
		parts = append(parts, r.Elapsed.Round(time.Second).String())
	}
	return percent + strings.Join(parts, ", ")
}
