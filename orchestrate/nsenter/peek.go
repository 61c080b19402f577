package nsenter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// Peek returns a Machine that only reads, without any privilege and without a
// helper: the machine's own files here if this is the engine's machine, and
// those of a container, given by the process of a running container of the
// stack, with cat inside it; records, wherever the machine is. What cannot be seen
// that way is absent: the machine's own interfaces where it is another machine, for
// example. The list has the containers of the stack.
func Peek(ctx context.Context, engine orchestrate.Engine, list []orchestrate.Container) Machine {
	p := &peek{engine: engine, ids: map[int]string{}}
	for _, c := range list {
		s, err := orchestrate.ServiceByName(c.Service)
		if err == nil && s.IsSensor() && c.Running() {
			p.ids[c.PID], p.any = c.ID, c.ID
		}
	}
	if h, ok := engine.(orchestrate.HelperEngine); ok {
		if host, err := h.Host(ctx); err == nil {
			p.here = isThisMachine(host) == nil
		}
	}
	return p
}

type peek struct {
	engine orchestrate.Engine
	ids    map[int]string // of the containers, by their processes
	any    string         // one of them
	here   bool           // this is the engine's machine
}

// peekScript prints each file behind a line with a mark and its path. Its
// arguments are the mark and the patterns.
const peekScript = `mark=$1; shift; IFS=
for pattern; do for file in $pattern; do
	[ -r "$file" ] && [ -f "$file" ] && printf '%s %s\n' "$mark" "$file" && cat "$file" && echo
done; done; true`

const peekMark = "\x01file"

func (p *peek) Read(ctx context.Context, ns Namespace, paths ...string) (map[string]string, error) {
	if ns.PID == 0 && p.here {
		return Local().Read(ctx, ns, paths...)
	}
	var records, others []string
	for _, path := range paths {
		if isRecord(path) {
			records = append(records, path)
		} else {
			others = append(others, path)
		}
	}
	found := map[string]string{}
	if len(records) > 0 {
		if err := p.readRecords(ctx, records, found); err != nil {
			return nil, err
		}
	}
	if len(others) == 0 {
		return found, nil
	}
	inside, err := p.readInside(ctx, ns, others)
	maps.Copy(found, inside)
	return found, err
}

// readRecords lets the engine look, where it can: no container sees its machine's
// files.
func (p *peek) readRecords(ctx context.Context, patterns []string, found map[string]string) error {
	machine, ok := p.engine.(orchestrate.MachineFiles)
	if !ok {
		return nil
	}
	files, err := machine.MachineFolder(ctx, RecordFolder)
	if err != nil {
		return err
	}
	for file, content := range files {
		matches := func(pattern string) bool { match, err := path.Match(pattern, file); return err == nil && match }
		if slices.ContainsFunc(patterns, matches) {
			found[file] = content
		}
	}
	return nil
}

// readInside reads with cat in a container.
func (p *peek) readInside(ctx context.Context, ns Namespace, paths []string) (map[string]string, error) {
	id := p.ids[ns.PID]
	if ns.PID == 0 {
		id = p.any
		paths = slices.DeleteFunc(paths, func(path string) bool {
			return strings.HasPrefix(path, "/sys/class/net/") || strings.HasPrefix(path, "/proc/net/")
		})
	}
	if id == "" {
		return nil, fmt.Errorf("look for the container of process %d: %w", ns.PID, fs.ErrNotExist)
	}
	var out, errs bytes.Buffer
	code, err := p.engine.Exec(ctx, id, append([]string{"sh", "-c", peekScript, "sh", peekMark}, paths...), &out, &errs)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s", code, strings.TrimSpace(errs.String()))
	}
	if err != nil {
		return nil, fmt.Errorf("read in the container: %w", err)
	}
	return split(out.String()), nil
}

// split takes apart what peekScript prints.
func split(out string) map[string]string {
	found := map[string]string{}
	for part := range strings.SplitSeq(out, peekMark+" ") {
		if path, content, ok := strings.Cut(part, "\n"); ok {
			found[path] = strings.TrimSuffix(content, "\n")
		}
	}
	return found
}

func (*peek) Write(_ context.Context, _ Namespace, path, _ string) error {
	return fmt.Errorf("write %s: this way only reads: %w", path, errors.ErrUnsupported)
}

func (*peek) Lock(_ context.Context, path string) (func(), error) {
	return nil, fmt.Errorf("lock %s: this way only reads: %w", path, errors.ErrUnsupported)
}

func (*peek) Close() error { return nil }
