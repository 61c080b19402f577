package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/doctor"
)

// bundleFolder is the one folder in a bundle, so that unpacking it litters
// nothing.
const bundleFolder = "zeekdemo-bundle/"

// bundleDocument is what `doctor --bundle --json` prints.
type bundleDocument struct {
	Bundle  string        `json:"bundle"`
	Bytes   int64         `json:"bytes"`
	Files   []bundleFile  `json:"files"`
	Missing []string      `json:"missing"`
	Report  doctor.Report `json:"report"`
}

type bundleFile struct {
	Name  string `json:"name"`
	Bytes int    `json:"bytes"`
}

// runBundle collects and writes. That there are problems is the reason to do
// so, and no failure of it.
func runBundle(ctx context.Context, app *App, o doctorOptions) error {
	if err := mayCreate(o.bundle); err != nil {
		return err
	}
	fmt.Fprintln(app.Err, "Collecting what a bug report needs")
	engine, connectErr := app.Connect(app.Err)
	if c, ok := engine.(io.Closer); ok {
		defer c.Close()
	}
	c, err := newCollector(ctx, app, newProber(app, engine, connectErr))
	if err != nil {
		return err
	}
	b := c.Collect(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted: no bundle was written")
	}
	size, err := writeBundle(o.bundle, b, time.Now())
	if err != nil {
		return err
	}
	doc := bundleDocument{Bundle: o.bundle, Bytes: size, Files: []bundleFile{}, Missing: b.Missing, Report: c.Report}
	for _, f := range b.Files {
		doc.Files = append(doc.Files, bundleFile{f.Name, len(f.Data)})
	}
	if o.json {
		return ui.JSON(app.Out, doc)
	}
	listBundle(app, doc)
	return nil
}

// newCollector looks first, for what the doctor says goes into the bundle.
func newCollector(ctx context.Context, app *App, p *doctor.Prober) (*doctor.Collector, error) {
	c := &doctor.Collector{Prober: p, Facts: p.Probe(ctx), Environ: os.Environ(), Secrets: dockerLogins(app.Getenv)}
	c.Report = doctor.Diagnose(c.Facts)
	var text bytes.Buffer
	writeDoctor(&text, c.Report)
	c.Text = text.Bytes()
	var err error
	if c.Version, err = json.MarshalIndent(describeVersion(app.Version), "", "  "); err != nil {
		return nil, fmt.Errorf("describe the version: %w", err)
	}
	return c, nil
}

// dockerLogins are the files in which Docker's client keeps logins and proxies.
func dockerLogins(getenv func(string) string) []string {
	dir := getenv("DOCKER_CONFIG")
	if dir == "" {
		dir = filepath.Join(getenv("HOME"), ".docker")
	}
	return []string{filepath.Join(dir, "config.json")}
}

// mayCreate refuses before anything is collected what could not be written
// after it. Nothing is overwritten: the file may be another bundle, which was
// made when the trouble was there.
func mayCreate(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return orchestrate.WithHint(fmt.Errorf("write the bundle %s: %w", path, fs.ErrExist), "remove it, or choose another name")
	}
	f, err := createBeside(path)
	if err != nil {
		return err
	}
	f.Close()
	return os.Remove(f.Name())
}

// createBeside makes a file of its owner only, mode 0600, in the folder of path.
func createBeside(path string) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".zeekdemo-bundle-*")
	var cause *fs.PathError
	if errors.As(err, &cause) {
		err = cause.Err // its own name means nothing to anybody
	}
	if err != nil {
		return nil, fmt.Errorf("write the bundle %s: create a file in its folder: %w", path, err)
	}
	return f, nil
}

// writeBundle writes a file that is there as a whole or not at all, for its
// owner only, and returns its size.
func writeBundle(path string, b doctor.Bundle, now time.Time) (size int64, err error) {
	f, err := createBeside(path)
	if err != nil {
		return 0, err
	}
	defer func() {
		f.Close()
		if removeErr := os.Remove(f.Name()); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}()
	if err := errors.Join(archive(f, b, now), f.Sync()); err != nil {
		return 0, fmt.Errorf("write the bundle %s: %w", path, err)
	}
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("write the bundle %s: %w", path, err)
	}
	err = os.Link(f.Name(), path) // unlike a rename, it replaces nothing
	if err != nil && !errors.Is(err, fs.ErrExist) {
		err = os.Rename(f.Name(), path) // a file system without links
	}
	if err != nil {
		return 0, fmt.Errorf("write the bundle %s: %w", path, err)
	}
	return info.Size(), nil
}

// archive writes the files as a compressed tar archive.
func archive(w io.Writer, b doctor.Bundle, now time.Time) error {
	zipped := gzip.NewWriter(w)
	tarred := tar.NewWriter(zipped)
	for _, f := range b.Files {
		header := &tar.Header{Name: bundleFolder + f.Name, Mode: 0o600, Size: int64(len(f.Data)), ModTime: now, Typeflag: tar.TypeReg}
		if err := tarred.WriteHeader(header); err != nil {
			return err
		}
		if _, err := tarred.Write(f.Data); err != nil {
			return err
		}
	}
	return errors.Join(tarred.Close(), zipped.Close())
}

// bundleGroup is the part of a name by which the files are listed: a folder of
// the first level, or the file itself.
func bundleGroup(name string) string {
	if folder, _, found := strings.Cut(name, "/"); found {
		return folder + "/"
	}
	return name
}

// listBundle says what is in the bundle and what is not.
func listBundle(app *App, doc bundleDocument) {
	var rows [][]string
	counts, sizes := map[string]int{}, map[string]int{}
	var order []string
	for _, f := range doc.Files {
		group := bundleGroup(f.Name)
		if counts[group] == 0 {
			order = append(order, group)
		}
		counts[group]++
		sizes[group] += f.Bytes
	}
	for _, group := range order {
		files := ""
		if strings.HasSuffix(group, "/") {
			files = fmt.Sprintf("%d files, ", counts[group])
		}
		rows = append(rows, []string{group, files + ui.Bytes(int64(sizes[group])), bundleWords[group]})
	}
	ui.Table(app.Out, rows)
	for _, m := range doc.Missing {
		fmt.Fprintln(app.Err, "missing: "+m)
	}
	fmt.Fprintf(app.Err, "\nWrote %s (%s). Secrets that were recognised are removed; look through it before you give it away.\n", doc.Bundle, ui.Bytes(doc.Bytes))
}

// bundleWords say what the parts of a bundle are.
var bundleWords = map[string]string{
	"README.txt":      "what is in it, and what is missing",
	"compose.json":    "the stack as `up` would make it now",
	"containers/":     "the stack as the engine describes it",
	"counters/":       "packets received and dropped",
	"doctor.json":     "what the doctor says",
	"doctor.txt":      "the same, to be read",
	"engine/":         "version, settings, networks, volumes",
	"environment.txt": "variables that concern the stack",
	"facts.json":      "what the doctor looked at",
	"logs/":           "last lines of the services, not your traffic",
	"machine/":        "kernel, memory, processors, network settings",
	"version.json":    "of this program",
}
