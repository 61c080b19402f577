package pace

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

// The ranges in which fixed paces make sense.
const (
	minPPS   = 1e-3
	maxPPS   = 1e9
	maxBits  = 100e12 // 100 Tbit/s
	maxDelay = 24 * time.Hour
)

// Catching up: see [PPS].
const (
	catchUpTenths = 11                                           // tenths of the rate
	burst         = int64(time.Millisecond) * 10 / catchUpTenths // catchUp's nanoseconds for 1 ms worth at the rate
)

// fixed spaces datagrams by what each costs. Costs are added as whole
// nanoseconds and a remainder, so the schedule is exact for ever.
type fixed struct {
	perDatagram uint64 // cost of a datagram in units
	perByte     uint64 // and of each inner byte
	perSecond   uint64 // units a second

	due     int64  // of the next datagram
	rest    uint64 // rest/perSecond is the fraction of a nanosecond that due lacks
	catchUp int64  // when the next datagram may leave at the catching-up rate
}

var _ forward.Pacer = (*fixed)(nil)

// PPS sends n datagrams a second, at even distances. It fails where n is not
// within 0.001 and 1000000000; millionths count, what is less is rounded.
//
// Where the sender has fallen behind (the machine was busy, the receiver was
// waited for), it makes up for it: a burst of at most a millisecond's worth at
// once, then ten percent above the rate until the schedule is met again. So the
// rate over a run is right, and nothing is ever flooded. This holds for [Rate]
// and [Delay] as well.
func PPS(n float64) (forward.Pacer, error) {
	if !(n >= minPPS && n <= maxPPS) {
		return nil, fmt.Errorf("rate of %v packets a second: must be between %v and %.0f", n, minPPS, maxPPS)
	}
	const unit = 1e6
	return &fixed{perDatagram: unit, perSecond: uint64(math.Round(n * unit)), catchUp: math.MinInt64 / 2}, nil
}

// Rate sends bitsPerSecond bits of inner Ethernet frames a second, as a link of
// that speed without preamble, checksum and gap would: each datagram is due when
// the one before has passed. It fails for 0 and for more than 100 Tbit/s.
func Rate(bitsPerSecond uint64) (forward.Pacer, error) {
	if bitsPerSecond == 0 || bitsPerSecond > maxBits {
		return nil, fmt.Errorf("rate of %d bits a second: must be between 1 and %.0f", bitsPerSecond, maxBits)
	}
	return &fixed{perByte: 8, perSecond: bitsPerSecond, catchUp: math.MinInt64 / 2}, nil
}

// Delay sends datagrams d apart. 0 is [Max]. It fails where d is negative or
// longer than a day.
func Delay(d time.Duration) (forward.Pacer, error) {
	if d == 0 {
		return Max(), nil
	}
	if d < 0 || d > maxDelay {
		return nil, fmt.Errorf("delay of %v: must be between 0 and %v", d, maxDelay)
	}
	return &fixed{perDatagram: uint64(d), perSecond: uint64(time.Second), catchUp: math.MinInt64 / 2}, nil
}

// Due implements [forward.Pacer].
func (p *fixed) Due(_ *forward.Frame, inner int, now int64) (due, earliest int64) {
	p.catchUp = max(p.catchUp, now-burst) // no more credit than one burst
	due, earliest = p.due, max(p.due, p.catchUp)
	cost := p.cost(p.perDatagram + p.perByte*uint64(inner))
	p.due = min(p.due+cost, farAway)
	p.catchUp += (cost*10 + catchUpTenths - 1) / catchUpTenths
	return due, earliest
}

// cost converts units to nanoseconds, and keeps the fraction for the next call.
// The quotient fits: no datagram costs more than a day or, at a bit a second,
// than 64 KiB.
func (p *fixed) cost(units uint64) int64 {
	hi, lo := bits.Mul64(units, uint64(time.Second))
	lo, carry := bits.Add64(lo, p.rest, 0)
	ns, rest := bits.Div64(hi+carry, lo, p.perSecond)
	p.rest = rest
	return int64(ns)
}

// ParseRate reads the value of a command-line flag in bits a second: "500mbit",
// "2.5gbit", "64000". The units are tc's: bit, kbit, mbit, gbit, tbit, powers of
// 1000, in either case, with or without "/s". Units of bytes are not known, for
// tc's "mbps" (megabytes) reads as megabits to everybody else.
func ParseRate(s string) (uint64, error) {
	text := strings.TrimSuffix(strings.ToLower(s), "/s")
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz")
	factor, known := map[string]float64{
		"": 1, "bit": 1, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9, "tbit": 1e12,
	}[text[len(number):]]
	n, err := parseNumber(strings.TrimSpace(number))
	if err != nil || !known {
		return 0, fmt.Errorf("rate %q: want bits a second, as 500mbit, 2.5gbit or 64000", s)
	}
	rate := math.Round(n * factor)
	if !(rate >= 1 && rate <= maxBits) {
		return 0, fmt.Errorf("rate %q: must be between 1 bit and %.0f tbit a second", s, maxBits/1e12)
	}
	return uint64(rate), nil
}
