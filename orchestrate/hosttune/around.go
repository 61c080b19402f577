package hosttune

import (
	"context"
	"errors"
	"slices"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// BeforeUp is the first half of a tuning around an `up`: the machine, so that
// new sensors open their sockets under the new limits, and what runs already.
// Whether a sensor has to be restarted is left to [Tuner.AfterUp]: it may be
// another one by then.
func (t *Tuner) BeforeUp(ctx context.Context) (*TuneDocument, error) {
	return t.apply(ctx, func(tx *transaction) error { return tx.setSensors(ctx) })
}

// AfterUp is the second half: the namespaces of the sensors that run now.
func (t *Tuner) AfterUp(ctx context.Context) (*TuneDocument, error) {
	if err := t.findSensors(ctx); err != nil {
		return nil, whenInterrupted(ctx, err, "`zeekdemo tune-host` tunes the sensors")
	}
	return t.Apply(ctx, Request{})
}

// AgainAfterUp is for an `up` without tuning, on a machine that was tuned
// before: it tunes the sensors that are new since then as the others were,
// their namespaces and nothing else, and returns what it changed. Where nothing
// was tuned, or no sensor is new, nothing is opened.
func AgainAfterUp(ctx context.Context, engine orchestrate.Engine, o Options) ([]Item, error) {
	sensors, before, err := tunedBefore(ctx, engine, o.Store)
	isNew := func(p Place) bool { return !before.Covers(p) }
	if err != nil || len(before.Entries) == 0 || !slices.ContainsFunc(sensors, isNew) {
		return nil, err
	}
	t, err := Open(ctx, engine, o)
	if err != nil {
		return nil, err
	}
	changed, err := t.tuneSensors(ctx)
	return changed, errors.Join(err, t.Close())
}

// tuneSensors tunes the sensors' namespaces and nothing else.
func (t *Tuner) tuneSensors(ctx context.Context) ([]Item, error) {
	records, unlock, err := t.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	p, err := t.plan(ctx)
	if err != nil {
		return nil, err
	}
	s, err := t.session(ctx, records, p)
	if err != nil {
		return nil, err
	}
	return s.Apply(ctx, p.In(false))
}

// StaysTuned reports whether anybody has tuned the machine of the sensors that
// run: it stays so when they are removed.
func StaysTuned(ctx context.Context, engine orchestrate.Engine, store Store) bool {
	_, before, err := tunedBefore(ctx, engine, store)
	return err != nil || len(before.Entries) > 0
}

// tunedBefore returns the sensors that run, and what is recorded of their machine
// since that was started, as far as it can be seen without any privilege and
// without a helper container. Without sensors there is nothing to see. Its error
// is a record that cannot be read.
func tunedBefore(ctx context.Context, engine orchestrate.Engine, store Store) ([]Place, Record, error) {
	ctx, cancel := context.WithTimeout(ctx, glanceLimit)
	defer cancel()
	list, err := engine.Containers(ctx, orchestrate.ProjectName)
	sensors := Sensors(list)
	if err != nil || len(sensors) == 0 {
		return nil, Record{}, nil
	}
	r, err := recordOf(ctx, nsenter.Peek(ctx, engine, list), store)
	return sensors, r, err
}

// recordOf returns what is recorded of a machine's present boot; nothing where it
// tells none.
func recordOf(ctx context.Context, m Machine, store Store) (Record, error) {
	boot, err := BootID(ctx, m)
	if err != nil {
		return Record{}, nil
	}
	return (&machineRecords{machine: m, client: store}).Load(ctx, boot)
}
