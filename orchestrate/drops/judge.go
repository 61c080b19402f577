package drops

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// sum sets verdicts and totals.
func (r *Report) sum(b Picture) {
	for i := range r.Hops {
		h := &r.Hops[i]
		h.Verdict = h.verdict()
		if h.Lost != nil && r.Seconds > 0 {
			perSecond := float64(*h.Lost) / r.Seconds
			h.PerSec = &perSecond
		}
		switch {
		case h.Verdict != VerdictLost:
		case h.Unit == "lines":
			r.LostLines += *h.Lost
		default:
			r.Lost += *h.Lost
		}
		if h.Hop == HopLogs && len(h.Counters) >= 3 && !h.Counters[0].NotKnown {
			if r.Missed == nil {
				r.Missed = &Missed{}
			}
			r.Missed.Connections += h.Counters[0].Grown
			r.Missed.Bytes += h.Counters[1].Grown
			r.Missed.Fresh += h.Counters[2].Grown
			r.Missed.odd(h)
		}
	}
	if !r.SinceStart {
		whole := Compare(Origin(b), b)
		r.LostBefore = whole.Lost - min(whole.Lost, r.Lost)
	}
}

// odd adds what a sensor's logs say beside missed bytes.
func (m *Missed) odd(h *HopReport) {
	for _, c := range h.Counters {
		if c.Name == weirdLines {
			h.Weird = c.Grown
		}
	}
	m.Weird += h.Weird
	if h.CaptureLoss != nil && (m.CaptureLoss == nil || *h.CaptureLoss > *m.CaptureLoss) {
		m.CaptureLoss = h.CaptureLoss
	}
}

// explained reports whether the missed bytes may come from packets that were
// lost before the interval, as far as is known: not if none was lost since the
// sensors started, nor since the first look if their connections began later.
func (r *Report) explained(b Picture) bool {
	if r.LostBefore == 0 || r.Missed.Fresh == 0 || r.Missed.Fresh < r.Missed.Connections || b.first == nil {
		return r.LostBefore > 0
	}
	begun := *b.first
	begun.first = nil
	return Compare(begun, Picture{At: b.At, States: b.States}).Lost > 0
}

func (h *HopReport) verdict() Verdict {
	switch {
	case h.Hop == HopLogs && len(h.Counters) > 0:
		if h.Counters[0].Grown > 0 {
			return VerdictMissed
		}
		return VerdictClean
	case h.Lost == nil:
		return VerdictUnknown
	case *h.Lost > 0 && h.Wide:
		return VerdictSuspect
	case *h.Lost > 0:
		return VerdictLost
	case h.Held > 0 || h.waits():
		return VerdictHeld
	case h.In != nil && *h.In == 0 && !h.Waiting():
		return VerdictIdle
	}
	return VerdictClean
}

// Waiting reports whether something is in the hop's queues now. A socket counts
// what came only when it is read.
func (h *HopReport) Waiting() bool {
	return slices.ContainsFunc(h.Queues, func(q Queue) bool { return q.Used > 0 && q.Unit != "connections" })
}

// waits reports whether batches of lines wait at the collector, and none was
// delivered.
func (h *HopReport) waits() bool {
	sent := h.counter(collectorSent)
	return sent != nil && sent.Grown == 0 && len(h.Queues) > 0 && h.Queues[0].Used > 1
}

// evidence is what the hops say, gathered.
type evidence struct {
	held                    *HopReport // the hop where lines wait
	suspects, unknown, anew []string
	traffic                 bool // something came for a sensor
}

// evidence gathers it, and finds the culprit.
func (r *Report) evidence() (e evidence) {
	for i := range r.Hops {
		h := &r.Hops[i]
		switch {
		case h.Verdict == VerdictLost && r.Culprit == nil:
			reason, cure := advice(r, h)
			r.Culprit = &Culprit{Hop: h.Hop, Sensor: h.Sensor, Name: h.Name, Lost: *h.Lost, Reason: reason, Cure: cure}
		case h.Verdict == VerdictHeld:
			e.held = h
		case h.Verdict == VerdictSuspect:
			e.suspects = append(e.suspects, fmt.Sprintf("%s (%d)", h.Name, *h.Lost))
		case h.Verdict == VerdictUnknown && decisive(h.Hop):
			e.unknown = append(e.unknown, h.Name)
		}
		if h.Hop == HopUDP || h.Hop == HopProxy || h.Hop == HopSocket {
			e.traffic = e.traffic || h.In != nil && *h.In > 0 || h.Waiting()
		}
		if h.Hop == HopUDP && slices.Contains(h.Notes, beganAnew) {
			e.anew = append(e.anew, h.Sensor+" "+beganAnew)
		}
	}
	return e
}

// judge finds the culprit and the verdict of the whole.
func (r *Report) judge(b Picture) {
	e := r.evidence()
	if h := e.held; h != nil && r.Culprit == nil {
		reason, cure := adviseHeld(h)
		r.Culprit = &Culprit{Hop: h.Hop, Name: h.Name, Held: h.Held, Reason: reason, Cure: cure}
	}
	r.Verdict = r.weigh(e, b)
	parts := []string{r.sentence(e.unknown)}
	if len(e.suspects) > 0 {
		parts = append(parts, "on the whole machine, ours or not: "+strings.Join(e.suspects, ", "))
	}
	r.Sentence = strings.Join(append(parts, e.anew...), "; ")
}

// weigh is the verdict of the whole.
func (r *Report) weigh(e evidence, b Picture) Verdict {
	missed := r.Missed != nil && r.Missed.Connections > 0
	switch {
	case r.Lost > 0 || r.LostLines > 0:
		return VerdictLost
	case missed && len(e.unknown) == 0 && !r.explained(b):
		return VerdictReordered
	case missed:
		return VerdictMissed
	case e.held != nil:
		return VerdictHeld
	case len(e.unknown) > 0:
		return VerdictUnknown
	case len(e.suspects) > 0:
		return VerdictSuspect
	case !e.traffic:
		return VerdictIdle
	}
	return VerdictClean
}

// decisive hops are those without which nobody can say that nothing was lost.
func decisive(h Hop) bool { return h == HopDevice || h == HopIP || h == HopUDP || h == HopSocket }

// sentence is the verdict in words.
func (r *Report) sentence(unknown []string) string {
	during := fmt.Sprintf("in %s", time.Duration(r.Seconds*float64(time.Second)).Round(100*time.Millisecond))
	if r.SinceStart {
		during = "since the sensors started"
	}
	switch r.Verdict {
	case VerdictLost:
		what := count(r.Lost, "packet")
		if r.LostLines > 0 {
			what = strings.TrimPrefix(strings.TrimPrefix(what+" and ", "0 packets and "), " ") + count(r.LostLines, "log line")
		}
		return fmt.Sprintf("%s lost %s: the first hop that loses is %s (%d)", what, during, r.Culprit.Name, r.Culprit.Lost)
	case VerdictReordered:
		return fmt.Sprintf("nothing was lost, neither %s nor in the time of these connections, and yet %s %s: so packets came in another order than they were sent, unless the capture itself has gaps",
			during, missing(r.Missed), byteCount(r.Missed.Bytes))
	case VerdictMissed:
		why := "whether something was lost cannot be told: not known: " + strings.Join(unknown, ", ")
		if r.LostBefore > 0 {
			why = fmt.Sprintf("nothing was lost in that time, but %s before, which may have been theirs", count(r.LostBefore, "packet"))
		}
		return fmt.Sprintf("%s %s that were logged %s; %s", missing(r.Missed), byteCount(r.Missed.Bytes), during, why)
	case VerdictHeld:
		if r.Culprit.Held == 0 {
			return fmt.Sprintf("nothing was lost %s, but log lines wait at the %s: it delivered none", during, r.Culprit.Name)
		}
		return fmt.Sprintf("nothing was lost %s, but log lines do not arrive: the %s refused %s and will be offered them again", during, r.Culprit.Name, count(r.Culprit.Held, "line"))
	case VerdictUnknown:
		return fmt.Sprintf("no loss was seen %s, but not all was: not known: %s", during, strings.Join(unknown, ", "))
	case VerdictSuspect:
		return fmt.Sprintf("nothing was lost %s where only the sensors' packets go", during)
	case VerdictIdle:
		return "no packet came " + during
	}
	return "nothing was lost " + during
}

func missing(m *Missed) string {
	if m.Connections == 1 {
		return "1 connection misses"
	}
	return fmt.Sprintf("%d connections miss", m.Connections)
}

func byteCount(n uint64) string { return count(n, "byte") }

func count(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
