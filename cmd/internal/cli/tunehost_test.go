package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/hosttune"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

var updatePlans = flag.Bool("update-plans", false, "renew the plans in testdata/tune")

// TestPlansOfMachines shows the plan for each fixture, word by word; applies it
// and finds nothing more to do; and takes it back.
func TestPlansOfMachines(t *testing.T) {
	files, err := filepath.Glob("testdata/tune/*.txtar")
	if err != nil || len(files) < 4 {
		t.Fatalf("found %d machines, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			root := t.TempDir()
			tuner := tunerOf(t, root, archive)
			before := section(archive, "machine/")
			var out, errs bytes.Buffer
			show := tuneReport{out: &out, err: &errs}
			if err := show.tuned(tuner.Plan(t.Context())); err != nil {
				t.Fatal(err)
			}
			golden(t, file, archive, map[string]string{"stdout": out.String(), "stderr": errs.String()})
			if now := below(t, root); !maps.Equal(now, before) {
				t.Errorf("the plan has changed something: %v", now)
			}
			for run, want := range []string{"changed", "Nothing to change"} {
				errs.Reset()
				if err := show.tuned(tuner.Apply(t.Context(), hosttune.Request{})); err != nil || !strings.Contains(errs.String(), want) {
					t.Errorf("run %d: %v, %s", run, err, errs.String())
				}
			}
			if err := show.reverted(tuner.Revert(t.Context())); err != nil {
				t.Fatal(err)
			}
			if now := below(t, root); !maps.Equal(now, before) {
				t.Errorf("taken back: %v, want %v", now, before)
			}
		})
	}
}

// interruptedEngine is one at which the user interrupts when the sensors are
// looked for.
type interruptedEngine struct {
	orchestrate.Engine
	interrupt func()
}

func (e interruptedEngine) Containers(ctx context.Context, _ string) ([]orchestrate.Container, error) {
	e.interrupt()
	return nil, fmt.Errorf("list the containers: %w", ctx.Err())
}

// Interrupted, a tuning says so once, and what became of the settings.
func TestInterruptedTuning(t *testing.T) {
	for _, args := range [][]string{{"tune-host"}, {"tune-host", "--status"}, {"up", "--tune"}} {
		ctx, cancel := context.WithCancel(t.Context())
		var out, errs bytes.Buffer
		e := interruptedEngine{&fakeEngine{path: filepath.Join(t.TempDir(), "state")}, cancel}
		app := &App{Streams: ui.Streams{Out: &out, Err: &errs},
			Getenv:  func(name string) string { return map[string]string{"XDG_STATE_HOME": t.TempDir()}[name] },
			Connect: func(io.Writer) (orchestrate.Engine, error) { return e, nil }}
		code := Main(ctx, args, app)
		if want := "zeekdemo: interrupted: list the containers\nhint: nothing was changed\n"; code != exitInterrupted || errs.String() != want || out.Len() > 0 {
			t.Errorf("%v: exit code %d, %q, %q", args, code, errs.String(), out.String())
		}
	}
}

// tunerOf makes a tuner for a fixture's machine.
func tunerOf(t *testing.T, root string, archive *txtar.Archive) *hosttune.Tuner {
	t.Helper()
	for name, content := range section(archive, "machine/") {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tuner := &hosttune.Tuner{EngineID: "engine", Machine: nsenter.Tree(root), Way: nsenter.Helper, Store: hosttune.Store{Dir: t.TempDir()},
		Interfaces: strings.Fields(section(archive, "")["interfaces"])}
	for line := range strings.Lines(section(archive, "")["sensors"]) {
		var p hosttune.Place
		var address string
		if _, err := fmt.Sscan(line, &p.Name, &p.Namespace.PID, &address); err != nil {
			t.Fatalf("sensor %q: %v", line, err)
		}
		p.Container, p.Started, p.Address = p.Name, time.Unix(1, 0), netip.MustParseAddr(address)
		tuner.Sensors = append(tuner.Sensors, p)
	}
	return tuner
}

// below returns what all files of a folder hold, without their last line breaks.
func below(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "tuning.lock" { // which stays
			return err
		}
		data, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, root+"/")] = strings.TrimSuffix(string(data), "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// section returns the files of an archive below a folder, without their last
// line breaks.
func section(archive *txtar.Archive, folder string) map[string]string {
	files := map[string]string{}
	for _, f := range archive.Files {
		if name, ok := strings.CutPrefix(f.Name, folder); ok {
			files[name] = strings.TrimSuffix(string(f.Data), "\n")
		}
	}
	return files
}

// golden compares with sections of the archive, or renews them.
func golden(t *testing.T, file string, archive *txtar.Archive, got map[string]string) {
	t.Helper()
	for i, f := range archive.Files {
		text, ok := got[f.Name]
		if !ok || text == string(f.Data) {
			continue
		}
		if !*updatePlans {
			t.Errorf("%s differs (go test -run TestPlansOfMachines -update-plans renews it):\n%s", f.Name, text)
		}
		archive.Files[i].Data = []byte(text)
	}
	if *updatePlans {
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
