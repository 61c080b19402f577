package selftest

import "net/netip"

// receiverBatch is how many datagrams one system call receives at most, and
// receiveSize the bytes of each: no UDP datagram is longer.
const (
	receiverBatch = 32
	receiveSize   = 65535
)

// receiveBuffer is asked for, in bytes. The kernel grants what it is allowed
// to; the window adapts to it.
const receiveBuffer = 16 << 20

// socket is a UDP socket on the loopback device. Each platform has one: on
// Linux it receives with recvmmsg and knows what the kernel dropped, elsewhere
// it is Go's.
type socket interface {
	// address is where to send to.
	address() netip.AddrPort
	// buffer is the size of the receive buffer as the kernel accounts it.
	buffer() int
	// receive waits a tenth of a second at most and returns how many
	// datagrams came.
	receive() (int, error)
	// datagram returns one of the last receive; valid until the next.
	datagram(i int) (payload []byte, from netip.AddrPort)
	// drops is how many datagrams the kernel dropped because the buffer was
	// full; false where that cannot be known.
	drops() (uint64, bool)
	close() error
}
