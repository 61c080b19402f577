package orchestrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// program writes the start of an ELF file: machine, and whether it has an
// interpreter.
func program(t *testing.T, machine byte, dynamic bool) string {
	t.Helper()
	b := make([]byte, 64+56)
	copy(b, "\x7fELF\x02\x01\x01")
	b[16], b[18], b[20] = 2, machine, 1
	b[32], b[52], b[54], b[56] = 64, 64, 56, 1 // program headers: offset, header size, entry size, count
	b[58] = 64                                 // section entry size
	b[64] = 1                                  // PT_LOAD
	if dynamic {
		b[64] = 3 // PT_INTERP
	}
	path := filepath.Join(t.TempDir(), "zeekdemo")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSidecarBinary(t *testing.T) {
	amd64, arm64, dynamic := program(t, 62, false), program(t, 183, false), program(t, 62, true)
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		os, arch     string // of the engine
		goos, goarch string
		self, given  string
		want, errs   string
	}{
		"itself":                     {"linux", "x86_64", "linux", "amd64", amd64, "", amd64, ""},
		"itself, other spelling":     {"linux", "aarch64", "linux", "arm64", arm64, "", arm64, ""},
		"another architecture":       {"linux", "aarch64", "linux", "amd64", amd64, "", "", "for linux/amd64, the engine's machine is linux/arm64"},
		"another system":             {"linux", "arm64", "darwin", "arm64", arm64, "", "", "for darwin/arm64, the engine's machine is linux/arm64"},
		"given":                      {"linux", "arm64", "darwin", "arm64", "", arm64, arm64, ""},
		"given for the wrong one":    {"linux", "x86_64", "linux", "amd64", amd64, arm64, "", "it is for arm64, the engine's machine is amd64"},
		"itself, not static":         {"linux", "amd64", "linux", "amd64", dynamic, "", "", "not static"},
		"given, no program":          {"linux", "amd64", "linux", "amd64", amd64, text, "", "not a Linux program"},
		"given, missing":             {"linux", "amd64", "linux", "amd64", amd64, text + "s", "", "no such file"},
		"an engine of other systems": {"windows", "amd64", "linux", "amd64", amd64, "", "", "the engine's machine is windows/amd64"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := SidecarBinary(EngineInfo{OS: tt.os, Arch: tt.arch}, tt.goos, tt.goarch, tt.self, tt.given)
			if got != tt.want || (err == nil) != (tt.errs == "") || err != nil && !strings.Contains(err.Error(), tt.errs) {
				t.Fatalf("got %q, %v", got, err)
			}
			var advice interface{ Hint() string }
			if err != nil && (!errors.As(err, &advice) || !strings.Contains(advice.Hint(), "--sidecar-binary")) {
				t.Errorf("no advice with %v", err)
			}
		})
	}
}

// insideEngine answers `cat /proc/net/tcp` with a table.
type insideEngine struct {
	Engine
	table func() string
	err   error
}

func (e insideEngine) Exec(_ context.Context, _ string, _ []string, stdout, _ io.Writer) (int, error) {
	if e.table != nil {
		fmt.Fprint(stdout, e.table())
	}
	return 0, e.err
}

// A sensor is reached where its own list of connections shows ours, by the
// process's files or from inside; that somebody answers is not enough.
func TestReaches(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := netip.MustParseAddrPort(listener.Addr().String()).Port()
	var peer uint16
	accepted := make(chan uint16)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			accepted <- netip.MustParseAddrPort(c.RemoteAddr().String()).Port()
		}
	}()
	line := func(local, remote uint16, state string) string {
		return fmt.Sprintf("  sl  local_address rem_address   st\n   0: 0200007F:%04X 0100007F:%04X %s 00000000\n", local, remote, state)
	}
	inside := func(state string, off uint16) func() string {
		return func() string { peer = <-accepted; return line(port, peer+off, state) }
	}
	tests := map[string]struct {
		engine insideEngine
		port   uint16
		errs   string
	}{
		"seen inside":            {insideEngine{table: inside("01", 0)}, port, ""},
		"another's connection":   {insideEngine{table: inside("01", 1)}, port, "is not the sensor"},
		"a connection that ends": {insideEngine{table: inside("06", 0)}, port, "is not the sensor"},
		"no look inside":         {insideEngine{table: func() string { <-accepted; return "" }, err: errors.New("no cat")}, port, "cannot be seen: no cat"},
		"nobody answers":         {insideEngine{}, 1, "does not answer from here"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := Sensor{Direct: netip.MustParseAddrPort("127.0.0.1:4789")}
			err := s.reaches(t.Context(), tt.engine, tt.port, t.TempDir())
			if (err == nil) != (tt.errs == "") || err != nil && !strings.Contains(err.Error(), tt.errs) {
				t.Errorf("got %v, want %q", err, tt.errs)
			}
		})
	}
	if err := (Sensor{}).Reaches(t.Context(), insideEngine{}); err == nil {
		t.Error("a sensor without an address is reached")
	}
}

func TestTheFilesOfAProcessProveReachability(t *testing.T) {
	proc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(proc, "7", "net"), 0o700); err != nil {
		t.Fatal(err)
	}
	six := "   0: 0000000000000000FFFF000002001FAC:2707 0000000000000000FFFF000001001FAC:A000 01 00000000\n"
	if err := os.WriteFile(filepath.Join(proc, "7", "net", "tcp6"), []byte(six), 0o600); err != nil {
		t.Fatal(err)
	}
	if !connected(tablesOf(proc, 7), MetricsPort, 0xA000) {
		t.Error("a connection to [::] is not seen")
	}
	if connected(tablesOf(proc, 8), MetricsPort, 0xA000) || tablesOf(proc, 0) != "" {
		t.Error("a process that is not there has connections")
	}
}
