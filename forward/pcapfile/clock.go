package pcapfile

import (
	"math"
	"math/bits"
)

// clock converts the timestamps of an interface to nanoseconds: time is
// timestamp * mul / 2^shift / div nanoseconds, plus offset seconds.
type clock struct {
	mul, div uint64
	shift    uint8
	offset   int64
}

// microseconds is the clock of an interface that does not describe its own.
var microseconds = clock{mul: 1000, div: 1}

// resolution returns the clock with the resolution that an if_tsresol option
// gives: a negative power of 10, or with the upper bit set, of 2.
func (c clock) resolution(option byte) clock {
	c.mul, c.div, c.shift = 1, 1, 0
	exponent := option & 0x7f
	switch {
	case option&0x80 != 0:
		c.mul, c.shift = 1e9, exponent
	case exponent <= 9:
		c.mul = pow10(9 - exponent)
	case exponent <= 9+19:
		c.div = pow10(exponent - 9)
	default: // 2^64 of such units are less than a nanosecond
		c.mul = 0
	}
	return c
}

// pow10 is 10 to the power of n, at most 19.
func pow10(n byte) uint64 {
	p := uint64(1)
	for range n {
		p *= 10
	}
	return p
}

// nanoseconds converts a timestamp. What does not fit, after the year 2262,
// becomes the last moment that does.
func (c *clock) nanoseconds(timestamp uint64) int64 {
	hi, lo := bits.Mul64(timestamp, c.mul)
	if c.shift > 0 {
		hi, lo = shiftRight(hi, lo, c.shift)
	}
	if hi != 0 {
		return math.MaxInt64
	}
	if c.div > 1 {
		lo /= c.div
	}
	if lo > math.MaxInt64 {
		return math.MaxInt64
	}
	if c.offset != 0 {
		return addSeconds(int64(lo), c.offset)
	}
	return int64(lo)
}

// shiftRight shifts a 128-bit number by n < 128.
func shiftRight(hi, lo uint64, n uint8) (uint64, uint64) {
	if n >= 64 {
		return 0, hi >> (n - 64)
	}
	return hi >> n, hi<<(64-n) | lo>>n
}

// addSeconds adds seconds to ns, stopping at the ends of what an int64 holds.
func addSeconds(ns, seconds int64) int64 {
	const limit = math.MaxInt64 / int64(1e9)
	switch {
	case seconds > limit || seconds > 0 && ns > math.MaxInt64-seconds*1e9:
		return math.MaxInt64
	case seconds < -limit:
		return math.MinInt64
	}
	return ns + seconds*1e9
}
