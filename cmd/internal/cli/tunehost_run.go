package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/hosttune"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// listenLimit is how long a sensor that was restarted may take to listen.
const listenLimit = time.Minute

// tuneDocument is what `tune-host --json` prints, with and without --dry-run.
type tuneDocument struct {
	Way       nsenter.Way     `json:"way"` // direct or helper
	Boot      string          `json:"boot_id"`
	Applied   bool            `json:"applied"` // false with --dry-run
	Changes   []hosttune.Item `json:"changes"` // Now is the value before
	Fine      []hosttune.Item `json:"fine"`    // nothing to do
	Notes     []string        `json:"notes,omitempty"`
	Late      []hosttune.Late `json:"late_sensors"` // have small buffers until they are restarted
	Restarted []string        `json:"restarted_sensors,omitempty"`
	Persisted string          `json:"persisted,omitempty"` // the file
	Record    string          `json:"record,omitempty"`    // the file with the old values
}

// plan looks at the machine.
func (t *tuner) plan(ctx context.Context) (hosttune.Plan, error) {
	return hosttune.NewPlan(ctx, t.machine, t.sensors, t.o.interfaces)
}

// ask is how the buffers of sockets can be told here.
func (t *tuner) ask(p hosttune.Place, proxy bool) (int, bool) {
	if t.way != nsenter.Direct {
		return 0, false
	}
	return hosttune.LocalSockets(p, proxy)
}

func (t *tuner) document(p hosttune.Plan) tuneDocument {
	doc := tuneDocument{Way: t.way, Boot: p.Boot, Notes: p.Notes, Changes: append([]hosttune.Item{}, p.Changes()...), Late: []hosttune.Late{}}
	doc.Fine = fine(p, doc.Changes)
	return doc
}

// fine returns the items of a plan that are not among the changes.
func fine(p hosttune.Plan, changes []hosttune.Item) []hosttune.Item {
	list := []hosttune.Item{}
	for _, i := range p.Items {
		if !slices.ContainsFunc(changes, func(c hosttune.Item) bool { return c.Path == i.Path && c.Where == i.Where }) {
			list = append(list, i)
		}
	}
	return list
}

// showPlan is --dry-run.
func (t *tuner) showPlan(ctx context.Context) error {
	p, err := t.plan(ctx)
	if err != nil {
		return err
	}
	return t.print(t.document(p))
}

// apply tunes: the machine first, so that what is started then gets the new
// limits, the sensors' namespaces last.
func (t *tuner) apply(ctx context.Context) error {
	unlock, err := t.store.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	first, err := t.plan(ctx)
	if err != nil {
		return interrupted(ctx, err, "nothing was changed")
	}
	s, err := t.session(first)
	if err != nil {
		return err
	}
	doc := t.document(first)
	doc.Applied = true
	if doc.Changes, err = s.Apply(ctx, first.In(true)); err != nil {
		return t.takenBack(ctx, err)
	}
	var late []hosttune.Late
	if !t.beforeUp {
		late, err = hosttune.LateSensors(ctx, t.machine, s.Record(), t.sensors, t.ask)
	}
	if err != nil {
		return t.takenBack(ctx, errors.Join(err, s.Rollback(ctx)))
	}
	var restartErr error
	if t.o.restart && len(late) > 0 {
		doc.Restarted, restartErr = t.restartSensors(ctx, late)
		late = slices.DeleteFunc(late, func(l hosttune.Late) bool { return slices.Contains(doc.Restarted, l.Name) })
	}
	doc.Late = append(doc.Late, late...)
	second, err := t.plan(ctx) // again, for sensors may have been restarted
	if err != nil {
		return t.takenBack(ctx, errors.Join(restartErr, err, s.Rollback(ctx)))
	}
	changed, err := s.Apply(ctx, second.In(false))
	if err != nil {
		return t.takenBack(ctx, errors.Join(restartErr, err))
	}
	doc.Changes = append(doc.Changes, changed...)
	doc.Fine = fine(second, doc.Changes)
	if t.o.persist {
		if err := s.Persist(ctx, first); err != nil {
			return t.takenBack(ctx, persistHint(err))
		}
		doc.Persisted = hosttune.PersistFile
	}
	if len(s.Record().Entries) > 0 {
		doc.Record = t.store.File(first.Boot)
	}
	return errors.Join(t.print(doc), restartErr)
}

// session begins one for a plan.
func (t *tuner) session(p hosttune.Plan) (*hosttune.Session, error) {
	s, err := hosttune.NewSession(t.machine, t.store, p.Boot, t.id, t.o.interfaces)
	if err == nil && t.id != "" { // the engine has told which sensors run
		s.Running(t.sensors)
	}
	return s, err
}

// takenBack says what became of the settings where one could not be made.
func (t *tuner) takenBack(ctx context.Context, err error) error {
	if errors.Is(err, os.ErrPermission) && t.way == nsenter.Helper {
		err = orchestrate.WithHint(err, "this engine's containers may not change its machine: run zeekdemo as root on that machine, with --via direct")
	}
	return interrupted(ctx, err, "what was changed was put back")
}

func persistHint(err error) error {
	switch {
	case errors.Is(err, os.ErrExist):
		return orchestrate.WithHint(err, "remove or rename it if it is not needed, then try again")
	case errors.Is(err, os.ErrPermission):
		return orchestrate.WithHint(err, "leave out --persist, or run zeekdemo as root on that machine, with --via direct")
	}
	return err
}

// restartSensors restarts the sensors and waits until each listens again. It
// returns those of which both succeeded.
func (t *tuner) restartSensors(ctx context.Context, late []hosttune.Late) (done []string, err error) {
	restarter, ok := t.engine.(orchestrate.HelperEngine)
	if !ok {
		return nil, errors.New("restart the sensors: this engine cannot")
	}
	var failed []error
	err = t.app.progress(func(p orchestrate.Progress) error {
		for _, l := range late {
			p(orchestrate.Event{ID: "Sensor " + l.Name, Text: "Restarting"})
			if err := t.restartSensor(ctx, restarter, l); err != nil {
				p(orchestrate.Event{ID: "Sensor " + l.Name, Text: "Failed", State: orchestrate.Failed})
				failed = append(failed, fmt.Errorf("restart sensor %s: %w", l.Name, err))
				continue
			}
			p(orchestrate.Event{ID: "Sensor " + l.Name, Text: "Restarted", State: orchestrate.Done})
			done = append(done, l.Name)
		}
		return errors.Join(failed...)
	})
	return done, errors.Join(err, t.findSensors(context.WithoutCancel(ctx)))
}

func (t *tuner) restartSensor(ctx context.Context, e orchestrate.HelperEngine, l hosttune.Late) error {
	if err := e.RestartContainer(ctx, l.Sensor.Container); err != nil {
		return err
	}
	service, err := orchestrate.ServiceByName(l.Name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, listenLimit, fmt.Errorf("it does not listen after %s", listenLimit))
	defer cancel()
	for {
		sensor, err := orchestrate.FindSensor(ctx, t.engine, service.Encap)
		if err == nil {
			state, err := orchestrate.SensorSockets(ctx, t.engine, sensor.Container, service.Port)
			if err == nil && state.Listening {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// tuneStatus is what `tune-host --status --json` prints.
type tuneStatus struct {
	Way  nsenter.Way `json:"way"`
	Boot string      `json:"boot_id"`
	hosttune.Status
	Late []hosttune.Late `json:"late_sensors"`
	// Others is how many values other users have recorded; only they can take
	// them back.
	Others int `json:"recorded_by_others,omitempty"`
}

// showStatus is --status.
func (t *tuner) showStatus(ctx context.Context) error {
	status, err := hosttune.Look(ctx, t.machine, t.store, t.sensors)
	if err != nil {
		return err
	}
	r := status.Record
	late, err := hosttune.LateSensors(ctx, t.machine, r, t.sensors, t.ask)
	if err != nil {
		return err
	}
	return t.printStatus(tuneStatus{Way: t.way, Boot: r.Boot, Status: status, Late: append([]hosttune.Late{}, late...), Others: t.others(r.Boot)})
}

// others counts what other users have recorded of this boot.
func (t *tuner) others(boot string) (n int) {
	for _, r := range t.store.LoadOthers(boot) {
		n += len(r.Entries)
	}
	return n
}

// revertDocument is what `tune-host --revert --json` prints.
type revertDocument struct {
	Way     nsenter.Way     `json:"way"`
	Boot    string          `json:"boot_id"`
	Applied bool            `json:"applied"` // false with --dry-run
	Values  []hosttune.Undo `json:"values"`
	// PersistFile is what becomes of the file in /etc/sysctl.d: removed,
	// foreign (somebody changed it: left alone), or empty where there is none.
	PersistFile string `json:"persist_file,omitempty"`
	Others      int    `json:"recorded_by_others,omitempty"`
}

// revert is --revert.
func (t *tuner) revert(ctx context.Context) error {
	unlock, err := t.store.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	boot, err := hosttune.BootID(ctx, t.machine)
	if err != nil {
		return err
	}
	r, err := t.store.Load(boot)
	if err != nil {
		return err
	}
	r, file, err := hosttune.WithPersisted(ctx, t.machine, r)
	if err != nil {
		return err
	}
	list, err := hosttune.NewUndo(ctx, t.machine, r, t.sensors)
	if err != nil {
		return err
	}
	doc := revertDocument{Way: t.way, Boot: boot, Applied: !t.o.dryRun, Values: append([]hosttune.Undo{}, list...), Others: t.others(boot)}
	switch {
	case file.Foreign:
		doc.PersistFile = "foreign"
	case file.File:
		doc.PersistFile = "removed"
	}
	if t.o.dryRun {
		return t.printRevert(doc)
	}
	if file.File { // first, so that the values of its comments are there until they are recorded or restored
		err = t.removePersisted(ctx, r)
	}
	if err == nil {
		err = hosttune.Revert(ctx, t.machine, t.store, r, list)
	}
	if err != nil {
		return interrupted(ctx, err, "`zeekdemo tune-host --revert` again restores the rest")
	}
	return t.printRevert(doc)
}

// removePersisted keeps what the file alone tells before it goes.
func (t *tuner) removePersisted(ctx context.Context, r hosttune.Record) error {
	if err := t.store.Save(r); err != nil {
		return err
	}
	return persistHint(hosttune.RemovePersisted(ctx, t.machine))
}
