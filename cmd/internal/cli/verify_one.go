package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zeekdemo/zeekdemo/assets"
	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/zeeklog"
)

// The verdicts of a row.
const (
	verdictEqual      = "equal"
	verdictDiffers    = "differs"
	verdictUnmet      = "unmet"      // equal, but not as expected
	verdictIncomplete = "incomplete" // equal in what could be sent; some frames could not
	verdictFailed     = "failed"     // could not be verified
)

// listed is how many differences of one kind are kept and put into JSON: a
// capture of many connections that all differ tells no more with all of them.
const listed = 1000

// verifyRow is what one capture came to. Differences are faults of the path;
// Pace is information. Of both the first ones are listed.
type verifyRow struct {
	Capture        string               `json:"capture"`
	Verdict        string               `json:"verdict"`
	Error          string               `json:"error,omitempty"`
	Hint           string               `json:"hint,omitempty"`       // what to do about the error
	Via            string               `json:"via"`                  // direct, sidecar or published
	ViaReason      string               `json:"via_reason,omitempty"` // why not by a better way
	Lossless       *losslessDocument    `json:"lossless,omitempty"`
	Connections    int                  `json:"connections"`
	Lines          int                  `json:"lines"` // of all logs of the live sensor
	Path           zeeklog.Path         `json:"path"`
	Findings       []zeeklog.Finding    `json:"findings,omitempty"`
	Different      int                  `json:"different"` // how many differences there are
	Differences    []zeeklog.Difference `json:"differences,omitempty"`
	ByPace         int                  `json:"different_by_pace"`
	Pace           []zeeklog.Difference `json:"changed_by_pace,omitempty"`
	PaceNote       string               `json:"changed_by_pace_note,omitempty"`
	Expected       int                  `json:"expectations"`
	Unmet          []string             `json:"unmet,omitempty"`
	Report         forward.Report       `json:"report"`
	ElapsedSeconds float64              `json:"elapsed_seconds"`
}

// subject is one capture on its way through a verification.
type subject struct {
	*verification
	name   string // as given
	number string // in the names of containers and files
	row    verifyRow
	plain  string // the capture as an uncompressed file
	sent   string // what was sent, as a file
	// journal is what a sidecar told of what it sent, as a file.
	journal string
}

// one verifies one capture.
func (v *verification) one(ctx context.Context, i int, name string) verifyRow {
	s := &subject{verification: v, name: name, number: strconv.Itoa(i + 1), row: verifyRow{Capture: name}}
	start := time.Now()
	if ctx.Err() != nil {
		s.row.Verdict, s.row.Error = verdictFailed, "interrupted"
		return s.row
	}
	err := s.verify(ctx)
	s.row.ElapsedSeconds = time.Since(start).Seconds()
	if err != nil {
		s.row.Verdict, s.row.Error = verdictFailed, err.Error()
		var advice interface{ Hint() string }
		if errors.As(err, &advice) {
			s.row.Hint = advice.Hint()
		}
		if ctx.Err() != nil {
			s.row.Error, s.row.Hint = "interrupted", ""
		}
	}
	state := ui.StepDone
	if s.row.Verdict != verdictEqual {
		state = ui.StepFailed
	}
	s.step(s.row.Verdict, state)
	return s.row
}

func (s *subject) step(text string, state ui.StepState) {
	s.steps.Update(ui.Step{ID: s.name, Text: text, State: state})
}

// verify takes the capture over the live path and offline, and compares.
func (s *subject) verify(ctx context.Context) error {
	if err := s.unpack(); err != nil {
		return err
	}
	defer s.discard()
	s.step("Starting a sensor", ui.StepWorking)
	live, err := s.live(ctx)
	if err != nil {
		return err
	}
	s.step("Reading offline", ui.StepWorking)
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
	r.Lossless.explain(&r.Path)
	r.Differences = zeeklog.Compare(live, asSent)
	r.Findings = zeeklog.Explain(r.Path, r.Differences)
	r.Different = len(r.Differences)
	r.Differences = r.Differences[:min(r.Different, listed)]
	for _, e := range s.expected {
		if !e.For(filepath.Base(s.name)) {
			continue
		}
		r.Expected++
		if err := e.Check(live); err != nil {
			r.Unmet = append(r.Unmet, fmt.Sprintf("line %d: %v", e.Line, err))
		}
	}
	switch {
	case r.Different > 0 || len(r.Findings) > 0:
		r.Verdict = verdictDiffers
	case len(r.Unmet) > 0:
		r.Verdict = verdictUnmet
	case lostFrames(r.Report) > 0:
		r.Verdict = verdictIncomplete
	default:
		r.Verdict = verdictEqual
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

// project is the embedded stack, of which sensors are made.
func (s *subject) project() orchestrate.Project {
	return orchestrate.Project{Name: orchestrate.ProjectName, Compose: assets.Compose(), Env: s.settings.Environment(), Pull: s.settings.Pull}
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
	logs, err := s.liveOnce(ctx, s.o.via.wanted() == viaPublished)
	if errors.Is(err, errUnpublished) && ctx.Err() == nil {
		s.step("Starting a sensor with a published port", ui.StepWorking)
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
