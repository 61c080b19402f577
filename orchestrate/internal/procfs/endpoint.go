package procfs

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
)

// States of a socket, as the tables print them (include/net/tcp_states.h).
const (
	Established = 1 // TCP_ESTABLISHED; of UDP: it has a peer
	Closed      = 7 // TCP_CLOSE; of UDP: it has no peer
)

// address reads an address as the kernel prints a __be32, or a struct in6_addr
// as four of them, by %08X: a series of 32-bit words whose bytes lie in network
// order, each printed as a number of the kernel's machine, whose byte order is
// given. 127.0.0.1 is 0100007F on a little-endian machine, 7F000001 on a
// big-endian one.
func address(text string, order binary.ByteOrder) (netip.Addr, bool) {
	if len(text) != 8 && len(text) != 32 {
		return netip.Addr{}, false
	}
	var raw [16]byte
	for i := 0; i < len(text); i += 8 {
		word, err := strconv.ParseUint(text[i:i+8], 16, 32)
		if err != nil {
			return netip.Addr{}, false
		}
		order.PutUint32(raw[i/2:], uint32(word))
	}
	if len(text) == 8 {
		return netip.AddrFrom4([4]byte(raw[:4])), true
	}
	return netip.AddrFrom16(raw), true
}

// endpoint reads ADDRESS:PORT in hexadecimal. The port is a number already.
func endpoint(text string, order binary.ByteOrder) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(text, ":")
	addr, ok := address(host, order)
	p, err := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(addr, uint16(p)), ok && err == nil
}

// boundTo reports whether a line of a table of sockets, "NUMBER: LOCAL REMOTE
// ...", is one of a socket that is bound to one of the ports; without ports,
// any. Other lines cost next to nothing.
func boundTo(line string, ports []uint16) bool {
	_, rest, isSocket := strings.Cut(line, ": ")
	if !isSocket || len(ports) == 0 {
		return isSocket
	}
	local, _, _ := strings.Cut(rest, " ")
	_, text, _ := strings.Cut(local, ":")
	port, err := strconv.ParseUint(text, 16, 16)
	for _, p := range ports {
		if err == nil && uint64(p) == port {
			return true
		}
	}
	return false
}
