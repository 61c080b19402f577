package procfs

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
)

// LocalAddresses reads /proc/net/fib_trie (fib_trie_seq_show in
// net/ipv4/fib_trie.c): the IPv4 addresses that the namespace itself has. Each
// is a leaf of the trie, "|-- ADDRESS", with a route "/32 SCOPE LOCAL" below it.
// Leaves of other routes look alike: those of networks, of broadcast addresses,
// of routes to a single host elsewhere.
func LocalAddresses(text string) (list []netip.Addr) {
	var leaf netip.Addr
	seen := map[netip.Addr]bool{} // the tables main and local may be one trie, which is shown twice
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if addr, ok := strings.CutPrefix(line, "|-- "); ok {
			leaf, _ = netip.ParseAddr(addr)
			continue
		}
		fields := strings.Fields(line)
		if len(fields) >= 3 && fields[0] == "/32" && fields[2] == "LOCAL" && leaf.Is4() && !seen[leaf] {
			seen[leaf] = true
			list = append(list, leaf)
		}
	}
	return list
}

// Address6 is a line of /proc/net/if_inet6: an IPv6 address that the namespace
// itself has.
type Address6 struct {
	Prefix netip.Prefix // the address, with the length of its network's prefix
	Device string
}

// Addresses6 reads /proc/net/if_inet6 (if6_seq_show in net/ipv6/addrconf.c):
// address, index of the device, length of the prefix, scope, flags, device; all
// but the last in hexadecimal. The address is printed byte by byte (%pi6), in
// network order on every machine.
func Addresses6(text string) (list []Address6) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 6 {
			continue
		}
		raw, errAddr := hex.DecodeString(fields[0])
		length, errLength := strconv.ParseUint(fields[2], 16, 8)
		if errAddr != nil || len(raw) != 16 || errLength != nil || length > 128 {
			continue
		}
		prefix := netip.PrefixFrom(netip.AddrFrom16([16]byte(raw)), int(length))
		list = append(list, Address6{Prefix: prefix, Device: fields[5]})
	}
	return list
}
