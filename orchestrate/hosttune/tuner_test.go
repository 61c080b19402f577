package hosttune

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

func TestOpen(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*scene, *Options)
		image  string // of the helper
		err    string
		hint   string
	}{
		"of the sensors' image":      {func(*scene, *Options) {}, "zeek:here", "", ""},
		"of another one":             {func(_ *scene, o *Options) { o.Image = "other:1" }, "other:1", "", ""},
		"of what up would use":       {func(s *scene, o *Options) { s.engine.list, o.UpImage = nil, "zeek:up" }, "zeek:up", "", ""},
		"of nothing":                 {func(s *scene, _ *Options) { s.engine.list = nil }, "", "no stack is here", "start one with"},
		"without an engine":          {func(s *scene, _ *Options) { s.engine.infoErr = errFault }, "", errFault.Error(), "start the engine"},
		"without knowing sensors":    {func(s *scene, _ *Options) { s.engine.listErr = errFault }, "", errFault.Error(), ""},
		"without asking for offload": {func(_ *scene, o *Options) { o.Program = noProgram }, "zeek:here", "", ""},
		"for an interface":           {func(_ *scene, o *Options) { o.Program, o.Interfaces = noProgram, []string{"ens5"} }, "", "no program for riscv64", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			o := s.byHelper(t)
			tt.change(s, &o)
			tuner, err := Open(t.Context(), s.engine, o)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.HasPrefix(hint(err), tt.hint) || len(s.engine.images) > 0 {
					t.Errorf("got %v, hint %q, helpers of %v", err, hint(err), s.engine.images)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tuner.Way != nsenter.Helper || tuner.Sockets != nil || tuner.EngineID != "fake" || len(tuner.Sensors) != len(s.engine.list) {
				t.Errorf("got %+v", tuner)
			}
			if doc, err := tuner.Plan(t.Context()); err != nil || len(doc.Changes) != 5+len(s.engine.list) {
				t.Errorf("plan: %+v, %v", doc, err)
			}
			if err := tuner.Close(); err != nil || s.engine.images[0] != tt.image {
				t.Errorf("closed: %v, helpers of %v", err, s.engine.images)
			}
			if left, _ := s.engine.Companions(t.Context(), orchestrate.HelperKind); len(left) != 0 {
				t.Errorf("helpers are left: %v", left)
			}
		})
	}
}

// Whether the helper needs the program for interfaces shows in the record only,
// which it is who reads: then there is a second one.
func TestOpenForInterfacesThatAreRecorded(t *testing.T) {
	s := newScene(t)
	o := s.byHelper(t)
	r := Record{Boot: testBoot, Interfaces: []string{"ens5"}, Entries: []Entry{entryOf("/ethtool/ens5/rx-gro", 1, "on", "off")}}
	if err := s.store.Save(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	o.Program = noProgram
	if _, err := Open(t.Context(), s.engine, o); err == nil || !strings.Contains(err.Error(), "no program for riscv64") {
		t.Errorf("got %v", err)
	}
	o.Program = func(orchestrate.EngineInfo) (string, error) { return "/bin/true", nil }
	tuner, err := Open(t.Context(), s.engine, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := tuner.Close(); err != nil || !slices.Equal(s.engine.programs, []string{"", "", "/bin/true"}) {
		t.Errorf("%v, helpers with %q", err, s.engine.programs)
	}
	if left, _ := s.engine.Companions(t.Context(), orchestrate.HelperKind); len(left) != 0 {
		t.Errorf("helpers are left: %v", left)
	}
}

func noProgram(info orchestrate.EngineInfo) (string, error) {
	return "", errors.New("no program for " + info.Arch)
}

func TestOpenInterrupted(t *testing.T) {
	s := newScene(t)
	o := s.byHelper(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.engine.listErr = context.Canceled
	if _, err := Open(ctx, s.engine, o); !errors.Is(err, context.Canceled) || hint(err) != "nothing was changed" {
		t.Errorf("got %v, hint %q", err, hint(err))
	}
}

// Who says that this machine is meant needs no engine.
func TestOpenWithoutAnEngine(t *testing.T) {
	s := newScene(t)
	s.engine.infoErr, s.engine.hostErr = errors.New("no engine"), errors.New("no engine")
	var notes []string
	tuner, err := Open(t.Context(), s.engine, Options{Way: nsenter.Direct, Store: s.own, Observer: Observer{Note: func(text string) { notes = append(notes, text) }}})
	if os.Geteuid() != 0 {
		if err == nil || !strings.Contains(err.Error(), "only root may") || !strings.Contains(hint(err), "--reach helper") {
			t.Errorf("got %v, hint %q", err, hint(err))
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if tuner.Way != nsenter.Direct || tuner.Sockets == nil || tuner.EngineID != "" || len(notes) != 1 || notes[0] != "this machine alone, without sensors: no engine" {
		t.Errorf("got %+v, notes %q", tuner, notes)
	}
	if err := tuner.Close(); err != nil {
		t.Error(err)
	}
}

// status, at each stage of a tuning.
func TestTunersStatus(t *testing.T) {
	s := newScene(t)
	doc, err := s.tuner.Status(t.Context())
	if err != nil || doc.Way != nsenter.Helper || doc.Boot != testBoot || doc.Tuned || doc.Recorded || doc.Late == nil || len(doc.Late) != 0 {
		t.Errorf("untuned: %+v, %v", doc, err)
	}
	if _, err := s.tuner.Apply(t.Context(), Request{Persist: true}); err != nil {
		t.Fatal(err)
	}
	doc, err = s.tuner.Status(t.Context())
	if err != nil || !doc.Tuned || !doc.Recorded || !doc.Persisted || len(doc.Late) != 1 || doc.Record.Boot != testBoot {
		t.Errorf("tuned: %+v, %v", doc, err)
	}
	before := s.values(t)
	for number := range 2 { // the plan's first look, and the last one: at who is late
		s.tuner.Machine = s.machine()
		s.tuner.Machine.(*hooked).hook = func(_ string, paths ...string) error {
			if number == 0 && paths[0] == bootID || number == 1 && strings.HasSuffix(paths[0], "/stat") {
				return errFault
			}
			return nil
		}
		if doc, err := s.tuner.Status(t.Context()); doc != nil || !errors.Is(err, errFault) {
			t.Errorf("%d: got %+v, %v", number, doc, err)
		}
	}
	if changed := changes(before, s.values(t)); len(changed) > 0 {
		t.Errorf("status has changed %v", changed)
	}
}

func TestRevert(t *testing.T) {
	s := newScene(t)
	if _, err := s.tuner.Apply(t.Context(), Request{Persist: true}); err != nil {
		t.Fatal(err)
	}
	tuned := s.values(t)
	plan, err := s.tuner.PlanRevert(t.Context())
	if err != nil || plan.Applied || len(plan.Values) != 7 || plan.PersistFile != "removed" || plan.Boot != testBoot {
		t.Errorf("plan: %+v, %v", plan, err)
	}
	if changed := changes(tuned, s.values(t)); len(changed) > 0 {
		t.Errorf("the plan has changed %v", changed)
	}
	doc, err := s.tuner.Revert(t.Context())
	if err != nil || !doc.Applied || len(doc.Values) != 7 || doc.PersistFile != "removed" || doc.Way != nsenter.Helper {
		t.Errorf("got %+v, %v", doc, err)
	}
	s.whole(t, "taken back")
	doc, err = s.tuner.Revert(t.Context())
	if err != nil || doc.Values == nil || len(doc.Values) != 0 || doc.PersistFile != "" {
		t.Errorf("a second time: %+v, %v", doc, err)
	}
}

// What somebody else changed since is left alone, the file as well.
func TestRevertLeavesAlone(t *testing.T) {
	s := newScene(t)
	if _, err := s.tuner.Apply(t.Context(), Request{Persist: true}); err != nil {
		t.Fatal(err)
	}
	s.write(t, PersistFile, s.value(t, PersistFile)+"\nnet.a = 1")
	s.write(t, rmemMax, "50000000")
	doc, err := s.tuner.Revert(t.Context())
	if err != nil || doc.PersistFile != "foreign" || len(doc.Values) != 6 {
		t.Fatalf("got %+v, %v", doc, err)
	}
	for _, u := range doc.Values {
		if want := map[bool]Fate{true: Foreign, false: Restore}[u.Path == rmemMax]; u.Fate != want {
			t.Errorf("%s: %s, want %s", u.Setting, u.Fate, want)
		}
	}
	if _, err := os.Stat(s.root + PersistFile); err != nil || s.value(t, rmemMax) != "50000000" {
		t.Errorf("not left alone: %v, %v", err, s.values(t))
	}
}

// Failed or interrupted before any read or write, taking back can be repeated,
// and nothing is lost.
func TestRevertCanBeRepeated(t *testing.T) {
	for _, interrupt := range []bool{false, true} {
		hints := map[string]int{}
		for number := 0; ; number++ {
			s := newScene(t)
			if _, err := s.tuner.Apply(t.Context(), Request{Persist: true}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			seen := s.at(number, func() error {
				if interrupt {
					cancel()
					return nil
				}
				return errFault
			})
			doc, err := s.tuner.Revert(ctx)
			cancel()
			if err == nil && *seen <= number { // it was done before
				if number < 15 {
					t.Errorf("only %d operations", number)
				}
				break
			}
			if err != nil {
				hints[hint(err)]++
			}
			if (err == nil) != (doc != nil) {
				t.Errorf("operation %d: %+v, %v", number, doc, err)
			}
			if _, err := s.tuner.Revert(t.Context()); err != nil {
				t.Errorf("operation %d, and again: %v", number, err)
			}
			s.whole(t, fmt.Sprintf("operation %d, and again", number))
		}
		if n := hints["`zeekdemo tune-host --revert` again restores the rest"]; interrupt != (n > 0) {
			t.Errorf("interrupted %v: hints %v", interrupt, hints)
		}
	}
}

func TestRevertNeedsTheRecord(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*testing.T, *scene)
		want   string
	}{
		"another one tunes":            {anotherTunes, "another zeekdemo is tuning right now"},
		"a record that cannot be read": {unreadableRecord, testRecord},
		"no boot": {func(t *testing.T, s *scene) {
			if err := os.Remove(s.root + bootID); err != nil {
				t.Fatal(err)
			}
		}, "tells no ID"},
		"what the file tells cannot be recorded": {unwritableRecord, "record what is changed"},
		"the file cannot be removed": {func(_ *testing.T, s *scene) {
			h := s.machine()
			h.hook = func(operation string, paths ...string) error {
				if operation == "write" && paths[0] == PersistFile {
					return errFault
				}
				return nil
			}
			s.tuner.Machine = h
		}, errFault.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			if _, err := s.tuner.Apply(t.Context(), Request{Persist: true}); err != nil {
				t.Fatal(err)
			}
			tt.change(t, s)
			tuned := s.values(t)
			doc, err := s.tuner.Revert(t.Context())
			if doc != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v", doc, err)
			}
			if changed := changes(tuned, s.values(t)); len(changed) > 0 {
				t.Errorf("changed are %v", changed)
			}
		})
	}
}

// A sensor that ends while its start is looked for needs no restart.
func TestStatusOfASensorThatHasGone(t *testing.T) {
	s := newScene(t)
	if _, err := s.tuner.Apply(t.Context(), Request{}); err != nil {
		t.Fatal(err)
	}
	s.tuner.Sensors[0].Started = sensor.Started.Add(time.Hour)
	if err := os.Remove(s.root + "/proc/42/stat"); err != nil {
		t.Fatal(err)
	}
	if doc, err := s.tuner.Status(t.Context()); err != nil || len(doc.Late) != 0 {
		t.Errorf("got %+v, %v", doc, err)
	}
}
