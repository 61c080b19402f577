package main

import (
	"archive/tar"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// build compiles the recipe's programs and imports the image.
func build(ctx context.Context, r recipe, content string) error {
	tmp, err := os.MkdirTemp("", "zeekdemo-images-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	programs, err := compileAll(ctx, r, tmp)
	if err != nil {
		return err
	}
	var box busybox
	if r.busybox {
		if box, err = findBusybox(ctx, tmp); err != nil {
			return err
		}
	}
	entries, err := resolve(ctx, r)
	if err != nil {
		return err
	}
	changes := append(r.changes, "LABEL "+labelContent+"="+content)
	if r.standIn {
		changes = append(changes, "LABEL "+labelStandIn+"=true")
	}
	return importImage(ctx, r.tag, changes, func(w io.Writer) error {
		return writeRoot(w, r, entries, programs, box)
	})
}

// compileAll builds the recipe's programs and returns them by their places in
// the image.
func compileAll(ctx context.Context, r recipe, folder string) (map[string]string, error) {
	programs := map[string]string{}
	for i, p := range append([]also{{r.pkg, r.binary}}, r.also...) {
		target := filepath.Join(folder, fmt.Sprintf("program%d", i))
		if err := compile(ctx, r, p.pkg, target); err != nil {
			return nil, err
		}
		programs[p.binary] = target
	}
	return programs, nil
}

// compile builds one static program.
func compile(ctx context.Context, r recipe, pkg, target string) error {
	link := "-s -w"
	for _, v := range r.linkVars {
		link += " -X " + v
	}
	_, err := output(ctx, r.module, "go", "build", "-trimpath", "-gcflags", "all=-N -l", "-tags", r.tags, "-ldflags", link, "-o", target, pkg)
	return err
}

// resolve reads the entries that come from a Go module.
func resolve(ctx context.Context, r recipe) ([]entry, error) {
	entries := append([]entry{{path: "/tmp", mode: 0o1777}}, r.entries...)
	for i, e := range entries {
		if e.module == "" {
			continue
		}
		dir, err := output(ctx, r.module, "go", "list", "-m", "-f", "{{.Dir}}", e.module)
		if err != nil {
			return nil, err
		}
		data, err := os.ReadFile(filepath.Join(dir, e.content))
		if err != nil {
			return nil, err
		}
		entries[i].content = string(data)
	}
	return entries, nil
}

// writeRoot writes the image's root file system as a tar stream.
func writeRoot(w io.Writer, r recipe, entries []entry, programs map[string]string, box busybox) error {
	root := &rootWriter{tar: tar.NewWriter(w), made: map[string]bool{"/": true}}
	for _, e := range entries {
		root.entry(e)
	}
	for _, place := range slices.Sorted(maps.Keys(programs)) {
		caps := r.caps
		if place != r.binary {
			caps = 0
		}
		root.file(place, programs[place], caps)
	}
	if r.busybox {
		root.file("/bin/busybox", box.path, 0)
		for _, applet := range box.applets {
			root.link("/bin/"+path.Base(applet), "/bin/busybox")
		}
	}
	return errors.Join(root.err, root.tar.Close())
}

// rootWriter writes a tar stream in which every folder comes before what is in
// it. It keeps the first error.
type rootWriter struct {
	tar  *tar.Writer
	made map[string]bool
	err  error
}

func (w *rootWriter) header(h tar.Header) {
	w.parents(h.Name)
	h.Name = strings.TrimPrefix(h.Name, "/")
	if w.err == nil {
		w.err = w.tar.WriteHeader(&h)
	}
}

// parents writes the folders above name that were not written yet.
func (w *rootWriter) parents(name string) {
	if dir := path.Dir(name); !w.made[dir] {
		w.entry(entry{path: dir})
	}
}

func (w *rootWriter) entry(e entry) {
	if e.content == "" {
		if w.made[e.path] {
			return
		}
		w.made[e.path] = true
		w.header(tar.Header{Typeflag: tar.TypeDir, Name: e.path, Mode: either(e.mode, 0o755), Uid: e.owner, Gid: e.group})
		return
	}
	w.header(tar.Header{Typeflag: tar.TypeReg, Name: e.path, Mode: either(e.mode, 0o644), Uid: e.owner, Gid: e.group, Size: int64(len(e.content))})
	w.copy(strings.NewReader(e.content))
}

// file writes the program at source, whose file has capabilities.
func (w *rootWriter) file(name, source string, caps uint32) {
	f, err := os.Open(source)
	if err != nil {
		w.err = errors.Join(w.err, err)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		w.err = errors.Join(w.err, err)
		return
	}
	h := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: info.Size()}
	if caps != 0 {
		h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": fileCapabilities(caps)}
	}
	w.header(h)
	w.copy(f)
}

// fileCapabilities is the attribute of a file whose program gets capabilities, as
// setcap NAME=+ep writes it: struct vfs_cap_data of revision 2 in the kernel's
// include/uapi/linux/capability.h.
func fileCapabilities(permitted uint32) string {
	const revision2, effective = 0x02000000, 0x01
	data := binary.LittleEndian.AppendUint32(nil, revision2|effective)
	data = binary.LittleEndian.AppendUint32(data, permitted)
	return string(append(data, make([]byte, 12)...)) // nothing inheritable, nor any above 31
}

func (w *rootWriter) link(name, target string) {
	if name != target {
		w.header(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target})
	}
}

func (w *rootWriter) copy(r io.Reader) {
	if w.err == nil {
		_, w.err = io.Copy(w.tar, r)
	}
}

func either(mode, fallback int64) int64 {
	if mode != 0 {
		return mode
	}
	return fallback
}
