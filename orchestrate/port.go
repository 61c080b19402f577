package orchestrate

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	psnet "github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/process"
)

// PortOwner names the local process that listens on an address, host:port, by
// protocol tcp or udp. It is empty where nobody does.
func PortOwner(ctx context.Context, address, protocol string) string {
	return processOwner(ctx, address, protocol)
}

// processOwner names the local process that listens on an address, e.g.
// "nginx (PID 812)". It returns nothing where none is found, and says so where
// one is there that only root may look at.
func processOwner(ctx context.Context, address, protocol string) string {
	want, err := netip.ParseAddrPort(address)
	if err != nil {
		return ""
	}
	connections, err := psnet.ConnectionsWithContext(ctx, protocol)
	if err != nil {
		return ""
	}
	for _, c := range connections {
		if c.Laddr.Port != uint32(want.Port()) || c.Raddr.Port != 0 || !covers(c.Laddr.IP, want.Addr()) {
			continue
		}
		switch {
		case c.Pid != 0:
			return describeProcess(ctx, c.Pid)
		case os.Geteuid() == 0: // no process has it, though all can be seen
			return "the kernel, as a VXLAN or GENEVE device does (`ip -d link` shows it)"
		}
		return "a process of another user (root sees which)"
	}
	return ""
}

// covers reports whether a socket bound to local keeps addr from being bound.
func covers(local string, addr netip.Addr) bool {
	bound, err := netip.ParseAddr(local)
	if err != nil {
		return local == "*" // how some systems print "any"
	}
	return bound.IsUnspecified() || addr.IsUnspecified() || bound.Unmap() == addr.Unmap()
}

func describeProcess(ctx context.Context, pid int32) string {
	p, err := process.NewProcessWithContext(ctx, pid)
	if err != nil {
		return fmt.Sprintf("PID %d", pid)
	}
	name, err := p.NameWithContext(ctx)
	if err != nil {
		return fmt.Sprintf("PID %d", pid)
	}
	return fmt.Sprintf("%s (PID %d)", name, pid)
}
