package engine

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// archiveOf has the files in their order.
func archiveOf(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Size = map[bool]int64{true: 3, false: 0}[h.Typeflag == tar.TypeReg]
		err := w.WriteHeader(&h)
		if err == nil && h.Size > 0 {
			_, err = w.Write([]byte("{}\n"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Nothing is started to look at the machine, and nothing stays, however it ends.
func TestMachineFolder(t *testing.T) {
	folder := tar.Header{Name: "zeekdemo/", Typeflag: tar.TypeDir, Mode: 0o755}
	file := tar.Header{Name: "zeekdemo/a.json", Typeflag: tar.TypeReg, Mode: 0o644}
	but := func(h tar.Header, change func(*tar.Header)) tar.Header { change(&h); return h }
	for name, tt := range map[string]struct {
		create, get int
		archive     []tar.Header
		found       int
		fails       bool
	}{
		"a file":                  {201, 200, []tar.Header{folder, file}, 1, false},
		"an empty folder":         {201, 200, []tar.Header{folder}, 0, false},
		"no folder":               {201, 404, nil, 0, false},
		"never used":              {404, 200, nil, 0, false},
		"not to be mounted":       {500, 200, nil, 0, true},
		"not to be read":          {201, 500, nil, 0, true},
		"half of an archive":      {201, 200, nil, 0, true},
		"others write the folder": {201, 200, []tar.Header{but(folder, func(h *tar.Header) { h.Mode = 0o757 }), file}, 0, false},
		"another's folder":        {201, 200, []tar.Header{but(folder, func(h *tar.Header) { h.Uid = 7 }), file}, 0, false},
		"a link":                  {201, 200, []tar.Header{{Name: "zeekdemo", Typeflag: tar.TypeSymlink, Linkname: "/tmp", Mode: 0o777}}, 0, false},
		"others write it":         {201, 200, []tar.Header{folder, but(file, func(h *tar.Header) { h.Mode = 0o666 })}, 0, false},
		"another's":               {201, 200, []tar.Header{folder, but(file, func(h *tar.Header) { h.Uid = 7 })}, 0, false},
		"a link in it":            {201, 200, []tar.Header{folder, but(file, func(h *tar.Header) { h.Typeflag, h.Linkname = tar.TypeSymlink, "b" })}, 0, false},
		"deeper down":             {201, 200, []tar.Header{folder, but(file, func(h *tar.Header) { h.Name = "zeekdemo/a/b.json" })}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			docker, e := newFakeDocker(t)
			docker.json("POST /containers/create", tt.create, `{"Id":"look","message":"so it is"}`)
			docker.json("DELETE /containers/look", http.StatusNoContent, "")
			docker.HandleFunc("GET /containers/look/archive", func(w http.ResponseWriter, r *http.Request) {
				if got := r.URL.Query().Get("path"); got != "/machine/run/zeekdemo" {
					t.Errorf("asked for %s", got)
				}
				w.Header().Set("X-Docker-Container-Path-Stat", "e30=")
				w.WriteHeader(tt.get)
				content := archiveOf(t, tt.archive...)
				if tt.fails {
					content = archiveOf(t, folder, file)[:700]
				}
				_, _ = w.Write(content)
			})
			found, err := e.MachineFolder(t.Context(), "/run/zeekdemo")
			if len(found) != tt.found || (err != nil) != tt.fails || tt.found > 0 && found["/run/zeekdemo/a.json"] != "{}\n" {
				t.Errorf("got %q, %v", found, err)
			}
			if removed := docker.times("DELETE /containers/look"); (removed == 1) != (tt.create == 201) {
				t.Errorf("removed %d times", removed)
			}
		})
	}
}

// A real engine shows what root has written on its machine, and only that.
func TestMachineFolderOfThisMachine(t *testing.T) {
	testenv.NeedRoot(t)
	e := liveEngine(t, "zeek/zeek:9.0")
	if err := e.makeEmptyImage(t.Context()); err != nil {
		t.Fatal(err)
	}
	folder := fmt.Sprintf("/run/zeekdemo-test-%d", os.Getpid())
	if found, err := e.MachineFolder(t.Context(), folder); err != nil || len(found) > 0 {
		t.Errorf("without the folder: %q, %v", found, err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"roots": 0o644, "everybodys": 0o666} {
		file := filepath.Join(folder, name)
		if err := errors.Join(os.WriteFile(file, []byte(name), mode), os.Chmod(file, mode)); err != nil {
			t.Fatal(err)
		}
	}
	found, err := e.MachineFolder(t.Context(), folder)
	if want := map[string]string{folder + "/roots": "roots"}; err != nil || !maps.Equal(found, want) {
		t.Errorf("got %q, %v", found, err)
	}
}
