package encap

import (
	"crypto/rand"
	"encoding/binary"
)

// FreshVNI draws the id of a run: seven or eight digits, so that it does not look
// like one that a person chose.
func FreshVNI() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, see its documentation
	const low = 1_000_000
	return low + binary.BigEndian.Uint32(b[:])%(MaxVNI-low)
}
