//go:build unix

package pcapfile

import (
	"os"
	"syscall"
)

// openAsWriter opens a named pipe to write, which ends the wait of whoever opens it
// to read. It does not wait itself.
func openAsWriter(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|syscall.O_NONBLOCK, 0)
}

// openAsReader does the same for whoever opens it to write.
func openAsReader(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}
