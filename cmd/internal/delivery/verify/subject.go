package verify

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/zeeklog"
)

// subject is one capture on its way through a verification.
type subject struct {
	*run
	name   string // as given
	number string // in the names of containers and files
	row    Row
	plain  string // the capture as an uncompressed file
	sent   string // what was sent, as a file
	// journal is what a sidecar told of what it sent, as a file.
	journal string
	served  bool           // it has taken a sensor
	removed errgroup.Group // what removes its containers meanwhile
}

// subject is the capture number i of a run, from 0.
func (r *run) subject(i int, name string) *subject {
	return &subject{run: r, name: name, number: strconv.Itoa(i + 1), row: Row{Capture: name}}
}

// attempt verifies the capture, unless the run was interrupted.
func (s *subject) attempt(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	start := time.Now()
	err := s.verify(ctx)
	s.row.ElapsedSeconds = time.Since(start).Seconds()
	if !s.served {
		s.sensors.forgo()
	}
	return err
}

// settle waits until its containers are gone, and returns what the capture came to.
func (s *subject) settle(ctx context.Context, err error) Row {
	begun := s.row.ElapsedSeconds > 0
	if err = errors.Join(err, s.removed.Wait()); err != nil {
		s.row.fail(err)
		if ctx.Err() != nil {
			s.row.interrupt()
		}
	}
	state := delivery.Succeeded
	if s.row.Verdict != Equal {
		state = delivery.Unsuccessful
	}
	if begun {
		s.step(string(s.row.Verdict), state)
	}
	return s.row
}

func (s *subject) step(text string, state delivery.StepState) {
	s.Observer.Step(delivery.Step{ID: s.name, Text: text, State: state})
}

// runs are what Zeek wrote of a capture.
type runs struct {
	live, asSent, asCaptured zeeklog.Run
	captureErr               error // why there is no asCaptured
}

// verify takes the capture over the live path and offline, and compares.
func (s *subject) verify(ctx context.Context) error {
	if err := s.unpack(ctx); err != nil {
		return err
	}
	defer s.discard()
	s.step("Starting a sensor", delivery.Working)
	sensor, err := s.live(ctx)
	if err != nil {
		return err
	}
	s.sensors.advance(ctx)
	s.step("Reading offline", delivery.Working)
	read, err := s.read(ctx, sensor)
	if err != nil {
		return err
	}
	rules := s.rules(read.asSent.Columns)
	controls, err := s.controls(ctx, rules, read.live.Logs, read.asSent.Logs)
	if err != nil {
		return err
	}
	s.judge(rules, read.live.Logs, read.asSent.Logs, controls...)
	if read.captureErr != nil { // such as one of several link types, which can be replayed
		s.row.PaceNote = "Zeek does not read the capture itself: " + read.captureErr.Error()
		return nil
	}
	s.pace(rules.Pace(read.asSent.Logs, read.asCaptured.Logs, controls...))
	return nil
}

// read gets the logs of a sensor that has taken the capture, while the image reads
// it offline.
func (s *subject) read(ctx context.Context, l *listener) (r runs, err error) {
	var g errgroup.Group
	g.Go(func() (err error) { r.live, err = s.stop(ctx, l); return err })
	g.Go(func() (err error) { r.asSent, err = s.asSent(ctx); return err })
	g.Go(func() error {
		r.asCaptured, r.captureErr = s.offline(ctx, orchestrate.OneShot{Name: "captured", Capture: s.plain, Seeds: s.seeds})
		return nil
	})
	err = g.Wait()
	return r, err
}

// rules are how live logs are compared, by the types that Zeek told.
func (s *subject) rules(columns zeeklog.Columns) zeeklog.Rules {
	if columns == nil {
		s.row.TypesNote = "Zeek did not tell the types of its logs' fields; those of Zeek 9 were taken"
	}
	return zeeklog.Rules{Columns: columns, Jitter: zeeklog.PathJitter, Workers: s.workers()}
}

// controls reads what was sent again where something differs: as before, and with
// other seeds. Identifiers, which hash the times of packets, take other places in
// Zeek's tables live and offline, and only other seeds do the same offline.
func (s *subject) controls(ctx context.Context, rules zeeklog.Rules, live, asSent zeeklog.Logs) ([]zeeklog.Logs, error) {
	if len(rules.Compare(live, asSent)) == 0 {
		return nil, nil
	}
	s.step("Reading offline again", delivery.Working)
	controls := make([]zeeklog.Logs, 2)
	var g errgroup.Group
	for i, seeds := range [][]byte{s.seeds, orchestrate.FreshSeeds()} {
		g.Go(func() error {
			run, err := s.offline(ctx, orchestrate.OneShot{Name: fmt.Sprintf("control-%d", i+1), Capture: s.sent, Seeds: seeds})
			controls[i] = run.Logs
			return err
		})
	}
	return controls, g.Wait()
}

// judge compares the live logs with those of the same frames read offline.
func (s *subject) judge(rules zeeklog.Rules, live, asSent zeeklog.Logs, controls ...zeeklog.Logs) {
	r := &s.row
	r.Connections = len(live["conn"])
	for _, records := range live {
		r.Lines += len(records)
	}
	r.Path.Received, r.Path.ReceivedBytes, r.Path.Counted = live.PacketsReceived()
	if s.workers() > 1 && r.Path.Received < r.Path.Sent {
		r.Path.Counted = false // a worker's last line may have come too late for the logger; the kernel counts too
	}
	r.Lossless.Explain(&r.Path)
	a := rules.Attribute(live, asSent, controls...)
	r.Findings = zeeklog.Explain(r.Path, a.Faults)
	r.Different, r.Differences = len(a.Faults), s.listed(a.Faults)
	r.ByZeek, r.Own, r.OwnKinds = len(a.Own), s.listed(a.Own), zeeklog.Summarise(a.Own)
	s.expect(live)
	switch {
	case r.Different > 0 || len(r.Findings) > 0:
		r.Verdict = Differs
	case len(r.Unmet) > 0:
		r.Verdict = Unmet
	case delivery.LostFrames(r.Report) > 0:
		r.Verdict = Incomplete
	default:
		r.Verdict = Equal
	}
}

// expect checks what the capture's logs must hold.
func (s *subject) expect(live zeeklog.Logs) {
	for _, e := range s.Expected {
		if !e.For(filepath.Base(s.name)) {
			continue
		}
		s.row.Expected++
		if err := e.Check(live); err != nil {
			s.row.Unmet = append(s.row.Unmet, fmt.Sprintf("line %d: %v", e.Line, err))
		}
	}
}

// listed are the differences that are kept.
func (s *subject) listed(all []zeeklog.Difference) []zeeklog.Difference {
	if s.All {
		return all
	}
	return all[:min(len(all), listed)]
}

// pace notes in what the two offline runs differ, which is no fault.
func (s *subject) pace(all []zeeklog.Difference) {
	s.row.ByPace, s.row.Pace, s.row.PaceKinds = len(all), s.listed(all), zeeklog.Summarise(all)
}

// Time limits for containers.
const (
	startLimit = 2 * time.Minute // until a sensor listens
	stopGrace  = 2 * time.Minute // for a sensor to write all its logs
)

// container makes a container, lets use work with it, and removes it.
func (s *subject) container(ctx context.Context, shot orchestrate.OneShot, use func(id string) error) error {
	shot.Run, shot.Service, shot.Name = s.id, s.service.Name, s.number+"-"+shot.Name
	id, err := s.shots.CreateOneShot(ctx, s.project(), shot)
	if err == nil {
		err = use(id)
	}
	s.remove(ctx, id)
	return err
}

// remove removes a container, if there is one, while the capture or the next one
// goes on.
func (s *subject) remove(ctx context.Context, id string) {
	if id == "" {
		return
	}
	s.removed.Go(func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
		defer cancel()
		_, err := s.shots.RemoveOneShots(ctx, orchestrate.Removal{ID: id})
		return err
	})
}

// live sends the capture to a sensor of its own, which is returned when it has
// taken all of it. A port is published only where no other way was asked for, or
// none works.
func (s *subject) live(ctx context.Context) (*listener, error) {
	s.served = true
	l, err := s.fill(ctx, s.sensors.take(ctx))
	if errors.Is(err, errUnpublished) && ctx.Err() == nil {
		s.step("Starting a sensor with a published port", delivery.Working)
		l, err = s.fill(ctx, s.sensors.takePublished(ctx))
	}
	return l, err
}

// fill sends the capture to a sensor, and waits until that has taken it. Where it
// does not, the sensor is removed.
func (s *subject) fill(ctx context.Context, l *listener) (*listener, error) {
	err := l.err
	if err == nil {
		err = s.send(ctx, l.sensor)
	}
	var state orchestrate.SocketState
	if err == nil {
		state, err = orchestrate.Drain(ctx, s.engine, l.sensor)
	}
	if err != nil {
		s.remove(ctx, l.id)
		return nil, err
	}
	s.row.Path.Dropped, s.row.Path.DropsKnown = state.Drops, true
	return l, nil
}

// stop ends a sensor and returns what it wrote.
func (s *subject) stop(ctx context.Context, l *listener) (logs zeeklog.Run, err error) {
	defer s.remove(ctx, l.id)
	ended, err := s.shots.StopOneShot(ctx, l.id, stopGrace)
	if err == nil {
		err = ended.Err()
	}
	if err != nil {
		return logs, fmt.Errorf("stop sensor %s: %w", l.sensor.Container.Name, err)
	}
	return s.logs(ctx, l.id)
}

// asSent reads what was sent, and asks Zeek for the types of its logs' fields. An
// image that does not understand the question is not asked.
func (s *subject) asSent(ctx context.Context) (zeeklog.Run, error) {
	shot := orchestrate.OneShot{Name: "sent", Capture: s.sent, Seeds: s.seeds, Script: zeeklog.ColumnsScript()}
	run, err := s.offline(ctx, shot)
	var refused *badEnd
	if errors.As(err, &refused) && ctx.Err() == nil {
		shot.Name, shot.Script = "sent-again", ""
		run, err = s.offline(ctx, shot)
	}
	return run, err
}

// badEnd says that Zeek itself ended with an error.
type badEnd struct{ error }

// offline lets the sensor's image read a capture file.
func (s *subject) offline(ctx context.Context, shot orchestrate.OneShot) (logs zeeklog.Run, err error) {
	err = s.container(ctx, shot, func(id string) error {
		if _, err := s.shots.StartOneShot(ctx, id); err != nil {
			return err
		}
		ended, err := s.shots.WaitOneShot(ctx, id)
		if err == nil && ended.Err() != nil {
			err = &badEnd{ended.Err()}
		}
		if err != nil {
			return fmt.Errorf("read offline: %w", err)
		}
		logs, err = s.logs(ctx, id)
		return err
	})
	return logs, err
}

func (s *subject) logs(ctx context.Context, id string) (zeeklog.Run, error) {
	archive, err := s.shots.OneShotLogs(ctx, id)
	if err != nil {
		return zeeklog.Run{}, err
	}
	defer archive.Close()
	return zeeklog.ReadRun(archive)
}
