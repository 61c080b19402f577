package hosttune

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPersist(t *testing.T) {
	s := newSetup(t, untuned())
	before := s.values(t)
	persist := func() error {
		t.Helper()
		p, err := NewPlan(t.Context(), s, []Place{sensor}, nil)
		if err != nil {
			t.Fatal(err)
		}
		session, err := NewSession(t.Context(), s, s.store, p.Boot, "", nil)
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
	st, err := Look(t.Context(), s, s.own, nil)
	if err != nil || !st.Persisted {
		t.Errorf("not seen: %v", err)
	}
	r, err := s.store.Load(t.Context(), next)
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
			session, err := NewSession(t.Context(), s, s.store, p.Boot, "", nil)
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
