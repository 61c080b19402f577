package orchestrate

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
)

// Locks is what keeping one command at a time from changing the stack needs of a
// container engine.
//
// The lock lies at the engine, for its clients may be on several machines, which
// have no file in common: it is a container that is never started, and whose name
// can be there once. Unlike a volume or a network of a name, a container can be
// removed by its ID: so two that find a dead holder's lock both remove that one, and
// never each other's. It is of an empty image that is made at need, so that no other
// has to be there, and it does not belong to the Compose project.
type Locks interface {
	// TakeLock makes the lock. If another has it, its holder is returned instead.
	TakeLock(ctx context.Context, name string, h Holder) (id string, other *Holder, err error)
	// ReleaseLock removes one. It is no error if it is gone.
	ReleaseLock(ctx context.Context, id string) error
}

// LockLabel marks a lock, beside [ClientLabel]; its value is the holder's command.
const LockLabel = "org.zeekdemo.lock"

// LockName is the name of the lock on the stack.
const LockName = ProjectName + "-lock"

// Holder is who has a lock.
type Holder struct {
	ID      string // the lock's
	Client  Client
	Command string    // e.g. up
	Since   time.Time // by the engine's clock
}

func (h Holder) String() string {
	if h.ID == "" {
		return "somebody whom the engine does not name"
	}
	return fmt.Sprintf("`zeekdemo %s` of %s, since %s", h.Command, h.Client.Person(), h.Since.Local().Format("15:04:05 on 2 January"))
}

// LockedError says who has the lock on the stack.
type LockedError struct {
	Holder Holder
	Waited time.Duration
}

func (e *LockedError) Error() string {
	waited := ""
	if e.Waited > 0 {
		waited = fmt.Sprintf(" after %s", e.Waited)
	}
	return fmt.Sprintf("change the stack: another one does still%s: %s", waited, e.Holder)
}

// Hint tells how to get on.
func (e *LockedError) Hint() string {
	if e.Holder.Client.Life() == Unknown {
		return fmt.Sprintf("wait until it has ended; if it was killed, which cannot be seen from here, `docker rm %.12s` removes its lock", e.Holder.ID)
	}
	return "wait until it has ended: --lock-timeout says for how long"
}

const (
	lockPoll    = 300 * time.Millisecond
	unlockLimit = 10 * time.Second
	// unnamedPolls is how often a lock is looked for whose name is taken though it is
	// not there.
	unnamedPolls = 20
)

// Lock lets one command at a time change the stack, on all machines from which its
// engine is used, until unlock is called. A lock whose holder is gone is taken over.
// It waits for a living one for the given time, after it has told of it once, and no
// longer than ctx lasts; then the error is a [LockedError]. An engine that has no
// locks locks nothing, and one that cannot make this one (its disk is full, say) does
// not keep a command from mending that: it is told, and the command goes on. The
// info is the engine's answer, which nobody asks for twice.
func Lock(ctx context.Context, engine Engine, info EngineInfo, command string, wait time.Duration, tell func(line string)) (unlock func() error, err error) {
	locks, ok := engine.(Locks)
	unlocked := func() error { return nil }
	if !ok {
		return unlocked, nil
	}
	late := time.NewTimer(wait)
	defer late.Stop()
	for told, unnamed := false, 0; ; {
		id, other, err := locks.TakeLock(ctx, LockName, Holder{Client: ThisClient(), Command: command})
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, fmt.Errorf("lock the stack: %w", err)
		case err != nil:
			tell(fmt.Sprintf("Going on without a lock, which others would not see: %v", err))
			return unlocked, nil
		case other == nil:
			return func() error { return release(ctx, locks, id) }, nil
		case other.ID == "" && unnamed < unnamedPolls:
			unnamed++
			late.Reset(max(wait, 2*lockPoll)) // it was released meanwhile, or is just being made
		case other.gone(info, bootTime()):
			if err := locks.ReleaseLock(ctx, other.ID); err != nil {
				return nil, fmt.Errorf("take the stack's lock over from %s: %w", other, err)
			}
			continue
		case !told && wait > 0:
			told = true
			tell(fmt.Sprintf("Waiting for another one: %s", other))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w", other, context.Cause(ctx))
		case <-late.C:
			return nil, &LockedError{Holder: *other, Waited: wait}
		case <-time.After(lockPoll):
		}
	}
}

// release also works where the command was interrupted.
func release(ctx context.Context, locks Locks, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockLimit)
	defer cancel()
	if err := locks.ReleaseLock(ctx, id); err != nil {
		return WithHint(fmt.Errorf("unlock the stack: %w", err), fmt.Sprintf("`docker rm %.12s` removes the lock", id))
	}
	return nil
}

// gone reports whether a holder has ended: its process has, or it had the lock
// before the machine of the engine, which is this one, was started. Without that, a
// power cut would leave a lock of another boot, of which nothing can be said.
func (h Holder) gone(engine EngineInfo, booted time.Time) bool {
	return h.Client.Gone() || !engine.Remote && !h.Since.IsZero() && h.Since.Before(booted)
}

// bootTime is when this machine was started; zero where that is not known.
func bootTime() time.Time {
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return time.Time{}
	}
	seconds, err := procfs.Uptime(string(text))
	if err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(seconds * float64(time.Second)))
}
