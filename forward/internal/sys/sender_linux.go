package sys

import (
	"encoding/binary"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxMessages is UIO_MAXIOV of the kernel's linux/uio.h: sendmmsg and recvmmsg
// take no more in one call.
const maxMessages = 1024

// Sender holds the arrays that sendmmsg(2) reads, so that sending does not
// allocate. It is not safe for concurrent use.
//
// All pointers in the arrays are typed and on Go's heap, where objects do not
// move, so the collector sees what the kernel is about to read.
type Sender struct {
	headers  []unix.Mmsghdr
	vectors  []unix.Iovec // two per message
	controls []uint64     // controlWords per message: a UDP_SEGMENT control message; nil for packet sockets
}

const controlWords = 4 // CmsgSpace(2) is 24 bytes where pointers have 64 bits, else 16

// NewUDPSender returns a Sender for up to n messages in one call.
func NewUDPSender(n int) *Sender {
	s := NewPacketSender(n)
	s.controls = make([]uint64, controlWords*len(s.headers))
	for i := range s.headers {
		cmsg := (*unix.Cmsghdr)(unsafe.Pointer(s.control(i)))
		cmsg.Level, cmsg.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
		cmsg.SetLen(unix.CmsgLen(2))
	}
	return s
}

// NewPacketSender is the same for packet sockets, which read no control
// messages.
func NewPacketSender(n int) *Sender {
	n = min(n, maxMessages)
	s := &Sender{headers: make([]unix.Mmsghdr, n), vectors: make([]unix.Iovec, 2*n)}
	for i := range n {
		s.headers[i].Hdr.Iov = &s.vectors[2*i]
	}
	return s
}

func (s *Sender) control(i int) *byte {
	return (*byte)(unsafe.Pointer(&s.controls[controlWords*i]))
}

// Send offers the first of msgs (as many as the Sender has room for) to the
// connected or bound socket fd, in one call. It returns how many the kernel
// took. Fewer than were offered come with a nil error if the kernel took any:
// it reports the cause only to a call whose first message it refuses. The error
// is a unix.Errno; Send never blocks, a full buffer is EAGAIN.
//
// It is a raw system call, which Go's scheduler does not see. A call takes some
// hundred microseconds of work; as an ordinary one it would keep the runtime's
// monitor thread awake, which takes processors from threads in long system
// calls and then looks every 20 us whether to do it again. That was measured to
// cost a tenth of the sender's CPU time. The price is that a garbage collection
// may have to wait for the end of one call.
func (s *Sender) Send(fd int, msgs []Message) (int, error) {
	n := min(len(msgs), len(s.headers))
	for i := range n {
		s.set(i, &msgs[i])
	}
	r, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(s.headers))), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	runtime.KeepAlive(s)
	runtime.KeepAlive(msgs)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}

// set fills in the arrays' entry i. It is written so that the common cases,
// one or two parts and no control message, store as little as possible.
func (s *Sender) set(i int, m *Message) {
	hdr, iov := &s.headers[i].Hdr, s.vectors[2*i:2*i+2]
	parts := 0
	if len(m.Header) > 0 {
		iov[0].Base = unsafe.SliceData(m.Header)
		iov[0].SetLen(len(m.Header))
		parts = 1
	}
	if len(m.Payload) > 0 {
		iov[parts].Base = unsafe.SliceData(m.Payload)
		iov[parts].SetLen(len(m.Payload))
		parts++
	}
	hdr.SetIovlen(parts)
	if m.Segment == 0 || s.controls == nil {
		hdr.Control = nil
		hdr.SetControllen(0)
		return
	}
	hdr.Control = s.control(i)
	hdr.SetControllen(unix.CmsgSpace(2))
	data := unsafe.Slice(hdr.Control, unix.CmsgSpace(2))[unix.CmsgLen(0):]
	binary.NativeEndian.PutUint16(data, uint16(m.Segment))
}
