package hosttune

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// State says how a setting stands.
type State string

// The states.
const (
	Fine  State = "fine"  // it was good enough by itself
	Tuned State = "tuned" // it is as we set it
	Drift State = "drift" // we have set it, and it is not good enough any more
	Wants State = "wants" // it is not good enough, and we have not set it
)

// Line is one setting and how it stands.
type Line struct {
	Item
	State State `json:"state"`
	// Before is what it was before we set it.
	Before string `json:"before,omitempty"`
}

// Status is how a machine stands.
type Status struct {
	// Tuned is true if every setting is good enough, whoever made it so.
	Tuned bool `json:"tuned"`
	// Recorded is true if something that we set can be taken back.
	Recorded  bool     `json:"recorded"`
	Persisted bool     `json:"persisted"` // also for later boots, see [PersistFile]
	Lines     []Line   `json:"settings"`
	Notes     []string `json:"notes,omitempty"`

	Record Record `json:"-"` // what is recorded
}

// NewStatus says how the settings of a plan stand, given what is recorded.
func NewStatus(p Plan, r Record) Status {
	s := Status{Tuned: true, Recorded: len(r.Entries) > 0, Notes: p.Notes, Record: r}
	for _, i := range p.Items {
		l := Line{Item: i, State: Fine}
		e, recorded := r.find(i)
		switch {
		case recorded && e.ours(i.Now) && !i.Needed:
			l.State, l.Before = Tuned, e.Before
		case recorded && i.Needed:
			l.State, l.Before = Drift, e.Before
		case i.Needed:
			l.State = Wants
		}
		s.Tuned = s.Tuned && !i.Needed
		s.Lines = append(s.Lines, l)
	}
	return s
}

// Look plans and says how the machine stands, given what is recorded there, or
// with this client; it changes nothing. The sensors are those that run.
func Look(ctx context.Context, m Machine, store Store, sensors []Place) (Status, error) {
	p, err := NewPlan(ctx, m, sensors, nil)
	if err != nil {
		return Status{}, err
	}
	r, err := (&machineRecords{machine: m, client: store}).Load(ctx, p.Boot)
	if err != nil {
		return Status{}, err
	}
	if len(r.Interfaces) > 0 {
		if again, err := NewPlan(ctx, m, sensors, r.Interfaces); err == nil { // an interface may be gone
			p = again
		}
	}
	s := NewStatus(p, r)
	if file, err := readPersisted(ctx, m); err == nil {
		s.Persisted = file.ours
	}
	return s, nil
}

// Count returns how many settings are in a state, in a place; in all of them if
// where is empty.
func (s Status) Count(state State, where string) (n int) {
	for _, l := range s.Lines {
		if l.State == state && (where == "" || l.Where == where) {
			n++
		}
	}
	return n
}

// In reports whether all is good enough in a place.
func (s Status) In(where string) bool {
	return !slices.ContainsFunc(s.Lines, func(l Line) bool { return l.Where == where && l.Needed })
}

// Summary is the status in one line.
func (s Status) Summary() string {
	lacking := s.Count(Wants, "") + s.Count(Drift, "")
	switch {
	case lacking == 0 && s.Recorded:
		return "tuned"
	case lacking == 0:
		return "tuned, not by zeekdemo"
	case lacking == len(s.Lines):
		return "not tuned"
	}
	return fmt.Sprintf("%d of %d settings are not as wanted", lacking, len(s.Lines))
}

// StatusDocument is what `tune-host --status --json` prints.
type StatusDocument struct {
	Way  nsenter.Way `json:"way"`
	Boot string      `json:"boot_id"`
	Status
	Late []Late `json:"late_sensors"`
}

// Status says how each setting stands, and which sensors have to be restarted.
// It changes nothing.
func (t *Tuner) Status(ctx context.Context) (*StatusDocument, error) {
	status, err := Look(ctx, t.Machine, t.Store, t.Sensors)
	if err != nil {
		return nil, err
	}
	late, err := t.late(ctx, status.Record)
	if err != nil {
		return nil, err
	}
	boot := status.Record.Boot
	return &StatusDocument{Way: t.Way, Boot: boot, Status: status, Late: append([]Late{}, late...)}, nil
}

// glanceLimit bounds a look that is a side issue to who takes it.
const glanceLimit = 5 * time.Second

// GlanceDocument is what `status --json` tells of the tuning.
type GlanceDocument struct {
	Seen     bool            `json:"seen"`     // how the settings stand; else only what is recorded of them
	Tuned    bool            `json:"tuned"`    // as far as it is seen
	Recorded bool            `json:"recorded"` // by zeekdemo
	Summary  string          `json:"summary"`
	Sensors  map[string]bool `json:"sensors"` // whether each one's interface is tuned
}

// Glance looks how the machine stands, without any privilege and without a
// helper container; nil where it cannot be seen so.
func Glance(ctx context.Context, engine orchestrate.Engine, store Store) *GlanceDocument {
	ctx, cancel := context.WithTimeout(ctx, glanceLimit)
	defer cancel()
	list, err := engine.Containers(ctx, orchestrate.ProjectName)
	if err != nil {
		return nil
	}
	sensors, m := Sensors(list), nsenter.Peek(ctx, engine, list)
	s, err := Look(ctx, m, store, sensors)
	if err != nil || len(s.Lines) == 0 {
		if r, err := recordOf(ctx, m, store); err != nil || len(r.Entries) == 0 {
			return nil
		}
		return &GlanceDocument{Recorded: true, Summary: "tuned by zeekdemo; how they stand now is not seen from here", Sensors: map[string]bool{}}
	}
	doc := &GlanceDocument{Seen: true, Tuned: s.Tuned, Recorded: s.Recorded, Summary: s.Summary(), Sensors: map[string]bool{}}
	for _, p := range sensors {
		doc.Sensors[p.Name] = s.In(p.Name)
	}
	return doc
}
