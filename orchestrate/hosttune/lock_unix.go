//go:build unix

package hosttune

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockFile locks as flock(2) does: the lock ends with the process.
func lockFile(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the record of what is changed: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errors.New("another zeekdemo is tuning right now")
		}
		return nil, fmt.Errorf("lock the record of what is changed: %w", err)
	}
	return func() { f.Close() }, nil
}
