package encap

import (
	"encoding/binary"
	"math/bits"
)

// sum adds data's 16-bit words, big endian, to an unfolded one's complement
// sum (RFC 1071). The result, at most 1<<33, still has to be folded; sums of
// data of even length may be added up before.
func sum(acc uint64, data []byte) uint64 {
	var carry uint64
	for len(data) >= 32 {
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(data), 0)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(data[8:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(data[16:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(data[24:]), carry)
		acc += carry // cannot overflow: a sum that carried is below its maximum
		data = data[32:]
	}
	for len(data) >= 8 {
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(data), 0)
		acc += carry
		data = data[8:]
	}
	if len(data) > 0 {
		var tail [8]byte // the missing bytes count as zeros
		copy(tail[:], data)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(tail[:]), 0)
		acc += carry
	}
	return acc>>32 + acc&0xffffffff
}

// fold reduces an unfolded sum to 16 bits. Its complement is the checksum.
func fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s)
}
