package main

import (
	"context"
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// busybox is a static busybox of this machine's architecture.
type busybox struct {
	path    string
	applets []string
}

// findBusybox takes the installed one if it is static, else the one of
// Debian's package busybox-static, unpacked into dir.
func findBusybox(ctx context.Context, dir string) (busybox, error) {
	for _, name := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		if static(name) {
			return listApplets(ctx, name)
		}
	}
	if err := download(ctx, dir); err != nil {
		return busybox{}, err
	}
	for _, name := range []string{"bin/busybox", "usr/bin/busybox"} {
		if name = filepath.Join(dir, name); static(name) {
			return listApplets(ctx, name)
		}
	}
	return busybox{}, errors.New("package busybox-static holds no static busybox")
}

// static tells whether the program needs no interpreter.
func static(name string) bool {
	f, err := elf.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	return f.Section(".interp") == nil
}

func listApplets(ctx context.Context, name string) (busybox, error) {
	list, err := output(ctx, "", name, "--list")
	return busybox{name, strings.Fields(list)}, err
}

// download unpacks the package without installing it, which needs no root. A
// fresh machine has no package lists; root can fetch them.
func download(ctx context.Context, dir string) error {
	_, err := output(ctx, dir, "apt-get", "-qq", "download", "busybox-static")
	if err != nil && os.Getuid() == 0 {
		if _, err = output(ctx, dir, "apt-get", "-qq", "update"); err == nil {
			_, err = output(ctx, dir, "apt-get", "-qq", "download", "busybox-static")
		}
	}
	if err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "busybox-static_*.deb"))
	if err != nil || len(debs) == 0 {
		return errors.Join(err, errors.New("apt-get downloaded no busybox-static"))
	}
	_, err = output(ctx, dir, "dpkg-deb", "-x", debs[0], dir)
	return err
}
