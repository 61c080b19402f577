package nsenter

import (
	"bufio"
	"context"
	"crypto/rand"
	_ "embed" // the helper's script
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

//go:embed helper.sh
var helperScript string

// requestLimit is how long a helper may take for one request. Each is a few
// files; a helper that hangs is lost.
const requestLimit = 30 * time.Second

// helper speaks to a helper container, by the protocol of helper.sh.
type helper struct {
	engine  orchestrate.HelperEngine
	streams orchestrate.SidecarStreams
	mark    string
	said    *tail // what it printed on standard error

	mu     sync.Mutex // held during a request
	out    *bufio.Reader
	broken error // after which nothing can be asked any more
}

var _ Machine = (*helper)(nil)

func openHelper(ctx context.Context, engine orchestrate.HelperEngine, spec orchestrate.HelperSpec) (Machine, error) {
	h := &helper{engine: engine, mark: rand.Text(), said: &tail{ended: make(chan struct{})}}
	program := ""
	if spec.Program != "" {
		program = orchestrate.SidecarProgram
	}
	spec.Script, spec.Args = helperScript, []string{h.mark, orchestrate.HelperFolder, program, orchestrate.HelperRun}
	streams, err := orchestrate.StartHelper(ctx, engine, spec)
	if err != nil {
		return nil, err
	}
	h.streams, h.out = streams, bufio.NewReader(streams.Stdout)
	go h.said.read(streams.Stderr)
	if _, err := h.request("read", 0); err != nil { // it has mounted what it needs
		err = orchestrate.WithHint(fmt.Errorf("reach the engine's machine by a helper container: %w", err),
			"an engine that runs without root cannot: run zeekdemo as root on that machine")
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func (h *helper) Read(ctx context.Context, ns Namespace, paths ...string) (map[string]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	found, err := h.request("read", ns.PID, paths...)
	if err != nil {
		return nil, fmt.Errorf("read by the helper container: %w", err)
	}
	return found, nil
}

func (h *helper) Write(ctx context.Context, ns Namespace, path, value string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var err error
	switch {
	case isReplaced(path) && value == "":
		_, err = h.request("replace", 0, path)
	case isReplaced(path):
		_, err = h.request("replace", 0, append([]string{path}, strings.Split(strings.TrimSuffix(value, "\n"), "\n")...)...)
	default:
		_, err = h.request("write", ns.PID, path, value)
	}
	if err != nil {
		return fmt.Errorf("write %q into %s: %w", firstLine(value), path, err)
	}
	return nil
}

// Lock is the helper's, and goes with it.
func (h *helper) Lock(ctx context.Context, path string) (func(), error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if _, err := h.request("lock", 0, path); err != nil {
		if err.Error() == ErrLocked.Error() { // the script says the same
			err = ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _, _ = h.request("unlock", 0) }, nil // a helper that does not answer has lost it as well
}

// Close ends the helper and waits until the engine has removed it.
func (h *helper) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = h.streams.Stdin.Close() // it may have ended already
	_, err := h.streams.Wait(ctx)
	if err != nil {
		err = h.engine.RemoveCompanion(ctx, h.streams.ID)
	}
	_ = h.streams.Close() // nothing was written that matters
	return err
}

// request sends one and reads the answer.
func (h *helper) request(operation string, pid int, lines ...string) (map[string]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.broken != nil {
		return nil, h.broken
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d %d\n", operation, pid, len(lines))
	for _, line := range lines {
		if strings.ContainsAny(line, "\n\x00") {
			return nil, fmt.Errorf("a line break in %q: %w", line, fs.ErrInvalid)
		}
		b.WriteString(line + "\n")
	}
	late := time.AfterFunc(requestLimit, func() { _ = h.streams.Close() })
	defer late.Stop()
	if _, err := io.WriteString(h.streams.Stdin, b.String()); err != nil {
		return nil, h.lost(err)
	}
	return h.answer()
}

// lost says that the helper has gone, and why as far as it said.
func (h *helper) lost(err error) error {
	select { // what it said may still be on its way
	case <-h.said.ended:
	case <-time.After(time.Second):
	}
	if said := h.said.last(); said != "" {
		err = errors.New(said)
	} else if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	h.broken = fmt.Errorf("the helper container ended: %w", asFileError(err.Error(), err))
	return h.broken
}

// answer reads until "done".
func (h *helper) answer() (map[string]string, error) {
	found := map[string]string{}
	for {
		line, err := h.out.ReadString('\n')
		if err != nil {
			return nil, h.lost(err)
		}
		kind, rest, _ := strings.Cut(strings.TrimPrefix(strings.TrimSuffix(line, "\n"), h.mark+" "), " ")
		switch kind {
		case "file":
			content, ok, err := h.content()
			if err != nil {
				return nil, h.lost(err)
			}
			if ok {
				found[rest] = content
			}
		case "done":
			code, message, _ := strings.Cut(rest, " ")
			if n, err := strconv.Atoi(code); err == nil && n == 0 {
				return found, nil
			}
			return nil, asFileError(message, errors.New(message))
		default:
			return nil, h.lost(fmt.Errorf("it said %q", line))
		}
	}
}

// content reads a file's content up to its end, which begins a line; the line
// break before that is not the file's. It reports whether the file could be
// read.
func (h *helper) content() (string, bool, error) {
	var b strings.Builder
	for {
		line, err := h.out.ReadString('\n')
		if err != nil {
			return "", false, err
		}
		if code, ok := strings.CutPrefix(line, h.mark+" end "); ok {
			return strings.TrimSuffix(b.String(), "\n"), code == "0\n", nil
		}
		b.WriteString(line)
	}
}

// asFileError turns what a shell or cat says into the error that the system
// call would have returned.
func asFileError(message string, err error) error {
	for _, known := range []struct {
		text string
		is   error
	}{
		{"ermission denied", fs.ErrPermission},
		{"ead-only file system", fs.ErrPermission},
		{"peration not permitted", fs.ErrPermission},
		{"o such file", fs.ErrNotExist},
		{"o such process", fs.ErrNotExist},
		{"nonexistent", fs.ErrNotExist},
	} {
		if strings.Contains(message, known.text) {
			return fmt.Errorf("%w (%w)", err, known.is)
		}
	}
	return err
}

// tail keeps the last line of a stream.
type tail struct {
	ended chan struct{} // closed when the stream has ended
	mu    sync.Mutex
	line  string
}

func (t *tail) read(r io.Reader) {
	defer close(t.ended)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if text := strings.TrimSpace(lines.Text()); text != "" {
			t.mu.Lock()
			t.line = text
			t.mu.Unlock()
		}
	}
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.line
}
