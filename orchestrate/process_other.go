//go:build !unix

package orchestrate

// processExists cannot be asked here: every process is taken to exist.
func processExists(int) bool { return true }
