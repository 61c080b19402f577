package procfs

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
)

// UDPSocket is a line of /proc/net/udp or udp6.
type UDPSocket struct {
	Local, Remote netip.AddrPort
	State         uint8  // [Closed] without a peer, [Established] with one
	Queued        uint64 // received and not read yet, in bytes of kernel memory
	Inode         uint64
	Drops         uint64 // datagrams dropped at this socket since it was opened
}

// Listens reports whether it takes datagrams from anybody.
func (s UDPSocket) Listens() bool { return s.State == Closed }

// udpColumns are sl, local, remote, st, tx:rx, tr:tm, retrnsmt, uid, timeout,
// inode, ref, pointer, drops.
const udpColumns = 13

// UDP reads /proc/net/udp (udp4_format_sock in net/ipv4/udp.c) or udp6
// (__ip6_dgram_sock_seq_show in net/ipv6/datagram.c): the sockets that are bound
// to one of the ports, or all if none is given. Lines of other ports cost next
// to nothing; lines that are cut are left out.
//
// Addresses are numbers of the kernel's machine, which is taken to have this
// one's byte order.
func UDP(text string, ports ...uint16) []UDPSocket {
	return udp(text, binary.NativeEndian, ports)
}

func udp(text string, order binary.ByteOrder, ports []uint16) (list []UDPSocket) {
	for line := range strings.Lines(text) {
		if !boundTo(line, ports) {
			continue
		}
		if s, ok := udpSocket(strings.Fields(line), order); ok {
			list = append(list, s)
		}
	}
	return list
}

func udpSocket(fields []string, order binary.ByteOrder) (s UDPSocket, ok bool) {
	if len(fields) < udpColumns {
		return s, false
	}
	var okLocal, okRemote bool
	s.Local, okLocal = endpoint(fields[1], order)
	s.Remote, okRemote = endpoint(fields[2], order)
	state, errState := strconv.ParseUint(fields[3], 16, 8)
	_, queue, _ := strings.Cut(fields[4], ":")
	queued, errQueue := strconv.ParseUint(queue, 16, 64)
	inode, errInode := strconv.ParseUint(fields[9], 10, 64)
	drops, errDrops := strconv.ParseUint(fields[12], 10, 64)
	s.State, s.Queued, s.Inode, s.Drops = uint8(state), queued, inode, drops
	return s, okLocal && okRemote && errState == nil && errQueue == nil && errInode == nil && errDrops == nil
}
