package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zeekdemo/zeekdemo/assets"
	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/forward/record"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
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
	Governed       bool                 `json:"governed"` // sending waited for the sensor's socket
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
		if ctx.Err() != nil {
			s.row.Error = "interrupted"
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
func (s *subject) container(ctx context.Context, name, capture string, use func(id string) error) error {
	shot := orchestrate.OneShot{Run: s.id, Name: s.number + "-" + name, Service: s.service.Name, Capture: capture}
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

// live sends the capture to a sensor of its own and returns what that wrote.
func (s *subject) live(ctx context.Context) (logs zeeklog.Logs, err error) {
	err = s.container(ctx, "live", "", func(id string) error {
		c, err := s.shots.StartOneShot(ctx, id)
		if err != nil {
			return err
		}
		sensor, err := orchestrate.AwaitSensor(ctx, s.engine, s.shots, s.service, c, startLimit)
		if err != nil {
			return err
		}
		s.step("Sending", ui.StepWorking)
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
	err = s.container(ctx, name, capture, func(id string) error {
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

// send replays the capture and records what was sent.
func (s *subject) send(ctx context.Context, sensor orchestrate.Sensor) error {
	if !sensor.Direct.IsValid() {
		return fmt.Errorf("find sensor %s: its container has no address", sensor.Container.Name)
	}
	config := encap.Config{Kind: s.kind, VNI: freshVNI(), MaxDatagram: transmit.MaxPayload(sensor.Direct.Addr())}
	encapsulator, err := encap.New(config)
	if err != nil {
		return err
	}
	source, err := pcapfile.OpenAll([]string{s.plain}, pcapfile.Options{Stop: ctx.Done()})
	if err != nil {
		return err
	}
	defer source.Close()
	if err := refuseLinkTypes(source.LinkTypes(), []string{s.name}); err != nil {
		return err
	}
	tx, err := transmit.Open(ctx, transmit.Options{Destination: sensor.Direct, Mode: s.mode, Kind: s.kind})
	if err != nil {
		return orchestrate.WithHint(err, "the sensor's container must be reachable from here by its own address")
	}
	file, err := os.Create(s.sent)
	if err != nil {
		return errors.Join(fmt.Errorf("record what is sent: %w", err), tx.Close())
	}
	defer file.Close()
	recorder, err := record.New(s.between(tx), s.kind, file, s.sent)
	if err != nil {
		return errors.Join(err, tx.Close())
	}
	err = s.forward(ctx, sensor, forward.Pipeline{Source: source, Encapsulator: encapsulator, Sink: recorder})
	err = errors.Join(err, recorder.Close(), file.Close())
	s.row.Path.Sent, s.row.Path.SentBytes = recorder.Sent()
	s.row.Path.Refused = tx.Stats().Refused
	return err
}

// forward runs the pipeline at the chosen pace, and no faster than the sensor
// takes it.
func (s *subject) forward(ctx context.Context, sensor orchestrate.Sensor, p forward.Pipeline) error {
	pacer, err := s.o.pace.pacer() // one for each run: it has a state
	if err != nil {
		return err
	}
	p.Pacer, p.Clock, p.Stats = pacer, pace.NewClock(), &forward.Stats{}
	gate, closeGate, err := s.governed(sensor, p.Clock)
	if err != nil {
		return err
	}
	defer func() { _ = closeGate() }() // nothing was written
	p.Gate = gate
	err = transmit.Pinned(s.cpu, func() error { return p.Run(ctx) })
	s.row.Report = p.Stats.Snapshot()
	var damage *pcapfile.DamageError
	if errors.As(err, &damage) {
		// Everything before the damage was sent, and is compared. Zeek stops
		// there as well.
		s.row.PaceNote = strings.TrimSpace(damage.Error())
		return nil
	}
	return err
}
