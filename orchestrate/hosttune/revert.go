package hosttune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Fate is what becomes of a recorded value when it is taken back.
type Fate string

// The fates.
const (
	Restore Fate = "restore" // it still is what we set
	Already Fate = "already" // it is what it was before
	Foreign Fate = "foreign" // somebody else changed it since: left alone
	Gone    Fate = "gone"    // its namespace or interface is not there any more
)

// Undo is one recorded value and what becomes of it.
type Undo struct {
	Setting string `json:"setting"`
	Where   string `json:"where"`
	Path    string `json:"path"`
	Now     string `json:"now"`    // empty where it is gone
	Before  string `json:"before"` // what it was before we changed it
	Fate    Fate   `json:"fate"`

	item  Item
	entry Entry
}

// NewUndo says what taking a record back does, the last change first. It
// changes nothing. The sensors are those that run.
func NewUndo(ctx context.Context, m Machine, r Record, sensors []Place) ([]Undo, error) {
	var list []Undo
	for _, e := range slices.Backward(r.Entries) {
		u := Undo{Setting: e.Setting, Where: e.Where, Path: e.Path, Before: e.Before, Fate: Gone, entry: e,
			item: Item{Setting: e.Setting, Where: e.Where, Path: e.Path, Wanted: e.Before, kind: e.Kind, place: Place{Name: Host}}}
		if e.Container != "" {
			at := slices.IndexFunc(sensors, e.in)
			if at < 0 {
				list = append(list, u)
				continue
			}
			u.item.place = sensors[at]
		}
		now, err := read(ctx, m, u.item)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("look at %s: %w", u.item, err)
		default:
			u.Now, u.Fate = now, e.fate(now)
		}
		list = append(list, u)
	}
	return list, nil
}

func (e Entry) fate(now string) Fate {
	switch {
	case e.Kind.same(now, e.Before):
		return Already
	case e.ours(now):
		return Restore
	}
	return Foreign
}

// Revert restores what the list says. What fails stays recorded, and so does
// the rest where ctx is done; what was done is forgotten only at the end, so
// that it can be interrupted anywhere and repeated.
func Revert(ctx context.Context, m Machine, store Records, r Record, list []Undo) error {
	todo := slices.DeleteFunc(slices.Clone(list), func(u Undo) bool { return u.Fate != Restore })
	var failed []error
	for range 2 { // a feature may need another one first
		failed = nil
		todo = slices.DeleteFunc(todo, func(u Undo) bool {
			err := set(ctx, m, u.item, u.Before)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				return true
			}
			failed = append(failed, fmt.Errorf("restore %s: %w", u.item, err))
			return false
		})
	}
	r.Entries = nil
	for _, u := range slices.Backward(todo) { // as they were recorded
		r.Entries = append(r.Entries, u.entry)
	}
	if len(todo) == 0 {
		r.Interfaces = nil
	}
	return errors.Join(append(failed, store.Save(r))...)
}
