package pace

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

// The values of Spec.Pace.
const (
	AsRecorded = "recorded" // as captured, scaled by Spec.Speed
	AtOnce     = "max"      // as fast as it goes
)

// Spec names a pace as a person does, in words that a pacer can be made of as
// often as it is needed: a pacer has a state.
type Spec struct {
	Pace  string        `json:"pace"`  // AsRecorded or AtOnce
	Speed string        `json:"speed"` // of AsRecorded, e.g. 2x
	PPS   float64       `json:"pps"`   // packets per second
	Rate  string        `json:"rate"`  // bits of frames per second, e.g. 500mbit
	Delay time.Duration `json:"delay"` // between packets
	// MaxGap bounds the pauses of AsRecorded, as they are at its Speed; 0 keeps
	// them all.
	MaxGap time.Duration `json:"max_gap,omitempty"`
	// Fit is how long AsRecorded is to take in all, its pauses scaled alike; 0 for
	// what it takes. It comes after Speed and MaxGap, and needs Fitted.
	Fit time.Duration `json:"fit,omitempty"`
	// LoopDelay is the pause between one pass over the input and the next.
	LoopDelay time.Duration `json:"loop_delay,omitempty"`
	// Stretch is the factor that makes the schedule take Fit, see Fitted; 0 for 1.
	Stretch float64 `json:"stretch,omitempty"`
	// Given are the names of those fields, in lower case, that were asked for
	// and are not only the default. At most one of pace, pps, rate and delay may
	// be among them.
	Given map[string]bool `json:"given"`
}

// MaxSpec is as fast as it goes.
func MaxSpec() Spec { return Spec{Pace: AtOnce, Speed: "1x", Given: map[string]bool{"pace": true}} }

// Pacer checks that one pace is named, and makes it.
func (s Spec) Pacer() (forward.Pacer, error) {
	p, err := s.pacer()
	if err == nil {
		err = s.checkTimes(p)
	}
	if err != nil {
		return nil, err
	}
	if r, ok := p.(*RecordedPace); ok {
		s.adjust(r)
	}
	return Looped(p, s.LoopDelay), nil
}

// checkTimes checks what goes beside a pace.
func (s Spec) checkTimes(p forward.Pacer) error {
	_, recorded := p.(*RecordedPace)
	for _, d := range []struct {
		flag  string
		value time.Duration
		any   bool // it goes with any pace
	}{{"--max-gap", s.MaxGap, false}, {"--fit", s.Fit, false}, {"--loop-delay", s.LoopDelay, true}} {
		switch {
		case d.value < 0:
			return fmt.Errorf("%s %v: want a time above zero", d.flag, d.value)
		case d.value > 0 && !d.any && !recorded:
			return fmt.Errorf("%s changes the recorded pace; it does not go with another one", d.flag)
		}
	}
	return nil
}

// adjust shortens gaps and stretches the whole. Gaps are those of the run, at any
// speed, so their limit in the time of the capture grows with the speed.
func (s Spec) adjust(p *RecordedPace) {
	if s.MaxGap > 0 {
		p.MaxGap = max(1, time.Duration(min(float64(s.MaxGap)*p.speed, farAway)))
	}
	if s.Stretch > 0 {
		p.stretch(s.Stretch)
	}
}

// Fitted returns the spec whose schedule takes s.Fit, where without it so many passes
// over the input take as long as all. The pauses between passes are not scaled.
// Where all is 0 there is nothing to scale.
func (s Spec) Fitted(all time.Duration, passes int) (Spec, error) {
	pauses := time.Duration(passes-1) * s.LoopDelay
	switch {
	case s.Fit <= 0:
		return s, nil
	case s.Fit <= pauses:
		return s, fmt.Errorf("--fit %v: the pauses of --loop-delay alone take %v", s.Fit, pauses)
	case all > 0:
		s.Stretch = float64(s.Fit-pauses) / float64(all)
	}
	return s, nil
}

// AsRecorded reports whether the pauses are those of the capture.
func (s Spec) AsRecorded() bool {
	p, err := s.pacer()
	_, recorded := p.(*RecordedPace)
	return err == nil && recorded
}

// Named reports whether a pace was asked for, or anything that changes one.
func (s Spec) Named() bool {
	return len(chosenOf(s.Given)) > 0 || s.Given["speed"] || s.MaxGap > 0 || s.Fit > 0 || s.LoopDelay > 0
}

// chosenOf are the flags of those that were asked for and exclude each other.
func chosenOf(given map[string]bool) (chosen []string) {
	for _, name := range []string{"pace", "pps", "rate", "delay"} {
		if given[name] {
			chosen = append(chosen, "--"+name)
		}
	}
	return chosen
}

// pacer is the pace alone.
func (s Spec) pacer() (forward.Pacer, error) {
	chosen := chosenOf(s.Given)
	switch {
	case len(chosen) > 1:
		return nil, fmt.Errorf("%s: they exclude each other", strings.Join(chosen, " and "))
	case s.Given["speed"] && (s.Pace != AsRecorded || len(chosen) == 1 && chosen[0] != "--pace"):
		return nil, errors.New("--speed scales the recorded pace; it does not go with another one")
	case s.Given["pps"]:
		return PPS(s.PPS)
	case s.Given["delay"]:
		return Delay(s.Delay)
	case s.Given["rate"]:
		return atRate(s.Rate)
	case s.Pace == AtOnce:
		return Max(), nil
	case s.Pace != AsRecorded:
		return nil, fmt.Errorf("--pace %q: want recorded or max (or --pps, --rate, --delay)", s.Pace)
	}
	return atSpeed(s.Speed)
}

func atRate(text string) (forward.Pacer, error) {
	bits, err := ParseRate(text)
	if err != nil {
		return nil, err
	}
	return Rate(bits)
}

func atSpeed(text string) (forward.Pacer, error) {
	speed, err := ParseSpeed(text)
	if err != nil {
		return nil, err
	}
	return Recorded(speed)
}
