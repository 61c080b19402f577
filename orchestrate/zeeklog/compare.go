package zeeklog

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

// Cause is what explains a difference, as far as one connection's lines tell.
type Cause string

// The causes. Nothing is called reordered or altered by guess: the same numbers of
// packets and bytes with another story may have many reasons.
const (
	Lost        Cause = "lost"        // packets are missing
	Doubled     Cause = "doubled"     // there are more packets than were sent
	Cut         Cause = "cut"         // as many packets, with fewer bytes in them
	Altered     Cause = "altered"     // bytes are known to differ
	Reordered   Cause = "reordered"   // packets are known to have arrived in another order
	TimedOut    Cause = "timed out"   // the same packets, divided into other connections
	Unexplained Cause = "unexplained" // nothing that is known explains it
)

// Difference is a line that one side wrote and the other did not, or a pair of
// lines of one connection that disagree.
type Difference struct {
	Log        string        `json:"log"`                  // without suffix
	Connection string        `json:"connection,omitempty"` // "tcp 10.0.0.1:1025 → 10.0.0.2:80"
	Got        string        `json:"got,omitempty"`        // the line as compared; empty: nothing
	Want       string        `json:"want,omitempty"`
	Fields     []FieldChange `json:"fields,omitempty"` // where both sides have a line
	Cause      Cause         `json:"cause"`
	// Why is the reason of a difference that is no fault, where it is known.
	Why string `json:"why,omitempty"`
}

// FieldChange is one field on which two lines disagree.
type FieldChange struct {
	Field string `json:"field"`
	Got   string `json:"got"`
	Want  string `json:"want"`
}

// Rules say how logs are compared.
type Rules struct {
	// Columns are the types of the logs' fields; where they are unknown, those of
	// KnownColumns hold.
	Columns Columns
	// Jitter is how far apart two measured times may be; without one, times and
	// intervals are left out.
	Jitter time.Duration
	// Workers is how many processes shared the live traffic; see perWorker.
	Workers int
}

// PathJitter is a Jitter for two processes that had the same frames, the one live
// and the other stamped with the times of sending. A frame waits in queues for
// seconds at most; times that are in the packets do not move at all.
const PathJitter = time.Minute

// Compare compares by Rules without columns and jitter.
func Compare(got, want Logs) []Difference { return Rules{}.Compare(got, want) }

// Compare lists where got differs from want, conn.log first. Nothing means: the
// two processes saw the same traffic.
func (r Rules) Compare(got, want Logs) []Difference {
	return plain(r.compare(got, want))
}

func (r Rules) compare(got, want Logs) []keyed {
	c := comparison{Rules: r, got: r.view(got), want: r.view(want)}
	var all []keyed
	causes := c.connCauses(got["conn"], want["conn"])
	for _, log := range logNames(got, want) {
		missing, extra, pairs := subtract(c.want.comparable(log, want[log]), c.got.comparable(log, got[log]))
		for _, d := range append(c.pair(log, extra, missing), c.times(log, pairs)...) {
			d.Cause = Unexplained
			if cause, ok := causes[d.key]; ok {
				d.Cause = cause
			}
			all = append(all, d)
		}
	}
	return all
}

// comparison is two processes' logs being compared.
type comparison struct {
	Rules
	got, want view
}

func (r Rules) view(logs Logs) view {
	return view{columns: r.Columns, known: KnownColumns(), names: logs.names()}
}

func logNames(got, want Logs) []string {
	names := map[string]bool{}
	for name := range got {
		names[name] = true
	}
	for name := range want {
		names[name] = true
	}
	sorted := slices.Sorted(maps.Keys(names))
	slices.SortStableFunc(sorted, func(a, b string) int {
		return cmp.Compare(rank(a), rank(b))
	})
	return sorted
}

func rank(log string) int {
	if log == "conn" {
		return 0
	}
	return 1
}

// subtract takes what two sorted lists have in common away from both. Pairs are
// what they have in common: b's line, then a's.
func subtract(a, b []line) (onlyA, onlyB []line, pairs [][2]line) {
	for len(a) > 0 && len(b) > 0 {
		switch c := cmp.Compare(a[0].text, b[0].text); {
		case c < 0:
			onlyA, a = append(onlyA, a[0]), a[1:]
		case c > 0:
			onlyB, b = append(onlyB, b[0]), b[1:]
		default:
			pairs = append(pairs, [2]line{b[0], a[0]})
			a, b = a[1:], b[1:]
		}
	}
	return append(onlyA, a...), append(onlyB, b...), pairs
}

// keyed is a Difference with the key by which its cause is looked up, and what
// kind of line it is.
type keyed struct {
	Difference
	key, kind string
}

func newKeyed(log string, l line) keyed {
	return keyed{Difference{Log: log, Connection: l.key}, connKey(l.record), l.record.text("name") + l.record.text("note")}
}

func plain(list []keyed) (all []Difference) {
	for _, d := range list {
		all = append(all, d.Difference)
	}
	return all
}

// pair puts lines of the same connection beside each other that differ least.
func (c comparison) pair(log string, got, want []line) []keyed {
	var list []keyed
	left := map[string][]line{} // of a connection, in want
	for _, w := range want {
		left[w.key] = append(left[w.key], w)
	}
	for _, g := range got {
		d := newKeyed(log, g)
		d.Got = g.text
		if g.key != "" && len(left[g.key]) > 0 {
			var i int
			i, d.Fields = c.nearest(log, g.record, left[g.key])
			d.Want = left[g.key][i].text
			left[g.key] = slices.Delete(left[g.key], i, i+1)
		}
		list = append(list, d)
	}
	for _, w := range want {
		if i := slices.IndexFunc(left[w.key], func(l line) bool { return l.text == w.text }); i >= 0 {
			d := newKeyed(log, w)
			d.Want = w.text
			list = append(list, d)
			left[w.key] = slices.Delete(left[w.key], i, i+1)
		}
	}
	return list
}

// nearest returns which line contradicts least: in the fewest values, then in the
// fewest fields that only one has. It looks at the first lines: all against all
// would take minutes where everything differs.
func (c comparison) nearest(log string, got Record, want []line) (best int, least []FieldChange) {
	const most = 32
	for i, w := range want[:min(len(want), most)] {
		changes := c.changes(log, got, w.record)
		if least == nil || cmp.Or(cmp.Compare(contradictions(changes), contradictions(least)), cmp.Compare(len(changes), len(least))) < 0 {
			best, least = i, changes
		}
	}
	return best, least
}

// contradictions counts the fields of which both sides have a value.
func contradictions(changes []FieldChange) (n int) {
	for _, f := range changes {
		if f.Got != "" && f.Want != "" {
			n++
		}
	}
	return n
}

func (c comparison) changes(log string, got, want Record) []FieldChange {
	var list []FieldChange
	for _, f := range fields(log, got, want) {
		if g, w := c.got.text(log, got, f), c.want.text(log, want, f); g != w {
			list = append(list, FieldChange{Field: f, Got: g, Want: w})
		}
	}
	return list
}

// times finds lines that say the same but for a time or interval that is not
// measured, or not of the same packets: one further off than the jitter, from
// the other and from its own line's time. Which of several lines that say the
// same belong together, these times tell.
func (c comparison) times(log string, pairs [][2]line) (list []keyed) {
	if c.Jitter == 0 || log == "conn" || inventories[log] {
		return nil
	}
	for len(pairs) > 0 {
		n := 1
		for n < len(pairs) && pairs[n][0].text == pairs[0][0].text {
			n++
		}
		c.match(log, pairs[:n])
		for _, p := range pairs[:n] {
			if off := c.off(log, p[0].record, p[1].record); len(off) > 0 {
				d := newKeyed(log, p[0])
				d.Got, d.Want, d.Fields = p[0].text, p[1].text, off
				list = append(list, d)
			}
		}
		pairs = pairs[n:]
	}
	return list
}

// match exchanges the second lines of pairs so that as many as possible agree.
func (c comparison) match(log string, pairs [][2]line) {
	agree := make([]bool, len(pairs))
	for i := range pairs {
		for n := range pairs { // itself first: mostly that is it
			k := (i + n) % len(pairs)
			if !agree[k] && len(c.off(log, pairs[i][0].record, pairs[k][1].record)) == 0 {
				pairs[i][1], pairs[k][1] = pairs[k][1], pairs[i][1]
				agree[i] = true
				break
			}
		}
	}
}

// off are the times and intervals on which two lines do not agree.
func (c comparison) off(log string, got, want Record) (list []FieldChange) {
	for f, value := range got {
		if f != "ts" && c.got.columns.shape(c.got.known, log, f, value) == measured && !c.near(got, want, f) {
			list = append(list, FieldChange{Field: f, Got: got.text(f), Want: want.text(f)})
		}
	}
	slices.SortFunc(list, func(a, b FieldChange) int { return cmp.Compare(a.Field, b.Field) })
	return list
}

// near is true also of what one side did not measure.
func (c comparison) near(got, want Record, field string) bool {
	g, ok1 := numeric(got[field])
	w, ok2 := numeric(want[field])
	off := math.Abs(g - w)
	sinceLine := math.Abs(g - got.seconds("ts") - (w - want.seconds("ts")))
	return !ok1 || !ok2 || min(off, sinceLine) <= c.Jitter.Seconds()
}

// connKey is the same for every line of a connection in every log, whichever
// end Zeek took for the originator. Logs other than conn.log may lack the
// protocol, so it is not part of it.
func connKey(r Record) string {
	if r["id.orig_h"] == nil {
		return ""
	}
	a, b := endpoint(r, "id.orig"), endpoint(r, "id.resp")
	if a > b {
		a, b = b, a
	}
	return a + " " + b
}

// total is what all connections of one key hold together.
type total struct {
	lines, packets, bytes uint64
}

func totals(conns []Record) map[string]total {
	m := map[string]total{}
	for _, r := range conns {
		t := m[connKey(r)]
		t.lines++
		t.packets += r.number("orig_pkts") + r.number("resp_pkts")
		t.bytes += r.number("orig_ip_bytes") + r.number("resp_ip_bytes")
		m[connKey(r)] = t
	}
	return m
}

// connCauses explains every key whose connections differ by what all its
// connections hold together.
func (c comparison) connCauses(got, want []Record) map[string]Cause {
	g, w := totals(got), totals(want)
	causes := map[string]Cause{}
	missing, extra, _ := subtract(c.want.comparable("conn", want), c.got.comparable("conn", got))
	for _, l := range append(missing, extra...) {
		key := connKey(l.record)
		causes[key] = cause(g[key], w[key])
	}
	return causes
}

func cause(got, want total) Cause {
	switch {
	case got.packets < want.packets:
		return Lost
	case got.packets > want.packets:
		return Doubled
	case got.bytes < want.bytes:
		return Cut
	case got.bytes > want.bytes:
		return Altered
	case got.lines != want.lines:
		return TimedOut
	}
	return Unexplained
}
