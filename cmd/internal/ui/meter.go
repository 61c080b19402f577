package ui

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
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
	w       io.Writer
	term    Terminal
	read    func() Reading
	stop    chan struct{}
	stopped sync.WaitGroup
	drawn   bool
}

// NewMeter starts showing what read returns. Close ends it and clears the live
// line.
func NewMeter(w io.Writer, term Terminal, read func() Reading) *Meter {
	m := &Meter{w: w, term: term, read: read, stop: make(chan struct{})}
	m.stopped.Go(m.loop)
	return m
}

// Close takes the live line away.
func (m *Meter) Close() {
	close(m.stop)
	m.stopped.Wait()
	if m.drawn {
		fmt.Fprint(m.w, "\r\x1b[K")
	}
}

func (m *Meter) loop() {
	every := plainInterval
	if m.term.Live {
		every = 2 * redraw
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-tick.C:
			m.show(m.read())
		}
	}
}

func (m *Meter) show(r Reading) {
	line := meterLine(r)
	if !m.term.Live {
		fmt.Fprintln(m.w, line)
		return
	}
	width, _ := m.term.Size()
	if cells := []rune(line); len(cells) >= width {
		line = string(cells[:width-1])
	}
	fmt.Fprint(m.w, "\r"+line+"\x1b[K")
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
	parts = append(parts, Count(r.Packets)+" packets", Bytes(int64(r.Bytes)),
		fmt.Sprintf("%s (mean %s)", PacketRate(r.Now), PacketRate(r.Mean)))
	if r.Total > 0 && r.Done > 0 && r.Done < r.Total {
		left := time.Duration(float64(r.Elapsed) * float64(r.Total-r.Done) / float64(r.Done))
		parts = append(parts, left.Round(time.Second).String()+" left")
	} else {
		parts = append(parts, r.Elapsed.Round(time.Second).String())
	}
	return percent + strings.Join(parts, ", ")
}
