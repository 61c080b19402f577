package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/hosttune"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// upTuning is the tuning around an `up`: the machine before it, so that new
// sensors open their sockets under the new limits, and their namespaces after
// it. Without --tune, what was tuned before is done for new sensors again.
type upTuning struct {
	app    *App
	engine orchestrate.Engine
	tuner  *tuner // nil without --tune
}

// tuneBeforeUp is the first half. Whatever it returns has to be closed.
func tuneBeforeUp(ctx context.Context, app *App, e orchestrate.Engine, wanted bool, s orchestrate.Settings) (*upTuning, error) {
	u := &upTuning{app: app, engine: e}
	if !wanted {
		return u, nil
	}
	t, err := openTuner(ctx, app, e, tuneOptions{via: string(nsenter.Auto), image: s.Images["zeek"]}, s.Pull)
	if err != nil {
		return u, err
	}
	u.tuner, t.beforeUp = t, true
	return u, t.tuneUp(ctx)
}

// after is the second half.
func (u *upTuning) after(ctx context.Context) error {
	if u.tuner == nil {
		u.again(ctx)
		return nil
	}
	if err := u.tuner.findSensors(ctx); err != nil {
		return err
	}
	u.tuner.beforeUp = false
	return u.tuner.tuneUp(ctx)
}

func (u *upTuning) close() error {
	if u.tuner == nil {
		return nil
	}
	return u.tuner.close()
}

// tuneUp applies what there is to apply, and tells it on standard error, for
// standard output is up's.
func (t *tuner) tuneUp(ctx context.Context) error {
	to := *t.app
	to.Out = t.app.Err
	told := *t
	told.app = &to
	return told.apply(ctx)
}

// again tunes the sensors that are new since the machine was tuned. The stack
// is up by then: what fails is told, and does not fail the command.
func (u *upTuning) again(ctx context.Context) {
	sensors, records := tunedBefore(ctx, u.app, u.engine)
	if len(records) == 0 {
		return
	}
	fresh := slices.DeleteFunc(slices.Clone(sensors), func(p hosttune.Place) bool {
		return slices.ContainsFunc(records, func(r hosttune.Record) bool { return r.Covers(p) })
	})
	if len(fresh) == 0 {
		return
	}
	if err := u.tuneSensors(ctx); err != nil {
		fmt.Fprintf(u.app.Err, "note: the new sensors are not tuned as the others were: %v\n", err)
	}
}

// tunedBefore returns the sensors that run, and what anybody has recorded of
// their machine since that was started. Where nothing was ever recorded, nothing
// is asked.
func tunedBefore(ctx context.Context, app *App, e orchestrate.Engine) ([]hosttune.Place, []hosttune.Record) {
	store, err := hosttune.UserStore(app.Getenv, os.Geteuid())
	if err != nil || len(store.All()) == 0 {
		return nil, nil
	}
	list, err := e.Containers(ctx, orchestrate.ProjectName)
	if err != nil {
		return nil, nil
	}
	sensors := hosttune.Sensors(list)
	boot := bootOf(ctx, e, sensors)
	return sensors, slices.DeleteFunc(store.All(), func(r hosttune.Record) bool { return boot == "" || r.Boot != boot || len(r.Entries) == 0 })
}

// bootOf asks a sensor for the boot ID of its machine; empty if none answers.
func bootOf(ctx context.Context, e orchestrate.Engine, sensors []hosttune.Place) string {
	for _, s := range sensors {
		var out bytes.Buffer
		code, err := e.Exec(ctx, s.Container, []string{"cat", "/proc/sys/kernel/random/boot_id"}, &out, &bytes.Buffer{})
		if err == nil && code == 0 {
			return strings.TrimSpace(out.String())
		}
	}
	return ""
}

// tuneSensors tunes the sensors' namespaces and nothing else.
func (u *upTuning) tuneSensors(ctx context.Context) error {
	t, err := openTuner(ctx, u.app, u.engine, tuneOptions{via: string(nsenter.Auto)}, orchestrate.PullNever)
	if err != nil {
		return err
	}
	unlock, err := t.store.Lock()
	if err != nil {
		return errors.Join(err, t.close())
	}
	defer unlock()
	changed, err := t.applySensors(ctx)
	if len(changed) > 0 {
		fmt.Fprintf(u.app.Err, "Tuned new sensors as before: %s changed (zeekdemo tune-host --status)\n", settings(len(changed)))
	}
	return errors.Join(err, t.close())
}

func (t *tuner) applySensors(ctx context.Context) ([]hosttune.Item, error) {
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

// tuningDocument is what `status --json` tells of the tuning.
type tuningDocument struct {
	Tuned    bool            `json:"tuned"`
	Recorded bool            `json:"recorded"` // by zeekdemo
	Summary  string          `json:"summary"`
	Sensors  map[string]bool `json:"sensors"` // whether each one's interface is tuned
}

// tuningStatus looks without any privilege; nil where it cannot be seen so.
func tuningStatus(ctx context.Context, app *App, e orchestrate.Engine) *tuningDocument {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // it is a side issue
	defer cancel()
	store, err := hosttune.UserStore(app.Getenv, os.Geteuid())
	if err != nil {
		return nil
	}
	list, err := e.Containers(ctx, orchestrate.ProjectName)
	if err != nil {
		return nil
	}
	m, err := nsenter.Peek(ctx, e)
	if err != nil {
		return nil
	}
	sensors := hosttune.Sensors(list)
	s, err := hosttune.Look(ctx, m, store, sensors)
	if err != nil || len(s.Lines) == 0 {
		return nil
	}
	doc := &tuningDocument{Tuned: s.Tuned, Recorded: s.Recorded, Summary: s.Summary(), Sensors: map[string]bool{}}
	for _, p := range sensors {
		doc.Sensors[p.Name] = s.In(p.Name)
	}
	return doc
}

// printTuning is the same in a line.
func printTuning(app *App, doc *tuningDocument) {
	if doc == nil {
		return
	}
	advice := ""
	if !doc.Tuned {
		advice = " (zeekdemo tune-host)"
	}
	fmt.Fprintf(app.Out, "\nThe kernel's limits on the packets' way: %s%s\n", doc.Summary, advice)
}
