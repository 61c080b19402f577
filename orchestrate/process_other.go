//go:build !unix

package orchestrate

// lookAt cannot ask here: every process is taken to exist.
func lookAt(int) seen { return seen{exists: true} }
