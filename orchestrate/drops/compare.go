package drops

import (
	"fmt"
	"slices"
	"time"
)

// Verdict is what the arithmetic says of a hop or of the whole way.
type Verdict string

// The verdicts. The first six are also those of a hop.
const (
	VerdictClean     Verdict = "clean"     // something came, and nothing was lost
	VerdictIdle      Verdict = "idle"      // nothing came
	VerdictLost      Verdict = "lost"      // packets (or log lines) of ours died here
	VerdictHeld      Verdict = "held up"   // log lines wait, for the next hop does not take them
	VerdictSuspect   Verdict = "suspect"   // something died here, but other traffic is counted too
	VerdictUnknown   Verdict = "not known" // what would tell cannot be read
	VerdictReordered Verdict = "reordered" // nothing was lost, and yet bytes are missed of packets that passed a relay
	VerdictMissed    Verdict = "missed"    // bytes are missed: packets were lost before, or never sent, or overtaken
)

// Report is the difference of two pictures, judged.
type Report struct {
	From       time.Time   `json:"from"`
	To         time.Time   `json:"to"`
	Seconds    float64     `json:"seconds"`
	SinceStart bool        `json:"since_start,omitempty"` // From is when the sensor started, not when something was read
	Verdict    Verdict     `json:"verdict"`
	Sentence   string      `json:"sentence"` // the verdict in words
	Lost       uint64      `json:"lost"`     // packets that surely were on the way to a sensor
	LostLines  uint64      `json:"lost_lines"`
	LostBefore uint64      `json:"lost_before"` // packets lost between the sensors' start and From
	Missed     *Missed     `json:"missed"`      // null if not known
	Culprit    *Culprit    `json:"culprit"`     // the first hop that loses; null if none does
	Hops       []HopReport `json:"hops"`        // in the order in which a packet travels
}

// beganAnew is said of counters that were zero once meanwhile.
const beganAnew = "began anew in this interval: what it had counted before is not known"

// Culprit is a hop that loses.
type Culprit struct {
	Hop    Hop    `json:"hop"`
	Sensor string `json:"sensor,omitempty"`
	Name   string `json:"name"`
	Lost   uint64 `json:"lost"`
	Held   uint64 `json:"held,omitempty"` // log lines, each time they were refused
	Reason string `json:"reason"`         // why, as far as it was seen
	Cure   string `json:"cure"`           // the command that mends it; empty if none is known
}

// HopReport is what became of packets at one hop.
type HopReport struct {
	Hop     Hop      `json:"hop"`
	Sensor  string   `json:"sensor,omitempty"`
	Name    string   `json:"name"`
	Unit    string   `json:"unit"` // packets or lines
	In      *uint64  `json:"in"`   // null if not known
	Lost    *uint64  `json:"lost"` // null if not known
	PerSec  *float64 `json:"lost_per_second"`
	Held    uint64   `json:"held,omitempty"`         // log lines that were refused for now, each time
	Wide    bool     `json:"machine_wide,omitempty"` // other traffic is counted too
	Verdict Verdict  `json:"verdict"`
	// Notes say what else is to be known: wrapped, began anew, which CPU.
	Notes    []string  `json:"notes,omitempty"`
	Queues   []Queue   `json:"queues,omitempty"`
	Unknown  []Unknown `json:"unknown,omitempty"`
	Counters []Delta   `json:"counters"`
	Lag      float64   `json:"lag_seconds,omitempty"` // by which Zeek is behind the packets
	Weird    uint64    `json:"weird,omitempty"`       // as in [Missed], in the interval
	// CaptureLoss is that of [Missed], since the sensor started.
	CaptureLoss *float64 `json:"capture_loss_percent,omitempty"`

	facts, was Facts // now, and in the picture before
	waited     bool  // something was in the first queue before as well
}

// Delta is one number and how it grew.
type Delta struct {
	Name     string         `json:"name"`
	Role     Role           `json:"role"`
	Total    uint64         `json:"total"`               // as it is now
	Grown    uint64         `json:"grown"`               // in the interval
	CPUs     map[int]uint64 `json:"cpus,omitempty"`      // on which it grew by how much
	NotKnown bool           `json:"not_known,omitempty"` // Grown means nothing

	inner, outer uint64 // bounds of Grown, see [Value.Again]
}

// Compare takes the difference of two pictures and judges. Origin(b) as a stands
// for the beginning of all counters.
func Compare(a, b Picture) Report {
	r := Report{From: a.At, To: b.At, Seconds: b.At.Sub(a.At).Seconds(), SinceStart: a.origin}
	for i := range b.States {
		after := &b.States[i]
		var before *State
		for k := range a.States {
			if a.States[k].Hop == after.Hop && a.States[k].Sensor == after.Sensor {
				before = &a.States[k]
			}
		}
		h := difference(before, after)
		// lo and the bridge are older than the sensors: what they lost before them
		// was not theirs.
		h.Wide = h.Wide || (a.origin || slices.Contains(h.Notes, beganAnew)) && (h.Hop == HopLoopback || h.Hop == HopBridge)
		r.Hops = append(r.Hops, h)
	}
	for i := range r.Hops {
		r.Hops[i].uneven()
	}
	r.disentangle()
	r.sum(b)
	r.judge(b)
	return r
}

// Origin is the picture in which all counters of p were zero: those of a sensor
// when it started, those of the machine when that did.
func Origin(p Picture) Picture {
	o := Picture{At: p.At, origin: true}
	for _, s := range p.States {
		if !s.Facts.Since.IsZero() && s.Facts.Since.Before(o.At) {
			o.At = s.Facts.Since
		}
		zero := s
		zero.Values = slices.Clone(s.Values)
		for i := range zero.Values {
			v := &zero.Values[i]
			v.N, v.Again = 0, 0
			v.cells = slices.Clone(v.cells)
			for k := range v.cells {
				v.cells[k].n = 0
			}
		}
		o.States = append(o.States, zero)
	}
	return o
}

// difference is what happened at one hop. Before may be nil.
func difference(before, after *State) HopReport {
	h := HopReport{Hop: after.Hop, Sensor: after.Sensor, Name: after.Name, Unit: "packets", Wide: after.Wide, Queues: after.Queues,
		Unknown: slices.Clone(after.Unknown), Notes: slices.Clone(after.Notes), Counters: []Delta{}, Lag: after.Facts.LagSecond, CaptureLoss: after.Facts.CaptureLoss, facts: after.Facts}
	if after.Lines {
		h.Unit = "lines"
	}
	if before != nil {
		h.was = before.Facts
		h.waited = len(before.Queues) > 0 && before.Queues[0].Used > 0
	}
	anew := before != nil && before.Identity != after.Identity && len(after.Values) > 0 && before.Identity != ""
	if anew {
		h.note(beganAnew)
	}
	for i := range after.Values {
		h.Counters = append(h.Counters, h.grown(before, &after.Values[i], anew))
	}
	if before != nil && !anew && len(after.Values) > 0 {
		for _, v := range before.Values {
			if after.value(v.Name) == nil && v.Role != RoleSign && v.Role != RoleShare {
				h.Unknown = append(h.Unknown, Unknown{v.Name, "it was there before and is gone"})
			}
		}
	}
	return h
}

func (h *HopReport) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(h.Notes, text) {
		h.Notes = append(h.Notes, text)
	}
}

// grown is the difference of one value.
func (h *HopReport) grown(before *State, v *Value, anew bool) Delta {
	d := Delta{Name: v.Name, Role: v.Role, Total: v.N}
	var was *Value
	if before != nil {
		was = before.value(v.Name)
	}
	switch {
	case anew:
		d.Grown, d.inner, d.outer = v.N, v.N, v.Again
		return d
	case was == nil && (before == nil || unread(before)):
		d.NotKnown = true
		h.Unknown = append(h.Unknown, Unknown{v.Name, "it was not known before"})
		return d
	case was == nil: // a socket, or a service's counter, that came to life
		d.Grown, d.inner, d.outer = v.N, v.N, v.Again
		return d
	case v.cells != nil:
		h.cells(&d, was, v)
		return d
	}
	var how string
	d.Grown, how = since(was.N, v.N, v.bits)
	d.inner, _ = since(was.Again, v.N, v.bits)
	d.outer, _ = since(was.N, v.Again, v.bits)
	d.inner = min(d.inner, d.Grown)
	if how != "" {
		h.note("%s %s", v.Name, how)
		d.inner, d.outer = d.Grown, max(d.Grown, d.outer)
	}
	return d
}

// unread reports whether a state lacks its values because they could not be
// read.
func unread(s *State) bool { return len(s.Values) == 0 }

// since is how much a counter grew, and what was remarkable about it. A counter
// that is smaller than it was has wrapped if it is 32 bits wide and the way over
// the top is the short one; else it began anew.
func since(before, after uint64, bits int) (uint64, string) {
	const top = 1 << 32
	switch {
	case after >= before:
		return after - before, ""
	case bits == 32 && before < top && after+top-before < top/2:
		return after + top - before, "wrapped at 32 bits"
	}
	return after, beganAnew
}

// cells adds up what grew on each processor. One that was not online before is
// left out, for what it counted is older.
func (h *HopReport) cells(d *Delta, was, v *Value) {
	d.CPUs = map[int]uint64{}
	for _, c := range v.cells {
		i := slices.IndexFunc(was.cells, func(o cell) bool { return o.cpu == c.cpu })
		if i < 0 {
			h.note("CPU %d came online in this interval: what it counted is left out", c.cpu)
			continue
		}
		if n := uint64(c.n - was.cells[i].n); n > 0 { // modulo 2^32, as it counts
			if c.n < was.cells[i].n {
				h.note("%s of CPU %d wrapped at 32 bits", v.Name, c.cpu)
			}
			d.CPUs[c.cpu] = n
			d.Grown += n
		}
	}
	d.inner, d.outer = d.Grown, d.Grown
}

// counter returns a delta by name; nil if it is not known.
func (h *HopReport) counter(name string) *Delta {
	if h == nil {
		return nil
	}
	for i := range h.Counters {
		if h.Counters[i].Name == name && !h.Counters[i].NotKnown {
			return &h.Counters[i]
		}
	}
	return nil
}

func (r *Report) hop(hop Hop, sensor string) *HopReport {
	i := slices.IndexFunc(r.Hops, func(h HopReport) bool { return h.Hop == hop && h.Sensor == sensor })
	if i < 0 {
		return nil
	}
	return &r.Hops[i]
}

// disentangle sets In and Lost of every hop so that each packet is lost once,
// at the hop where it died, although the kernel counts some deaths several
// times.
func (r *Report) disentangle() {
	for i := range r.Hops {
		r.Hops[i].total()
	}
	r.queueDeaths()
	for i := range r.Hops {
		switch h := &r.Hops[i]; h.Hop {
		case HopUDP:
			h.besideSockets(r.hop(HopSocket, h.Sensor))
		case HopHostUDP:
			var proxies []*HopReport
			for k := range r.Hops {
				if r.Hops[k].Hop == HopProxy {
					proxies = append(proxies, &r.Hops[k])
				}
			}
			h.besideSockets(proxies...)
		}
	}
	r.refusedLines()
}

// refusedLines takes off the collector's account what is Loki's. A line that
// Loki refuses for good the collector cannot deliver. Loki answers so for the
// whole request that the line came with, and stores the others nevertheless
// (Push in pkg/distributor/distributor.go): the collector counts all as failed.
func (r *Report) refusedLines() {
	c, l := r.hop(HopCollector, ""), r.hop(HopLoki, "")
	if c == nil || l == nil || c.Lost == nil || l.Lost == nil || *l.Lost == 0 {
		return
	}
	arrived := *l.Lost
	if sent := c.counter(collectorSent); l.In != nil && sent != nil && *l.In > sent.Grown {
		arrived = max(arrived, *l.In-sent.Grown)
	}
	*c.Lost -= min(*c.Lost, arrived)
}

// total adds up by roles.
func (h *HopReport) total() {
	for _, d := range h.Counters {
		if d.NotKnown {
			continue
		}
		switch d.Role {
		case RoleIn:
			h.In = plus(h.In, d.Grown)
		case RoleLost:
			h.Lost = plus(h.Lost, d.Grown)
		case RoleHeld:
			h.Held += d.Grown
		case RoleVain:
			h.In, h.Lost = plus(h.In, d.Grown), plus(h.Lost, d.Grown)
		}
	}
}

func plus(sum *uint64, n uint64) *uint64 {
	if sum != nil {
		n += *sum
	}
	return &n
}

// queueDeaths moves what died in the processors' queues of received packets to
// where it died. The kernel counts such a death as softnet's, as the receiving
// device's rx_dropped, and as tx_dropped of a veth's other end
// (enqueue_to_backlog in net/core/dev.c, veth_xmit in drivers/net/veth.c). The
// devices prove that it was on our way: what softnet dropped beyond them
// belongs to others.
func (r *Report) queueDeaths() {
	soft := r.hop(HopSoftnet, "")
	dropped := soft.counter(softDropped)
	var left, ours uint64
	if dropped != nil {
		left = dropped.Grown
	}
	for i := range r.Hops {
		h := &r.Hops[i]
		if h.Hop != HopDevice && h.Hop != HopLoopback {
			continue
		}
		moved := r.moveDeaths(h, left)
		left -= moved
		if !h.Wide {
			ours += moved
		}
	}
	if dropped != nil && soft.Lost != nil {
		soft.takeDeaths(dropped, ours, left)
	}
}

// moveDeaths takes off a receiving device, and off the other end of its link,
// what of at most left deaths in the processors' queues it counts too, and
// returns how many these are.
func (r *Report) moveDeaths(h *HopReport, left uint64) (moved uint64) {
	rx := h.counter(rxDropped)
	if rx == nil {
		return 0
	}
	moved = min(rx.Grown, left)
	rest := rx.inner - min(rx.inner, moved)
	if veth := r.hop(HopVeth, h.Sensor); h.Hop == HopDevice && veth != nil {
		if tx := veth.counter(txDropped); tx != nil {
			there := tx.inner - min(tx.inner, rx.outer)
			veth.less(tx.Grown - there)
		}
	}
	h.less(rx.Grown - rest)
	if moved > 0 {
		h.note("%d died in the queue of a processor: see softnet", moved)
	}
	return moved
}

// takeDeaths leaves softnet what died on our way, and notes the others.
func (h *HopReport) takeDeaths(dropped *Delta, ours, others uint64) {
	h.Lost, h.Wide = &ours, false
	if others > 0 {
		h.note("%d more were dropped that did not come by a device on this way", others)
	}
	for cpu, n := range dropped.CPUs {
		h.note("CPU %d dropped %d", cpu, n)
	}
	slices.Sort(h.Notes)
}

// less takes something off what was lost.
func (h *HopReport) less(n uint64) {
	if h.Lost != nil {
		*h.Lost -= min(n, *h.Lost)
	}
}

// besideSockets takes what fell out of the sockets' own queues off what UDP
// counts: InErrors contains it. InErrors is taken at its lower bound, for it was
// read at another moment than the sockets.
func (h *HopReport) besideSockets(sockets ...*HopReport) {
	var own uint64
	for _, s := range sockets {
		if s != nil && s.Lost != nil {
			own += *s.Lost
		}
	}
	var errors, inner uint64
	for _, name := range []string{inErrors, inErrors6} {
		if d := h.counter(name); d != nil {
			errors, inner = errors+d.Grown, inner+d.inner
		}
	}
	beyond := inner - min(inner, own)
	h.less(errors - beyond)
}
