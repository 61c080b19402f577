//go:build !unix

package statefile

import (
	"errors"
	"os"
)

// Lock does nothing where there is no flock: two at once have to be avoided by
// the user.
func Lock(string) (unlock func(), err error) { return func() {}, nil }

func lock(*os.File) error { return nil }

// openAgain refuses: without locks nobody knows whether a file is still written.
func openAgain(string) (*os.File, error) { return nil, errors.ErrUnsupported }

// Trust cannot tell whose a file is where there are no owners as Unix has them.
func Trust(name string) error {
	_, err := os.Lstat(name)
	return err
}
