//go:build !linux

package sys

import "time"

func kernelMonotonic() int64 { return 0 }

func sleepUntil(t int64) { time.Sleep(time.Duration(t - Monotonic())) }

// SetTimerSlack is Linux's alone: see its documentation there.
func SetTimerSlack(int) (int, error) { return 0, unsupported("set timer slack") }
