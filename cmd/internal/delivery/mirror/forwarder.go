package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/afpacket"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
)

// liveRun is a mirror by the forwarder under way.
type liveRun struct {
	*mirror
	capture capture
	begun   time.Time

	// capturing ends when the mirror is to end: then nothing more is captured and
	// no sensor is waited for. sending ends some time later, and everything with
	// it.
	capturing, sending context.Context
	giveUp             context.CancelCauseFunc

	mu       sync.Mutex
	where    *following        // of this capture
	counts   []afpacket.Counts // of captures that are over
	accounts []watch.Account
	reports  []forward.Report
	stalls   uint64 // how often and how long sensors were waited for, but by sidecars
	stalled  time.Duration
	kernel   transmit.Stats
	about    transmit.Description
}

// How a run ends whose sensor takes nothing any more.
var (
	errPatience = fmt.Errorf("the sensor has not taken within %s what was captured", watch.Patience)
	errStalled  = errors.New("the sensor took nothing when the mirror was to end")
)

func (m *mirror) runForwarder(ctx context.Context) (*Document, error) {
	r := &liveRun{mirror: m}
	c, err := m.openCapture(ctx)
	if err != nil {
		return nil, err
	}
	return r.from(ctx, c)
}

// from forwards what is captured until the mirror is to end, closes the capture,
// and sums up. A container that is started again has other interfaces: where only
// containers are mirrored, those are captured on as soon as they are there.
func (r *liveRun) from(ctx context.Context, c capture) (*Document, error) {
	var end context.CancelFunc
	r.capturing, end = r.untilEnd(ctx)
	defer end()
	r.sending, r.giveUp = context.WithCancelCause(context.WithoutCancel(ctx))
	defer r.giveUp(nil)
	r.begun = time.Now()
	for {
		r.capture = c
		counts, err := r.through()
		r.counts = append(r.counts, counts...)
		if errors.Is(err, afpacket.ErrGone) && len(r.Interfaces) == 0 {
			r.say("The container's interface has gone; waiting until it is back")
			if c, err = r.captureAgain(); err == nil && c != nil {
				continue
			}
		}
		return r.outcome(r.counts, err)
	}
}

// through forwards all of one capture, closes it, and returns its counts.
func (r *liveRun) through() ([]afpacket.Counts, error) {
	over := make(chan struct{})
	var ending sync.WaitGroup
	ending.Go(func() { r.endInTime(over) })
	err := r.forward()
	close(over)
	ending.Wait()
	counts, countErr := r.capture.Counts()
	return counts, errors.Join(err, countErr, r.capture.Close())
}

// comesBack is the pause between two looks for a container's interfaces.
const comesBack = 300 * time.Millisecond

// captureAgain waits for the containers' interfaces and captures on them. It is nil
// where the mirror ends before.
func (r *liveRun) captureAgain() (capture, error) {
	for {
		select {
		case <-r.capturing.Done():
			return nil, nil
		case <-time.After(comesBack):
		}
		if r.findInterfaces(r.capturing) != nil {
			continue // not there yet
		}
		switch c, err := r.openCapture(r.capturing); {
		case err == nil:
			return c, nil
		case errors.Is(err, os.ErrPermission):
			return nil, err
		}
	}
}

// endInTime ends the capture when the mirror is to end, and everything if what
// was captured is not taken for long.
func (r *liveRun) endInTime(over <-chan struct{}) {
	select {
	case <-over:
		return
	case <-r.capturing.Done():
	}
	r.warn(r.capture.Stop())
	patience, why := watch.Patience, errPatience
	if r.stuck() { // it has been waited for, and that was said
		patience, why = 0, errStalled
	}
	select {
	case <-over:
	case <-time.After(patience):
		r.giveUp(why)
		r.capture.Interrupt(true)
	}
}

// stuck reports whether the sensor takes nothing, as far as that is known.
func (r *liveRun) stuck() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.where == nil {
		return false
	}
	now, _ := r.where.current()
	return now.watch != nil && now.watch.Stalled()
}

// forward forwards until the capture is at its end.
func (r *liveRun) forward() error {
	if r.target.Kind == way.Sidecar {
		return r.feedSidecars()
	}
	delivery.FitDatagrams(&r.Config, r.target.Address.Addr())
	first, err := r.stretchTo(r.target)
	if err != nil {
		return err
	}
	follow := newFollowing(first, r.target.Kind != way.To)
	r.mu.Lock()
	r.where = follow
	r.mu.Unlock()
	workers, err := r.hire(follow)
	if err != nil {
		_, settleErr := first.settle(r.capturing, nil)
		return errors.Join(err, settleErr)
	}
	r.announce(workers[0].out.about)
	defer r.show()()
	watching, stopWatching := context.WithCancel(r.capturing)
	var watchers sync.WaitGroup
	if follow.follows {
		watchers.Go(func() { r.followSensor(watching, follow) })
	}
	err = r.work(workers)
	stopWatching()
	watchers.Wait()
	now, _ := follow.current()
	return errors.Join(err, r.settle(now, err))
}

// worker is one thread of the forwarder.
type worker struct {
	out      *outlet
	pipeline forward.Pipeline
	stats    forward.Stats
	cpu      transmit.CPU
}

// hire makes the workers ready, their transmissions open.
func (r *liveRun) hire(follow *following) (list []*worker, err error) {
	sources := r.capture.Sources()
	cpus := []transmit.CPU{r.CPU}
	if len(sources) > 1 && r.CPU == transmit.CPUAuto {
		cpus = transmit.Spread(len(sources))
	}
	now, _ := follow.current()
	for i, source := range sources {
		w := &worker{cpu: cpus[i%len(cpus)], out: &outlet{sending: r.sending, capturing: r.capturing, follow: follow, connect: transmit.Open,
			options: transmit.Options{Mode: r.Tx, Kind: r.Config.Kind, PortMin: r.Config.PortMin, PortMax: r.Config.PortMax}}}
		list = append(list, w)
		encapsulator, err := encap.New(r.Config)
		if err == nil {
			err = w.out.open(now)
		}
		if err != nil {
			for _, w := range list {
				w.out.Close()
			}
			return nil, delivery.HintPrivilege(err)
		}
		w.pipeline = forward.Pipeline{Source: source, Encapsulator: encapsulator, Sink: w.out, Clock: pace.NewClock(), Stats: &w.stats}
	}
	return list, nil
}

// work runs all workers until they are at their ends.
func (r *liveRun) work(workers []*worker) error {
	errs := make([]error, len(workers))
	var all sync.WaitGroup
	for i, w := range workers {
		all.Go(func() {
			errs[i] = transmit.Pinned(w.cpu, func() error {
				return errors.Join(w.pipeline.Run(r.sending), w.out.Close())
			})
			if errs[i] != nil && !errors.Is(errs[i], afpacket.ErrGone) { // the others cannot do its work
				r.giveUp(errs[i])
				r.capture.Interrupt(true)
			}
		})
	}
	all.Wait()
	for _, w := range workers {
		r.reports = append(r.reports, w.stats.Snapshot())
		r.kernel, r.about = r.kernel.Add(w.out.counted), w.out.about
	}
	if cause := context.Cause(r.sending); cause != nil {
		return cause // the first error, of which others are consequences
	}
	return errors.Join(errs...)
}

// settle closes the books of a stretch.
func (r *liveRun) settle(s *stretch, runErr error) error {
	account, err := s.settle(r.sending, runErr)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accounts = append(r.accounts, account)
	r.stalls, r.stalled = r.stalls+s.stalls.Load(), r.stalled+time.Duration(s.stalled.Load())
	var gone *pace.GoneError
	if errors.As(err, &gone) {
		return nil // what it did not take is in the ledger
	}
	return err
}

// announce says what is about to happen, for a run may take days.
func (r *liveRun) announce(d transmit.Description) {
	d.Reasons = nil // the report has them
	r.say(fmt.Sprintf("Run %d: %s to %s %s by %s; Ctrl-C ends it", r.Config.VNI, strings.Join(r.interfaces, ", "), r.Config.Kind, r.target.Address, d))
}

// show shows what is seen on each interface, until end is called.
func (r *liveRun) show() (end func()) {
	return r.Observer.Flows(func() (list []delivery.Flow) {
		counts, err := r.capture.Counts()
		if err != nil {
			return nil
		}
		for _, c := range counts {
			list = append(list, delivery.Flow{Name: c.Interface, Packets: c.Packets, Bytes: c.Bytes, Dropped: c.Dropped})
		}
		return list
	})
}
