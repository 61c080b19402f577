package sys

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Ring is a packet socket with a receive ring of version 3 (TPACKET_V3, see
// Documentation/networking/packet_mmap.rst of the kernel): blocks of memory that
// the kernel fills with frames and hands over one after the other.
//
// Who owns a block stands in its status word, which both sides read and write
// while the other one may: it is accessed atomically, and only by Ready and
// Release. What is in a block that Ready showed is the caller's until it
// releases it.
type Ring struct {
	fd     int
	memory []byte
	size   int // of a block, bytes
	blocks int
}

// RingOptions say what a ring is like.
type RingOptions struct {
	Cooked    bool          // frames begin with their network packet (SOCK_DGRAM)
	BlockSize int           // bytes, a multiple of the page size
	Blocks    int           // number of blocks
	Retire    time.Duration // a block is handed over at the latest so long after its first frame
	Reserve   int           // bytes to leave free before each frame
	Virtio    bool          // a virtio-net header of [VirtioLen] bytes before each frame; not with Cooked
}

// OpenRing opens the socket and maps the ring. It receives nothing before
// [Ring.Bind]. The error answers to os.ErrPermission without CAP_NET_RAW.
func OpenRing(o RingOptions) (*Ring, error) {
	kind := unix.SOCK_RAW
	if o.Cooked {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	r := &Ring{fd: fd, size: o.BlockSize, blocks: o.Blocks}
	if err := r.prepare(o); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return r, nil
}

func (r *Ring) prepare(o RingOptions) (err error) {
	for _, option := range []struct {
		name        string
		code, value int
		wanted      bool
	}{
		{"PACKET_VERSION", unix.PACKET_VERSION, unix.TPACKET_V3, true},
		{"PACKET_RESERVE", unix.PACKET_RESERVE, o.Reserve, true},
		{"PACKET_VNET_HDR", unix.PACKET_VNET_HDR, 1, o.Virtio},
	} {
		if !option.wanted {
			continue
		}
		if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, option.code, option.value); err != nil {
			return fmt.Errorf("set packet socket option %s: %w", option.name, err)
		}
	}
	const frame = 2048 // only bounds what must fit into a block
	req := unix.TpacketReq3{
		Block_size: uint32(o.BlockSize), Block_nr: uint32(o.Blocks),
		Frame_size: frame, Frame_nr: uint32(o.BlockSize / frame * o.Blocks),
		Retire_blk_tov: uint32(o.Retire.Milliseconds()),
	}
	if err := unix.SetsockoptTpacketReq3(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return fmt.Errorf("make a receive ring of %d bytes: %w", o.BlockSize*o.Blocks, err)
	}
	r.memory, err = unix.Mmap(r.fd, 0, o.BlockSize*o.Blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the receive ring: %w", err)
	}
	return nil
}

// blockStatus is the offset of block_status in struct tpacket_block_desc
// (linux/if_packet.h).
const blockStatus = 8

func (r *Ring) status(i int) *uint32 {
	return (*uint32)(unsafe.Pointer(&r.memory[i*r.size+blockStatus]))
}

// Blocks returns the number of blocks.
func (r *Ring) Blocks() int { return r.blocks }

// Ready reports whether the kernel has handed block i over.
func (r *Ring) Ready(i int) bool {
	return atomic.LoadUint32(r.status(i))&unix.TP_STATUS_USER != 0
}

// Block returns the memory of block i, which must be Ready.
func (r *Ring) Block(i int) []byte { return r.memory[i*r.size : (i+1)*r.size : (i+1)*r.size] }

// Release gives block i back to the kernel.
func (r *Ring) Release(i int) { atomic.StoreUint32(r.status(i), unix.TP_STATUS_KERNEL) }

// Filter attaches a program, in place of the one before if there is one: a frame
// is taken if it returns more than 0, and cut to so many bytes.
func (r *Ring) Filter(program []bpf.RawInstruction) error { return attachFilter(r.fd, program) }

// Bind begins to receive the frames of all protocols on a device.
func (r *Ring) Bind(device int) error {
	if err := unix.Bind(r.fd, &unix.SockaddrLinklayer{Ifindex: device, Protocol: networkOrder(unix.ETH_P_ALL)}); err != nil {
		return fmt.Errorf("bind packet socket to device %d: %w", device, err)
	}
	return nil
}

// Promiscuous makes the device take frames for others too, until the ring is
// closed, however that comes about.
func (r *Ring) Promiscuous(device int) error {
	err := unix.SetsockoptPacketMreq(r.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
		&unix.PacketMreq{Ifindex: int32(device), Type: unix.PACKET_MR_PROMISC})
	if err != nil {
		return fmt.Errorf("make device %d promiscuous: %w", device, err)
	}
	return nil
}

// IgnoreOutgoing leaves out what this machine sends (Linux 4.20).
func (r *Ring) IgnoreOutgoing() error {
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return fmt.Errorf("set packet socket option PACKET_IGNORE_OUTGOING: %w", err)
	}
	return nil
}

// NewGroup is the number of no fanout group: the kernel chooses one, and may
// choose 0.
const NewGroup = -1

// Fanout shares the device's frames with the sockets of a group: a frame goes to
// the member that the symmetric hash of its flow selects. NewGroup makes one. It
// returns the group's number.
//
// Fragments are hashed without ports, the first one too, so all of a packet go
// the same way; PACKET_FANOUT_FLAG_DEFRAG would put them together instead, which
// is not what was on the wire.
func (r *Ring) Fanout(group int) (int, error) {
	value := unix.PACKET_FANOUT_HASH<<16 | group
	if group == NewGroup {
		value = (unix.PACKET_FANOUT_HASH | unix.PACKET_FANOUT_FLAG_UNIQUEID) << 16
	}
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_FANOUT, value); err != nil {
		return 0, fmt.Errorf("join packet fanout group %d: %w", group, err)
	}
	got, err := unix.GetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
	if err != nil {
		return 0, fmt.Errorf("read packet fanout group: %w", err)
	}
	return got & 0xffff, nil
}

// Statistics returns how many frames passed the filter since the last call, and
// how many of them found no room in the ring.
func (r *Ring) Statistics() (frames, dropped uint64, err error) {
	s, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, 0, fmt.Errorf("read packet socket's statistics: %w", err)
	}
	return uint64(s.Packets), uint64(s.Drops), nil
}

// Failure returns and clears what went wrong with the socket: ENETDOWN when its
// device went down or away.
func (r *Ring) Failure() error {
	code, err := unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return fmt.Errorf("read socket's error: %w", err)
	}
	if code != 0 {
		return unix.Errno(code)
	}
	return nil
}

// Close unmaps and closes the ring.
func (r *Ring) Close() error {
	err := unix.Munmap(r.memory)
	if closeErr := unix.Close(r.fd); err == nil {
		err = closeErr
	}
	return err
}

// Waiter waits for rings, and can be woken.
type Waiter struct {
	event int // an eventfd
	fds   []unix.PollFd
}

// NewWaiter makes a Waiter for rings.
func NewWaiter(rings []*Ring) (*Waiter, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make event: %w", err)
	}
	w := &Waiter{event: event, fds: make([]unix.PollFd, 0, len(rings)+1)}
	for _, r := range rings {
		w.fds = append(w.fds, unix.PollFd{Fd: int32(r.fd), Events: unix.POLLIN})
	}
	w.fds = append(w.fds, unix.PollFd{Fd: int32(event), Events: unix.POLLIN})
	return w, nil
}

// Wait waits until a ring has a block or has failed, until Wake or for so long.
// It calls failed with the index of each ring that failed.
func (w *Waiter) Wait(limit time.Duration, failed func(i int)) error {
	n, err := unix.Poll(w.fds, int(limit.Milliseconds()))
	switch {
	case err == unix.EINTR || n == 0:
		return nil
	case err != nil:
		return fmt.Errorf("wait for frames: %w", err)
	}
	for i := range len(w.fds) - 1 {
		if w.fds[i].Revents&(unix.POLLERR|unix.POLLNVAL) != 0 {
			failed(i)
		}
	}
	var count [8]byte
	_, _ = unix.Read(w.event, count[:]) // empties it; EAGAIN if it is empty
	return nil
}

// Forget takes a ring out of what is waited for.
func (w *Waiter) Forget(i int) { w.fds[i].Fd = -1 }

// Skip takes a ring out of what is waited for while it is on: a ring with a block
// that has not been released ends every wait. What was forgotten stays so.
func (w *Waiter) Skip(i int, on bool) {
	// poll ignores negative descriptors; -1 is what was forgotten.
	if fd := &w.fds[i].Fd; *fd != -1 && *fd >= 0 == on {
		*fd = -2 - *fd
	}
}

// Wake ends a Wait, or the next one; from any goroutine.
func (w *Waiter) Wake() {
	one := [8]byte{1} // in either byte order it is not 0
	_, _ = unix.Write(w.event, one[:])
}

// Close releases the event.
func (w *Waiter) Close() error { return unix.Close(w.event) }

// KernelRelease returns the kernel's release, as "6.1.0-13-amd64".
func KernelRelease() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return "" // cannot happen
	}
	return unix.ByteSliceToString(name.Release[:])
}

// HardwareType returns the type of a device's link layer: an ARPHRD_ value of
// linux/if_arp.h.
func HardwareType(device string) (uint16, error) {
	request, err := unix.NewIfreq(device)
	if err != nil {
		return 0, fmt.Errorf("read hardware type of %s: %w", device, err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	if err := ioctl(fd, unix.SIOCGIFHWADDR, unsafe.Pointer(request)); err != nil {
		return 0, fmt.Errorf("read hardware type of %s: %w", device, err)
	}
	return request.Uint16(), nil // sa_family of ifr_hwaddr
}

// DeviceUp reports whether the device with the given index is up, in the ring's
// network namespace, whichever the calling thread's is. The error is a
// unix.Errno, ENODEV where there is no such device.
func (r *Ring) DeviceUp(index int) (bool, error) {
	named := struct { // struct ifreq, with ifr_ifindex
		name  [unix.IFNAMSIZ]byte
		index int32
		_     [20]byte
	}{index: int32(index)}
	if err := ioctl(r.fd, unix.SIOCGIFNAME, unsafe.Pointer(&named)); err != nil {
		return false, err
	}
	request, err := unix.NewIfreq(unix.ByteSliceToString(named.name[:]))
	if err != nil {
		return false, err
	}
	if err := ioctl(r.fd, unix.SIOCGIFFLAGS, unsafe.Pointer(request)); err != nil {
		return false, err
	}
	return request.Uint16()&unix.IFF_UP != 0, nil
}

func ioctl(fd int, request uintptr, data unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(data))
	if errno != 0 {
		return errno
	}
	return nil
}
