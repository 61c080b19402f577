package transmit

import (
	"fmt"
	"io"
	"net"
	"net/netip"
)

// A claim is what one sender holds while it runs and no other sender of this
// machine can hold at the same time: a processor, or a part of the IP
// identifications to one destination.
//
// It is a Unix socket bound to an abstract name (unix(7)): the kernel gives it up
// when its holder dies, however that comes about, and nothing is left behind.
// Such names belong to a network namespace, so a sender inside a container and
// one outside do not see each other's. Without a claim two senders may meet; with
// one they cannot.
type claim = io.Closer

// makeClaim claims a name, or returns nil if another sender has it.
func makeClaim(name string) claim {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@zeekdemo/" + name, Net: "unixgram"})
	if err != nil {
		return nil
	}
	return conn
}

// claimSlot claims a part of the identifications of packets from src to dst. The
// claim is nil if all are taken.
func claimSlot(src, dst netip.Addr) (int, claim) {
	for slot := range slots {
		if c := makeClaim(fmt.Sprintf("ip-id/%v/%v/%d", src.WithZone(""), dst.WithZone(""), slot)); c != nil {
			return slot, c
		}
	}
	return noSlot, nil
}

// claimCPU claims a processor, or returns nil if another sender has it.
func claimCPU(cpu int) claim { return makeClaim(fmt.Sprintf("cpu/%d", cpu)) }
