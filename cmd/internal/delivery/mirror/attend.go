package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
)

// runKernel starts the mirrors and, unless they are to stay, looks after them
// until it is interrupted.
func (m *mirror) runKernel(ctx context.Context) (*Document, error) {
	books := &kernelBooks{m: m}
	if !m.Detach {
		books.open(nil)
	}
	run, err := m.request().start(ctx)
	if err != nil {
		books.drop()
		return nil, KernelHint(fmt.Errorf("mirror in the kernel: %w", err))
	}
	begun := time.Now()
	capturing, end := m.untilEnd(ctx) // a duration is that of mirroring, without the way there
	defer end()
	m.announceKernel(run)
	if m.Detach {
		return m.kernelOutcome(run.mirrors, begun, books, nil)
	}
	runErr := m.attend(capturing, run, books)
	last, err := run.finish()
	err = errors.Join(runErr, err)
	err = errors.Join(err, books.close(capturing, last, err))
	return m.kernelOutcome(last, begun, books, err)
}

func (m *mirror) announceKernel(run *kernelRun) {
	for _, k := range run.mirrors {
		for _, note := range k.Notes {
			m.say(k.Interface + ": " + note)
		}
	}
	how := "Ctrl-C ends it"
	if m.Detach {
		how = "`zeekdemo mirror --stop` ends it"
	}
	m.say(fmt.Sprintf("Run %d: %s to %s %s in the kernel; %s", m.Config.VNI, strings.Join(m.interfaces, ", "), m.Config.Kind, m.target.Address, how))
}

// lookEvery is how often the mirrors are looked at, and what is said about their
// packets is taken in, whether or not somebody is shown it.
const lookEvery = time.Second

// attend shows what the mirrors do, and lets them follow the sensor, until ctx
// ends or one of them is gone, of which the end of the run tells.
func (m *mirror) attend(ctx context.Context, run *kernelRun, books *kernelBooks) error {
	var mu sync.Mutex // of run
	look := func() ([]tcmirror.Mirror, error) {
		mu.Lock()
		defer mu.Unlock()
		return run.look()
	}
	defer m.Observer.Flows(func() []delivery.Flow {
		now, _ := look() // the tick finds what is wrong
		return kernelFlows(now)
	})()
	moved := make(chan orchestrate.Sensor)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	if m.target.Kind != way.To {
		go m.tellMoves(watching, moved)
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			now, err := look()
			if errors.Is(err, tcmirror.ErrGone) {
				return nil
			}
			if err != nil {
				return err
			}
			books.hear(now)
		case next := <-moved:
			mu.Lock()
			m.follow(ctx, run, books, next)
			mu.Unlock()
			m.say(fmt.Sprintf("Following the sensor to %s", m.target.Address))
		}
	}
}

// kernelFlows are the mirrors' counters for the eye.
func kernelFlows(mirrors []tcmirror.Mirror) (list []delivery.Flow) {
	for _, k := range mirrors {
		list = append(list, delivery.Flow{Name: k.Interface, Packets: k.Stats.Received.Packets + k.Stats.Sent.Packets,
			Bytes: k.Stats.Received.Bytes + k.Stats.Sent.Bytes, Dropped: k.Stats.Lost()})
	}
	return list
}

// follow turns to the sensor's next life: what waited for the last one is lost.
func (m *mirror) follow(ctx context.Context, run *kernelRun, books *kernelBooks, next orchestrate.Sensor) {
	now, _ := run.look()
	m.warn(books.close(ctx, now, left(m.target)))
	was := m.target.Sensor
	m.target.Sensor, m.target.Address = next, m.way.Address(next)
	books.open(now)
	m.warn(run.follow(m.target.Address, append(m.excluded(), was.Direct)))
}

// tellMoves tells whenever the sensor is another one, or elsewhere.
func (m *mirror) tellMoves(ctx context.Context, moved chan<- orchestrate.Sensor) {
	was := m.target.Sensor
	for {
		next, err := m.watchSensor(ctx, was, nil, func() { m.say("The sensor has gone; what is mirrored until it is back is lost") })
		if err != nil {
			return
		}
		was = next
		select {
		case moved <- next:
		case <-ctx.Done():
			return
		}
	}
}
