package transmit

import "math/rand/v2"

// slots is into how many parts the IP identifications are divided, so that
// senders to one destination that run at the same time do not share any: a
// receiver would put fragments of different datagrams together (RFC 4963).
const slots = 8

// noSlot stands for a sender that found all of them taken. It uses all.
const noSlot = -1

// identities hands out IP identifications, of 16 bits for IPv4 and of 32 for
// IPv6's fragments. They start at random, and again at the slot's begin when it
// is used up.
type identities struct {
	first, size, next uint32 // next counts from first
}

// newIdentities makes those of a slot.
func newIdentities(slot int, six bool) identities {
	space := uint64(1) << 16
	if six {
		space = 1 << 32
	}
	i := identities{size: uint32(space - 1)}
	if slot != noSlot {
		size := space / slots
		i.first, i.size = uint32(size*uint64(slot)), uint32(size)
	}
	i.next = rand.Uint32N(i.size)
	return i
}

// take returns the first of n consecutive ones, which do not wrap around.
func (i *identities) take(n int) uint32 {
	if i.size-i.next < uint32(n) {
		i.next = 0
	}
	id := i.first + i.next
	i.next += uint32(n)
	return id
}
