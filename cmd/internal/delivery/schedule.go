package delivery

import (
	"context"
	"fmt"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/pace"
)

// longPause is a recorded pause that is announced: nobody would know whether the run
// still lives.
const longPause = time.Minute

// pauseNews tells of a pause before a packet, which is called what.
func pauseNews(d time.Duration, what string) string {
	return fmt.Sprintf("Pause of %s before %s, as recorded: --max-gap 5s would shorten it, --speed and --fit shorten all.", units.Duration(d), what)
}

// clock is the one that the run waits by, and tells of long pauses.
func (r *Replay) clock() forward.Clock {
	c := pace.NewClock()
	if !r.Pace.AsRecorded() || r.Observer == nil {
		return c
	}
	return announcingClock{Clock: c, say: r.Observer.Say, asked: r.Pace.LoopDelay}
}

type announcingClock struct {
	forward.Clock
	say   func(string)
	asked time.Duration // a pause that was asked for is no news
}

// SleepUntil implements [forward.Clock].
func (c announcingClock) SleepUntil(ctx context.Context, t int64) error {
	if pause := time.Duration(t - c.Now()); pause > max(longPause, c.asked) {
		c.say(pauseNews(pause, "the next packet"))
	}
	return c.Clock.SleepUntil(ctx, t)
}

// announcing is source, for a run that waits elsewhere: the pauses in it are told of
// when they are read, which may be some packets ahead of the wait.
func (r *Replay) announcing(source forward.Source) (forward.Source, error) {
	if !r.Pace.AsRecorded() || r.Observer == nil {
		return source, nil
	}
	spec := r.Pace
	spec.LoopDelay = 0 // a pause that was asked for is no news
	pacer, err := spec.Pacer()
	return &announcingSource{Source: source, pacer: pacer, say: r.Observer.Say}, err
}

type announcingSource struct {
	forward.Source
	pacer forward.Pacer
	say   func(string)
	frame uint64 // number of the last, from 1
	due   int64
}

// Next implements [forward.Source].
func (s *announcingSource) Next(f *forward.Frame) error {
	if err := s.Source.Next(f); err != nil {
		return err
	}
	due, _ := s.pacer.Due(f, 0, s.due)
	if s.frame++; time.Duration(due-s.due) > longPause {
		s.say(pauseNews(time.Duration(due-s.due), "packet "+units.Count(s.frame)))
	}
	s.due = due
	return nil
}

// Ready implements [forward.Readier].
func (s *announcingSource) Ready() bool {
	r, ok := s.Source.(forward.Readier)
	return !ok || r.Ready()
}

// Fit measures captures, which are open to be read for this alone, and returns the
// spec by which they take spec.Fit. They are read to the limit of frames (0: all)
// or to their damage, which the run itself will report. Loops is how often they
// will be played, if they are opened for one pass; 0 if they are opened as they will
// be played.
func Fit(ctx context.Context, captures forward.Source, spec pace.Spec, limit uint64, loops int) (pace.Spec, error) {
	bare := spec
	bare.Fit, bare.LoopDelay = 0, 0
	pacer, err := bare.Pacer()
	if err != nil {
		return spec, err
	}
	var f forward.Frame
	var due int64
	for n := uint64(0); n < limit || limit == 0; n++ {
		if captures.Next(&f) != nil {
			break
		}
		if due, _ = pacer.Due(&f, 0, due); n%4096 == 0 && ctx.Err() != nil {
			return spec, ctx.Err()
		}
	}
	if loops == 0 {
		return spec.Fitted(time.Duration(due), f.Loop+1)
	}
	return spec.Fitted(time.Duration(due)*time.Duration(loops), loops)
}
