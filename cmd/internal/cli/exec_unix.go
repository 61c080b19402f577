//go:build unix

package cli

import (
	"fmt"
	"os/exec"
	"syscall"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

func execProcess(path string, args, env []string) error { return syscall.Exec(path, args, env) }

func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", orchestrate.WithHint(fmt.Errorf("find %s: %w", name, err), "leave --slice away where systemd does not run")
	}
	return path, nil
}
