package main

import "math/rand/v2"

// uid is a flow's identity: a number in the order of creation and Zeek's
// printable form.
type uid struct {
	number int64
	text   string
}

// uidSource makes uids that differ between processes.
type uidSource struct {
	rng  *rand.Rand
	last int64
}

func newUIDSource() uidSource {
	return uidSource{rng: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
}

// next returns a fresh uid: C and 17 digits of base 62.
func (u *uidSource) next() uid {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	text := [18]byte{0: 'C'}
	for i := 1; i < len(text); i++ {
		text[i] = digits[u.rng.IntN(len(digits))]
	}
	u.last++
	return uid{u.last, string(text[:])}
}
