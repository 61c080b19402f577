package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// CPUSet is a set of processors.
type CPUSet = unix.CPUSet

// Affinity returns the processors that the calling thread may run on.
func Affinity() (CPUSet, error) {
	var set CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return set, fmt.Errorf("read thread's CPU affinity: %w", err)
	}
	return set, nil
}

// SetAffinity restricts the calling thread to the processors in set.
func SetAffinity(set CPUSet) error {
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("set thread's CPU affinity: %w", err)
	}
	return nil
}
