package verify

import (
	"context"
	"fmt"
	"sync"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// standby has the sensors of a run, each of which serves one capture. A Zeek takes
// seconds until it listens, so once a capture was sent, the sensor of a later one
// is started while this one is judged. So there are never more of them than two for
// each capture that is verified at a time, nor more than captures that want one.
type standby struct {
	run *run

	mu      sync.Mutex
	publish bool        // their ports
	wanted  int         // captures that have neither taken one nor gone without
	number  int         // of the last one that was made, part of its name
	ready   []*listener // started in advance, the oldest first
	starts  sync.WaitGroup
}

// listener is a sensor that listens, or will.
type listener struct {
	started chan struct{} // closed when the rest is valid
	id      string        // of its container; empty where there is none
	sensor  orchestrate.Sensor
	err     error // why it does not listen
}

// advance starts a sensor in advance, where a capture may want one.
func (b *standby) advance(ctx context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.ready) < min(b.wanted, b.run.Jobs) && ctx.Err() == nil {
		b.ready = append(b.ready, b.start(ctx))
	}
}

// take returns the sensor of one capture, which removes it.
func (b *standby) take(ctx context.Context) *listener {
	b.mu.Lock()
	b.wanted--
	var l *listener
	if len(b.ready) > 0 {
		l, b.ready = b.ready[0], b.ready[1:]
	} else {
		l = b.start(ctx)
	}
	b.mu.Unlock()
	<-l.started
	return l
}

// takePublished returns another one, with a published port. Later ones have it too.
func (b *standby) takePublished(ctx context.Context) *listener {
	b.mu.Lock()
	b.publish = true
	l := b.start(ctx)
	b.mu.Unlock()
	<-l.started
	return l
}

// forgo says that a capture will want none.
func (b *standby) forgo() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wanted--
}

// wait waits until nothing is being started any more. What nobody took goes with
// the run.
func (b *standby) wait() { b.starts.Wait() }

// start starts a sensor while b.mu is held.
func (b *standby) start(ctx context.Context) *listener {
	b.number++
	shot := orchestrate.OneShot{Name: fmt.Sprintf("%d-live", b.number), Publish: b.publish}
	l := &listener{started: make(chan struct{})}
	b.starts.Go(func() {
		defer close(l.started)
		l.id, l.sensor, l.err = b.run.listen(ctx, shot)
	})
	return l
}

// listen makes a sensor and waits until it listens. It returns its container also
// where that fails.
func (r *run) listen(ctx context.Context, shot orchestrate.OneShot) (id string, s orchestrate.Sensor, err error) {
	shot.Run, shot.Service, shot.Seeds = r.id, r.service.Name, r.seeds
	if id, err = r.shots.CreateOneShot(ctx, r.project(), shot); err != nil {
		return id, s, err
	}
	c, err := r.shots.StartOneShot(ctx, id)
	if err != nil {
		return id, s, err
	}
	if s, err = orchestrate.AwaitSensor(ctx, r.engine, r.shots, r.service, c, startLimit); err == nil {
		s.Nodes = orchestrate.FindNodes(ctx, r.engine, c)
	}
	return id, s, err
}
