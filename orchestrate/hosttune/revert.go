package hosttune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
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
	return errors.Join(append(failed, store.Save(context.WithoutCancel(ctx), r))...)
}

// RevertDocument is what `tune-host --revert --json` prints.
type RevertDocument struct {
	Way     nsenter.Way `json:"way"`
	Boot    string      `json:"boot_id"`
	Applied bool        `json:"applied"` // false with --dry-run
	Values  []Undo      `json:"values"`
	// PersistFile is what becomes of the file in /etc/sysctl.d: removed,
	// foreign (somebody changed it: left alone), or empty where there is none.
	PersistFile string `json:"persist_file,omitempty"`
}

// PlanRevert says what Revert would restore. It changes nothing.
func (t *Tuner) PlanRevert(ctx context.Context) (*RevertDocument, error) {
	return t.revert(ctx, t.records(), func(Record, []Undo, Forget) error { return nil })
}

// Revert takes back what was recorded of the machine's present boot, whoever did.
// It can be interrupted anywhere and repeated.
func (t *Tuner) Revert(ctx context.Context) (*RevertDocument, error) {
	records, unlock, err := t.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	doc, err := t.revert(ctx, records, func(r Record, list []Undo, file Forget) error {
		err := t.takeBack(ctx, records, r, list, file)
		return whenInterrupted(ctx, err, "`zeekdemo tune-host --revert` again restores the rest")
	})
	if err != nil {
		return nil, err
	}
	doc.Applied = true
	return doc, nil
}

// revert finds what there is to take back, and leaves it to do.
func (t *Tuner) revert(ctx context.Context, records Records, do func(Record, []Undo, Forget) error) (*RevertDocument, error) {
	boot, err := BootID(ctx, t.Machine)
	if err != nil {
		return nil, err
	}
	own, err := records.Load(ctx, boot)
	if err != nil {
		return nil, err
	}
	r, file, err := WithPersisted(ctx, t.Machine, own)
	if err != nil {
		return nil, err
	}
	list, err := NewUndo(ctx, t.Machine, r, t.Sensors)
	if err != nil {
		return nil, err
	}
	doc := &RevertDocument{Way: t.Way, Boot: boot, Values: append([]Undo{}, list...), PersistFile: file.word()}
	return doc, do(r, list, file)
}

// word is what becomes of the file.
func (f Forget) word() string {
	switch {
	case f.Foreign:
		return "foreign"
	case f.File:
		return "removed"
	}
	return ""
}

// takeBack removes the file first, so that the values of its comments are there
// until they are recorded or restored.
func (t *Tuner) takeBack(ctx context.Context, records Records, r Record, list []Undo, file Forget) error {
	if file.File {
		if err := records.Save(ctx, r); err != nil {
			return err
		}
		if err := persistHint(RemovePersisted(ctx, t.Machine)); err != nil {
			return err
		}
	}
	return Revert(ctx, t.Machine, records, r, list)
}
