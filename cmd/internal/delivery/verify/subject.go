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
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
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
}

// one verifies one capture.
func (r *run) one(ctx context.Context, i int, name string) Row {
	s := &subject{run: r, name: name, number: strconv.Itoa(i + 1), row: Row{Capture: name}}
	if ctx.Err() != nil {
		s.row.interrupt()
		return s.row
	}
	start := time.Now()
	err := s.verify(ctx)
	s.row.ElapsedSeconds = time.Since(start).Seconds()
	if err != nil {
		s.row.fail(err)
		if ctx.Err() != nil {
			s.row.interrupt()
		}
	}
	state := delivery.Succeeded
	if s.row.Verdict != Equal {
		state = delivery.Unsuccessful
	}
	s.step(string(s.row.Verdict), state)
	return s.row
}

func (s *subject) step(text string, state delivery.StepState) {
	s.Observer.Step(delivery.Step{ID: s.name, Text: text, State: state})
}

// verify takes the capture over the live path and offline, and compares.
func (s *subject) verify(ctx context.Context) error {
	if err := s.unpack(); err != nil {
		return err
	}
	defer s.discard()
	s.step("Starting a sensor", delivery.Working)
	live, err := s.live(ctx)
	if err != nil {
		return err
	}
	s.step("Reading offline", delivery.Working)
	var asSent, asCaptured zeeklog.Run
	var captureErr error
	var g errgroup.Group
	g.Go(func() (err error) { asSent, err = s.asSent(ctx); return err })
	g.Go(func() error {
		asCaptured, captureErr = s.offline(ctx, orchestrate.OneShot{Name: "captured", Capture: s.plain, Seeds: s.seeds})
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	rules := s.rules(asSent.Columns)
	controls, err := s.controls(ctx, rules, live.Logs, asSent.Logs)
	if err != nil {
		return err
	}
	s.judge(rules, live.Logs, asSent.Logs, controls...)
	if captureErr != nil { // such as one of several link types, which can be replayed
		s.row.PaceNote = "Zeek does not read the capture itself: " + captureErr.Error()
		return nil
	}
	s.pace(rules.Pace(asSent.Logs, asCaptured.Logs, controls...))
	return nil
}

// rules are how live logs are compared, by the types that Zeek told.
func (s *subject) rules(columns zeeklog.Columns) zeeklog.Rules {
	if columns == nil {
		s.row.TypesNote = "Zeek did not tell the types of its logs' fields; those of Zeek 9 were taken"
	}
	return zeeklog.Rules{Columns: columns, Jitter: zeeklog.PathJitter}
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
	if id == "" {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
	defer cancel()
	_, removeErr := s.shots.RemoveOneShots(ctx, orchestrate.Removal{ID: id})
	return errors.Join(err, removeErr)
}

// live sends the capture to a sensor of its own and returns what that wrote. A
// port is published only where no other way was asked for, or none works.
func (s *subject) live(ctx context.Context) (zeeklog.Run, error) {
	logs, err := s.liveOnce(ctx, s.Way.Kind == way.Published)
	if errors.Is(err, errUnpublished) && ctx.Err() == nil {
		s.step("Starting a sensor with a published port", delivery.Working)
		logs, err = s.liveOnce(ctx, true)
	}
	return logs, err
}

func (s *subject) liveOnce(ctx context.Context, publish bool) (logs zeeklog.Run, err error) {
	err = s.container(ctx, orchestrate.OneShot{Name: "live", Publish: publish, Seeds: s.seeds}, func(id string) error {
		c, err := s.shots.StartOneShot(ctx, id)
		if err != nil {
			return err
		}
		if err := s.fill(ctx, c); err != nil {
			return err
		}
		ended, err := s.shots.StopOneShot(ctx, id, stopGrace)
		if err == nil {
			err = ended.Err()
		}
		if err != nil {
			return fmt.Errorf("stop sensor %s: %w", c.Name, err)
		}
		logs, err = s.logs(ctx, id)
		return err
	})
	return logs, err
}

// fill sends the capture to a sensor that was started, and waits until that has
// taken it.
func (s *subject) fill(ctx context.Context, c orchestrate.Container) error {
	sensor, err := orchestrate.AwaitSensor(ctx, s.engine, s.shots, s.service, c, startLimit)
	if err != nil {
		return err
	}
	if err := s.send(ctx, sensor); err != nil {
		return err
	}
	state, err := orchestrate.Drain(ctx, s.engine, sensor)
	if err != nil {
		return err
	}
	s.row.Path.Dropped, s.row.Path.DropsKnown = state.Drops, true
	return nil
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
