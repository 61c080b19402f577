package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/zeekdemo/zeekdemo/assets/samples"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// TestMain makes this test binary the command `zeekdemo` of the scripts: the
// real command line with a fake engine behind it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"zeekdemo": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		app := System("1.2.3")
		app.Mirrors = nil // those of this machine do not lead to the fake stack
		app.Connect = func(io.Writer) (orchestrate.Engine, error) { return connectFake(os.Getenv) }
		os.Exit(Main(ctx, os.Args[1:], app))
	}})
}

// TestScripts runs the scripts in testdata: each is one user's session.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("ZEEKDEMO_FAKE", filepath.Join(env.WorkDir, ".engine.json"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, ".state"))
			return os.WriteFile(filepath.Join(env.WorkDir, "sample.pcap"), samples.Sample(), 0o600)
		},
	})
}
