package procfs

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// Route is a line of /proc/net/route: a route of IPv4 in the table main.
type Route struct {
	To      netip.Prefix
	Gateway netip.Addr // 0.0.0.0 where there is none, or one of IPv6
	Device  string     // "*" for a route that has none: blackhole, unreachable and the like
	Flags   uint16     // RTF_* of include/uapi/linux/route.h
}

// viaGateway is RTF_GATEWAY. It is also set where the gateway is one of IPv6,
// which the table does not show.
const viaGateway = 0x2

// Routes reads /proc/net/route (fib_route_seq_show in net/ipv4/fib_trie.c):
// device, destination, gateway, flags, reference count, use, metric, mask, MTU,
// window, IRTT. Destination, gateway and mask are each a __be32 that is printed
// by %08X: a number of the kernel's machine whose bytes lie in memory in network
// order. 172.18.0.0 is 000012AC on a little-endian machine and AC120000 on a
// big-endian one, and its byte order is taken to be this one's.
//
// Lines that are no routes, such as the heading, are left out; so is everything
// from a machine of the other byte order whose mask tells it, because the bits
// of a mask are contiguous in one order only.
func Routes(text string) []Route { return routes(text, binary.NativeEndian) }

func routes(text string, order binary.ByteOrder) (list []Route) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			continue
		}
		to, okTo := address(fields[1], order)
		gateway, okGateway := address(fields[2], order)
		length, okMask := maskLength(fields[7], order)
		flags, err := strconv.ParseUint(fields[3], 16, 16)
		if okTo && okGateway && okMask && err == nil && to.Is4() && gateway.Is4() {
			list = append(list, Route{To: netip.PrefixFrom(to, length), Gateway: gateway, Device: fields[0], Flags: uint16(flags)})
		}
	}
	return list
}

// maskLength reads a mask and counts its bits.
func maskLength(text string, order binary.ByteOrder) (length int, ok bool) {
	mask, ok := address(text, order)
	if !ok || !mask.Is4() {
		return 0, false
	}
	raw := mask.As4()
	host := ^binary.BigEndian.Uint32(raw[:])
	return bits.LeadingZeros32(host), host&(host+1) == 0
}

// OnLink finds the device by which an address of the namespace itself is on a
// network: that of the most specific route without a gateway that holds it. A
// default route is none: it holds everything. The name is empty if there is no
// such route.
func OnLink(routes []Route, addr netip.Addr) (device string) {
	best := 0
	for _, r := range routes {
		onLink := r.Flags&viaGateway == 0 && r.Device != "*"
		if onLink && r.To.Bits() > best && r.To.Contains(addr.Unmap()) {
			device, best = r.Device, r.To.Bits()
		}
	}
	return device
}
