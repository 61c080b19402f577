package hosttune

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// TuneDocument is what `tune-host --json` prints, with and without --dry-run.
type TuneDocument struct {
	Way       nsenter.Way `json:"way"` // direct or helper
	Boot      string      `json:"boot_id"`
	Applied   bool        `json:"applied"` // false with --dry-run
	Changes   []Item      `json:"changes"` // Now is the value before
	Fine      []Item      `json:"fine"`    // nothing to do
	Notes     []string    `json:"notes,omitempty"`
	Late      []Late      `json:"late_sensors"` // have small buffers until they are restarted
	Restarted []string    `json:"restarted_sensors,omitempty"`
	Persisted string      `json:"persisted,omitempty"` // the file
	Record    string      `json:"record,omitempty"`    // the file with the old values, on the engine's machine
}

// Request says what Apply does beside tuning.
type Request struct {
	Persist        bool // make the limits last over reboots, see [PersistFile]
	RestartSensors bool // those whose sockets have the old, small buffers
}

// Plan says what Apply would change. It changes nothing.
func (t *Tuner) Plan(ctx context.Context) (*TuneDocument, error) {
	p, err := t.plan(ctx)
	if err != nil {
		return nil, err
	}
	doc := t.document(p)
	return &doc, nil
}

func (t *Tuner) document(p Plan) TuneDocument {
	changes := append([]Item{}, p.Changes()...)
	return TuneDocument{Way: t.Way, Boot: p.Boot, Notes: p.Notes, Changes: changes, Fine: p.without(changes), Late: []Late{}}
}

// without returns the items of a plan that are not among the changes.
func (p Plan) without(changes []Item) []Item {
	list := []Item{}
	for _, i := range p.Items {
		if !slices.ContainsFunc(changes, func(c Item) bool { return c.Path == i.Path && c.Where == i.Where }) {
			list = append(list, i)
		}
	}
	return list
}

// Apply tunes. It is one transaction: where a step of it fails, or ctx is done,
// everything that it has set is taken back and there is no document. Only a
// sensor that could not be restarted is no such failure: the document is there
// then, beside the error.
func (t *Tuner) Apply(ctx context.Context, r Request) (*TuneDocument, error) {
	return t.apply(ctx, func(tx *transaction) error {
		if err := tx.findLate(ctx); err != nil {
			return err
		}
		if r.RestartSensors {
			tx.restartLate(ctx)
		}
		if err := tx.setSensors(ctx); err != nil || !r.Persist {
			return err
		}
		return tx.persist(ctx)
	})
}

// apply sets what concerns the machine, so that what is started then gets the
// new limits, and leaves the steps after that to rest.
func (t *Tuner) apply(ctx context.Context, rest func(*transaction) error) (*TuneDocument, error) {
	records, unlock, err := t.lock(ctx)
	if err != nil {
		return nil, whenInterrupted(ctx, err, "nothing was changed")
	}
	defer unlock()
	tx, err := t.begin(ctx, records)
	if err != nil {
		return nil, whenInterrupted(ctx, err, "nothing was changed")
	}
	err = tx.setMachine(ctx)
	if err == nil {
		err = rest(tx)
	}
	if err != nil {
		return nil, t.takenBack(ctx, errors.Join(tx.restartErr, err))
	}
	if len(tx.session.Record().Entries) > 0 {
		tx.doc.Record = records.File(tx.first.Boot)
	}
	return &tx.doc, tx.restartErr
}

// transaction is one Apply under way. Each of its steps takes back what all of
// them have set where it fails.
type transaction struct {
	*Tuner
	first   Plan // as it was before
	session *Session
	doc     TuneDocument
	// restartErr says which sensors could not be restarted.
	restartErr error
}

// begin looks at the machine, and at what is recorded of it.
func (t *Tuner) begin(ctx context.Context, records Records) (*transaction, error) {
	first, err := t.plan(ctx)
	if err != nil {
		return nil, err
	}
	s, err := t.session(ctx, records, first)
	if err != nil {
		return nil, err
	}
	tx := &transaction{Tuner: t, first: first, session: s, doc: t.document(first)}
	tx.doc.Applied = true
	return tx, nil
}

func (tx *transaction) setMachine(ctx context.Context) (err error) {
	tx.doc.Changes, err = tx.session.Apply(ctx, tx.first.In(true))
	return err
}

// findLate finds the sensors that have to be restarted.
func (tx *transaction) findLate(ctx context.Context) error {
	late, err := tx.late(ctx, tx.session.Record())
	if err != nil {
		return errors.Join(err, tx.session.Rollback(ctx))
	}
	tx.doc.Late = append(tx.doc.Late, late...)
	return nil
}

// restartLate restarts them.
func (tx *transaction) restartLate(ctx context.Context) {
	if len(tx.doc.Late) == 0 {
		return
	}
	tx.doc.Restarted, tx.restartErr = tx.restart(ctx, tx.doc.Late)
	tx.doc.Late = slices.DeleteFunc(tx.doc.Late, func(l Late) bool { return slices.Contains(tx.doc.Restarted, l.Name) })
}

// setSensors tunes their namespaces. It plans again, for those that were
// restarted have new ones.
func (tx *transaction) setSensors(ctx context.Context) error {
	second, err := tx.plan(ctx)
	if err != nil {
		return errors.Join(err, tx.session.Rollback(ctx))
	}
	changed, err := tx.session.Apply(ctx, second.In(false))
	if err != nil {
		return err
	}
	tx.doc.Changes = append(tx.doc.Changes, changed...)
	tx.doc.Fine = second.without(tx.doc.Changes)
	return nil
}

func (tx *transaction) persist(ctx context.Context) error {
	if err := tx.session.Persist(ctx, tx.first); err != nil {
		return persistHint(err)
	}
	tx.doc.Persisted = PersistFile
	return nil
}

// takenBack says what became of the settings where one could not be made.
func (t *Tuner) takenBack(ctx context.Context, err error) error {
	if errors.Is(err, os.ErrPermission) && t.Way == nsenter.Helper {
		err = orchestrate.WithHint(err, "this engine's containers may not change its machine: run zeekdemo as root on that machine, with --reach direct")
	}
	return whenInterrupted(ctx, err, "what was changed was put back")
}

// persistHint says what to do where PersistFile cannot be written or removed.
func persistHint(err error) error {
	switch {
	case errors.Is(err, os.ErrExist):
		return orchestrate.WithHint(err, "remove or rename it if it is not needed, then try again")
	case errors.Is(err, os.ErrPermission):
		return orchestrate.WithHint(err, "leave out --persist, or run zeekdemo as root on that machine, with --reach direct")
	}
	return err
}
