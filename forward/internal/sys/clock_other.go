//go:build !linux

package sys

import "time"

func kernelMonotonic() int64 { return 0 }

func sleepUntil(t int64) { time.Sleep(time.Duration(t - Monotonic())) }
