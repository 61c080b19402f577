package fakehelper

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// Look answers what is read in a container without a helper, from the copies
// below root: the settings of the kernel, and what the namespace of the
// container's process has of its own. It reports whether it was such a
// question: cat of one file, or the script of nsenter.Peek.
func Look(ctx context.Context, root string, pid int, cmd []string, stdout io.Writer) bool {
	patterns, mark := cmd[1:], ""
	switch {
	case cmd[0] == "sh" && len(cmd) > 4:
		mark, patterns = cmd[4], cmd[5:]
	case cmd[0] != "cat" || !strings.HasPrefix(cmd[1], "/proc/sys/kernel/") && cmd[1] != "/proc/net/udp":
		return false
	}
	found := inContainer(ctx, nsenter.Tree(root), pid, patterns)
	for _, path := range slices.Sorted(maps.Keys(found)) {
		if mark != "" {
			fmt.Fprintf(stdout, "%s %s\n%s\n", mark, path, found[path])
		} else {
			fmt.Fprint(stdout, found[path])
		}
	}
	return true
}

// inContainer reads as a process of a container does.
func inContainer(ctx context.Context, copies nsenter.Machine, pid int, patterns []string) map[string]string {
	found, _ := copies.Read(ctx, nsenter.Namespace{PID: pid}, patterns...)
	if found == nil {
		found = map[string]string{}
	}
	whole, _ := copies.Read(ctx, nsenter.Namespace{}, patterns...)
	for path, content := range whole {
		if !strings.HasPrefix(path, orchestrate.MachineRun+"/") && !strings.HasPrefix(path, "/sys/class/net/") && !strings.HasPrefix(path, "/proc/net/") {
			found[path] = content
		}
	}
	return found
}

// MachineFolder looks into a folder of the copies.
func (e *Engine) MachineFolder(ctx context.Context, folder string) (map[string]string, error) {
	return nsenter.Tree(e.Root).Read(ctx, nsenter.Namespace{}, folder+"/*")
}
