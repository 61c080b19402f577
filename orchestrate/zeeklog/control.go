package zeeklog

import "slices"

// Attribution divides what a live process wrote otherwise than one that read the
// same frames from a file.
type Attribution struct {
	// Faults are what nothing but the path explains.
	Faults []Difference
	// Own is what Zeek does otherwise in every process: others that read the same
	// frames differ there as well. With several workers it is also what follows
	// from dividing the connections, each with its reason.
	Own []Difference
}

// Attribute compares the logs of a live process with those of processes that read
// the same frames. The first of them is the one to agree with, the others are
// controls: what is different in one of them is Zeek's own, in the same fields of
// the same connection's lines in the same log. Of a line that differs in other
// fields as well, those remain a fault. Without controls all differences are
// faults.
func (r Rules) Attribute(live, offline Logs, controls ...Logs) Attribution {
	found := r.compare(live, offline)
	own := unsteady{}
	why := r.workersReason(offline)
	for _, control := range controls {
		differences := r.compare(control, offline)
		own.note(differences)
		if len(differences) > 0 && len(r.compare(live, control)) == 0 {
			return Attribution{Own: plain(found)} // one of them had it like this
		}
	}
	return own.divide(found, why)
}

// Pace lists what differs between processes that read the same frames at the
// times of sending and of capture, without what is Zeek's own, as the controls,
// which read as the first does, tell it from that.
func (r Rules) Pace(asSent, asCaptured Logs, controls ...Logs) []Difference {
	r.Jitter = 0 // the times are what differs
	own := unsteady{}
	for _, control := range controls {
		own.note(r.compare(control, asSent))
	}
	return own.divide(r.compare(asSent, asCaptured), nil).Faults
}

// divide takes what was noted from the rest, and what has another reason; why is nil
// where there is none.
func (u unsteady) divide(found []keyed, why func(keyed) string) (a Attribution) {
	for _, d := range found {
		if why != nil {
			if d.Why = why(d); d.Why != "" {
				a.Own = append(a.Own, d.Difference)
				continue
			}
		}
		rest, ok := u.explains(d)
		if ok {
			a.Own = append(a.Own, d.Difference)
			continue
		}
		d.Fields = rest
		a.Faults = append(a.Faults, d.Difference)
	}
	return a
}

// place is where lines are alike: a log, a connection and, for lines of none, the
// kind of line.
type place struct{ log, connection, kind string }

// whatDiffers are the fields in which the lines of a place differ, and whether
// there are lines that only one process has.
type whatDiffers struct {
	fields []string
	lines  bool
}

// unsteady is where processes differ that had the same frames.
type unsteady map[place]whatDiffers

func (u unsteady) note(list []keyed) {
	for _, d := range list {
		w := u[d.place()]
		for _, f := range d.Fields {
			w.fields = append(w.fields, f.Field)
		}
		w.lines = w.lines || len(d.Fields) == 0
		u[d.place()] = w
	}
}

// explains tells whether a difference is of a kind that was noted, else which of
// its fields are not.
func (u unsteady) explains(d keyed) (rest []FieldChange, ok bool) {
	w, noted := u[d.place()]
	if len(d.Fields) == 0 {
		return nil, noted && w.lines
	}
	for _, f := range d.Fields {
		if !slices.Contains(w.fields, f.Field) {
			rest = append(rest, f)
		}
	}
	return rest, len(rest) == 0
}

func (d keyed) place() place {
	p := place{log: d.Log, connection: d.key}
	if d.key == "" {
		p.kind = d.kind
	}
	return p
}
