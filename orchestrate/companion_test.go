package orchestrate

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// companionEngine keeps companions in memory.
type companionEngine struct {
	Engine
	list    []Companion
	created CompanionSpec
	startup error  // what StartCompanion returns
	stuck   string // the one that cannot be removed
	stack   []Container
	downs   int
}

var errStuck = errors.New("device or resource busy")

func (e *companionEngine) CreateCompanion(_ context.Context, spec CompanionSpec) (string, error) {
	e.created = spec
	e.list = append(e.list, Companion{ID: "new", Kind: spec.Kind(), Serves: spec.Serves(), Client: ThisClient(), State: "created", Created: time.Now()})
	return "new", nil
}

func (e *companionEngine) StartCompanion(context.Context, string) (SidecarStreams, error) {
	return SidecarStreams{ID: "new"}, e.startup
}

func (e *companionEngine) Companions(_ context.Context, kind CompanionKind) ([]Companion, error) {
	return slices.DeleteFunc(slices.Clone(e.list), func(c Companion) bool { return c.Kind != kind }), nil
}

func (e *companionEngine) RemoveCompanion(_ context.Context, id string) error {
	if id == e.stuck {
		return errStuck
	}
	e.list = slices.DeleteFunc(e.list, func(c Companion) bool { return c.ID == id })
	return nil
}

func (e *companionEngine) Info(context.Context) (EngineInfo, error) { return EngineInfo{}, nil }

func (e *companionEngine) Containers(context.Context, string) ([]Container, error) {
	return e.stack, nil
}

func (e *companionEngine) Down(context.Context, string, bool, Progress) error { e.downs++; return nil }

func (e *companionEngine) ids() (ids string) {
	for _, c := range e.list {
		ids += c.ID + " "
	}
	return strings.TrimSpace(ids)
}

// endedClient is a process of this machine that was.
func endedClient(t *testing.T) Client {
	t.Helper()
	ended := exec.Command(os.Args[0], "-test.run=^$")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	return ClientOfProcess(ended.Process.Pid)
}

func TestForgottenCompanions(t *testing.T) {
	long, own, dead, foreign := time.Now().Add(-2*forgottenAfter), ThisClient(), endedClient(t), ClientHere(1<<22-1, 1, 2)
	for name, tt := range map[string]struct {
		companion Companion
		want      bool
	}{
		"one that works":                              {Companion{Client: own, State: "running", Created: long}, false},
		"one that is being started":                   {Companion{Client: own, State: "created", Created: time.Now()}, false},
		"one that takes long to be started":           {Companion{Client: own, State: "created", Created: long}, false},
		"one whose client is gone":                    {Companion{Client: dead, State: "running", Created: long}, true},
		"a fresh one whose client is gone":            {Companion{Client: dead, State: "created", Created: time.Now()}, true},
		"another container's that works":              {Companion{Client: foreign, State: "running", Created: long}, false},
		"another container's that was just created":   {Companion{Client: foreign, State: "created", Created: time.Now()}, false},
		"another container's that never was started":  {Companion{Client: foreign, State: "created", Created: long}, true},
		"an earlier version's that works":             {Companion{State: "running", Created: long}, false},
		"an earlier version's that was just created":  {Companion{State: "created", Created: time.Now()}, false},
		"an earlier version's that never was started": {Companion{State: "created", Created: long}, true},
		"of an engine whose clock goes before ours":   {Companion{Client: own, State: "created", Created: time.Now().Add(-24 * time.Hour)}, false},
	} {
		if got := tt.companion.Forgotten(); got != tt.want {
			t.Errorf("%s: forgotten %t, want %t", name, got, tt.want)
		}
	}
}

// One way of removing serves both kinds: it touches its own kind alone, counts
// what it removed, and stops at what cannot be removed.
func TestRemoveCompanions(t *testing.T) {
	named := func(names ...string) func(Companion) bool {
		return func(c Companion) bool { return slices.Contains(names, c.ID) }
	}
	for name, tt := range map[string]struct {
		kind  CompanionKind
		which func(Companion) bool
		stuck string
		n     int
		left  string
		errs  string
	}{
		"some sidecars":         {SidecarKind, named("s1", "h1"), "", 1, "s2 s3 h1 h2", ""},
		"all sidecars":          {SidecarKind, func(Companion) bool { return true }, "", 3, "h1 h2", ""},
		"a helper":              {HelperKind, named("h2"), "", 1, "s1 s2 s3 h1", ""},
		"none":                  {HelperKind, named(), "", 0, "s1 s2 s3 h1 h2", ""},
		"one that stays":        {SidecarKind, named("s1", "s2", "s3"), "s2", 1, "s2 s3 h1 h2", "remove a sidecar: device or resource busy"},
		"a helper that stays":   {HelperKind, named("h1"), "h1", 0, "s1 s2 s3 h1 h2", "remove a helper: device or resource busy"},
		"a kind that is not":    {"other", func(Companion) bool { return true }, "", 0, "s1 s2 s3 h1 h2", ""},
		"one that is not there": {SidecarKind, named("s9"), "", 0, "s1 s2 s3 h1 h2", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := &companionEngine{stuck: tt.stuck}
			for _, id := range []string{"s1", "s2", "s3", "h1", "h2"} {
				kind := map[byte]CompanionKind{'s': SidecarKind, 'h': HelperKind}[id[0]]
				e.list = append(e.list, Companion{ID: id, Kind: kind})
			}
			n, err := RemoveCompanions(t.Context(), e, tt.kind, tt.which)
			if n != tt.n || e.ids() != tt.left || (err == nil) != (tt.errs == "") || err != nil && (err.Error() != tt.errs || !errors.Is(err, errStuck)) {
				t.Errorf("removed %d, left %s, %v; want %d, %s, %q", n, e.ids(), err, tt.n, tt.left, tt.errs)
			}
		})
	}
}

func TestStartSidecarRemovesForgottenOnes(t *testing.T) {
	old := time.Now().Add(-2 * forgottenAfter)
	e := &companionEngine{list: []Companion{
		{ID: "forgotten", Kind: SidecarKind, State: "created", Created: old},
		{ID: "orphan", Kind: SidecarKind, Client: endedClient(t), State: "running", Created: old},
		{ID: "working", Kind: SidecarKind, State: "running", Created: old},
		{ID: "starting", Kind: SidecarKind, State: "created", Created: time.Now()},
	}}
	sensor := Sensor{Container: Container{ID: "zeek"}}
	streams, err := StartSidecar(t.Context(), e, sensor, "/bin/x", "sidecar")
	if err != nil || streams.ID != "new" {
		t.Fatalf("got %q, %v", streams.ID, err)
	}
	if got := e.ids(); got != "working starting new" {
		t.Errorf("there are now: %s", got)
	}
	if s, ok := e.created.(SidecarSpec); !ok || s.Sensor != "zeek" || s.Program != "/bin/x" || len(s.Args) != 1 {
		t.Errorf("made of %+v", e.created)
	}
}

// A helper is made for this process, once those of dead ones have gone.
func TestStartHelperRemovesForgottenOnes(t *testing.T) {
	e := &companionEngine{list: []Companion{
		{ID: "orphan", Kind: HelperKind, Client: endedClient(t), State: "running", Created: time.Now()},
		{ID: "working", Kind: HelperKind, Client: ThisClient(), State: "running", Created: time.Now()},
		{ID: "sidecar", Kind: SidecarKind, State: "exited"},
	}}
	if _, err := StartHelper(t.Context(), e, HelperSpec{Image: "zeek"}); err != nil {
		t.Fatal(err)
	}
	if got := e.ids(); got != "working sidecar new" {
		t.Errorf("there are now: %s", got)
	}
	if made := e.list[2]; made.Kind != HelperKind || ParseClient(made.Serves) != ThisClient() {
		t.Errorf("made %+v", made)
	}
}

func TestACompanionThatDoesNotStartIsRemoved(t *testing.T) {
	cause := errors.New("no such namespace")
	for name, start := range map[string]func(e *companionEngine) error{
		"sidecar": func(e *companionEngine) error {
			_, err := StartSidecar(t.Context(), e, Sensor{}, "/bin/x")
			return err
		},
		"helper": func(e *companionEngine) error {
			_, err := StartHelper(t.Context(), e, HelperSpec{Image: "zeek"})
			return err
		},
	} {
		e := &companionEngine{startup: cause}
		if err := start(e); !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "run a "+name) {
			t.Errorf("%s: got %v", name, err)
		}
		if len(e.list) != 0 {
			t.Errorf("%s: left: %s", name, e.ids())
		}
	}
}
