package hosttune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// Files of the scene that a whole tuning changes.
const (
	rmemMax     = "/proc/sys/net/core/rmem_max"
	sensorMask  = "/42/sys/class/net/eth1/queues/rx-0/rps_cpus"
	anotherMask = "/43/sys/class/net/eth1/queues/rx-0/rps_cpus"
)

func TestPlanChangesNothing(t *testing.T) {
	s := newScene(t)
	doc, err := s.tuner.Plan(t.Context())
	if err != nil || doc.Applied || doc.Way != nsenter.Helper || doc.Boot != testBoot || len(doc.Changes) != 6 || len(doc.Fine) != 1 || doc.Late == nil {
		t.Errorf("got %+v, %v", doc, err)
	}
	s.whole(t, "planned")
}

// The machine first, then the sensors: what is late is named, and the record
// has what was before.
func TestApply(t *testing.T) {
	s := newScene(t)
	doc, err := s.tuner.Apply(t.Context(), Request{})
	if err != nil {
		t.Fatal(err)
	}
	if got := settings(doc.Changes); !strings.HasPrefix(got, "net.core.rmem_max of the host, ") || !strings.HasSuffix(got, "rps_cpus of eth1 rx-0 of the zeek") {
		t.Errorf("changed: %s", got)
	}
	if len(doc.Changes) != 6 || settings(doc.Fine) != "net.core.wmem_max of the host" || !doc.Applied {
		t.Errorf("got %+v", doc)
	}
	if len(doc.Late) != 1 || doc.Late[0].Reason != "it was started before net.core.rmem_max was raised" || doc.Restarted != nil || len(s.events) > 0 {
		t.Errorf("late %+v, restarted %v, events %v", doc.Late, doc.Restarted, s.events)
	}
	if _, err := os.Stat(s.root + doc.Record); doc.Record != s.store.File(testBoot) || err != nil || doc.Persisted != "" {
		t.Errorf("record %q, %v, persisted %q", doc.Record, err, doc.Persisted)
	}
	if s.value(t, rmemMax) != "33554432" || s.value(t, sensorMask) != "3" {
		t.Errorf("set: %v", s.values(t))
	}
	if r, _ := s.store.Load(t.Context(), testBoot); r.Engine != "fake" || len(r.Entries) != 6 {
		t.Errorf("recorded: %+v", r)
	}
	again, err := s.tuner.Apply(t.Context(), Request{})
	if err != nil || len(again.Changes) != 0 || len(again.Fine) != 7 || again.Record == "" {
		t.Errorf("a second time: %+v, %v", again, err)
	}
}

// Sensors that are late are restarted and get a new namespace, which is planned
// again and tuned.
func TestApplyRestartsLateSensors(t *testing.T) {
	s := newScene(t)
	doc, err := s.tuner.Apply(t.Context(), Request{RestartSensors: true, Persist: true})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(doc.Restarted, []string{"zeek"}) || doc.Late == nil || len(doc.Late) != 0 {
		t.Errorf("restarted %v, late %v", doc.Restarted, doc.Late)
	}
	if want := []string{"Sensor zeek: Restarting", "Sensor zeek: Restarted"}; !slices.Equal(s.events, want) {
		t.Errorf("events %v", s.events)
	}
	if s.value(t, sensorMask) != "0" || s.value(t, anotherMask) != "3" {
		t.Error("not the namespace of the sensor that runs now is tuned")
	}
	if got := s.value(t, PersistFile); doc.Persisted != PersistFile || !strings.Contains(got, "net.core.rmem_max = 33554432") {
		t.Errorf("persisted %q: %s", doc.Persisted, got)
	}
	again, err := s.tuner.Apply(t.Context(), Request{RestartSensors: true})
	if err != nil || again.Restarted != nil || len(s.events) != 2 {
		t.Errorf("a second time: %+v, %v, events %v", again, err, s.events)
	}
}

var everything = Request{RestartSensors: true, Persist: true}

// operations is how many reads and writes a tuning with everything takes, and
// what it leaves.
func operations(t *testing.T) (int, map[string]string) {
	t.Helper()
	s := newScene(t)
	seen := s.at(-1, nil)
	if _, err := s.tuner.Apply(t.Context(), everything); err != nil || *seen < 25 {
		t.Fatalf("%d operations, %v", *seen, err)
	}
	return *seen, s.values(t)
}

// A read or a write that fails, whichever it is, takes everything back. Only
// where a value cannot be read before it is set, it is set nevertheless.
func TestApplyTakesEverythingBackWhereAnythingFails(t *testing.T) {
	count, done := operations(t)
	survived := 0
	for number := range count {
		s := newScene(t)
		var failed string
		s.at(number, func() error { return errFault })
		s.tuner.Machine.(*hooked).told = &failed
		doc, err := s.tuner.Apply(t.Context(), everything)
		if err == nil {
			survived++
			if changed := changes(done, s.values(t)); len(changed) > 0 || doc == nil || failed != "read" {
				t.Errorf("operation %d fails, a %s: %+v, not done are %v", number, failed, doc, changed)
			}
			continue
		}
		if !errors.Is(err, errFault) || doc != nil || hint(err) != "" {
			t.Errorf("operation %d fails: %+v, %v, hint %q", number, doc, err, hint(err))
		}
		s.whole(t, fmt.Sprintf("operation %d failed", number))
	}
	if values := 6; survived != values {
		t.Errorf("%d failures did not matter, want one for each of %d values", survived, values)
	}
}

// Interrupted before any read or write, everything is taken back, and that is
// said.
func TestApplyTakesEverythingBackWhenInterrupted(t *testing.T) {
	hints := map[string]int{}
	count, _ := operations(t)
	for number := range count {
		s := newScene(t)
		ctx, cancel := context.WithCancel(t.Context())
		s.at(number, func() error { cancel(); return nil })
		doc, err := s.tuner.Apply(ctx, everything)
		cancel()
		if !errors.Is(err, context.Canceled) || doc != nil {
			t.Errorf("interrupted at operation %d: %+v, %v", number, doc, err)
		}
		hints[hint(err)]++
		s.whole(t, fmt.Sprintf("interrupted at operation %d", number))
	}
	if planning := 3; hints["nothing was changed"] != planning || hints["what was changed was put back"] < 20 || len(hints) != 2 {
		t.Errorf("hints: %v", hints)
	}
}

// A sensor that cannot be restarted is told, and fails the call; the tuning
// stays.
func TestApplyStaysWhereASensorCannotBeRestarted(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*scene)
		want   string
		events int
	}{
		"the engine does not":       {func(s *scene) { s.engine.restartErr = errors.New("no space left") }, "restart sensor zeek: no space left", 2},
		"this kind of engine":       {func(s *scene) { s.tuner.Engine = struct{ orchestrate.Engine }{s.engine} }, "restart the sensors: this engine cannot", 0},
		"no such sensor any more":   {func(s *scene) { s.tuner.Sensors[0].Name = "zeek-novel" }, "restart sensor zeek-novel", 2},
		"nor asked which there are": {func(s *scene) { s.engine.onExec = func() { s.engine.listErr = errFault } }, errFault.Error(), 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			tt.change(s)
			doc, err := s.tuner.Apply(t.Context(), Request{RestartSensors: true})
			if err == nil || !strings.Contains(err.Error(), tt.want) || doc == nil {
				t.Fatalf("got %+v, %v", doc, err)
			}
			if len(doc.Late)+len(doc.Restarted) != 1 || len(s.events) != tt.events || s.value(t, rmemMax) != "33554432" {
				t.Errorf("late %v, restarted %v, events %v", doc.Late, doc.Restarted, s.events)
			}
		})
	}
}

// A sensor that does not listen again is waited for until the user has enough;
// then everything is taken back.
func TestInterruptedWhileASensorDoesNotListen(t *testing.T) {
	s := newScene(t)
	s.write(t, "/43/proc/net/udp", "")
	s.before = s.values(t)
	ctx, cancel := context.WithCancel(t.Context())
	looks := 0
	s.engine.onExec = func() {
		if looks++; looks == 2 {
			cancel()
		}
	}
	doc, err := s.tuner.Apply(ctx, Request{RestartSensors: true})
	if doc != nil || err == nil || !strings.Contains(err.Error(), "restart sensor zeek: context canceled") || hint(err) != "what was changed was put back" {
		t.Errorf("got %+v, %v, hint %q", doc, err, hint(err))
	}
	if want := []string{"Sensor zeek: Restarting", "Sensor zeek: Failed"}; !slices.Equal(s.events, want) {
		t.Errorf("events %v", s.events)
	}
	s.whole(t, "interrupted")
}

// What is not to be written is said with what to do about it.
func TestApplySaysWhatToDo(t *testing.T) {
	refuse := func(path string) func(*testing.T, *scene) {
		return func(_ *testing.T, s *scene) {
			h := s.machine()
			h.hook = func(operation string, paths ...string) error {
				if operation == "write" && paths[0] == path {
					return fs.ErrPermission
				}
				return nil
			}
			s.tuner.Machine = h
		}
	}
	for name, tt := range map[string]struct {
		change func(*testing.T, *scene)
		hint   string
	}{
		"a file of somebody else's": {func(t *testing.T, s *scene) {
			if err := os.WriteFile(s.root+PersistFile, []byte("net.core.rmem_max = 1\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			s.before = s.values(t)
		}, "remove or rename it"},
		"a folder that may not be written":  {refuse(PersistFile), "leave out --persist"},
		"settings that may not be written":  {refuse(rmemMax), "may not change its machine: run zeekdemo as root on that machine, with --reach direct"},
		"the sensor's that may not be, too": {refuse("/sys/class/net/eth1/queues/rx-0/rps_cpus"), "with --reach direct"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			tt.change(t, s)
			doc, err := s.tuner.Apply(t.Context(), Request{Persist: true})
			if doc != nil || !strings.Contains(hint(err), tt.hint) {
				t.Errorf("got %+v, %v, hint %q", doc, err, hint(err))
			}
			s.whole(t, "refused")
		})
	}
}

// What cannot be recorded is not changed.
func TestApplyNeedsARecord(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*testing.T, *scene)
		want   string
	}{
		"another one tunes":               {anotherTunes, "another zeekdemo is tuning right now"},
		"a record that cannot be read":    {unreadableRecord, testRecord},
		"a record that cannot be written": {unwritableRecord, "record what is changed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			tt.change(t, s)
			doc, err := s.tuner.Apply(t.Context(), Request{})
			if doc != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v", doc, err)
			}
			if now := s.values(t)[rmemMax]; now != "212992" {
				t.Errorf("changed without a record: %s", now)
			}
		})
	}
}

const testRecord = "tuning-" + testBoot + ".json"
