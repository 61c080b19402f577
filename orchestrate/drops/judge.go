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

// gap is what is known about packets whose bytes Zeek missed.
type gap struct {
	earlier bool // they may have been lost before the interval
	relayed bool // they may have passed a UDP socket of the host
	known   bool // whether they have
}

// gap looks back to the first picture: lines are written when connections end,
// long after their packets came.
func (r *Report) gap(b Picture) gap {
	since, fresh := r, b.first == nil
	if b.first != nil {
		begun := *b.first
		begun.first = nil
		whole := Compare(begun, Picture{At: b.At, States: b.States})
		since, fresh = &whole, r.Missed.fresh() || whole.Missed.fresh()
	}
	var g gap
	if fresh {
		g.relayed, g.known = since.relayed(r.missing()...)
	}
	switch {
	case r.LostBefore == 0: // none since the sensors started
	case b.first == nil || !fresh:
		g.earlier = true
	default:
		g.earlier = since.Lost > 0
	}
	return g
}

// fresh reports whether all these connections began after the first picture. A
// line that came between two questions counts as fresh first.
func (m *Missed) fresh() bool { return m != nil && m.Fresh >= m.Connections }

// missing are the sensors that missed bytes.
func (r *Report) missing() (sensors []string) {
	for _, h := range r.Hops {
		if h.Verdict == VerdictMissed {
			sensors = append(sensors, h.Sensor)
		}
	}
	return sensors
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

// waits reports whether lines wait at the collector, at both looks, and none was
// delivered between them: a reader waits with one request at a time.
func (h *HopReport) waits() bool {
	sent := h.counter(collectorSent)
	return sent != nil && sent.Grown == 0 && len(h.Queues) > 0 && h.Queues[0].Used > 0 && h.waited
}

// evidence is what the hops say, gathered.
type evidence struct {
	held                    *HopReport // the hop where lines wait
	suspects, unknown, anew []string
	traffic                 bool // something came for a sensor
	gap                     gap
}

// evidence gathers it, and finds the culprit.
func (r *Report) evidence() (e evidence) {
	for i := range r.Hops {
		h := &r.Hops[i]
		switch {
		case h.Verdict == VerdictLost && r.Culprit == nil:
			reason, cure := r.advise(h)
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
	if r.misses() {
		e.gap = r.gap(b)
	}
	if h := e.held; h != nil && r.Culprit == nil {
		c := clues{r, h}
		reason, cure := first(heldAdvices(), c).say(c)
		r.Culprit = &Culprit{Hop: h.Hop, Name: h.Name, Held: h.Held, Reason: reason, Cure: cure}
	}
	r.Verdict = r.weigh(e)
	parts := []string{r.sentence(e)}
	if len(e.suspects) > 0 {
		parts = append(parts, "on the whole machine, ours or not: "+strings.Join(e.suspects, ", "))
	}
	r.Sentence = strings.Join(append(parts, e.anew...), "; ")
}

// misses reports whether Zeek missed bytes, as far as is known.
func (r *Report) misses() bool { return r.Missed != nil && r.Missed.Connections > 0 }

// weigh is the verdict of the whole. Only what passed a relay is said to have
// come in another order: elsewhere a gap is more likely the capture's own.
func (r *Report) weigh(e evidence) Verdict {
	switch {
	case r.Lost > 0 || r.LostLines > 0:
		return VerdictLost
	case r.misses() && len(e.unknown) == 0 && !e.gap.earlier && e.gap.relayed:
		return VerdictReordered
	case r.misses():
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

// during is the time that is reported, in words.
func (r *Report) during() string {
	if r.SinceStart {
		return "since the sensors started"
	}
	return fmt.Sprintf("in %s", time.Duration(r.Seconds*float64(time.Second)).Round(100*time.Millisecond))
}

// sentence is the verdict in words.
func (r *Report) sentence(e evidence) string {
	switch r.Verdict {
	case VerdictLost:
		return r.lostSentence()
	case VerdictReordered:
		return fmt.Sprintf("nothing was lost, neither %s nor in the time of these connections, and yet %s %s: so packets came in another order than they were sent, unless the capture itself has gaps",
			r.during(), missing(r.Missed), byteCount(r.Missed.Bytes))
	case VerdictMissed:
		return fmt.Sprintf("%s %s that were logged %s; %s", missing(r.Missed), byteCount(r.Missed.Bytes), r.during(), r.gapSentence(e))
	case VerdictHeld:
		return r.heldSentence()
	case VerdictUnknown:
		return fmt.Sprintf("no loss was seen %s, but not all was: not known: %s", r.during(), strings.Join(e.unknown, ", "))
	case VerdictSuspect:
		return fmt.Sprintf("nothing was lost %s where only the sensors' packets go", r.during())
	case VerdictIdle:
		return "no packet came " + r.during()
	}
	return "nothing was lost " + r.during()
}

func (r *Report) lostSentence() string {
	what := count(r.Lost, "packet")
	if r.LostLines > 0 {
		what = strings.TrimPrefix(strings.TrimPrefix(what+" and ", "0 packets and "), " ") + count(r.LostLines, "log line")
	}
	return fmt.Sprintf("%s lost %s: the first hop that loses is %s (%d)", what, r.during(), r.Culprit.Name, r.Culprit.Lost)
}

// gapSentence says what is known of why bytes are missed.
func (r *Report) gapSentence(e evidence) string {
	const either = "the capture itself has gaps, or packets came in another order"
	switch {
	case len(e.unknown) > 0:
		return "whether something was lost cannot be told: not known: " + strings.Join(e.unknown, ", ")
	case e.gap.earlier:
		return fmt.Sprintf("nothing was lost in that time, but %s before, which may have been theirs", count(r.LostBefore, "packet"))
	case e.gap.known:
		return "nothing was lost, neither in that time nor in that of these connections, and docker-proxy or another relay here took fewer than half as many packets as came to the sensor: " + either + " (`zeekdemo verify FILE` tells)"
	}
	return "nothing was lost in that time: " + either + "; which of these is not known (`zeekdemo verify FILE` tells)"
}

func (r *Report) heldSentence() string {
	if r.Culprit.Held == 0 {
		return fmt.Sprintf("nothing was lost %s, but log lines wait at the %s: it delivered none", r.during(), r.Culprit.Name)
	}
	return fmt.Sprintf("nothing was lost %s, but log lines do not arrive: the %s refused %s and will be offered them again", r.during(), r.Culprit.Name, count(r.Culprit.Held, "line"))
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
