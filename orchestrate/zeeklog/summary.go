package zeeklog

import (
	"cmp"
	"slices"
	"strings"
)

// Kind is what several differences have in common.
type Kind struct {
	Log    string `json:"log"`
	Reason string `json:"reason"`        // "connections divided otherwise", "history, service", "lines that only one has"
	Why    string `json:"why,omitempty"` // where it is known
	Lines  int    `json:"lines"`
	// Example is the first of them.
	Example Difference `json:"example"`
}

// Summarise returns one Kind for each log and reason, conn.log first, then those
// of most lines.
func Summarise(differences []Difference) []Kind {
	at := map[[3]string]int{}
	var kinds []Kind
	for _, d := range differences {
		key := [3]string{d.Log, d.reason(), d.Why}
		i, ok := at[key]
		if !ok {
			i = len(kinds)
			at[key] = i
			kinds = append(kinds, Kind{Log: d.Log, Reason: key[1], Why: d.Why, Example: d})
		}
		kinds[i].Lines++
	}
	slices.SortStableFunc(kinds, func(a, b Kind) int {
		return cmp.Or(cmp.Compare(rank(a.Log), rank(b.Log)), cmp.Compare(b.Lines, a.Lines))
	})
	return kinds
}

// reason says in what a difference consists: what its connection's packets tell,
// else in which fields the lines differ, else that only one side has the line.
func (d Difference) reason() string {
	switch d.Cause {
	case Lost:
		return "connections of fewer packets"
	case Doubled:
		return "connections of more packets"
	case Cut:
		return "connections of fewer bytes"
	case Altered:
		return "connections of other bytes"
	case TimedOut:
		return "connections divided otherwise"
	}
	if len(d.Fields) == 0 {
		return "lines that only one has"
	}
	var names []string
	for _, f := range d.Fields {
		names = append(names, f.Field)
	}
	return strings.Join(names, ", ")
}
