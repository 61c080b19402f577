// Package units writes numbers as people read them: with separators, decimal
// prefixes and their units.
package units

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Count writes a number with a thin separator every three digits: 60 604.
func Count[T int | int64 | uint64](n T) string {
	digits := strconv.FormatInt(int64(n), 10)
	sign := ""
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	var parts []string
	for len(digits) > 3 {
		parts = append([]string{digits[len(digits)-3:]}, parts...)
		digits = digits[:len(digits)-3]
	}
	return sign + strings.Join(append([]string{digits}, parts...), " ")
}

// Bytes writes a size with a decimal unit: 21.5 MB.
func Bytes(n int64) string { return scaled(float64(n), "B") }

// BitRate writes a rate with a decimal unit: 941 Mbit/s.
func BitRate(bitsPerSecond float64) string { return scaled(bitsPerSecond, "bit/s") }

// PacketRate writes a rate in packets per second: 168.3 kpps.
func PacketRate(pps float64) string { return scaled(pps, "pps") }

func scaled(v float64, unit string) string {
	prefix := ""
	for _, p := range []string{"k", "M", "G", "T"} {
		if v < 999.5 {
			break
		}
		v, prefix = v/1000, p
	}
	switch {
	case prefix == "" && v == float64(int64(v)), v >= 100:
		return fmt.Sprintf("%.0f %s%s", v, prefix, unit)
	case v >= 10:
		return fmt.Sprintf("%.1f %s%s", v, prefix, unit)
	}
	return fmt.Sprintf("%.2f %s%s", v, prefix, unit)
}

// Duration rounds to what a person reads: 1.24s, 350ms, 2h5m.
func Duration(d time.Duration) string {
	switch {
	case d < time.Microsecond:
		return d.String()
	case d < time.Millisecond:
		return d.Round(100 * time.Nanosecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}
