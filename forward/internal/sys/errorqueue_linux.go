package sys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// KeepErrors makes a UDP socket queue the ICMP errors that come for what it
// sent, and say when the kernel itself drops a datagram for want of room
// (IP_RECVERR, see ip(7)). The next send is refused with the newest error's
// errno, once; [Errors] has them all.
func KeepErrors(fd int) error {
	level, option, err := familyOption(fd, unix.IP_RECVERR, unix.IPV6_RECVERR)
	if err == nil {
		err = unix.SetsockoptInt(fd, level, option, 1)
	}
	if err != nil {
		return fmt.Errorf("set socket option IP_RECVERR: %w", err)
	}
	return nil
}

// LetFragment makes a UDP socket's datagrams such that nothing between here and
// the destination drops them for their length, as far as that can be: what is
// longer than the path's known MTU is fragmented here, and over IPv4 the Don't
// Fragment bit is clear, so that a router fragments what is too long for a way
// that nobody knew (IP_PMTUDISC_DONT, see ip(7)).
func LetFragment(fd int) error { return setDiscovery(fd, unix.IP_PMTUDISC_DONT) }

// FragmentLast sets that bit in datagrams that the path takes whole, as far as the
// kernel knows it, and has it fragment the others.
func FragmentLast(fd int) error { return setDiscovery(fd, unix.IP_PMTUDISC_WANT) }

func setDiscovery(fd, mode int) error {
	level, option, err := familyOption(fd, unix.IP_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER)
	if err == nil {
		err = unix.SetsockoptInt(fd, level, option, mode)
	}
	if err != nil {
		return fmt.Errorf("set socket option IP_MTU_DISCOVER: %w", err)
	}
	return nil
}

// SetOuter sets what a socket's IP headers say, and the device by which its datagrams
// leave. Zero values leave things as they are.
func SetOuter(fd int, ttl, dscp uint8, device string) error {
	if ttl != 0 {
		level, option, err := familyOption(fd, unix.IP_TTL, unix.IPV6_UNICAST_HOPS)
		if err == nil {
			err = unix.SetsockoptInt(fd, level, option, int(ttl))
		}
		if err != nil {
			return fmt.Errorf("set socket option IP_TTL: %w", err)
		}
	}
	if dscp != 0 {
		level, option, err := familyOption(fd, unix.IP_TOS, unix.IPV6_TCLASS)
		if err == nil {
			err = unix.SetsockoptInt(fd, level, option, int(dscp)<<2)
		}
		if err != nil {
			return fmt.Errorf("set socket option IP_TOS: %w", err)
		}
	}
	if device != "" {
		if err := unix.BindToDevice(fd, device); err != nil {
			return fmt.Errorf("bind socket to device %s: %w", device, err)
		}
	}
	return nil
}

// familyOption picks the option of the socket's address family.
func familyOption(fd, four, six int) (level, option int, err error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if domain == unix.AF_INET6 {
		return unix.IPPROTO_IPV6, six, err
	}
	return unix.IPPROTO_IP, four, err
}

// Errors reads error queues.
type Errors struct {
	control [512]byte
	data    [1]byte
}

// Next takes the next ICMP error out of a socket's queue. It is false when there
// is none left.
func (e *Errors) Next(fd int) (Complaint, bool) {
	for {
		_, n, _, _, err := unix.Recvmsg(fd, e.data[:], e.control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return Complaint{}, false
		}
		if c, ok := e.parse(e.control[:n]); ok {
			return c, true
		}
	}
}

// Layout of struct sock_extended_err (linux/errqueue.h), behind which the
// complainer's address stands.
const (
	extendedLen  = 16
	originICMP   = 2
	originICMPv6 = 3
)

// parse reads a control message of type IP_RECVERR. What the kernel itself said
// is left out: the send that met it returned it.
func (e *Errors) parse(control []byte) (Complaint, bool) {
	list, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return Complaint{}, false
	}
	for _, m := range list {
		four := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		six := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !four && !six || len(m.Data) < extendedLen {
			continue
		}
		origin := m.Data[4]
		if origin != originICMP && origin != originICMPv6 {
			continue
		}
		c := Complaint{Six: origin == originICMPv6, Type: m.Data[5], Code: m.Data[6], From: offender(m.Data[extendedLen:])}
		if c.Six && c.Type == icmpv6TooBig || !c.Six && c.Type == icmpUnreachable && c.Code == icmpTooBigCode {
			c.MTU = int(binary.NativeEndian.Uint32(m.Data[8:]))
		}
		return c, true
	}
	return Complaint{}, false
}

// offender reads a struct sockaddr_in or sockaddr_in6.
func offender(b []byte) netip.Addr {
	if len(b) < 8 {
		return netip.Addr{}
	}
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET:
		return netip.AddrFrom4([4]byte(b[4:8]))
	case family == unix.AF_INET6 && len(b) >= 24:
		return netip.AddrFrom16([16]byte(b[8:24])).Unmap()
	}
	return netip.Addr{}
}

// Poller waits until something has come on any of its sockets: data for those
// that were added with Data, errors for all.
type Poller struct{ list []unix.PollFd }

// Add adds a socket of whose errors it tells.
func (p *Poller) Add(fd int) { p.list = append(p.list, unix.PollFd{Fd: int32(fd)}) }

// AddData adds a socket of whose data it tells as well.
func (p *Poller) AddData(fd int) {
	p.list = append(p.list, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
}

// Wait waits at most so long, rounded up to milliseconds (0: not at all), and
// reports whether there is something.
func (p *Poller) Wait(most time.Duration) bool {
	ms := int((most + time.Millisecond - 1) / time.Millisecond)
	n, err := unix.Poll(p.list, ms)
	return err == nil && n > 0
}

// Ready reports whether the last Wait found something on the socket that was
// added as number i.
func (p *Poller) Ready(i int) bool { return p.list[i].Revents != 0 }
