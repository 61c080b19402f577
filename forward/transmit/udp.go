package transmit

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

// runMessages is how many messages one call of the UDP transmission carries at
// most. Runs of one socket are seldom longer.
const runMessages = 256

// udpPlan is the portable part of the UDP transmission: which datagram leaves
// by which socket, in which message.
type udpPlan struct {
	coalescer
	maxPayload int // bytes
	whole      int // longest payload that the kernel does not fragment, bytes; 0 if not known
}

// fit takes in the path's MTU, in bytes, and reports whether it is another one.
// Headers is the length of an outer IP and UDP header.
func (u *udpPlan) fit(mtu, headers int) (changed bool) {
	whole := max(1, mtu-headers)
	changed = whole != u.whole
	u.whole, u.maxSegment = whole, whole
	return changed
}

// plan implements path: a run ends where the socket changes, for only so the
// order is kept.
func (u *udpPlan) plan(w *writer, b *forward.Batch, first int) (int, error) {
	port := b.Datagrams[first].Port
	for i := first; i < len(b.Datagrams) && w.room() > 0; {
		d := &b.Datagrams[i]
		if !u.same(port, d.Port) {
			break
		}
		if d.Len > u.maxPayload {
			if i == first {
				return 0, &TooLongError{Length: d.Len, Limit: u.maxPayload}
			}
			break
		}
		n := 1
		if w.gso {
			n = u.span(b.Datagrams[i:])
		}
		m := sys.Message{Payload: b.Buf[d.Off : d.Off+d.Len]}
		if n > 1 {
			last := &b.Datagrams[i+n-1]
			m.Payload, m.Segment = b.Buf[d.Off:last.Off+last.Len], d.Len
		}
		i += n
		w.add(m, i, u.whole == 0 || n > 1 || d.Len <= u.whole)
	}
	return int(port % u.sockets), nil
}

// isSuper reports whether a message holds several datagrams.
func isSuper(m *sys.Message) bool { return m.Segment != 0 }

// spreadPorts calls bind with o.Sockets distinct ports, spread evenly over o's
// range, the next one where one is in use. Where too few are free it is content
// with fewer; none is an error: that of the last.
func (o Options) spreadPorts(bind func(port uint16) error) error {
	step := (int(o.PortMax) - int(o.PortMin) + 1) / o.Sockets
	port, bound := int(o.PortMin), 0
	var last error
	for bound < o.Sockets && port <= int(o.PortMax) {
		err := bind(uint16(port))
		switch {
		case err == nil:
			bound++
			port = max(port+1, int(o.PortMin)+bound*step)
		case errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EACCES):
			port, last = port+1, err
		default:
			return err
		}
	}
	if bound == 0 {
		return fmt.Errorf("bind udp socket to a port of %d to %d: %w", o.PortMin, o.PortMax, last)
	}
	return nil
}

// local is the address and port that a socket is bound to.
func (o Options) local(port uint16) netip.AddrPort {
	if o.Outer.Source.IsValid() {
		return netip.AddrPortFrom(o.Outer.Source, port)
	}
	return netip.AddrPortFrom(anyAddr(o.Destination.Addr()), port)
}

// anyAddr is the unspecified address of the same family as a.
func anyAddr(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
