package doctor

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// synchronised asks the kernel, which is told by whoever steers its clock
// (adjtimex(2), STA_UNSYNC). Asking needs no privilege.
func synchronised() (bool, error) {
	var t unix.Timex // modes 0: it only reads
	if _, err := unix.Adjtimex(&t); err != nil {
		return false, fmt.Errorf("ask whether the clock is synchronised: %w", err)
	}
	return t.Status&unix.STA_UNSYNC == 0, nil
}
