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
	var asSent, asCaptured zeeklog.Logs
	var captureErr error
	var g errgroup.Group
	g.Go(func() (err error) { asSent, err = s.offline(ctx, "sent", s.sent); return err })
	g.Go(func() error { asCaptured, captureErr = s.offline(ctx, "captured", s.plain); return nil })
	if err := g.Wait(); err != nil {
		return err
	}
	s.judge(live, asSent)
	s.information(asSent, asCaptured, captureErr)
	return nil
}

// judge compares the live logs with those of the same frames read offline.
func (s *subject) judge(live, asSent zeeklog.Logs) {
	r := &s.row
	r.Connections = len(live["conn"])
	for _, records := range live {
		r.Lines += len(records)
	}
	r.Path.Received, r.Path.ReceivedBytes, r.Path.Counted = live.PacketsReceived()
	r.Lossless.Explain(&r.Path)
	r.Differences = zeeklog.Compare(live, asSent)
	r.Findings = zeeklog.Explain(r.Path, r.Differences)
	r.Different = len(r.Differences)
	r.Differences = r.Differences[:min(r.Different, listed)]
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

// information compares the two offline runs. Zeek may refuse a capture that can
// be replayed, such as one of several link types; that is no fault either.
func (s *subject) information(asSent, asCaptured zeeklog.Logs, captureErr error) {
	if captureErr != nil {
		s.row.PaceNote = "Zeek does not read the capture itself: " + captureErr.Error()
		return
	}
	all := zeeklog.Compare(asSent, asCaptured)
	s.row.ByPace, s.row.Pace = len(all), all[:min(len(all), listed)]
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
func (s *subject) live(ctx context.Context) (zeeklog.Logs, error) {
	logs, err := s.liveOnce(ctx, s.Way.Kind == way.Published)
	if errors.Is(err, errUnpublished) && ctx.Err() == nil {
		s.step("Starting a sensor with a published port", delivery.Working)
		logs, err = s.liveOnce(ctx, true)
	}
	return logs, err
}

func (s *subject) liveOnce(ctx context.Context, publish bool) (logs zeeklog.Logs, err error) {
	err = s.container(ctx, orchestrate.OneShot{Name: "live", Publish: publish}, func(id string) error {
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

// offline lets the sensor's image read a capture file.
func (s *subject) offline(ctx context.Context, name, capture string) (logs zeeklog.Logs, err error) {
	err = s.container(ctx, orchestrate.OneShot{Name: name, Capture: capture}, func(id string) error {
		if _, err := s.shots.StartOneShot(ctx, id); err != nil {
			return err
		}
		ended, err := s.shots.WaitOneShot(ctx, id)
		if err == nil {
			err = ended.Err()
		}
		if err != nil {
			return fmt.Errorf("read offline: %w", err)
		}
		logs, err = s.logs(ctx, id)
		return err
	})
	return logs, err
}

func (s *subject) logs(ctx context.Context, id string) (zeeklog.Logs, error) {
	archive, err := s.shots.OneShotLogs(ctx, id)
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	return zeeklog.ReadTar(archive)
}
