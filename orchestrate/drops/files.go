package drops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// Dir reads the files of this machine, or of a fixture tree: its value is the
// directory that has proc and sys in it, "/" for this machine. Anybody may read
// a process's /proc/PID/net; its /sys takes root.
type Dir string

var _ Files = Dir("/")

// Read implements [Files].
func (d Dir) Read(_ context.Context, pid int, paths ...string) map[string]File {
	files := make(map[string]File, len(paths))
	for _, path := range paths {
		at := d.locate(pid, path)
		if !strings.ContainsAny(path, "*?[") {
			files[path] = readFile(at)
			continue
		}
		matches, _ := filepath.Glob(at)
		prefix := strings.TrimSuffix(at, path)
		for _, match := range matches {
			if f := readFile(match); f.Err == nil {
				files[strings.TrimPrefix(match, prefix)] = f
			}
		}
	}
	return files
}

// locate says where a namespace's file is found from outside.
func (d Dir) locate(pid int, path string) string {
	if pid == 0 && d == "/" { // a thread of this process may be in another namespace
		if rest, ok := strings.CutPrefix(path, "/proc/net"); ok {
			path = "/proc/thread-self/net" + rest
		}
	}
	if pid != 0 {
		process := "/proc/" + strconv.Itoa(pid)
		if rest, ok := strings.CutPrefix(path, "/proc/net"); ok {
			path = process + "/net" + rest
		} else if strings.HasPrefix(path, "/sys/") {
			path = process + "/root" + path
		}
	}
	return filepath.Join(string(d), path)
}

// readFile reads in few large pieces: the kernel makes up some of these files
// anew for each.
func readFile(path string) File {
	f, err := os.Open(path)
	if err != nil {
		return File{Err: err}
	}
	defer f.Close()
	buf := make([]byte, 16<<10)
	n := 0
	for {
		m, err := f.Read(buf[n:])
		n += m
		if errors.Is(err, io.EOF) {
			return File{Text: string(buf[:n])}
		}
		if err != nil {
			return File{Err: err}
		}
		if n == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

// Entered reads the files of another machine, by whatever way the
// [nsenter.Machine] has to it.
type Entered struct{ Machine nsenter.Machine }

var _ Files = Entered{}

// Read implements [Files].
func (e Entered) Read(ctx context.Context, pid int, paths ...string) map[string]File {
	files := make(map[string]File, len(paths))
	texts, err := e.Machine.Read(ctx, nsenter.Namespace{PID: pid}, paths...)
	for _, path := range paths {
		if strings.ContainsAny(path, "*?[") {
			continue
		}
		why := err
		if why == nil {
			why = fmt.Errorf("read %s: %w", path, fs.ErrNotExist)
		}
		files[path] = File{Err: why}
	}
	for path, text := range texts {
		files[path] = File{Text: text}
	}
	return files
}

func isNotExist(err error) bool   { return errors.Is(err, fs.ErrNotExist) }
func isPermission(err error) bool { return errors.Is(err, fs.ErrPermission) }
