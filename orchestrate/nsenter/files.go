package nsenter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/statefile"
)

// Tree is a Machine over copies of the kernel's files, for tests: the machine's
// own lie below root as they do below /, those of the namespace of a process
// below root/PID.
func Tree(root string) Machine { return tree{root} }

type tree struct{ root string }

func (t tree) below(ns Namespace) string {
	if ns.PID == 0 {
		return t.root
	}
	return filepath.Join(t.root, strconv.Itoa(ns.PID))
}

func (t tree) Read(_ context.Context, ns Namespace, paths ...string) (map[string]string, error) {
	found := map[string]string{}
	return found, readFiles(t.below(ns), paths, found)
}

func (t tree) Write(_ context.Context, ns Namespace, path, value string) error {
	if isReplaced(path) {
		return replaceFile(t.below(ns), path, value)
	}
	return explainWrite(path, value, writeFile(t.below(ns), path, value))
}

func (t tree) Lock(_ context.Context, path string) (func(), error) { return lockRecord(t.root, path) }

func (tree) Close() error { return nil }

// readFiles adds the files that match, by their paths below root. What cannot
// be read is left out; only a malformed pattern is an error.
func readFiles(root string, patterns []string, into map[string]string) error {
	for _, pattern := range patterns {
		matches, err := filepath.Glob(root + pattern)
		if err != nil {
			return fmt.Errorf("read %s: %w", pattern, err)
		}
		for _, file := range matches {
			if isRecord(pattern) && !trusted(file) {
				continue
			}
			if data, err := os.ReadFile(file); err == nil {
				into[strings.TrimPrefix(file, root)] = string(data)
			}
		}
	}
	return nil
}

// writeFile writes a value into a file that exists, with one system call, as
// the kernel's files want it.
func writeFile(root, path, value string) error {
	f, err := os.OpenFile(root+path, os.O_WRONLY|os.O_TRUNC, 0)
	if err == nil {
		_, err = f.WriteString(value)
		err = errors.Join(err, f.Close())
	}
	return err
}

// explainWrite names what was to be written, and makes a read-only file system
// a lack of permission.
func explainWrite(path, value string, err error) error {
	if err == nil {
		return nil
	}
	var cause *fs.PathError
	if errors.As(err, &cause) {
		err = cause.Err
	}
	if errors.Is(err, syscall.EROFS) {
		err = fmt.Errorf("%w: %w", err, fs.ErrPermission)
	}
	return fmt.Errorf("write %q into %s: %w", value, path, err)
}

// configurationFolder is that of sysctl's configuration.
const configurationFolder = "/etc/sysctl.d"

// RecordFolder is where records of what was changed lie on the engine's machine:
// who is root there finds it as who comes by a helper does, from whichever
// machine. On nearly every machine it is in memory, and so ends with the boot, as
// what was changed does. What others than root could have written there is as if
// it were not there, and nothing is written beside it.
const RecordFolder = "/run/zeekdemo"

// isReplaced reports whether a path is that of a file which is replaced as a whole.
func isReplaced(path string) bool {
	return filepath.Clean(path) == path && (filepath.Dir(path) == configurationFolder || isRecord(path))
}

func isRecord(path string) bool { return filepath.Dir(path) == RecordFolder }

func trusted(file string) bool {
	return statefile.Trust(filepath.Dir(file)) == nil && statefile.Trust(file) == nil
}

// replaceFile makes a file have this content, and durably so: neither a crash
// nor a power cut leaves half of it. An empty content removes it.
func replaceFile(root, path, content string) (err error) {
	defer func() { err = explainWrite(path, firstLine(content), err) }()
	folder := filepath.Dir(root + path)
	if isRecord(path) {
		err = prepareRecord(root + path)
	} else if content != "" {
		err = os.MkdirAll(folder, 0o755)
	}
	if err != nil {
		return err
	}
	if content == "" {
		if err := os.Remove(root + path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return statefile.SyncFolder(folder)
	}
	return statefile.Write(root+path, []byte(content), 0o644)
}

// prepareRecord makes the folder of a record, for everybody to read, and makes
// sure that nobody else has a hand in it.
func prepareRecord(file string) error {
	folder := filepath.Dir(file)
	if _, err := os.Lstat(folder); errors.Is(err, fs.ErrNotExist) {
		if err := errors.Join(os.MkdirAll(folder, 0o755), os.Chmod(folder, 0o755)); err != nil {
			return err
		}
	}
	if err := statefile.Trust(folder); err != nil {
		return err
	}
	if err := statefile.Trust(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lockRecord locks by a file beside records.
func lockRecord(root, path string) (func(), error) {
	err := prepareRecord(root + path)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	unlock, err := statefile.Lock(root + path)
	if errors.Is(err, statefile.ErrLocked) {
		err = ErrLocked
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return unlock, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
