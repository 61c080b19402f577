package sys

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Receiver holds the arrays and the memory that recvmmsg(2) fills, so that
// receiving does not allocate. It is not safe for concurrent use.
type Receiver struct {
	headers []unix.Mmsghdr
	vectors []unix.Iovec
	names   []unix.RawSockaddrAny
	buf     []byte
	size    int // bytes per message
}

// NewReceiver returns a Receiver for up to n datagrams of up to size bytes in
// one call.
func NewReceiver(n, size int) *Receiver {
	n = min(n, maxMessages)
	r := &Receiver{
		headers: make([]unix.Mmsghdr, n),
		vectors: make([]unix.Iovec, n),
		names:   make([]unix.RawSockaddrAny, n),
		buf:     make([]byte, n*size),
		size:    size,
	}
	for i := range n {
		r.vectors[i].Base = &r.buf[i*size]
		r.vectors[i].SetLen(size)
		hdr := &r.headers[i].Hdr
		hdr.Iov = &r.vectors[i]
		hdr.SetIovlen(1)
		hdr.Name = (*byte)(unsafe.Pointer(&r.names[i]))
	}
	return r
}

// Receive waits for at least one datagram (as long as the socket's receive
// timeout allows, see [SetReceiveTimeout]) and returns how many came. The error
// is a unix.Errno: EAGAIN after the timeout.
func (r *Receiver) Receive(fd int) (int, error) {
	for i := range r.headers {
		r.headers[i].Hdr.Namelen = unix.SizeofSockaddrAny
		r.headers[i].Hdr.Flags = 0
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(r.headers))), uintptr(len(r.headers)), unix.MSG_WAITFORONE, 0, 0)
	runtime.KeepAlive(r)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Datagram returns datagram i of the last Receive. The bytes are valid until
// the next one; cut tells whether the datagram was longer than the Receiver's
// size.
func (r *Receiver) Datagram(i int) (data []byte, from netip.AddrPort, cut bool) {
	data = r.buf[i*r.size:][:r.headers[i].Len]
	return data, addrPort(&r.names[i]), r.headers[i].Hdr.Flags&unix.MSG_TRUNC != 0
}

func addrPort(sa *unix.RawSockaddrAny) netip.AddrPort {
	switch sa.Addr.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), networkOrder(v4.Port))
	case unix.AF_INET6:
		v6 := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom16(v6.Addr).Unmap(), networkOrder(v6.Port))
	}
	return netip.AddrPort{}
}

// networkOrder converts a 16-bit number between the host's byte order and the
// network's, either way.
func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], v)
	return binary.BigEndian.Uint16(b[:])
}
