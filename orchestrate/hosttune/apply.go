package hosttune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// Session sets what plans want. It is one call's: when a value cannot be set,
// everything that it set is taken back. It belongs to one goroutine.
type Session struct {
	m      Machine
	store  Records
	first  Record // as it was when the session began
	record Record
	done   []Item // in the order in which they were set, Now being the value before
}

// NewSession begins one on a machine, engine being the engine's ID if it is
// known. The interfaces are recorded as those whose offloads are off.
func NewSession(ctx context.Context, m Machine, store Records, boot, engine string, interfaces []string) (*Session, error) {
	r, err := store.Load(ctx, boot)
	if err != nil {
		return nil, err
	}
	s := &Session{m: m, store: store, first: r, record: r}
	if engine != "" {
		s.record.Engine = engine
	}
	for _, name := range interfaces {
		if !slices.Contains(s.record.Interfaces, name) {
			s.record.Interfaces = append(slices.Clone(s.record.Interfaces), name)
		}
	}
	return s, nil
}

// Running says which sensors run. What is recorded of others is forgotten: it
// went with their namespaces.
func (s *Session) Running(sensors []Place) {
	gone := func(e Entry) bool { return e.Container != "" && !slices.ContainsFunc(sensors, e.in) }
	s.first.Entries = slices.DeleteFunc(slices.Clone(s.first.Entries), gone)
	s.record.Entries = slices.DeleteFunc(slices.Clone(s.record.Entries), gone)
}

// Record returns what is recorded by now.
func (s *Session) Record() Record { return s.record }

// Apply records what the plan changes, then changes it, and returns the items
// that were changed. Where one fails, or ctx is done, everything that the
// session changed is taken back.
func (s *Session) Apply(ctx context.Context, p Plan) ([]Item, error) {
	changes := p.Changes()
	if len(changes) == 0 {
		return nil, nil
	}
	uptime, err := Uptime(ctx, s.m)
	if err != nil {
		return nil, errors.Join(err, s.Rollback(ctx))
	}
	s.record = s.record.with(changes, uptime)
	if err := s.store.Save(ctx, s.record); err != nil {
		return nil, errors.Join(err, s.Rollback(ctx))
	}
	for _, i := range changes {
		s.done = append(s.done, i) // it counts even if it fails half-way
		if err := set(ctx, s.m, i, i.Wanted); err != nil {
			return nil, errors.Join(fmt.Errorf("set %s: %w", i, err), s.Rollback(ctx))
		}
	}
	return changes, nil
}

// Rollback takes back what the session has set, the last first, also where ctx
// is done. What cannot be taken back stays recorded.
func (s *Session) Rollback(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var failed []error
	for range 2 { // a feature may need another one first
		failed = nil
		for _, i := range slices.Backward(s.done) {
			err := set(ctx, s.m, i, i.Now)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = append(failed, fmt.Errorf("take back %s: %w", i, err))
			}
		}
	}
	s.done = nil
	if len(failed) > 0 {
		return errors.Join(append(failed, errors.New("`zeekdemo tune-host --revert` tries again"))...)
	}
	s.record = s.first
	return s.store.Save(ctx, s.record)
}

// set writes one value and reads it back, for a kernel may take less.
func set(ctx context.Context, m Machine, i Item, wanted string) error {
	now, err := read(ctx, m, i)
	if err == nil && i.kind.same(now, wanted) {
		return nil
	}
	if err := m.Write(ctx, i.place.Namespace, i.Path, wanted); err != nil {
		return err
	}
	now, err = read(context.WithoutCancel(ctx), m, i)
	if err != nil {
		return err
	}
	if !i.kind.same(now, wanted) {
		return fmt.Errorf("the kernel made %s of %s", now, wanted)
	}
	return nil
}

// read returns an item's present value.
func read(ctx context.Context, m Machine, i Item) (string, error) {
	files, err := m.Read(ctx, i.place.Namespace, i.Path)
	if err != nil {
		return "", err
	}
	content, ok := files[i.Path]
	if !ok {
		return "", fmt.Errorf("read %s: %w", i.Path, fs.ErrNotExist)
	}
	return value(content), nil
}

// BootID returns the ID of the machine's present boot.
func BootID(ctx context.Context, m Machine) (string, error) {
	files, err := m.Read(ctx, nsenter.Namespace{}, bootID)
	if err != nil {
		return "", fmt.Errorf("look at the machine's boot: %w", err)
	}
	boot := value(files[bootID])
	if boot == "" {
		return "", errors.New("look at the machine's boot: its kernel tells no ID")
	}
	return boot, nil
}

// Uptime returns how long the machine has been running, in seconds: the clock
// by which it is told what was before a change.
func Uptime(ctx context.Context, m Machine) (float64, error) {
	const file = "/proc/uptime"
	files, err := m.Read(ctx, nsenter.Namespace{}, file)
	if err != nil {
		return 0, err
	}
	seconds, err := procfs.Uptime(files[file])
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", file, err)
	}
	return seconds, nil
}
