package pace

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

const (
	us   = int64(time.Microsecond)
	ms   = int64(time.Millisecond)
	sec  = int64(time.Second)
	hour = int64(time.Hour)
)

func newRecorded(tb testing.TB, speed float64) *RecordedPace {
	tb.Helper()
	p, err := Recorded(speed)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func must(tb testing.TB) func(forward.Pacer, error) *fixed {
	return func(p forward.Pacer, err error) *fixed {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return p.(*fixed)
	}
}

func TestMaxHasNoDueTimes(t *testing.T) {
	if due, earliest := Max().Due(&forward.Frame{Time: 1}, 100, 5); due != forward.AtOnce || earliest != forward.AtOnce {
		t.Errorf("due %d, earliest %d", due, earliest)
	}
}

func TestRecorded(t *testing.T) {
	type frame struct {
		segment int
		at      int64
	}
	const start = int64(1.7e18)
	tests := []struct {
		name   string
		speed  float64
		maxGap int64
		frames []frame
		want   []int64
	}{
		{"gaps are kept", 1, 0, []frame{{0, start}, {0, start + 7}, {0, start + sec}}, []int64{0, 7, sec}},
		{"twice as fast", 2, 0, []frame{{0, start}, {0, start + 8}, {0, start + sec}}, []int64{0, 4, sec / 2}},
		{"a tenth", 0.1, 0, []frame{{0, start}, {0, start + 1}, {0, start + sec}}, []int64{0, 10, 10 * sec}},
		{"no gap between segments", 1, 0, []frame{{0, start}, {0, start + 5}, {1, start + hour}, {1, start + hour + 5}, {2, 0}}, []int64{0, 5, 5, 10, 10}},
		{"first segment is not 0", 1, 0, []frame{{3, start}, {3, start + 5}}, []int64{0, 5}},
		{"a step back does not shift what follows", 1, 0, []frame{{0, start}, {0, start + 10}, {0, start + 4}, {0, start + 12}}, []int64{0, 10, 10, 12}},
		{"before the first", 1, 0, []frame{{0, start}, {0, start - sec}, {0, start + 1}}, []int64{0, 0, 1}},
		{"segment after a step back", 1, 0, []frame{{0, start}, {0, start + 10}, {0, start}, {1, start}, {1, start + 1}}, []int64{0, 10, 10, 10, 11}},
		{"longest gap", 1, 100, []frame{{0, start}, {0, start + hour}, {0, start + hour + 3}, {0, start + 2*hour}}, []int64{0, 100, 103, 203}},
		{"longest gap, faster", 2, 100, []frame{{0, start}, {0, start + hour}, {0, start + hour + 4}}, []int64{0, 50, 52}},
		{"longest gap counts from the latest frame", 1, 100, []frame{{0, start}, {0, start + 90}, {0, start}, {0, start + 95}}, []int64{0, 90, 90, 95}},
	}
	for _, tt := range tests {
		p := newRecorded(t, tt.speed)
		p.MaxGap = time.Duration(tt.maxGap)
		for i, f := range tt.frames {
			due, earliest := p.Due(&forward.Frame{Segment: f.segment, Time: f.at}, 100, 0)
			if due != tt.want[i] || earliest != due {
				t.Errorf("%s: frame %d is due at %d (earliest %d), want %d", tt.name, i, due, earliest, tt.want[i])
			}
		}
	}
}

// A frame without a time of its own moves no schedule: neither at the beginning,
// where its time is 0, nor between frames that have one.
func TestRecordedPassesBadTimesOver(t *testing.T) {
	p := newRecorded(t, 1)
	start := int64(1.7e18)
	for i, f := range []struct {
		frame forward.Frame
		want  int64
	}{
		{forward.Frame{Retimed: true}, 0},
		{forward.Frame{Time: start}, 0},
		{forward.Frame{Time: start + 10}, 10},
		{forward.Frame{Time: start + 10, Retimed: true}, 10},
		{forward.Frame{Time: start + 30}, 30},
		{forward.Frame{Time: start + 30, Retimed: true, Segment: 1}, 30},
		{forward.Frame{Time: start + hour, Segment: 1}, 30},
		{forward.Frame{Time: start + hour + 5, Segment: 1}, 35},
	} {
		if due, earliest := p.Due(&f.frame, 100, 0); due != f.want || earliest != due {
			t.Errorf("frame %d is due at %d (earliest %d), want %d", i, due, earliest, f.want)
		}
	}
}

// After a day of capture, whatever the speed, a due time is right to the
// nanosecond: compared with exact arithmetic.
func TestRecordedDoesNotDrift(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for _, speed := range []float64{1, 2, 0.5, 3, 0.1, 1.0 / 3, 7.77, 1000} {
		p := newRecorded(t, speed)
		start := int64(1.7e18)
		for at := start; at < start+24*hour; at += random.Int64N(2 * sec) {
			due, _ := p.Due(&forward.Frame{Time: at}, 100, 0)
			exact := new(big.Float).SetPrec(200).Quo(big.NewFloat(0).SetPrec(200).SetInt64(at-start), big.NewFloat(speed))
			if off, _ := exact.Sub(exact, new(big.Float).SetInt64(due)).Float64(); math.Abs(off) > 1 {
				t.Fatalf("speed %v: after %v off by %v ns", speed, time.Duration(at-start), off)
			}
		}
	}
}

// Times as damaged captures hold them must not wrap around.
func TestRecordedSurvivesExtremes(t *testing.T) {
	for _, speed := range []float64{1, minSpeed, maxSpeed} {
		p := newRecorded(t, speed)
		var last int64
		for i, at := range []int64{0, math.MaxInt64 / 2, 5, math.MaxInt64, 0, math.MaxInt64} {
			due, _ := p.Due(&forward.Frame{Time: at, Segment: i / 4}, 100, 0)
			if due < last {
				t.Errorf("speed %v: due %d after %d", speed, due, last)
			}
			last = due
		}
	}
}

// simulate runs a pacer against a clock that sleeps exactly, and calls
// disturb before each datagram, which may let time pass. It returns when each
// datagram left.
func simulate(p forward.Pacer, n, inner int, disturb func(i int, now int64) int64) []int64 {
	var now int64
	left := make([]int64, n)
	for i := range left {
		if disturb != nil {
			now = disturb(i, now)
		}
		_, earliest := p.Due(&forward.Frame{}, inner, now)
		now = max(now, earliest)
		left[i] = now
	}
	return left
}

func TestFixedPacesAreExact(t *testing.T) {
	tests := []struct {
		name  string
		pacer *fixed
		inner int
		n     int
		want  int64 // when datagram n leaves
	}{
		{"10 000 pps", must(t)(PPS(10_000)), 100, 100_000, 10 * sec},
		{"3 pps", must(t)(PPS(3)), 100, 3 * 3600, hour},
		{"7 million pps", must(t)(PPS(7e6)), 100, 7e6, sec},
		{"0.001 pps", must(t)(PPS(0.001)), 100, 3, 3000 * sec},
		{"29.97 pps", must(t)(PPS(29.97)), 100, 2997, 100 * sec},
		{"500 mbit", must(t)(Rate(500e6)), 1250, 50_000, sec},
		{"7 mbit of odd sizes", must(t)(Rate(7e6)), 875, 1000, sec},
		{"1 bit", must(t)(Rate(1)), 1, 2, 16 * sec},
		{"100 tbit", must(t)(Rate(100e12)), 125_000, 1e6, 10 * ms},
		{"delay of 1 ms", must(t)(Delay(time.Millisecond)), 100, 1000, sec},
		{"delay of a day", must(t)(Delay(24 * time.Hour)), 100, 2, 48 * hour},
	}
	for _, tt := range tests {
		left := simulate(tt.pacer, tt.n+1, tt.inner, nil)
		if got := left[tt.n]; got != tt.want || left[0] != 0 {
			t.Errorf("%s: datagram %d leaves at %d, want %d", tt.name, tt.n, got, tt.want)
		}
	}
}

// Each datagram is due when the one before has passed the link.
func TestRateCountsBytes(t *testing.T) {
	p := must(t)(Rate(8e9)) // a byte a nanosecond
	var at []int64
	for _, inner := range []int{60, 1500, 60, 9000} {
		due, _ := p.Due(&forward.Frame{}, inner, 0)
		at = append(at, due)
	}
	if want := [4]int64{0, 60, 1560, 1620}; [4]int64(at) != want {
		t.Errorf("due at %v, want %v", at, want)
	}
}

// Wake-ups that are late by what a scheduler commonly makes them cost nothing:
// the schedule is as if they had been exact.
func TestLateWakeUpsDoNotAddUp(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	const n = 100_000
	left := simulate(must(t)(PPS(10_000)), n, 100, func(_ int, now int64) int64 { return now + random.Int64N(90*us) })
	for i, at := range left {
		if late := at - int64(i)*100*us; late < 0 || late > 900*us {
			t.Fatalf("datagram %d is %d ns late", i, late)
		}
	}
}

// After being held up, no millisecond carries more than what the rate and the
// ten percent on top allow, and one millisecond's burst; and the schedule is
// met again.
func TestBacklogIsSpreadOut(t *testing.T) {
	for _, pps := range []int{100, 1000, 10_000, 1_000_000} {
		const held = 50 * ms
		n := pps
		left := simulate(must(t)(PPS(float64(pps))), n, 100, func(i int, now int64) int64 {
			if i == n/10 {
				now += held
			}
			return now
		})
		for _, window := range []int64{0, ms / 10, ms, 10 * ms, 100 * ms} {
			allowed := int(float64(pps)*(1.1*float64(window)+float64(ms))/1e9) + 2
			if most := mostWithin(left, window); most > allowed {
				t.Errorf("%d pps: %d datagrams within %d ns, %d allowed", pps, most, window, allowed)
			}
		}
		if last, want := left[n-1], int64(n-1)*sec/int64(pps); last != want {
			t.Errorf("%d pps: the last datagram leaves at %d, want %d", pps, last, want)
		}
	}
}

// mostWithin returns the largest number of times that lie within a window.
func mostWithin(at []int64, window int64) int {
	most, from := 0, 0
	for i := range at {
		for at[i]-at[from] > window {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

// A sender that is always too slow stays behind, and reports how much.
func TestLatenessIsMeasuredFromTheSchedule(t *testing.T) {
	p := must(t)(PPS(1000))
	var due, earliest int64
	for i := range int64(1000) {
		due, earliest = p.Due(&forward.Frame{}, 100, i*2*ms)
	}
	if due != 999*ms || earliest != 1998*ms-burst {
		t.Errorf("due %d, earliest %d", due, earliest)
	}
}

func TestDueTimesNeverDecrease(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		p := must(t)(Rate(uint64(1 + random.Int64N(1e10))))
		var now, lastDue, lastEarliest int64
		for range 1000 {
			due, earliest := p.Due(&forward.Frame{}, random.IntN(65536), now)
			if due < lastDue || earliest < lastEarliest || earliest < due {
				t.Fatalf("due %d after %d, earliest %d after %d", due, lastDue, earliest, lastEarliest)
			}
			lastDue, lastEarliest = due, earliest
			now = max(now, earliest) + random.Int64N(3*ms)
		}
	}
}

func TestArgumentsAreValidated(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, v := range []float64{0, -1, nan, inf, -inf, 1e-4, 1e10} {
		if _, err := Recorded(v); err == nil {
			t.Errorf("Recorded(%v) is accepted", v)
		}
		if _, err := PPS(v); err == nil {
			t.Errorf("PPS(%v) is accepted", v)
		}
	}
	for _, v := range []uint64{0, 1e15} {
		if _, err := Rate(v); err == nil {
			t.Errorf("Rate(%v) is accepted", v)
		}
	}
	for _, v := range []time.Duration{-1, 25 * time.Hour} {
		if _, err := Delay(v); err == nil {
			t.Errorf("Delay(%v) is accepted", v)
		}
	}
	if p, err := Delay(0); err != nil || p != Max() {
		t.Errorf("Delay(0) is %v, %v", p, err)
	}
}

func TestParseRate(t *testing.T) {
	for s, want := range map[string]uint64{
		"500mbit": 500e6, "2.5gbit": 2.5e9, "64000": 64000, "1bit": 1, "10Gbit": 10e9, "10 Gbit/s": 10e9,
		"100kbit/s": 100e3, "1tbit": 1e12, "0.5kbit": 500, ".5mbit": 500e3,
		"": 0, "mbit": 0, "0": 0, "-1mbit": 0, "500mbps": 0, "500mb": 0, "1e3": 0, "1_000": 0, "0x10": 0,
		"1000tbit": 0, "0.1bit": 0, "500mbitx": 0, "inf": 0, "nan": 0, "5.5.5mbit": 0, "mbit500": 0, "١mbit": 0,
	} {
		got, err := ParseRate(s)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("ParseRate(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
}

func TestParseSpeed(t *testing.T) {
	for s, want := range map[string]float64{
		"2x": 2, "0.5x": 0.5, "10": 10, "1X": 1, "0.001x": 0.001,
		"": 0, "x": 0, "0x": 0, "-2x": 0, "2xx": 0, "inf": 0, "1e3x": 0, "0.0001x": 0, "10000000x": 0, "twice": 0,
	} {
		got, err := ParseSpeed(s)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("ParseSpeed(%q) = %v, %v; want %v", s, got, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"500mbit", "2x", "0.5x", "64000", "1e9", "", "/s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if rate, err := ParseRate(s); err == nil {
			if _, err := Rate(rate); err != nil {
				t.Errorf("ParseRate(%q) = %d, which Rate refuses: %v", s, rate, err)
			}
		}
		if speed, err := ParseSpeed(s); err == nil {
			if _, err := Recorded(speed); err != nil {
				t.Errorf("ParseSpeed(%q) = %v, which Recorded refuses: %v", s, speed, err)
			}
		}
	})
}
