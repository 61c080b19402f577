package hosttune

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// The machine is tuned before the sensors are there, and they are afterwards.
// What runs already is tuned in the first half as well.
func TestAroundUp(t *testing.T) {
	s := newScene(t)
	there := s.engine.list
	s.engine.list, s.tuner.Sensors = nil, nil
	s.tuner.Sockets = func(Place, bool) (int, bool) {
		t.Error("sensors are asked before they may have been made anew")
		return 0, false
	}
	before, err := s.tuner.BeforeUp(t.Context())
	if err != nil || len(before.Changes) != 5 || !before.Applied || len(before.Late) != 0 || s.value(t, sensorMask) != "0" {
		t.Fatalf("before: %+v, %v", before, err)
	}
	s.engine.list = there
	s.tuner.Sockets = func(_ Place, proxy bool) (int, bool) { return map[bool]int{false: 212992, true: 64 << 20}[proxy], true }
	after, err := s.tuner.AfterUp(t.Context())
	if err != nil || settings(after.Changes) != "rps_cpus of eth1 rx-0 of the zeek" || len(after.Fine) != 6 || s.value(t, sensorMask) != "3" {
		t.Errorf("after: %+v, %v", after, err)
	}
	if len(after.Late) != 1 || !strings.HasPrefix(after.Late[0].Reason, "its socket has a buffer of 0.203 MiB") {
		t.Errorf("late: %v", after.Late)
	}
}

func TestBeforeUpTunesWhatRuns(t *testing.T) {
	s := newScene(t)
	doc, err := s.tuner.BeforeUp(t.Context())
	if err != nil || len(doc.Changes) != 6 || s.value(t, sensorMask) != "3" {
		t.Errorf("got %+v, %v", doc, err)
	}
	s = newScene(t)
	s.at(20, func() error { return errFault })
	if doc, err := s.tuner.BeforeUp(t.Context()); doc != nil || !errors.Is(err, errFault) {
		t.Errorf("got %+v, %v", doc, err)
	}
	s.whole(t, "failed")
}

// What was done before `up` stays when the second half fails.
func TestAfterUpFails(t *testing.T) {
	s := newScene(t)
	if _, err := s.tuner.BeforeUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.engine.listErr = errFault
	if doc, err := s.tuner.AfterUp(t.Context()); doc != nil || !errors.Is(err, errFault) || hint(err) != "" {
		t.Errorf("got %+v, %v, hint %q", doc, err, hint(err))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.tuner.AfterUp(ctx); hint(err) != "`zeekdemo tune-host` tunes the sensors" {
		t.Errorf("interrupted: %v, hint %q", err, hint(err))
	}
	if s.value(t, rmemMax) != "33554432" {
		t.Error("the first half was taken back")
	}
}

// A sensor that is new on a tuned machine is tuned as the others were, and
// nothing else is, also what has drifted.
func TestAgainAfterUp(t *testing.T) {
	s := newScene(t)
	o := s.byHelper(t)
	if changed, err := AgainAfterUp(t.Context(), s.engine, o); changed != nil || err != nil || len(s.engine.images) > 0 {
		t.Errorf("nothing was ever tuned: %v, %v, helpers of %v", changed, err, s.engine.images)
	}
	if _, err := s.tuner.Apply(t.Context(), Request{}); err != nil {
		t.Fatal(err)
	}
	if changed, err := AgainAfterUp(t.Context(), s.engine, o); changed != nil || err != nil || len(s.engine.images) > 0 {
		t.Errorf("no sensor is new: %v, %v, helpers of %v", changed, err, s.engine.images)
	}
	s.write(t, rmemMax, "300000")
	s.engine.list[0] = s.engine.restarted
	for run, want := range []string{"rps_cpus of eth1 rx-0 of the zeek", ""} {
		if changed, err := AgainAfterUp(t.Context(), s.engine, o); settings(changed) != want || err != nil || len(s.engine.images) != 1 {
			t.Errorf("run %d: %s, %v, helpers of %v", run, settings(changed), err, s.engine.images)
		}
	}
	if s.value(t, anotherMask) != "3" || s.value(t, rmemMax) != "300000" {
		t.Errorf("the sensor has %s, the machine %s", s.value(t, anotherMask), s.value(t, rmemMax))
	}
	if left, err := s.engine.Companions(t.Context(), orchestrate.HelperKind); len(left) != 0 || err != nil {
		t.Errorf("helpers are left: %v, %v", left, err)
	}
}

func TestAgainAfterUpFails(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*testing.T, *scene)
		want   string // empty where nothing is tried
	}{
		"the engine does not answer":  {func(_ *testing.T, s *scene) { s.engine.infoErr = errFault }, errFault.Error()},
		"nor say which sensors run":   {func(_ *testing.T, s *scene) { s.engine.listErr = errFault }, ""},
		"the machine was started new": {func(t *testing.T, s *scene) { s.write(t, bootID, strings.Replace(testBoot, "6", "7", 1)) }, ""},
		"it tells no boot": {func(t *testing.T, s *scene) {
			if err := os.Remove(s.root + bootID); err != nil {
				t.Fatal(err)
			}
		}, ""},
		"the settings are not its own": {func(t *testing.T, s *scene) {
			if err := os.Remove(s.root + rmemMax); err != nil {
				t.Fatal(err)
			}
		}, "net.core.rmem_max: it is not there"},
		"another one tunes":            {anotherTunes, "another zeekdemo is tuning right now"},
		"a record that cannot be read": {unreadableRecord, testRecord},
		"one of an earlier version that cannot be read": {func(t *testing.T, s *scene) {
			if err := os.WriteFile(s.own.File(testBoot), []byte("{"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, testRecord},
		"the engine does not show its machine": {func(_ *testing.T, s *scene) { s.engine.folderErr = errFault }, errFault.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			o := s.byHelper(t)
			if _, err := s.tuner.Apply(t.Context(), Request{}); err != nil {
				t.Fatal(err)
			}
			s.engine.list[0] = s.engine.restarted
			tt.change(t, s)
			o.Store = s.tuner.Store
			changed, err := AgainAfterUp(t.Context(), s.engine, o)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) || changed != nil {
				t.Errorf("got %v, %v", changed, err)
			}
			if s.value(t, anotherMask) != "0" {
				t.Error("the sensor is tuned")
			}
		})
	}
}

func TestStaysTuned(t *testing.T) {
	s := newScene(t)
	if StaysTuned(t.Context(), s.engine, s.own) {
		t.Error("nothing was tuned")
	}
	if _, err := s.tuner.Apply(t.Context(), Request{}); err != nil {
		t.Fatal(err)
	}
	if !StaysTuned(t.Context(), s.engine, s.own) {
		t.Error("it was tuned")
	}
	if another := (Store{Dir: t.TempDir()}); !StaysTuned(t.Context(), s.engine, another) {
		t.Error("another user has tuned it")
	}
	s.engine.list = nil
	if StaysTuned(t.Context(), s.engine, s.own) {
		t.Error("no sensor says which machine it is")
	}
}

// What `status` shows needs no privilege and no helper.
func TestGlance(t *testing.T) {
	s := newScene(t)
	if got := fmt.Sprintf("%+v", Glance(t.Context(), s.engine, s.own)); got != "&{Seen:true Tuned:false Recorded:false Summary:5 of 6 settings are not as wanted Sensors:map[zeek:false]}" {
		t.Errorf("untuned: %s", got)
	}
	if _, err := s.tuner.Apply(t.Context(), Request{}); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%+v", Glance(t.Context(), s.engine, s.own)); got != "&{Seen:true Tuned:true Recorded:true Summary:tuned Sensors:map[zeek:true]}" {
		t.Errorf("tuned: %s", got)
	}
	s.engine.list[0] = s.engine.restarted
	if got := Glance(t.Context(), s.engine, s.own); got == nil || got.Tuned || got.Sensors["zeek"] || !got.Recorded {
		t.Errorf("a new sensor: %+v", got)
	}
	if len(s.engine.images) > 0 {
		t.Errorf("helpers of %v", s.engine.images)
	}
	if err := os.Remove(s.root + rmemMax); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%+v", Glance(t.Context(), s.engine, s.own)); got != "&{Seen:false Tuned:false Recorded:true Summary:tuned by zeekdemo; how they stand now is not seen from here Sensors:map[]}" {
		t.Errorf("settings that no container shows: %s", got)
	}
	s.engine.list = nil
	if got := Glance(t.Context(), s.engine, s.own); got != nil {
		t.Errorf("no container to look from: %+v", got)
	}
	s.engine.listErr = errFault
	if got := Glance(t.Context(), s.engine, s.own); got != nil {
		t.Errorf("no engine: %+v", got)
	}
}
