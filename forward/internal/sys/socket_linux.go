package sys

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// OpenUDP opens a blocking UDP socket of the address family of local and binds
// it to local; port 0 lets the kernel choose. The caller owns the descriptor.
func OpenUDP(local netip.AddrPort) (int, error) {
	fd, err := unix.Socket(family(local.Addr()), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open udp socket: %w", err)
	}
	if err := unix.Bind(fd, sockaddr(local)); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind udp socket to %v: %w", local, err)
	}
	return fd, nil
}

// OpenPacket opens a blocking packet socket that sends complete Ethernet
// frames, each preceded by a virtio-net header of [VirtioLen] bytes, past the
// device's queueing discipline (PACKET_QDISC_BYPASS). It receives nothing, for
// its protocol is 0 (packet(7)). The caller owns the descriptor and binds it
// with [BindPacket].
func OpenPacket() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	for name, option := range map[string]int{"PACKET_VNET_HDR": unix.PACKET_VNET_HDR, "PACKET_QDISC_BYPASS": unix.PACKET_QDISC_BYPASS} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, option, 1); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("set packet socket option %s: %w", name, err)
		}
	}
	return fd, nil
}

// BindPacket binds a packet socket to the device with the given index.
func BindPacket(fd, device int) error {
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: device}); err != nil {
		return fmt.Errorf("bind packet socket to device %d: %w", device, err)
	}
	return nil
}

// Connect sets the socket's destination.
func Connect(fd int, to netip.AddrPort) error {
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		return fmt.Errorf("connect udp socket to %v: %w", to, err)
	}
	return nil
}

// LocalAddr returns the address and port the socket is bound to.
func LocalAddr(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read socket's address: %w", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("read socket's address: unknown family %T", sa)
}

// SetSendBuffer asks for a send buffer of n bytes and returns what the kernel
// granted, in its own accounting: twice the number, and without CAP_NET_ADMIN
// no more than net.core.wmem_max.
func SetSendBuffer(fd, n int) (int, error) {
	return setBuffer(fd, n, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE)
}

// SetReceiveBuffer is the same for the receive buffer and net.core.rmem_max.
func SetReceiveBuffer(fd, n int) (int, error) {
	return setBuffer(fd, n, unix.SO_RCVBUF, unix.SO_RCVBUFFORCE)
}

func setBuffer(fd, n, option, force int) (int, error) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, n) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, n); err != nil {
			return 0, fmt.Errorf("set socket buffer to %d bytes: %w", n, err)
		}
	}
	return unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
}

// SetReceiveTimeout bounds how long a receive may block; then it fails with
// EAGAIN.
func SetReceiveTimeout(fd int, d time.Duration) error {
	tv := unix.NsecToTimeval(int64(d))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return fmt.Errorf("set socket timeout to %v: %w", d, err)
	}
	return nil
}

// SetNoChecksum makes a UDP socket over IPv4 send checksums of zero
// (SO_NO_CHECK). The kernel refuses UDP_SEGMENT on such a socket.
func SetNoChecksum(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
		return fmt.Errorf("set socket option SO_NO_CHECK: %w", err)
	}
	return nil
}

// CanSegment reports whether the kernel knows UDP_SEGMENT (Linux 4.18).
func CanSegment(fd int) error {
	if _, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT); err != nil {
		return fmt.Errorf("read socket option UDP_SEGMENT: %w", err)
	}
	return nil
}

// PathMTU returns what the kernel knows of the path to the destination of a
// connected UDP socket: the longest IP packet, in bytes, that needs no
// fragmentation.
func PathMTU(fd int) (int, error) {
	local, err := LocalAddr(fd)
	if err != nil {
		return 0, err
	}
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	if family(local.Addr()) == unix.AF_INET6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	mtu, err := unix.GetsockoptInt(fd, level, option)
	if err != nil {
		return 0, fmt.Errorf("read path MTU: %w", err)
	}
	return mtu, nil
}

// Close closes a descriptor that this package opened.
func Close(fd int) error { return unix.Close(fd) }

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// sockaddr converts an address. A zone that names no device is left for the
// kernel to refuse.
func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if zone := a.Addr().Zone(); zone != "" {
		if device, err := net.InterfaceByName(zone); err == nil {
			sa.ZoneId = uint32(device.Index)
		}
	}
	return sa
}
