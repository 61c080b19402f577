package engine

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// liveEngine connects to this machine's engine, which must have the image.
func liveEngine(t *testing.T, image string) *Engine {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: starts containers")
	}
	e, err := Connect(io.Discard)
	if err != nil {
		testenv.Missing(t, err.Error())
	}
	t.Cleanup(func() { e.Close() })
	if _, err := e.Info(t.Context()); err != nil {
		testenv.Missing(t, err.Error())
	}
	if _, err := e.client.ImageInspect(t.Context(), image); err != nil {
		testenv.Missing(t, fmt.Sprintf("needs image %s (make images): %v", image, err))
	}
	return e
}

// A helper gets its program, is spoken to, is seen while it lives, and leaves
// nothing when its standard input ends.
func TestAHelperLivesAsLongAsItsClientSpeaks(t *testing.T) {
	const image = "zeek/zeek:9.0"
	e := liveEngine(t, image)
	program := filepath.Join(t.TempDir(), "zeekdemo")
	if err := os.WriteFile(program, []byte("the program\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := orchestrate.HelperSpec{Image: image, Program: program, Script: `cat "$1"; echo trouble >&2; cat; exit 7`, Args: []string{orchestrate.SidecarProgram}}
	// Of a kind of its own: what else runs on this machine looks for helpers.
	kind := orchestrate.CompanionKind(fmt.Sprintf("test-%d", os.Getpid()))
	options := helperOptions(spec)
	options.Config.Labels = map[string]string{kind.Label(): spec.Serves(), orchestrate.ClientLabel: spec.Serves()}
	id, err := e.makeCompanion(t.Context(), kind, program, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.RemoveCompanion(context.Background(), id); err != nil {
			t.Error(err)
		}
	})
	streams, err := e.StartCompanion(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	seen := func() (state string) {
		list, err := e.Companions(t.Context(), kind)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			if c.ID == id && c.ID == streams.ID && c.Client == orchestrate.ThisClient() && !c.Forgotten() {
				state = c.State
			}
		}
		return state
	}
	if state := seen(); state != "running" {
		t.Errorf("it is listed as %q", state)
	}
	stderr := make(chan string)
	go func() { said, _ := io.ReadAll(streams.Stderr); stderr <- string(said) }()
	go func() {
		_, _ = io.WriteString(streams.Stdin, "hello\n")
		_ = streams.Stdin.Close()
	}()
	said, err := io.ReadAll(streams.Stdout)
	if err != nil || string(said) != "the program\nhello\n" {
		t.Errorf("it said %q, %v", said, err)
	}
	if text := <-stderr; text != "trouble\n" {
		t.Errorf("it complained of %q", text)
	}
	for range 2 { // one may ask again
		if code, err := streams.Wait(t.Context()); code != 7 || err != nil {
			t.Errorf("it ended with %d, %v", code, err)
		}
	}
	if state := seen(); state != "" {
		t.Errorf("once it has ended it is listed as %q", state)
	}
}
