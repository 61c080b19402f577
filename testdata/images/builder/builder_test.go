package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	for _, tc := range []struct {
		names, want string
		err         bool
	}{
		{"", "zeek grafana exporter gateway prometheus collector loki", false},
		{"loki zeek", "zeek loki", false},
		{"zeek nonsense", "", true},
	} {
		got, err := choose(recipes(), strings.Fields(tc.names))
		if (err != nil) != tc.err || strings.Join(recipeNames(got), " ") != tc.want {
			t.Errorf("%q: got %v, %v", tc.names, recipeNames(got), err)
		}
	}
}

// module makes a folder with a Go module's files and returns a recipe for it.
func module(t *testing.T) recipe {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", "main.go", "main_test.go"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return recipe{name: "x", tag: "x:1", module: dir, source: dir}
}

func TestContentHashFollowsWhatIsBuilt(t *testing.T) {
	r := module(t)
	hash := func(r recipe) string {
		h, err := contentHash(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	first := hash(r)
	if hash(r) != first {
		t.Error("the same content has another hash")
	}
	changed := r
	changed.changes = []string{"USER 1"}
	if hash(changed) == first {
		t.Error("another recipe has the same hash")
	}
	for name, matters := range map[string]bool{"main_test.go": false, "main.go": true} {
		if err := os.WriteFile(filepath.Join(r.source, name), []byte("changed"), 0o644); err != nil {
			t.Fatal(err)
		}
		if now := hash(r); (now != first) != matters {
			t.Errorf("%s changed: another hash is %v, want %v", name, now != first, matters)
		} else {
			first = now
		}
	}
}

func TestWriteRoot(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("ELF"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := recipe{binary: "/usr/bin/p", busybox: true, caps: 1 << 10}
	entries := []entry{{path: "/data/x", owner: 5, group: 6, mode: 0o775}, {path: "/etc/passwd", content: "root"}}
	var out bytes.Buffer
	if err := writeRoot(&out, r, entries, map[string]string{r.binary: program}, busybox{program, []string{"sh"}}); err != nil {
		t.Fatal(err)
	}
	got := map[string]*tar.Header{}
	for in := tar.NewReader(&out); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if dir := filepath.Dir(h.Name); dir != "." && got[dir] == nil {
			t.Errorf("%s comes before its folder", h.Name)
		}
		got[strings.TrimSuffix(h.Name, "/")] = h
	}
	if h := got["data/x"]; h == nil || h.Uid != 5 || h.Gid != 6 || h.Mode != 0o775 {
		t.Errorf("data/x is %+v", h)
	}
	if h := got["usr/bin/p"]; h == nil || h.Mode != 0o755 || h.Size != 3 {
		t.Errorf("usr/bin/p is %+v", h)
	}
	if h := got["usr/bin/p"]; h != nil && h.PAXRecords["SCHILY.xattr.security.capability"] != "\x01\x00\x00\x02\x00\x04\x00\x00"+strings.Repeat("\x00", 12) {
		t.Errorf("usr/bin/p has the attributes %q", h.PAXRecords)
	}
	if h := got["bin/sh"]; h == nil || h.Linkname != "/bin/busybox" {
		t.Errorf("bin/sh is %+v", h)
	}
}
