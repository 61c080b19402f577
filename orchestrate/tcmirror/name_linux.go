package tcmirror

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
)

// Widths of the parts of a tunnel's name behind the prefix: the PID and a random
// number, in base 36. The name is all that tells of the owner until the alias is
// written.
const (
	nameBase   = 36
	namePID    = 5
	nameRandom = 2
)

func newName(pid int) string {
	b := make([]byte, 2)
	_, _ = rand.Read(b) // never fails
	n := (int(b[0])<<8 | int(b[1])) % (nameBase * nameBase)
	return DevicePrefix + padded(pid, namePID) + padded(n, nameRandom)
}

func padded(n, width int) string {
	return fmt.Sprintf("%0*s", width, strconv.FormatInt(int64(n), nameBase))
}

// nameOwner is the PID in a tunnel's name.
func nameOwner(name string) (pid int, ok bool) {
	digits, ok := strings.CutPrefix(name, DevicePrefix)
	if !ok || len(digits) != namePID+nameRandom {
		return 0, false
	}
	n, err := strconv.ParseInt(digits[:namePID], nameBase, 32)
	return int(n), err == nil
}
