package pace

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

// The range of speeds that make sense: from a thousandth to a million times
// the recorded one.
const (
	minSpeed = 1e-3
	maxSpeed = 1e6
)

// RecordedPace keeps the gaps of the capture. [Recorded] makes it.
//
// A frame is due when as much time has passed since the first frame of its
// segment as passed in the capture, divided by the speed. The difference is
// taken in integers and divided once, so the error is the rounding of one
// floating-point division: below a nanosecond for 104 days of capture, and it
// does not add up.
//
// The order of the capture is strict. A frame with an earlier time than the one
// before it (a capture merged without sorting, a clock that was set back) is
// due together with that one; those behind it are still due by their own times.
//
// A new segment (the next file, the next loop) begins when the last frame of
// the one before was due. A frame that has no time of its own (Frame.Retimed) is due
// together with the one before it, and is no beginning of anything.
type RecordedPace struct {
	// MaxGap shortens longer gaps of the capture to this; 0 keeps them all.
	// It is measured in the time of the capture, before speed divides it.
	MaxGap time.Duration

	speed   float64
	started bool
	segment int
	first   int64 // capture time that base stands for
	base    int64 // due time of the segment's first frame
	latest  int64 // latest capture time in the segment
	due     int64 // of the frame before
}

var _ forward.Pacer = (*RecordedPace)(nil)

// Recorded keeps the recorded gaps, divided by speed: 2 is twice as fast. It
// fails where speed is not within 0.001 and 1000000.
func Recorded(speed float64) (*RecordedPace, error) {
	if !(speed >= minSpeed && speed <= maxSpeed) {
		return nil, fmt.Errorf("speed %v: must be between %v and %.0f", speed, minSpeed, maxSpeed)
	}
	return &RecordedPace{speed: speed}, nil
}

// stretch makes the whole schedule, shortened gaps as well, last by this factor
// longer, without the limits that a speed has.
func (p *RecordedPace) stretch(factor float64) { p.speed /= factor }

// Due implements [forward.Pacer].
func (p *RecordedPace) Due(f *forward.Frame, _ int, _ int64) (due, earliest int64) {
	if f.Retimed {
		return p.due, p.due
	}
	if f.Segment != p.segment || !p.started {
		p.started, p.segment = true, f.Segment
		p.first, p.latest, p.base = f.Time, f.Time, p.due
	}
	if gap := f.Time - p.latest; gap > 0 {
		if p.MaxGap > 0 && gap > int64(p.MaxGap) {
			p.first += gap - int64(p.MaxGap) // as if the clock had stood still for the rest
		}
		p.latest = f.Time
	}
	p.due = max(p.due, p.base+p.scale(f.Time-p.first))
	return p.due, p.due
}

// farAway is later than any run lasts, and leaves room for sums.
const farAway = math.MaxInt64 / 4

// scale converts a time span of the capture to one of the run.
func (p *RecordedPace) scale(ns int64) int64 {
	if p.speed != 1 {
		ns = int64(math.Round(min(float64(ns)/p.speed, farAway)))
	}
	return min(ns, farAway)
}

// ParseSpeed reads the value of a command-line flag: "2x", "0.5x", "10".
func ParseSpeed(s string) (float64, error) {
	number := strings.TrimSuffix(strings.ToLower(s), "x")
	speed, err := parseNumber(number)
	if err != nil {
		return 0, fmt.Errorf("speed %q: want a factor, as 2x or 0.5x", s)
	}
	if !(speed >= minSpeed && speed <= maxSpeed) {
		return 0, fmt.Errorf("speed %q: must be between %v and %.0f", s, minSpeed, maxSpeed)
	}
	return speed, nil
}

// parseNumber reads a plain decimal number: no sign, no exponent, none of the
// forms that strconv knows beside (hexadecimal, infinity, underscores).
func parseNumber(s string) (float64, error) {
	if strings.Trim(s, "0123456789.") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseFloat(s, 64)
}
