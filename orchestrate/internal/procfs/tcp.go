package procfs

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
)

// TCPSocket is a line of /proc/net/tcp or tcp6.
type TCPSocket struct {
	Local, Remote netip.AddrPort
	State         uint8 // [Established] for a connection
}

// TCP reads /proc/net/tcp (tcp4_seq_show in net/ipv4/tcp_ipv4.c) or tcp6
// (tcp6_seq_show in net/ipv6/tcp_ipv6.c): the sockets that are bound to one of
// the ports, or all if none is given. A listener on [::] has its connections
// over IPv4 in the second file. Addresses are as in [UDP].
func TCP(text string, ports ...uint16) []TCPSocket {
	return tcp(text, binary.NativeEndian, ports)
}

func tcp(text string, order binary.ByteOrder, ports []uint16) (list []TCPSocket) {
	for line := range strings.Lines(text) {
		if !boundTo(line, ports) {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		local, okLocal := endpoint(fields[1], order)
		remote, okRemote := endpoint(fields[2], order)
		state, err := strconv.ParseUint(fields[3], 16, 8)
		if okLocal && okRemote && err == nil {
			list = append(list, TCPSocket{Local: local, Remote: remote, State: uint8(state)})
		}
	}
	return list
}
