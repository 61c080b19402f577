package hosttune

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestWhereRecordsAreKept(t *testing.T) {
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
		s, err := UserStore(func(name string) string { return map[string]string{"XDG_STATE_HOME": tt.xdg, "HOME": tt.home}[name] }, tt.euid)
		if s.Dir != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%+v: got %q, %v", tt, s.Dir, err)
		}
	}
}

func TestRecordsThatAreNotTrusted(t *testing.T) {
	good := `{"boot_id":"` + testBoot + `","entries":[{"path":"/proc/sys/net/core/rmem_max"}]}`
	for name, text := range map[string]string{
		"half of one":         good[:len(good)/2],
		"another boot's":      strings.Replace(good, testBoot, "b", 1),
		"another file":        strings.Replace(good, "/proc/sys/net/core/rmem_max", "/etc/shadow", 1),
		"a way out of /sys":   strings.Replace(good, "/proc/sys/net/core/rmem_max", "/sys/class/net/../queues/rx-0/rps_cpus", 1),
		"another interface's": strings.Replace(good, "/proc/sys/net/core/rmem_max", "/sys/class/net/a/b/queues/rx-0/rps_cpus", 1),
	} {
		t.Run(name, func(t *testing.T) {
			s := Store{Dir: t.TempDir()}
			if err := os.WriteFile(s.File(testBoot), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if r, err := s.Load(testBoot); err == nil || !strings.Contains(err.Error(), s.Dir) {
				t.Errorf("got %v, %v", r, err)
			}
		})
	}
	s := Store{Dir: t.TempDir()}
	if err := os.WriteFile(s.File(testBoot), []byte(good), 0o644); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Load(testBoot); err != nil || len(r.Entries) != 1 {
		t.Errorf("got %v, %v", r, err)
	}
	if _, err := s.Load("../../etc/passwd"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

// Values do not outlive a boot: the record of an earlier one of the same
// machine goes, others' stay.
func TestEarlierBootsAreForgotten(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	entries := []Entry{{Path: "/proc/sys/net/core/rmem_max", Before: "1", Set: []string{"2"}}}
	for boot, engine := range map[string]string{"b1": "engine", "b2": "another", "b3": ""} {
		if err := s.Save(Record{Boot: boot, Engine: engine, Entries: entries}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Save(Record{Boot: "b4", Engine: "engine", Entries: entries}); err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for _, r := range s.All() {
		left[r.Boot] = true
	}
	if want := map[string]bool{"b2": true, "b3": true, "b4": true}; !maps.Equal(left, want) {
		t.Errorf("left %v, want %v", left, want)
	}
	if r, err := s.Load("b1"); err != nil || len(r.Entries) > 0 {
		t.Errorf("got %v, %v", r, err)
	}
}

func TestOthersRecordsAreSeen(t *testing.T) {
	root := t.TempDir()
	own, theirs := Store{Dir: filepath.Join(root, "u"), Others: []string{filepath.Join(root, "root")}}, Store{Dir: filepath.Join(root, "root")}
	for _, path := range []string{"/proc/sys/net/core/rmem_max", "/proc/sys/net/core/wmem_max"} {
		if err := theirs.Save(Record{Boot: testBoot, Entries: []Entry{{Path: path}}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := own.LoadOthers(testBoot); len(got) != 1 || len(got[0].Entries) != 1 {
		t.Errorf("got %v", got)
	}
	if got := theirs.LoadOthers(testBoot); len(got) != 0 {
		t.Errorf("its own are another's: %v", got)
	}
	r := Record{Boot: testBoot, Entries: []Entry{{Path: "/proc/sys/net/core/rmem_max"}}}
	if got := r.along(own.LoadOthers(testBoot)[0]); len(got.Entries) != 2 {
		t.Errorf("got %v", got)
	}
}

func TestOneAtATime(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("SKIPPED: no flock")
	}
	s := Store{Dir: filepath.Join(t.TempDir(), "new")}
	unlock, err := s.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lock(); err == nil || !strings.Contains(err.Error(), "another zeekdemo is tuning") {
		t.Errorf("got %v", err)
	}
	unlock()
	if unlock, err = s.Lock(); err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestPersist(t *testing.T) {
	s := newSetup(t, untuned())
	before := s.values(t)
	persist := func() error {
		t.Helper()
		p, err := NewPlan(t.Context(), s, []Place{sensor}, nil)
		if err != nil {
			t.Fatal(err)
		}
		session, err := NewSession(s, s.store, p.Boot, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := session.Apply(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		return session.Persist(t.Context(), p)
	}
	content := func() string {
		data, _ := os.ReadFile(s.root + PersistFile)
		return string(data)
	}
	for range 2 {
		if err := persist(); err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"net.core.rmem_max = 33554432\n# before: 212992\n", "net.core.wmem_max = 67108864\n# before: 67108864\n", "net.core.netdev_max_backlog = 10000\n"} {
			if !strings.Contains(content(), line) {
				t.Errorf("no %q in:\n%s", line, content())
			}
		}
	}
	// The machine starts again: the file sets the numbers, the rest is as new,
	// and the record is of another boot.
	const next = "6d1b7a1e-0000-4000-8000-00000000b008"
	s.write(t, bootID, next)
	s.write(t, "/sys/class/net/lo/queues/rx-0/rps_cpus", "0")
	s.write(t, "/42/sys/class/net/eth1/queues/rx-0/rps_cpus", "0")
	written := content()
	if err := persist(); err != nil || content() != written {
		t.Errorf("again after a boot: %v\n%s", err, content())
	}
	st, err := Look(t.Context(), s, s.store, nil)
	if err != nil || !st.Persisted {
		t.Errorf("not seen: %v", err)
	}
	r, err := s.store.Load(next)
	if err != nil {
		t.Fatal(err)
	}
	r, forget, err := WithPersisted(t.Context(), s, r)
	if err != nil || !forget.File || forget.Foreign {
		t.Fatalf("got %v, %v", forget, err)
	}
	list, err := NewUndo(t.Context(), s, r, []Place{sensor})
	if err == nil {
		err = errors.Join(RemovePersisted(t.Context(), s), Revert(t.Context(), s, s.store, r, list))
	}
	before[bootID] = next
	if got := s.values(t); err != nil || !maps.Equal(got, before) {
		t.Errorf("got %v, %v, want %v", got, err, before)
	}
}

// A file of that name that somebody else wrote, or changed, is left alone, and
// what was tuned for it is taken back.
func TestPersistLeavesForeignFilesAlone(t *testing.T) {
	for name, change := range map[string]func(string) string{
		"another's": func(string) string { return "net.core.rmem_max = 1\n" },
		"changed":   func(s string) string { return strings.Replace(s, "33554432", "50000000", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSetup(t, untuned())
			p, err := NewPlan(t.Context(), s, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			text := change(persistText(p, Record{}))
			if err := os.MkdirAll(filepath.Dir(s.root+PersistFile), 0o755); err != nil {
				t.Fatal(err)
			}
			s.write(t, PersistFile, text)
			before := s.values(t)
			session, err := NewSession(s, s.store, p.Boot, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = session.Apply(t.Context(), p)
			if err := errors.Join(err, session.Persist(t.Context(), p)); !errors.Is(err, fs.ErrExist) {
				t.Errorf("got %v", err)
			}
			if got := s.values(t); !maps.Equal(got, before) {
				t.Errorf("got %v, want %v", got, before)
			}
			if _, forget, err := WithPersisted(t.Context(), s, Record{}); err != nil || !forget.Foreign || forget.File {
				t.Errorf("got %v, %v", forget, err)
			}
		})
	}
}
