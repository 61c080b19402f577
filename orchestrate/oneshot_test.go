package orchestrate

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestASensorThatReadsAFile(t *testing.T) {
	got, err := ReadsFile([]string{"zeek", "-i", "udp::0.0.0.0:4789:vxlan", "local", "-e", "redef x = T;"}, "/logs/capture")
	if want := []string{"zeek", "-C", "-r", "/logs/capture", "local", "-e", "redef x = T;"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	for _, command := range [][]string{nil, {"zeek", "local"}, {"zeek", "-i"}, {"-i", "x"}} {
		if got, err := ReadsFile(command, "x"); err == nil {
			t.Errorf("%q became %q", command, got)
		}
	}
}

func TestHowAContainerEnded(t *testing.T) {
	for want, e := range map[string]Ended{
		"out of memory":                 {ExitCode: 137, OOMKilled: true},
		"did not end in time":           {ExitCode: 137},
		"exit code 1: fatal: no such x": {ExitCode: 1, Tail: []string{"starting", "fatal: no such x", " "}},
		"exit code 2":                   {ExitCode: 2},
	} {
		if err := e.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", e, err, want)
		}
	}
	if err := (Ended{Tail: []string{"listening"}}).Err(); err != nil {
		t.Errorf("a good end: %v", err)
	}
}

// Zeek takes one -e only, so text is added to the one there is.
func TestWithScript(t *testing.T) {
	command := []string{"zeek", "local", "-e", "redef x = T;\n"}
	for _, c := range []struct {
		command []string
		text    string
		want    []string
	}{
		{command, "", command},
		{command, "redef y = T;\n", []string{"zeek", "local", "-e", "redef x = T;\n\nredef y = T;\n"}},
		{command[:2], "redef y = T;\n", []string{"zeek", "local", "-e", "redef y = T;\n"}},
	} {
		if got := WithScript(c.command, c.text); !slices.Equal(got, c.want) {
			t.Errorf("%q with %q: %q, want %q", c.command, c.text, got, c.want)
		}
	}
	if command[3] != "redef x = T;\n" {
		t.Error("the command itself has changed")
	}
}

func TestFreshSeedsAreZeeks(t *testing.T) {
	first := FreshSeeds()
	if bytes.Equal(first, FreshSeeds()) {
		t.Error("drawn twice alike")
	}
	lines := strings.Fields(string(first))
	for _, line := range lines {
		if _, err := strconv.ParseUint(line, 10, 32); err != nil {
			t.Error(err)
		}
	}
	if len(lines) != 21 {
		t.Errorf("%d numbers", len(lines))
	}
}

// Memory that is taken counts only where it is known to be that of the engine's
// machine.
func TestCapacityNow(t *testing.T) {
	proc := t.TempDir()
	was := Capacity{CPUs: 2, Memory: 4 << 30}
	if got := was.now(proc); got != was {
		t.Errorf("of a machine that tells nothing: %+v", got)
	}
	for text, want := range map[string]int64{
		"MemTotal: 4194304 kB\nMemAvailable: 1048576 kB\n": 1 << 30,
		"MemTotal: 4194305 kB\nMemAvailable: 1048576 kB\n": 4 << 30, // another machine
		"MemTotal: 4194304 kB\n":                           4 << 30,
		"nothing\n":                                        4 << 30,
	} {
		if err := os.WriteFile(filepath.Join(proc, "meminfo"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := was.now(proc); got.CPUs != 2 || got.Memory != want {
			t.Errorf("%q: %+v, want %d bytes", text, got, want)
		}
	}
}
