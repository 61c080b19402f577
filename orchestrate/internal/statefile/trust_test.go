//go:build unix

package statefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTrust(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(file string) error
		want   string // empty where it is trusted
	}{
		"one's own":             {func(string) error { return nil }, ""},
		"others may write it":   {func(file string) error { return os.Chmod(file, 0o646) }, "others may write it: its mode is 646"},
		"its group may":         {func(file string) error { return os.Chmod(file, 0o664) }, "its mode is 664"},
		"a link to one's own":   {func(file string) error { return errors.Join(os.Rename(file, file+".1"), os.Symlink(file+".1", file)) }, "a symbolic link"},
		"another user's":        {func(file string) error { return os.Chown(file, 4242, -1) }, "belongs to the user with the number 4242"},
		"a folder of one's own": {func(file string) error { return errors.Join(os.Remove(file), os.Mkdir(file, 0o755)) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "record")
			if err := os.WriteFile(file, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := tt.change(file); errors.Is(err, fs.ErrPermission) {
				t.Skip("SKIPPED: only root gives files away")
			} else if err != nil {
				t.Fatal(err)
			}
			err := Trust(file)
			if (err == nil) != (tt.want == "") || err != nil && (!errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := Trust(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}
