package orchestrate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// lockEngine keeps one lock, as an engine does.
type lockEngine struct {
	Engine
	mu     sync.Mutex
	info   EngineInfo
	held   *Holder
	made   int
	broken error
}

func (e *lockEngine) Info(context.Context) (EngineInfo, error) { return e.info, nil }

func (e *lockEngine) TakeLock(_ context.Context, name string, h Holder) (string, *Holder, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.broken != nil:
		return "", nil, e.broken
	case name != LockName:
		return "", nil, fmt.Errorf("the lock is called %s", name)
	case e.held != nil:
		other := *e.held
		return "", &other, nil
	}
	e.made++
	h.ID, h.Since = fmt.Sprint("lock", e.made), time.Now()
	e.held = &h
	return h.ID, nil, nil
}

func (e *lockEngine) ReleaseLock(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.held != nil && e.held.ID == id {
		e.held = nil
	}
	return nil
}

// The second one is told of the first and leaves, unless that is gone for sure.
func TestWhoseLockIsTakenOver(t *testing.T) {
	foreign, now := ClientHere(7, 1, 2), time.Now()
	before := bootTime().Add(-time.Hour)
	for name, tt := range map[string]struct {
		holder Holder
		remote bool
		taken  bool
		hint   string
	}{
		"a living process":                           {Holder{Client: ThisClient(), Since: now}, false, false, "--lock-timeout"},
		"one that was killed":                        {Holder{Client: endedClient(t), Since: now}, false, true, ""},
		"one that was killed, of a remote engine":    {Holder{Client: endedClient(t), Since: now}, true, true, ""},
		"another container's":                        {Holder{Client: foreign, Since: now}, false, false, "`docker rm held` removes its lock"},
		"from before this machine was started":       {Holder{Client: foreign, Since: before}, false, true, ""},
		"from before this machine, but not engine's": {Holder{Client: foreign, Since: before}, true, false, "docker rm"},
		"one of whom the engine does not say when":   {Holder{Client: foreign}, false, false, "docker rm"},
		"a container of this name that is no lock":   {Holder{Since: now}, false, false, "docker rm"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.holder.ID, tt.holder.Command = "held", "up"
			e, told := &lockEngine{held: &tt.holder, info: EngineInfo{Remote: tt.remote}}, 0
			unlock, err := Lock(t.Context(), e, e.info, "down", 0, func(string) { told++ })
			if tt.taken {
				if err != nil || e.held.Command != "down" || e.held.Client != ThisClient() {
					t.Fatalf("%v, held by %v", err, e.held)
				}
				if err := unlock(); err != nil || e.held != nil {
					t.Errorf("unlocked: %v, held by %v", err, e.held)
				}
				return
			}
			var locked *LockedError
			if !errors.As(err, &locked) || locked.Holder != tt.holder || !strings.Contains(err.Error(), "`zeekdemo up` of ") || !strings.Contains(locked.Hint(), tt.hint) || e.held.ID != "held" || told != 0 {
				t.Errorf("%v, hint %q, held by %v, told %d", err, locked.Hint(), e.held, told)
			}
		})
	}
}

// Those that wait get it one after another, and each tells once for whom it waits.
func TestOneAtATime(t *testing.T) {
	e, inside, told := &lockEngine{}, make(chan struct{}, 1), make(chan string, 9)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			unlock, err := Lock(t.Context(), e, e.info, "up", time.Minute, func(line string) { told <- line })
			if err != nil {
				t.Error(err)
				return
			}
			select {
			case inside <- struct{}{}:
			default:
				t.Error("two have the lock")
			}
			<-inside
			if err := unlock(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if e.held != nil || e.made != 4 || len(told) > 3 {
		t.Errorf("held by %v, taken %d times, told %d times", e.held, e.made, len(told))
	}
}

// A name may be taken before the engine shows the lock: that is nobody's fault, and
// not for ever.
func TestALockThatIsJustBeingMade(t *testing.T) {
	e := &lockEngine{held: &Holder{}}
	release := time.AfterFunc(2*lockPoll, func() { _ = e.ReleaseLock(context.Background(), "") })
	defer release.Stop()
	unlock, err := Lock(t.Context(), e, e.info, "down", 0, func(string) { t.Error("told of nobody") })
	if err != nil {
		t.Fatal(err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
}

func TestWaitingForALockEnds(t *testing.T) {
	e := &lockEngine{held: &Holder{ID: "held", Client: ThisClient(), Command: "up", Since: time.Now()}}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Lock(ctx, e, e.info, "down", time.Hour, func(string) { cancel() })
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "wait for `zeekdemo up` of ") {
		t.Errorf("interrupted: %v", err)
	}
	var locked *LockedError
	if _, err := Lock(t.Context(), e, e.info, "down", time.Millisecond, func(string) {}); !errors.As(err, &locked) || locked.Waited != time.Millisecond {
		t.Errorf("after its time: %v", err)
	}
	e.broken = errors.New("interrupted")
	if _, err := Lock(ctx, e, e.info, "down", 0, nil); !errors.Is(err, e.broken) || !strings.HasPrefix(err.Error(), "lock the stack: ") {
		t.Errorf("interrupted while it is made: %v", err)
	}
}

// Where no lock can be made, the command that might mend that goes on.
func TestAnEngineThatCannotMakeALock(t *testing.T) {
	e, told := &lockEngine{broken: errors.New("no space left on device")}, ""
	unlock, err := Lock(t.Context(), e, e.info, "down", 0, func(line string) { told += line })
	if err != nil || unlock() != nil || told != "Going on without a lock, which others would not see: no space left on device" {
		t.Errorf("%v, told %q", err, told)
	}
}
