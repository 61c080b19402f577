//go:build unix

package statefile

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Trust returns nil if nobody but root and this process's user can have written
// what is there: it is theirs, no link, and not to be written by others. Else its
// errors are fs.ErrNotExist, or wrap fs.ErrPermission and say what is wrong. The
// folders above are the caller's to look at.
func Trust(name string) error {
	info, err := os.Lstat(name)
	if err != nil {
		return err
	}
	owner, known := info.Sys().(*syscall.Stat_t)
	wrong := ""
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		wrong = "it is a symbolic link"
	case !known:
		wrong = "nobody says whose it is"
	case owner.Uid != 0 && int(owner.Uid) != os.Geteuid():
		wrong = fmt.Sprintf("it belongs to the user with the number %d", owner.Uid)
	case info.Mode().Perm()&0o022 != 0:
		wrong = fmt.Sprintf("others may write it: its mode is %03o", info.Mode().Perm())
	}
	if wrong != "" {
		return fmt.Errorf("trust %s: %s: %w", name, wrong, fs.ErrPermission)
	}
	return nil
}
