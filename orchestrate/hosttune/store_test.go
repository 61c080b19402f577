package hosttune

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

func TestWhereAClientKeepsRecords(t *testing.T) {
	for _, tt := range []struct {
		xdg, home string
		euid      int
		want      string
	}{
		{"/x/state", "/home/u", 1000, "/x/state/zeekdemo"},
		{"/x/state", "/root", 0, "/x/state/zeekdemo"},
		{"relative", "/home/u", 1000, "/home/u/.local/state/zeekdemo"}, // to be ignored, says the specification
		{"", "/home/u", 1000, "/home/u/.local/state/zeekdemo"},
		{"", "/root", 0, "/var/lib/zeekdemo"},
		{"", "", 1000, ""},
	} {
		s := UserStore(func(name string) string { return map[string]string{"XDG_STATE_HOME": tt.xdg, "HOME": tt.home}[name] }, tt.euid)
		if s.Dir != tt.want {
			t.Errorf("%+v: got %q", tt, s.Dir)
		}
	}
	if r, err := (Store{}).Load(t.Context(), testBoot); err != nil || len(r.Entries) > 0 {
		t.Errorf("of nowhere: %v, %v", r, err)
	}
	if _, err := (Store{}).lock(); err == nil || !strings.Contains(err.Error(), "neither HOME nor XDG_STATE_HOME is set") {
		t.Errorf("lock nothing: %v", err)
	}
}

// entryOf is an entry about a value of the machine, or of the sensor's interface.
func entryOf(path string, at float64, before string, set ...string) Entry {
	e := Entry{Path: path, Kind: number, At: at, Before: before, Set: set}
	switch {
	case strings.HasPrefix(path, nsenter.FeatureFolder):
		e.Kind = feature
	case strings.HasSuffix(path, "/rps_cpus"):
		e.Kind = mask
	}
	return e
}

const wmemMax = "/proc/sys/net/core/wmem_max"

// places keep one text as a record, each in its own way; both trust the same.
func places(t *testing.T, text string) map[string]Records {
	t.Helper()
	machine, client := t.TempDir(), Store{Dir: t.TempDir()}
	for _, file := range []string{machine + (&machineRecords{}).File(testBoot), client.File(testBoot)} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return map[string]Records{"machine": &machineRecords{machine: nsenter.Tree(machine)}, "client": client}
}

func TestRecordsThatAreNotTrusted(t *testing.T) {
	const number, mask = `{"path":"/proc/sys/net/core/rmem_max","kind":"number","before":"1","set":["2"]}`, `{"path":"/sys/class/net/lo/queues/rx-0/rps_cpus","kind":"mask","before":"0","set":["3"]}`
	const feature = `{"path":"/ethtool/ens5/rx-gro","kind":"feature","before":"on","set":["off"]}`
	good := `{"boot_id":"` + testBoot + `","interfaces":["ens5"],"entries":[` + strings.Join([]string{number, mask, feature}, ",") + `]}`
	for name, text := range map[string]string{
		"half of one":                    good[:len(good)/2],
		"another boot's":                 strings.Replace(good, testBoot, "b", 1),
		"another file":                   strings.Replace(good, "/proc/sys/net/core/rmem_max", "/etc/shadow", 1),
		"another setting":                strings.Replace(good, "rmem_max", "bpf_jit_enable", 1),
		"another number":                 strings.Replace(good, `"before":"1"`, `"before":"1; reboot"`, 1),
		"another number that was set":    strings.Replace(good, `["2"]`, `["-2"]`, 1),
		"another kind":                   strings.Replace(good, `"kind":"number"`, `"kind":"feature"`, 1),
		"no kind":                        strings.Replace(good, `"kind":"number",`, "", 1),
		"a way out of /sys":              strings.Replace(good, "net/lo/", "net/../", 1),
		"another interface's":            strings.Replace(good, "net/lo/", "net/a/b/", 1),
		"no mask":                        strings.Replace(good, `"before":"0"`, `"before":"x"`, 1),
		"a feature that is not set":      strings.Replace(good, "rx-gro", "rx-checksum", 1),
		"a feature of many interfaces":   strings.Replace(good, "/ethtool/ens5/", "/ethtool/*/", 1),
		"a feature deeper down":          strings.Replace(good, "/ethtool/ens5/", "/ethtool/ens5/x/", 1),
		"a feature that is a bit on":     strings.Replace(good, `"before":"on"`, `"before":"on [fixed]"`, 1),
		"a pattern instead of interface": strings.Replace(good, `["ens5"]`, `["e*"]`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			for place, records := range places(t, text) {
				if r, err := records.Load(t.Context(), testBoot); err == nil || !strings.Contains(err.Error(), testRecord) || len(r.Entries) > 0 {
					t.Errorf("%s: got %v, %v", place, r, err)
				}
			}
		})
	}
	for place, records := range places(t, good) {
		if r, err := records.Load(t.Context(), testBoot); err != nil || len(r.Entries) != 3 {
			t.Errorf("%s: got %v, %v", place, r, err)
		}
		if _, err := records.Load(t.Context(), "../../etc/passwd"); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: got %v", place, err)
		}
		if err := records.Save(t.Context(), Record{Boot: "../x"}); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: got %v", place, err)
		}
	}
}

// What others could have written is as if it were not there, and is not removed.
func TestAClientsRecordThatOthersCanWrite(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	if err := s.Save(t.Context(), Record{Boot: testBoot, Entries: []Entry{entryOf(rmemMax, 1, "1", "2")}}); err != nil {
		t.Fatal(err)
	}
	for _, open := range []string{s.Dir, s.File(testBoot)} {
		was, err := os.Stat(open)
		if err == nil {
			err = os.Chmod(open, 0o777)
		}
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Load(t.Context(), testBoot)
		if err != nil || len(r.Entries) > 0 {
			t.Errorf("%s: got %v, %v", open, r, err)
		}
		if err := s.forget(testBoot); err != nil {
			t.Error(err)
		}
		if err := os.Chmod(open, was.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := s.Load(t.Context(), testBoot); err != nil || len(r.Entries) != 1 {
		t.Errorf("got %v, %v", r, err)
	}
}

// Values do not outlive a boot. A client's folder has the records of several
// machines, so that of an earlier boot of the same engine's goes; a machine's own
// folder has its own alone.
func TestEarlierBootsAreForgotten(t *testing.T) {
	entries := []Entry{entryOf(rmemMax, 1, "1", "2")}
	root := t.TempDir()
	client := Store{Dir: t.TempDir()}
	for name, tt := range map[string]struct {
		records Records
		folder  string
		left    []string
	}{
		"client":  {client, client.Dir, []string{"tuning-b2.json", "tuning-b3.json", "tuning-b4.json"}},
		"machine": {&machineRecords{machine: nsenter.Tree(root)}, root + nsenter.RecordFolder, []string{"tuning-b4.json"}},
	} {
		t.Run(name, func(t *testing.T) {
			for boot, engine := range map[string]string{"b1": "engine", "b2": "another", "b3": "", "b4": "engine"} {
				if boot != "b4" {
					if err := tt.records.Save(t.Context(), Record{Boot: boot, Engine: engine, Entries: entries}); err != nil {
						t.Fatal(err)
					}
				}
			}
			r, err := tt.records.Load(t.Context(), "b4")
			r.Engine, r.Entries = "engine", entries
			if err := errors.Join(err, tt.records.Save(t.Context(), r)); err != nil {
				t.Fatal(err)
			}
			var left []string
			files, _ := os.ReadDir(tt.folder)
			for _, f := range files {
				left = append(left, f.Name())
			}
			if !slices.Equal(left, tt.left) {
				t.Errorf("left %v, want %v", left, tt.left)
			}
		})
	}
}

// Two records of one boot, as two users of earlier versions left them.
func TestNothingOfTwoRecordsIsLost(t *testing.T) {
	for name, tt := range map[string]struct {
		one, other Entry
		want       Entry
	}{
		"one after the other":                {entryOf(rmemMax, 1, "1", "2"), entryOf(rmemMax, 5, "2", "3"), entryOf(rmemMax, 5, "1", "3", "2")},
		"the same":                           {entryOf(rmemMax, 1, "1", "2"), entryOf(rmemMax, 1, "1", "2"), entryOf(rmemMax, 1, "1", "2")},
		"somebody changed it between":        {entryOf(rmemMax, 1, "1", "2"), entryOf(rmemMax, 5, "7", "2"), entryOf(rmemMax, 5, "7", "2")},
		"one that was set again by the same": {entryOf(rmemMax, 1, "1", "2", "3"), entryOf(rmemMax, 5, "3", "2"), entryOf(rmemMax, 5, "1", "2", "3")},
	} {
		t.Run(name, func(t *testing.T) {
			for _, order := range [][]Entry{{tt.one, tt.other}, {tt.other, tt.one}} {
				got := Record{Entries: order[:1]}.merge(Record{Entries: order[1:]})
				if fmt.Sprint(got.Entries) != fmt.Sprint([]Entry{tt.want}) {
					t.Errorf("got %v, want %v", got.Entries, tt.want)
				}
			}
		})
	}
	one := Record{Entries: []Entry{entryOf(rmemMax, 5, "1", "2")}, Interfaces: []string{"a", "b"}}
	got := one.merge(Record{Engine: "e", Entries: []Entry{entryOf(wmemMax, 1, "1", "2")}, Interfaces: []string{"b", "c"}})
	if len(got.Entries) != 2 || got.Entries[0].Path != wmemMax || got.Engine != "e" || !slices.Equal(got.Interfaces, []string{"a", "b", "c"}) || len(one.Interfaces) != 2 {
		t.Errorf("got %v", got)
	}
}

// What an earlier version recorded with a client is seen, and taken over with the
// first change: by the user whose it is, and what root left for everybody to read
// by anybody.
func TestRecordsOfEarlierVersionsAreTakenOver(t *testing.T) {
	s := newScene(t)
	s.tuner.Store.Others = []string{t.TempDir()}
	roots := Store{Dir: s.tuner.Store.Others[0]}
	for store, entry := range map[*Store]Entry{&s.own: entryOf(rmemMax, 5, "212992", "33554432"), &roots: entryOf("/proc/sys/net/core/rmem_default", 1, "1000", "212992")} {
		data, err := json.MarshalIndent(Record{Boot: testBoot, Entries: []Entry{entry}}, "", "  ")
		if err == nil {
			err = os.WriteFile(store.File(testBoot), append(data, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.write(t, rmemMax, "33554432")
	status, err := s.tuner.Status(t.Context())
	if err != nil || status.Count(Tuned, "") != 1 || status.Count(Drift, "") != 1 {
		t.Errorf("status: %+v, %v", status, err)
	}
	if _, err := os.Stat(s.own.File(testBoot)); err != nil {
		t.Errorf("who only looks has taken it over: %v", err)
	}
	if _, err := s.tuner.Apply(t.Context(), Request{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.own.File(testBoot)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there twice: %v", err)
	}
	another := *s.tuner
	another.Store = Store{Dir: t.TempDir()}
	doc, err := another.Revert(t.Context())
	if err != nil || len(doc.Values) != 6 {
		t.Errorf("got %+v, %v", doc, err)
	}
	s.before["/proc/sys/net/core/rmem_default"] = "1000"
	if changed := changes(s.before, s.values(t)); len(changed) > 0 {
		t.Errorf("changed are %v", changed)
	}
}

// Whoever tunes a machine, another one sees it and takes it back.
func TestAnotherUser(t *testing.T) {
	s := newScene(t)
	if _, err := s.tuner.Apply(t.Context(), Request{}); err != nil {
		t.Fatal(err)
	}
	another := *s.tuner
	another.Store = Store{Dir: t.TempDir()}
	doc, err := another.Apply(t.Context(), Request{})
	if err != nil || len(doc.Changes) != 0 || doc.Record != nsenter.RecordFolder+"/"+testRecord {
		t.Errorf("tuned again: %+v, %v", doc, err)
	}
	status, err := another.Status(t.Context())
	if err != nil || !status.Tuned || !status.Recorded || status.Count(Tuned, "") != 6 {
		t.Errorf("status: %+v, %v", status, err)
	}
	reverted, err := another.Revert(t.Context())
	if err != nil || len(reverted.Values) != 6 {
		t.Errorf("taken back: %+v, %v", reverted, err)
	}
	s.whole(t, "taken back by another")
}

// Where the folder on the machine cannot be reached, the record stays with the
// client, and that is said; where it is not root's alone, too.
func TestAMachineThatKeepsNothing(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *scene){
		"it cannot be reached": func(_ *testing.T, s *scene) { s.tuner.Machine = unlockable{s.machine(), fs.ErrPermission} },
		"nor has it locks":     func(_ *testing.T, s *scene) { s.tuner.Machine = unlockable{s.machine(), errors.ErrUnsupported} },
		"everybody may write into it": func(t *testing.T, s *scene) {
			folder := s.root + nsenter.RecordFolder
			forged := `{"boot_id":"` + testBoot + `","entries":[{"path":"` + wmemMax + `","kind":"number","before":"1","set":["67108864"]}]}`
			if err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(s.recordFile(t), []byte(forged), 0o644), os.Chmod(folder, 0o777)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			change(t, s)
			var notes []string
			s.tuner.Observer.Note = func(text string) { notes = append(notes, text) }
			doc, err := s.tuner.Apply(t.Context(), Request{})
			if err != nil || doc.Record != s.own.File(testBoot) || len(notes) != 1 || !strings.HasPrefix(notes[0], "what is changed is recorded in "+s.own.Dir) {
				t.Fatalf("got %+v, %v, notes %q", doc, err, notes)
			}
			if status, err := s.tuner.Status(t.Context()); err != nil || status.Count(Tuned, "") != 6 {
				t.Errorf("status: %+v, %v", status, err)
			}
			if doc, err := s.tuner.Revert(t.Context()); err != nil || len(doc.Values) != 6 {
				t.Errorf("taken back: %+v, %v", doc, err)
			}
			if changed := changes(s.before, s.values(t)); len(changed) > 0 {
				t.Errorf("changed are %v", changed)
			}
			s.tuner.Store = Store{}
			if _, err := s.tuner.Apply(t.Context(), Request{}); err == nil || !maps.Equal(s.before, s.values(t)) {
				t.Errorf("without any folder: %v", err)
			}
		})
	}
	s := newScene(t)
	s.tuner.Machine = unlockable{s.machine(), errFault}
	if _, err := s.tuner.Apply(t.Context(), Request{}); !errors.Is(err, errFault) {
		t.Errorf("another fault: %v", err)
	}
}

// unlockable is a machine whose records cannot be locked.
type unlockable struct {
	nsenter.Machine
	err error
}

func (u unlockable) Lock(context.Context, string) (func(), error) { return nil, u.err }

func TestOneUserAtATime(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "new")}
	unlock, err := s.lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.lock(); err == nil || !strings.Contains(err.Error(), "another zeekdemo is tuning") {
		t.Errorf("got %v", err)
	}
	unlock()
	if unlock, err = s.lock(); err != nil {
		t.Fatal(err)
	}
	unlock()
}
