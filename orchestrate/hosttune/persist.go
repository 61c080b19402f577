package hosttune

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"strings"

	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// PersistFile makes the numbers of the machine last over a reboot: sysctl(8)
// and systemd-sysctl(8) read it when the machine starts. It has the values from
// before, so that it can be taken back by itself, and a sum over its lines, so
// that somebody else's changes to it are seen.
const PersistFile = "/etc/sysctl.d/60-zeekdemo.conf"

const (
	persistHead = "# Made by `zeekdemo tune-host --persist`; `zeekdemo tune-host --revert` removes it. Sum: "
	beforeHead  = "# before: "
)

// persisted is what the file says.
type persisted struct {
	exists bool
	ours   bool // it is as we wrote it
	items  []Item
}

// persistText returns the file's content for a plan's numbers. A value that is
// higher than wanted stays so.
func persistText(p Plan, r Record) string {
	var b strings.Builder
	for _, i := range p.Items {
		if i.kind != number {
			continue
		}
		keep, before := i.Wanted, i.Now
		if !i.Needed {
			keep = i.Now
		}
		if e, ok := r.find(i); ok {
			before = e.Before
		}
		fmt.Fprintf(&b, "\n# %s\n%s = %s\n%s%s\n", i.Why, i.Setting, keep, beforeHead, before)
	}
	return persistHead + sum(b.String()) + "\n" + b.String()
}

func sum(text string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // cannot fail
	return fmt.Sprintf("%016x", h.Sum64())
}

// parsePersisted reads the file's content.
func parsePersisted(text string) persisted {
	p := persisted{exists: true}
	head, rest, _ := strings.Cut(text, "\n")
	given, ok := strings.CutPrefix(head, persistHead)
	if !ok || given != sum(rest) {
		return p
	}
	p.ours = true
	for line := range strings.Lines(rest) {
		line = strings.TrimSuffix(line, "\n")
		if before, ok := strings.CutPrefix(line, beforeHead); ok && len(p.items) > 0 {
			p.items[len(p.items)-1].Now = before
		} else if name, set, ok := strings.Cut(line, " = "); ok && !strings.HasPrefix(line, "#") {
			p.items = append(p.items, Item{Setting: name, Where: Host, Path: sysctlPath(name), Wanted: set, kind: number, place: Place{Name: Host}})
		}
	}
	return p
}

func readPersisted(ctx context.Context, m Machine) (persisted, error) {
	files, err := m.Read(ctx, nsenter.Namespace{}, PersistFile)
	if err != nil {
		return persisted{}, err
	}
	text, ok := files[PersistFile]
	if !ok {
		return persisted{}, nil
	}
	return parsePersisted(text), nil
}

// Persist writes the file for the numbers of a plan that has been applied by
// the session, or takes back what the session has done. The plan is the one
// from before. It is a session's last step.
func (s *Session) Persist(ctx context.Context, p Plan) error {
	files, err := s.m.Read(ctx, nsenter.Namespace{}, PersistFile)
	if err != nil {
		return errors.Join(err, s.Rollback(ctx))
	}
	var was persisted
	old, exists := files[PersistFile]
	if exists {
		if was = parsePersisted(old); !was.ours {
			return errors.Join(fmt.Errorf("write %s: it was not made by zeekdemo, or was changed since: %w", PersistFile, fs.ErrExist), s.Rollback(ctx))
		}
	}
	text := persistText(p, was.record(s.record))
	if old == text {
		return nil
	}
	if err := s.m.Write(ctx, nsenter.Namespace{}, PersistFile, text); err != nil {
		return errors.Join(err, s.Rollback(ctx))
	}
	return nil
}

// record makes entries of what the file says was before, where r has none: it
// is of an earlier boot.
func (p persisted) record(r Record) Record {
	for _, i := range p.items {
		if _, ok := r.find(i); !ok {
			r.Entries = append(r.Entries[:len(r.Entries):len(r.Entries)], Entry{Setting: i.Setting, Where: Host, Path: i.Path, Kind: number, Before: i.Now, Set: []string{i.Wanted}})
		}
	}
	return r
}

// Forget says what taking back PersistFile means: what to restore of the values
// that a boot took from it, and whether the file itself goes. A file that
// somebody changed is left alone.
type Forget struct {
	File    bool // it is there, and goes
	Foreign bool // it is there, and stays: somebody changed it
}

// WithPersisted adds to a record what only the file tells, for the machine may
// have been started since.
func WithPersisted(ctx context.Context, m Machine, r Record) (Record, Forget, error) {
	p, err := readPersisted(ctx, m)
	if err != nil || !p.exists {
		return r, Forget{}, err
	}
	if !p.ours {
		return r, Forget{Foreign: true}, nil
	}
	return p.record(r), Forget{File: true}, nil
}

// RemovePersisted removes the file.
func RemovePersisted(ctx context.Context, m Machine) error {
	return m.Write(ctx, nsenter.Namespace{}, PersistFile, "")
}
