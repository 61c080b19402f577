package sys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// OpenEar opens a packet socket that hears the ICMP errors of one address family
// that come in on a device, before any packet filter sees them. It never blocks.
// The error answers to os.ErrPermission without CAP_NET_RAW.
func OpenEar(six bool, device int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	program, err := bpf.Assemble(icmpErrors(six))
	if err == nil {
		err = attachFilter(fd, program)
	}
	if err == nil {
		err = BindEar(fd, six, device)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// BindEar makes an ear listen on another device.
func BindEar(fd int, six bool, device int) error {
	protocol := uint16(unix.ETH_P_IP)
	if six {
		protocol = unix.ETH_P_IPV6
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: device, Protocol: networkOrder(protocol)}); err != nil {
		return fmt.Errorf("listen for ICMP on device %d: %w", device, err)
	}
	return nil
}

// icmpErrors is the filter of an ear: packets begin with their IP header.
func icmpErrors(six bool) []bpf.Instruction {
	const all = 1 << 16
	if six {
		return []bpf.Instruction{
			bpf.LoadAbsolute{Off: 6, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolICMPv6, SkipTrue: 3},
			bpf.LoadAbsolute{Off: ipv6Len, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: icmpv6FirstInfo, SkipTrue: 1},
			bpf.RetConstant{Val: all},
			bpf.RetConstant{Val: 0},
		}
	}
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolICMP, SkipTrue: 6},
		bpf.LoadMemShift{Off: 0},
		bpf.LoadIndirect{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: icmpUnreachable, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 11, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 12, SkipTrue: 1},
		bpf.RetConstant{Val: all},
		bpf.RetConstant{Val: 0},
	}
}

// attachFilter attaches a classic program to a socket, in place of the one before.
func attachFilter(fd int, raw []bpf.RawInstruction) error {
	code := make([]unix.SockFilter, len(raw))
	for i, ins := range raw {
		code[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(code)), Filter: unsafe.SliceData(code)})
	runtime.KeepAlive(code)
	if err != nil {
		return fmt.Errorf("attach filter of %d instructions: %w", len(code), err)
	}
	return nil
}

// Hear reads the next packet of an ear into buf and returns its length. It is
// false when there is none.
func Hear(fd int, buf []byte) (int, bool) {
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case err == nil:
			return n, true
		case errors.Is(err, unix.EINTR):
		default: // EAGAIN; or ENETDOWN, once, when the device goes down
			return 0, false
		}
	}
}

// RouteEvents are the kernel's notices of what changes on the ways out: devices,
// addresses, routes, neighbours, bridges' forwarding tables (rtnetlink(7)).
type RouteEvents struct {
	fd  int
	buf []byte
}

// OpenRouteEvents begins to listen, in this thread's network namespace. It needs
// no privilege.
func OpenRouteEvents() (*RouteEvents, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	const groups = unix.RTMGRP_LINK | unix.RTMGRP_NEIGH | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
		unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen for changes of the network: %w", err)
	}
	return &RouteEvents{fd: fd, buf: make([]byte, 1<<16)}, nil
}

// FD is the socket, for a [Poller].
func (e *RouteEvents) FD() int { return e.fd }

// Close ends listening.
func (e *RouteEvents) Close() error { return unix.Close(e.fd) }

// Read takes all notices that have come and reports whether one of them may
// concern a device for which concerns is true, or the routes. Where notices were
// lost, they may have.
func (e *RouteEvents) Read(concerns func(device int) bool) bool {
	found := false
	for {
		n, _, err := unix.Recvfrom(e.fd, e.buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOBUFS):
			found = true
		case err != nil:
			return found
		default:
			found = eventsConcern(e.buf[:n], concerns) || found
		}
	}
}

// eventsConcern looks through the messages of one notice.
func eventsConcern(b []byte, concerns func(device int) bool) bool {
	const header, indexAt = unix.SizeofNlMsghdr, 4 // in ifinfomsg, ndmsg and ifaddrmsg alike
	for len(b) >= header {
		size := int(binary.NativeEndian.Uint32(b))
		if size < header || size > len(b) {
			return true
		}
		switch kind := binary.NativeEndian.Uint16(b[4:]); kind {
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			return true
		default:
			if size < header+indexAt+4 || concerns(int(binary.NativeEndian.Uint32(b[header+indexAt:]))) {
				return true
			}
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return false
}

// Prober sends ICMP echo requests of a chosen length that may not be fragmented,
// so that a router that they are too long for says so, and the kernel learns the
// path's MTU before a datagram meets it.
type Prober struct {
	fd  int
	six bool
	seq uint16
}

// OpenProber opens one, as a raw socket or, without CAP_NET_RAW, where
// net.ipv4.ping_group_range allows it.
func OpenProber(to netip.Addr) (*Prober, error) {
	p := &Prober{six: !to.Is4()}
	protocol := unix.IPPROTO_ICMP
	if p.six {
		protocol = unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(family(to), unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		fd, err = unix.Socket(family(to), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	}
	if err != nil {
		return nil, fmt.Errorf("open icmp socket: %w", err)
	}
	p.fd = fd
	if err := p.prepare(to); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("prepare icmp socket to %v: %w", to, err)
	}
	return p, nil
}

// prepare connects the socket, sets Don't Fragment, and lets errors be told.
func (p *Prober) prepare(to netip.Addr) error {
	level, option, err := familyOption(p.fd, unix.IP_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(p.fd, level, option, unix.IP_PMTUDISC_DO); err != nil {
		return err
	}
	if err := KeepErrors(p.fd); err != nil {
		return err
	}
	return unix.Connect(p.fd, sockaddr(netip.AddrPortFrom(to, 0)))
}

// FD is the socket, for a [Poller]: it is ready when an answer or an error came.
func (p *Prober) FD() int { return p.fd }

// Close closes the socket.
func (p *Prober) Close() error { return unix.Close(p.fd) }

// Probe sends one request whose IP packet has so many bytes. EMSGSIZE says that
// the kernel knows already that it does not pass.
func (p *Prober) Probe(length int) error {
	headers := 20
	kind := byte(8)
	if p.six {
		headers, kind = ipv6Len, 128
	}
	b := make([]byte, max(icmpHeaderLen, length-headers))
	p.seq++
	b[0] = kind
	binary.BigEndian.PutUint16(b[4:], uint16(unix.Getpid()))
	binary.BigEndian.PutUint16(b[6:], p.seq)
	if !p.six { // the kernel fills ICMPv6's in
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	if _, err := unix.Write(p.fd, b); err != nil {
		return fmt.Errorf("send echo request of %d bytes: %w", length, err)
	}
	return nil
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// Answer is what came back for a [Prober]'s requests.
type Answer int

// Answers.
const (
	AnsweredNot    Answer = iota // nothing yet
	AnsweredEcho                 // the destination has it
	AnsweredTooBig               // a router complained; the kernel has noted the path's MTU
	AnsweredOther                // another complaint
)

// Answer reads what came.
func (p *Prober) Answer() Answer {
	var errs Errors
	if c, ok := errs.Next(p.fd); ok {
		if c.MTU > 0 {
			return AnsweredTooBig
		}
		return AnsweredOther
	}
	var buf [128]byte
	for {
		n, err := unix.Read(p.fd, buf[:])
		if err != nil {
			return AnsweredNot
		}
		if p.echo(buf[:n]) {
			return AnsweredEcho
		}
	}
}

// echo recognises an answer to a request of this socket. A raw IPv4 socket's
// packets begin with their IP header.
func (p *Prober) echo(b []byte) bool {
	kind := byte(0)
	if p.six {
		kind = 129
	} else if len(b) > 20 && b[0]>>4 == 4 {
		b = b[int(b[0]&15)*4:]
	}
	return len(b) >= icmpHeaderLen && b[0] == kind && binary.BigEndian.Uint16(b[6:]) == p.seq
}
