package transmit

import (
	"context"
	"fmt"
	"net/netip"
)

// Listener hears what is said about datagrams that something else sends from this
// machine, as a tunnel device of the kernel's does: ICMP errors, and that the
// neighbour does not answer. It sends no datagram itself. Like a [Transmitter] it
// belongs to one goroutine and to that one's network namespace; Troubles may be
// called by any.
type Listener struct{ earshot *earshot }

// Listen begins to listen for what is said about datagrams to an address and UDP
// port. That there is no route is an error; where the privilege to hear is missing,
// [Listener.Deaf] says so. It is Linux's alone: elsewhere the error answers to
// errors.ErrUnsupported.
func Listen(to netip.AddrPort) (*Listener, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	e, err := openEarshot(to)
	if err != nil {
		return nil, fmt.Errorf("listen for what is said about packets to %v: %w", to, err)
	}
	return &Listener{e}, nil
}

// Deaf is why no ICMP error is heard, or nil; without CAP_NET_RAW it answers to
// os.ErrPermission. The neighbour is looked at all the same.
func (l *Listener) Deaf() error { return l.earshot.deaf }

// Hear takes in what has been said, and looks at the way and the neighbour. It does
// not wait; it is to be called about once a second. Sent is how many datagrams have
// left so far: a neighbour that is silent while none does is no trouble.
func (l *Listener) Hear(sent uint64) { l.earshot.hear(sent) }

// Settle waits for what may still be said about sent datagrams as
// [Transmitter.Settle] does, as if the last of them had just left.
func (l *Listener) Settle(ctx context.Context, sent uint64) []Trouble {
	if sent > 0 {
		l.earshot.settle(ctx, sent)
	}
	return l.Troubles()
}

// Troubles lists what was said so far.
func (l *Listener) Troubles() []Trouble { return l.earshot.troubles.snapshot() }

// Close ends listening.
func (l *Listener) Close() error { return l.earshot.close() }
