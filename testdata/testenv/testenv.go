// Package testenv tells tests what their surroundings offer, and skips them
// loudly where something is missing. With ZEEKDEMO_CI=1 a missing privilege or
// tool is a failure, not a skip: there nothing may pass unseen.
//
// Tests of the kernel run in network namespaces of their own ([Namespace],
// [Inside]), many of them against what looks like a container from here
// ([NewContainer], [ListenUDP]). Names and subnets are a process's own, so that
// two test processes can run at once. These are for Linux only, so they are
// called from files named *_linux_test.go.
package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// CI reports whether skips for lack of a privilege or a tool are failures.
func CI() bool { return os.Getenv("ZEEKDEMO_CI") == "1" }

// Missing skips the test with the reason, or fails it where [CI] is true.
func Missing(tb testing.TB, reason string) {
	tb.Helper()
	if CI() {
		tb.Fatalf("ZEEKDEMO_CI=1 forbids this skip: %s", reason)
	}
	tb.Skipf("SKIPPED: %s", reason)
}

// Shared returns the path of a file or folder in the shared collection of
// captures and recorded logs: the folder that ZEEKDEMO_SHARED names, or a
// folder "shared" beside one of the working directory's ancestors. The
// collection is no part of the project, so its absence skips the test
// everywhere.
func Shared(tb testing.TB, elem ...string) string {
	tb.Helper()
	root := sharedRoot()
	if root == "" {
		tb.Skip("SKIPPED: no shared captures (set ZEEKDEMO_SHARED to their folder)")
	}
	path := filepath.Join(append([]string{root}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		tb.Skipf("SKIPPED: no shared file: %v", err)
	}
	return path
}

func sharedRoot() string {
	if dir := os.Getenv("ZEEKDEMO_SHARED"); dir != "" {
		return dir
	}
	dir, err := os.Getwd()
	for err == nil && dir != filepath.Dir(dir) {
		candidate := filepath.Join(dir, "shared")
		if _, err := os.Stat(filepath.Join(candidate, "pcaps")); err == nil {
			return candidate
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

// NeedRoot ends the test unless it runs as root.
func NeedRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		Missing(tb, "needs root")
	}
}

// NeedTool returns the path of an installed program, or ends the test.
func NeedTool(tb testing.TB, name string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(tb, "needs "+name)
	}
	return path
}
