package pace

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

// last is when the last of some frames is due.
func last(t *testing.T, s Spec, frames []forward.Frame) time.Duration {
	t.Helper()
	p, err := s.Pacer()
	if err != nil {
		t.Fatal(err)
	}
	var due int64
	for i := range frames {
		due, _ = p.Due(&frames[i], 100, due)
	}
	return time.Duration(due)
}

// recording is frames at 0, 1 s, 11 s and 13 s, played as often as that.
func recording(passes int) (frames []forward.Frame) {
	for loop := range passes {
		for _, at := range []int64{0, 1, 11, 13} {
			frames = append(frames, forward.Frame{Time: 1e18 + int64(loop)*13*sec + at*sec, Segment: loop, Loop: loop})
		}
	}
	return frames
}

func asRecorded(change func(*Spec)) Spec {
	s := Spec{Pace: AsRecorded, Speed: "1x", Given: map[string]bool{}}
	change(&s)
	return s
}

// Speed, shortened pauses and pauses between loops go together.
func TestSpecComposes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Spec)
		passes int
		want   time.Duration
	}{
		{"recorded", func(*Spec) {}, 1, 13 * time.Second},
		{"two loops", func(*Spec) {}, 2, 26 * time.Second},
		{"max gap", func(s *Spec) { s.MaxGap = 4 * time.Second }, 1, 7 * time.Second},
		{"max gap at twice the speed", func(s *Spec) { s.MaxGap, s.Speed = 4*time.Second, "2x" }, 1, 5500 * time.Millisecond},
		{"max gap at half the speed", func(s *Spec) { s.MaxGap, s.Speed = 4*time.Second, "0.5x" }, 1, 10 * time.Second},
		{"loop delay", func(s *Spec) { s.LoopDelay = time.Second }, 3, 41 * time.Second},
		{"loop delay at twice the speed", func(s *Spec) { s.LoopDelay, s.Speed = time.Second, "2x" }, 3, 21500 * time.Millisecond},
		{"loop delay at a rate", func(s *Spec) { s.LoopDelay, s.PPS, s.Given = time.Second, 2, map[string]bool{"pps": true} }, 2, 4500 * time.Millisecond},
	} {
		if got := last(t, asRecorded(tt.change), recording(tt.passes)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Fitted takes just as long as it is to, whatever else is asked for.
func TestFitted(t *testing.T) {
	for _, change := range []func(*Spec){
		func(*Spec) {},
		func(s *Spec) { s.Speed = "2x" },
		func(s *Spec) { s.MaxGap = 100 * time.Millisecond },
		func(s *Spec) { s.MaxGap, s.Speed, s.LoopDelay = 5*time.Second, "3x", 10*time.Millisecond },
	} {
		for _, fit := range []time.Duration{time.Second, time.Minute, 24 * time.Hour} {
			for _, passes := range []int{1, 3} {
				s := asRecorded(change)
				once := last(t, s, recording(1))
				s.Fit = fit
				s, err := s.Fitted(once*time.Duration(passes), passes)
				if err != nil {
					t.Fatal(err)
				}
				if got := last(t, s, recording(passes)); math.Abs(float64(got-fit)) > 100+float64(fit)*1e-9 { // schedules are in whole nanoseconds
					t.Errorf("%+v, %d passes: %v", s, passes, got)
				}
			}
		}
	}
}

// What takes no time cannot be stretched.
func TestFittedWithoutPauses(t *testing.T) {
	s, err := asRecorded(func(s *Spec) { s.Fit = time.Hour }).Fitted(0, 1)
	if err != nil || s.Stretch != 0 {
		t.Errorf("%+v, error %v", s, err)
	}
	if _, err := asRecorded(func(s *Spec) { s.Fit, s.LoopDelay = time.Second, time.Second }).Fitted(time.Second, 2); err == nil {
		t.Error("pauses longer than the whole: no error")
	}
}

// With no pace there is still the pause between loops: it begins when the next is
// at hand, and holds for the first frame of it alone.
func TestLoopDelayWithoutSchedule(t *testing.T) {
	p := Looped(Max(), time.Second)
	for i, step := range []struct {
		loop      int
		now, want int64
	}{{0, 0, forward.AtOnce}, {0, 5, forward.AtOnce}, {1, 10, 10 + sec}, {1, 10 + sec, forward.AtOnce}, {2, 2 * sec, 3 * sec}} {
		if due, earliest := p.Due(&forward.Frame{Loop: step.loop}, 1, step.now); due != step.want || earliest != step.want {
			t.Errorf("step %d: due at %d, earliest %d, want %d", i, due, earliest, step.want)
		}
	}
}

func TestSpecRefuses(t *testing.T) {
	for want, change := range map[string]func(*Spec){
		"--max-gap changes the recorded pace": func(s *Spec) { s.MaxGap, s.Pace = 1, AtOnce },
		"--fit changes the recorded pace":     func(s *Spec) { s.Fit, s.PPS, s.Given = 1, 7, map[string]bool{"pps": true} },
		"--fit -1s: want a time above zero":   func(s *Spec) { s.Fit = -time.Second },
		"--loop-delay -1ns: want a time":      func(s *Spec) { s.LoopDelay = -1 },
	} {
		if _, err := asRecorded(change).Pacer(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestNamed(t *testing.T) {
	for want, changes := range map[bool][]func(*Spec){
		false: {func(*Spec) {}},
		true: {func(s *Spec) { s.Given["speed"] = true }, func(s *Spec) { s.Given["pps"] = true }, func(s *Spec) { s.MaxGap = 1 },
			func(s *Spec) { s.LoopDelay = 1 }, func(s *Spec) { s.Fit = 1 }},
	} {
		for i, change := range changes {
			if got := asRecorded(change).Named(); got != want {
				t.Errorf("change %d: %v, want %v", i, got, want)
			}
		}
	}
}
