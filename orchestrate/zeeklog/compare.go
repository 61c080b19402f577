package zeeklog

import (
	"cmp"
	"maps"
	"slices"
)

// Cause is what explains a difference, as far as one connection's lines tell.
type Cause string

// The causes.
const (
	Lost      Cause = "lost"      // packets are missing
	Doubled   Cause = "doubled"   // there are more packets than were sent
	Cut       Cause = "cut"       // as many packets, with less in them
	Reordered Cause = "reordered" // the same packets and bytes, another story
	TimedOut  Cause = "timed out" // the same packets, divided into other connections
	Unclear   Cause = "unclear"   // a line that belongs to no connection, or one whose connection agrees
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
}

// FieldChange is one field on which two lines disagree.
type FieldChange struct {
	Field string `json:"field"`
	Got   string `json:"got"`
	Want  string `json:"want"`
}

// Compare lists where got differs from want, conn.log first. Nothing means: the
// two processes saw the same traffic.
func Compare(got, want Logs) []Difference {
	var all []Difference
	causes := connCauses(got["conn"], want["conn"])
	for _, log := range logNames(got, want) {
		missing, extra := subtract(want.comparable(log), got.comparable(log))
		for _, d := range pair(log, extra, missing) {
			d.Cause = Unclear
			if c, ok := causes[d.key]; ok {
				d.Cause = c
			}
			all = append(all, d.Difference)
		}
	}
	return all
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

// subtract takes what two sorted lists have in common away from both.
func subtract(a, b []line) (onlyA, onlyB []line) {
	for len(a) > 0 && len(b) > 0 {
		switch c := cmp.Compare(a[0].text, b[0].text); {
		case c < 0:
			onlyA, a = append(onlyA, a[0]), a[1:]
		case c > 0:
			onlyB, b = append(onlyB, b[0]), b[1:]
		default:
			a, b = a[1:], b[1:]
		}
	}
	return append(onlyA, a...), append(onlyB, b...)
}

// keyed is a Difference with the key by which its cause is looked up.
type keyed struct {
	Difference
	key string
}

// pair puts lines of the same connection beside each other.
func pair(log string, got, want []line) []keyed {
	var list []keyed
	paired := make([]bool, len(want))
	partners := map[string][]int{} // of a connection, in want
	for i, w := range want {
		partners[w.key] = append(partners[w.key], i)
	}
	for _, g := range got {
		d := keyed{Difference{Log: log, Connection: g.key, Got: g.text}, connKey(g.record)}
		if p := partners[g.key]; g.key != "" && len(p) > 0 {
			w := want[p[0]]
			partners[g.key], paired[p[0]] = p[1:], true
			d.Want, d.Fields = w.text, changes(log, g.record, w.record)
		}
		list = append(list, d)
	}
	for i, w := range want {
		if !paired[i] {
			list = append(list, keyed{Difference{Log: log, Connection: w.key, Want: w.text}, connKey(w.record)})
		}
	}
	return list
}

func changes(log string, got, want Record) []FieldChange {
	fields := connFields
	if log != "conn" {
		names := map[string]bool{}
		for f := range got {
			names[f] = true
		}
		for f := range want {
			names[f] = true
		}
		fields = slices.Sorted(maps.Keys(names))
	}
	var list []FieldChange
	for _, f := range fields {
		if g, w := fieldText(got, f), fieldText(want, f); g != w && !ignored(f) {
			list = append(list, FieldChange{Field: f, Got: g, Want: w})
		}
	}
	return list
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
	lines, packets, bytes, missed uint64
}

func totals(conns []Record) map[string]total {
	m := map[string]total{}
	for _, r := range conns {
		t := m[connKey(r)]
		t.lines++
		t.packets += r.number("orig_pkts") + r.number("resp_pkts")
		t.bytes += r.number("orig_ip_bytes") + r.number("resp_ip_bytes")
		t.missed += r.number("missed_bytes")
		m[connKey(r)] = t
	}
	return m
}

// connCauses explains every key whose connections differ by what all its
// connections hold together.
func connCauses(got, want []Record) map[string]Cause {
	g, w := totals(got), totals(want)
	causes := map[string]Cause{}
	missing, extra := subtract(Logs{"conn": want}.comparable("conn"), Logs{"conn": got}.comparable("conn"))
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
	case got.lines != want.lines:
		return TimedOut
	case got.bytes < want.bytes || got.missed > want.missed:
		return Cut
	}
	return Reordered
}
