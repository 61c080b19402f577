package hosttune

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/zeekdemo/zeekdemo/orchestrate"
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
	sensors, records := tunedBefore(ctx, engine, o.Store)
	isNew := func(p Place) bool {
		return !slices.ContainsFunc(records, func(r Record) bool { return r.Covers(p) })
	}
	if len(records) == 0 || !slices.ContainsFunc(sensors, isNew) {
		return nil, nil
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
	unlock, err := t.Store.Lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	p, err := t.plan(ctx)
	if err != nil {
		return nil, err
	}
	s, err := t.session(p)
	if err != nil {
		return nil, err
	}
	return s.Apply(ctx, p.In(false))
}

// StaysTuned reports whether anybody has tuned the machine of the sensors that
// run: it stays so when they are removed.
func StaysTuned(ctx context.Context, engine orchestrate.Engine, store Store) bool {
	_, records := tunedBefore(ctx, engine, store)
	return len(records) > 0
}

// tunedBefore returns the sensors that run, and what anybody has recorded of
// their machine since that was started. Where nothing was ever recorded, nothing
// is asked.
func tunedBefore(ctx context.Context, engine orchestrate.Engine, store Store) ([]Place, []Record) {
	records := store.All()
	if len(records) == 0 {
		return nil, nil
	}
	list, err := engine.Containers(ctx, orchestrate.ProjectName)
	if err != nil {
		return nil, nil
	}
	sensors := Sensors(list)
	boot := bootOf(ctx, engine, sensors)
	return sensors, slices.DeleteFunc(records, func(r Record) bool { return boot == "" || r.Boot != boot || len(r.Entries) == 0 })
}

// bootOf asks a sensor for the boot ID of its machine; empty if none answers.
func bootOf(ctx context.Context, engine orchestrate.Engine, sensors []Place) string {
	for _, s := range sensors {
		var out bytes.Buffer
		code, err := engine.Exec(ctx, s.Container, []string{"cat", bootID}, &out, io.Discard)
		if err == nil && code == 0 {
			return strings.TrimSpace(out.String())
		}
	}
	return ""
}
