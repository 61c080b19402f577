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
	// Given are the names of those fields, in lower case, that were asked for
	// and are not only the default. At most one of pace, pps, rate and delay may
	// be among them.
	Given map[string]bool `json:"given"`
}

// MaxSpec is as fast as it goes.
func MaxSpec() Spec { return Spec{Pace: AtOnce, Speed: "1x", Given: map[string]bool{"pace": true}} }

// Pacer checks that one pace is named, and makes it.
func (s Spec) Pacer() (forward.Pacer, error) {
	var chosen []string
	for _, name := range []string{"pace", "pps", "rate", "delay"} {
		if s.Given[name] {
			chosen = append(chosen, "--"+name)
		}
	}
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
