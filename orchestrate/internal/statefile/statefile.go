// Package statefile writes the files that the program keeps: records, bundles,
// the system's configuration. A reader finds such a file whole, or the one before
// it, or none; a crash or a power cut leaves no half of one.
//
// What is written grows in a temporary file of the same folder, which then takes
// the name. Other users may be able to write into that folder, so the temporary
// file has a random name and is made with O_EXCL, which neither opens what is
// there already nor follows a symbolic link (open(2)). It is locked for as long
// as its process lives: so what a killed one left is known, and the next one that
// writes into the folder removes it.
package statefile

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Around the random part of a temporary file's name. No program takes such a name
// for a file of its configuration.
const (
	prefix = ".zeekdemo-"
	suffix = ".new"
)

// tries is how often a temporary file is made before its loss to others' tidying
// is an error.
const tries = 10

// Write makes a file have this content and mode, whole and durably, in place of
// what has its name: of a symbolic link the link is replaced. The folder must
// exist.
func Write(path string, content []byte, mode fs.FileMode) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, Discard(f))
	}
	return errors.Join(f.Close(), SyncFolder(filepath.Dir(path)))
}

// Create makes a temporary file in the folder of path, for its owner only, after
// it has removed those that nobody writes any more. Who gets it renames it, or
// calls [Discard].
func Create(path string) (*os.File, error) {
	folder := filepath.Dir(path)
	removeForgotten(folder)
	for range tries {
		name := filepath.Join(folder, prefix+strings.ToLower(rand.Text())+suffix)
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, err
		}
		if lock(f) == nil && names(name, f) {
			return f, nil
		}
		f.Close() // another process took it for forgotten before it was locked
	}
	return nil, &fs.PathError{Op: "open", Path: folder, Err: errors.New("its temporary files are removed by others")}
}

// Discard closes a temporary file and removes it, where it still is.
func Discard(f *os.File) error {
	f.Close()
	if err := os.Remove(f.Name()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// SyncFolder makes what was renamed or removed in a folder last. Where there is
// no folder, nothing was.
func SyncFolder(folder string) error {
	f, err := os.Open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// removeForgotten removes the temporary files of processes that have ended. It is
// only housekeeping: what cannot be removed stays.
func removeForgotten(folder string) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasPrefix(e.Name(), prefix) && strings.HasSuffix(e.Name(), suffix) {
			removeIfForgotten(filepath.Join(folder, e.Name()))
		}
	}
}

func removeIfForgotten(name string) {
	f, err := openAgain(name)
	if err != nil {
		return
	}
	defer f.Close()
	if lock(f) == nil && names(name, f) {
		_ = os.Remove(name)
	}
}

// names reports whether a name is that of an open file.
func names(name string, f *os.File) bool {
	at, err := os.Lstat(name)
	if err != nil {
		return false
	}
	opened, err := f.Stat()
	return err == nil && os.SameFile(at, opened)
}
