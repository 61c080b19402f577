package ui

import (
	"sync"
	"time"
)

// beat is the clock of everything here that moves by itself.
type beat struct {
	stop    chan struct{}
	stopped sync.WaitGroup
}

// startBeat calls do after each pause, one call after the other, for as long as
// it wants more.
func startBeat(pause func() time.Duration, do func() (more bool)) *beat {
	b := &beat{stop: make(chan struct{})}
	b.stopped.Go(func() {
		for b.wait(pause()) && do() {
		}
	})
	return b
}

// every calls do again and again with the same pause before it.
func every(pause time.Duration, do func()) *beat {
	return startBeat(func() time.Duration { return pause }, func() bool { do(); return true })
}

// wait reports whether the pause is over, and not the beat.
func (b *beat) wait(pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-b.stop:
		return false
	case <-timer.C:
		return true
	}
}

// end waits for a call that goes on, and makes no other. There may be no beat.
func (b *beat) end() {
	if b == nil {
		return
	}
	close(b.stop)
	b.stopped.Wait()
}
