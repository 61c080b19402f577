package doctor

import (
	"fmt"
	"net/netip"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// split separates the stack's networks from the others.
func split(networks []Network) (ours, others []Network) {
	for _, n := range networks {
		if n.Project == orchestrate.ProjectName {
			ours = append(ours, n)
		} else {
			others = append(others, n)
		}
	}
	return ours, others
}

// conflict finds what shares addresses with the subnet of a network, in words;
// empty if nothing does. whole is whether it is a route to a larger range:
// then packets for the subnet still take the right way, and only those of the
// range that have its addresses are cut off.
func conflict(subnet netip.Prefix, own Network, others []Network, routes []Route) (clash string, whole bool) {
	for _, r := range routes {
		if r.Device == own.Device || !r.To.Overlaps(subnet) {
			continue
		}
		clash, whole = fmt.Sprintf("the route %s by %s", r.To, r.Device), r.To.Bits() < subnet.Bits()
		if !whole {
			return clash, false
		}
	}
	if clash != "" {
		return clash, whole
	}
	for _, n := range others {
		for _, s := range n.Subnets {
			if s.Overlaps(subnet) {
				return fmt.Sprintf("network %s (%s)", n.Name, s), false
			}
		}
	}
	return "", false
}

// defaultPools are those of an engine that has not been told others
// (daemon/libnetwork/ipamutils in moby).
func defaultPools() []Pool {
	pools := []Pool{}
	for i := 17; i < 32; i++ {
		pools = append(pools, Pool{Base: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i)}), 16), Bits: 16})
	}
	return append(pools, Pool{Base: netip.MustParsePrefix("192.168.0.0/16"), Bits: 20})
}

// freeSubnets counts the subnets that the engine can still give to networks, up
// to a limit. It takes none that a network has or a route leads to.
func freeSubnets(pools []Pool, networks []Network, routes []Route, limit int) int {
	if len(pools) == 0 {
		pools = defaultPools()
	}
	var taken []netip.Prefix
	for _, n := range networks {
		taken = append(taken, n.Subnets...)
	}
	for _, r := range routes {
		taken = append(taken, r.To)
	}
	free := 0
	for _, pool := range pools {
		free += freeIn(pool, taken, limit-free)
	}
	return free
}

// subnetsTried bounds the search in one pool: a pool of millions is not full.
const subnetsTried = 1 << 12

func freeIn(pool Pool, taken []netip.Prefix, limit int) int {
	base := pool.Base.Masked()
	if !base.Addr().Is4() || pool.Bits < base.Bits() || pool.Bits > 32 {
		return 0
	}
	free := 0
	step := uint64(1) << (32 - pool.Bits)
	first := number(base.Addr())
	end := first + min(uint64(1)<<(32-base.Bits()), subnetsTried*step)
	for at := first; at < end && free < limit; at += step {
		if subnet := netip.PrefixFrom(address(at), pool.Bits); !overlapsAny(subnet, taken) {
			free++
		}
	}
	return free
}

func overlapsAny(subnet netip.Prefix, taken []netip.Prefix) bool {
	for _, t := range taken {
		if t.Overlaps(subnet) {
			return true
		}
	}
	return false
}

// number and address translate between an IPv4 address and its number.
func number(a netip.Addr) uint64 {
	b := a.As4()
	return uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
}

func address(n uint64) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}
