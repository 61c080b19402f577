package drops

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// What the kernel tells of one network namespace, as text, is taken apart here.
// The texts come from this machine's files, from a fixture, or from a helper
// container on another machine, which is why no library that opens files itself
// can read them.

// numbers are counters by name. The name is the kernel's, with its protocol in
// front as nstat(8) prints it: IpReasmFails, Udp6NoPorts, IpExtInNoECTPkts.
type numbers map[string]uint64

// parseSNMP reads /proc/net/snmp or /proc/net/netstat (net/ipv4/proc.c): pairs
// of lines, headings and numbers. Negative numbers, which only settings of TCP
// have, count as 0.
func parseSNMP(text string, into numbers) error {
	var heading []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
			continue
		case heading == nil:
			heading = fields
			continue
		case len(fields) != len(heading) || fields[0] != heading[0]:
			return fmt.Errorf("the numbers of %q do not fit their heading", heading[0])
		}
		protocol := strings.TrimSuffix(fields[0], ":")
		if wantedProtocol(protocol) {
			for i := 1; i < len(fields); i++ {
				n, _ := strconv.ParseUint(fields[i], 10, 64)
				into[protocol+heading[i]] = n
			}
		}
		heading = nil
	}
	return nil
}

// wantedProtocol keeps the hundreds of numbers of TCP out.
func wantedProtocol(p string) bool { return p == "Ip" || p == "Udp" || p == "IpExt" }

// parseSNMP6 reads /proc/net/snmp6 (net/ipv6/proc.c): a name and a number a line.
func parseSNMP6(text string, into numbers) {
	for line := range strings.Lines(text) {
		name, number, ok := strings.Cut(strings.TrimSpace(line), "\t")
		name = strings.TrimSpace(name)
		if !ok || !strings.HasPrefix(name, "Ip6") && !strings.HasPrefix(name, "Udp6") {
			continue
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 64); err == nil {
			into[name] = n
		}
	}
}

// A device is a line of /proc/net/dev. Packets are the kernel's buffers: with
// segmentation offload one may hold many datagrams.
type device struct {
	rxPackets, rxErrors, rxDropped, rxFIFO, rxFrame   uint64
	txPackets, txErrors, txDropped, txFIFO, txCarrier uint64
}

// parseDevices reads /proc/net/dev (dev_seq_printf_stats in
// net/core/net-procfs.c): a name, eight numbers of receiving, eight of sending.
func parseDevices(text string) map[string]device {
	devices := map[string]device{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 16 {
			continue
		}
		n := func(i int) uint64 { v, _ := strconv.ParseUint(fields[i], 10, 64); return v }
		devices[strings.TrimSpace(name)] = device{
			rxPackets: n(1), rxErrors: n(2), rxDropped: n(3), rxFIFO: n(4), rxFrame: n(5),
			txPackets: n(9), txErrors: n(10), txDropped: n(11), txFIFO: n(12), txCarrier: n(14),
		}
	}
	return devices
}

// softnet is a line of /proc/net/softnet_stat: a processor's queue of received
// packets, see softnet_seq_show in net/core/net-procfs.c. All are 32 bits wide.
type softnet struct {
	cpu                          int // its number; without that column (before 5.10) the line's
	processed, dropped, squeezed uint64
	receivedRPS, flowLimit       uint64
	backlog                      uint64 // packets that wait now
	hasRPS, hasFlowLimit         bool   // the kernel has the column
	hasBacklog                   bool
}

// parseSoftnet reads a line for each processor that is online, hexadecimal.
func parseSoftnet(text string) (list []softnet, err error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) < 3 {
			return nil, fmt.Errorf("line %d has %d columns, want at least 3", len(list)+1, len(fields))
		}
		var n [16]uint64
		for i := range min(len(fields), len(n)) {
			if n[i], err = strconv.ParseUint(fields[i], 16, 64); err != nil {
				return nil, fmt.Errorf("line %d: %w", len(list)+1, err)
			}
		}
		s := softnet{cpu: len(list), processed: n[0], dropped: n[1], squeezed: n[2],
			receivedRPS: n[9], flowLimit: n[10], backlog: n[11],
			hasRPS: len(fields) > 9, hasFlowLimit: len(fields) > 10, hasBacklog: len(fields) > 11}
		if len(fields) > 12 {
			s.cpu = int(n[12])
		}
		list = append(list, s)
	}
	return list, nil
}

// A udpSocket is a line of /proc/net/udp or udp6 without a peer.
type udpSocket struct {
	local  netip.AddrPort
	inode  uint64
	queued int // bytes of kernel memory
	drops  uint64
}

// unconnected is TCP_CLOSE (include/net/tcp_states.h), as the kernel shows a UDP
// socket without a peer.
const unconnected = "07"

// parseSockets reads the sockets on one of the ports (udp4_format_sock in
// net/ipv4/udp.c). Lines of other ports cost next to nothing.
func parseSockets(text string, ports []uint16) (list []udpSocket) {
	for line := range strings.Lines(text) {
		local, ok := localOf(line)
		if !ok || !hasPort(local, ports) {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 13 || f[3] != unconnected {
			continue
		}
		at, ok := parseAddress(f[1])
		_, queued, isPair := strings.Cut(f[4], ":")
		if !ok || !isPair {
			continue
		}
		q, _ := strconv.ParseUint(queued, 16, 32)
		inode, _ := strconv.ParseUint(f[9], 10, 64)
		drops, _ := strconv.ParseUint(f[12], 10, 64)
		list = append(list, udpSocket{local: at, inode: inode, queued: int(q), drops: drops})
	}
	return list
}

// localOf cuts the second field out of a line: ADDRESS:PORT.
func localOf(line string) (string, bool) {
	_, rest, ok := strings.Cut(line, ": ")
	if !ok {
		return "", false
	}
	local, _, ok := strings.Cut(rest, " ")
	return local, ok
}

func hasPort(local string, ports []uint16) bool {
	_, text, ok := strings.Cut(local, ":")
	if !ok {
		return false
	}
	port, err := strconv.ParseUint(text, 16, 16)
	for _, p := range ports {
		if err == nil && uint64(p) == port {
			return true
		}
	}
	return false
}

// parseAddress reads ADDRESS:PORT in hexadecimal. The address is a series of
// 32-bit words whose bytes lie in network order, each printed as a number of the
// kernel's machine, which is taken to be of this one's byte order.
func parseAddress(text string) (netip.AddrPort, bool) {
	address, port, ok := strings.Cut(text, ":")
	if !ok || len(address) != 8 && len(address) != 32 {
		return netip.AddrPort{}, false
	}
	var raw [16]byte
	for i := 0; i < len(address); i += 8 {
		word, err := strconv.ParseUint(address[i:i+8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, false
		}
		binary.NativeEndian.PutUint32(raw[i/2:], uint32(word))
	}
	p, err := strconv.ParseUint(port, 16, 16)
	addr := netip.AddrFrom16(raw)
	if len(address) == 8 {
		addr = netip.AddrFrom4([4]byte(raw[:4]))
	}
	return netip.AddrPortFrom(addr, uint16(p)), err == nil
}

// parseStat adds up the lines of a file in /proc/net/stat, one for each processor
// (ct_cpu_seq_show in net/netfilter/nf_conntrack_standalone.c,
// neigh_stat_seq_show in net/core/neighbour.c): headings and hexadecimal numbers
// of 32 bits. "entries" is the same in every
// line and not added up.
func parseStat(text string) (numbers, error) {
	heading, rest, _ := strings.Cut(text, "\n")
	names := strings.Fields(heading)
	sum := numbers{}
	for line := range strings.Lines(rest) {
		fields := strings.Fields(line)
		if len(fields) < len(names) {
			return nil, fmt.Errorf("a line has %d numbers, want %d", len(fields), len(names))
		}
		for i, name := range names {
			n, err := strconv.ParseUint(fields[i], 16, 64)
			if err != nil {
				return nil, err
			}
			if name == "entries" {
				sum[name] = n
				continue
			}
			sum[name] += n
		}
	}
	return sum, nil
}

// deviceOf finds the device by which an address of a namespace is on a network:
// the most specific route of /proc/net/route without a gateway that contains it
// (fib_route_seq_show in net/ipv4/fib_trie.c). Destination and mask are printed
// like the addresses of sockets.
func deviceOf(routes string, addr netip.Addr) (name string) {
	best := -1
	for line := range strings.Lines(routes) {
		f := strings.Fields(line)
		if len(f) < 8 || f[2] != "00000000" {
			continue
		}
		to, ok1 := parseAddress(f[1] + ":0")
		mask, ok2 := parseAddress(f[7] + ":0")
		if !ok1 || !ok2 {
			continue
		}
		bits := maskBits(mask.Addr())
		if bits > best && netip.PrefixFrom(to.Addr(), bits).Contains(addr) {
			name, best = f[0], bits
		}
	}
	return name
}

func maskBits(mask netip.Addr) (n int) {
	for _, b := range mask.As4() {
		for ; b&0x80 != 0; b <<= 1 {
			n++
		}
	}
	return n
}

// processState reads /proc/PID/stat (do_task_stat in fs/proc/array.c): the state,
// such as S or T, and when the process started, in ticks since the machine did.
// The name in parentheses may hold anything.
func processState(text string) (state string, started uint64, ok bool) {
	i := strings.LastIndexByte(text, ')')
	if i < 0 {
		return "", 0, false
	}
	f := strings.Fields(text[i+1:])
	if len(f) < 20 {
		return "", 0, false
	}
	started, err := strconv.ParseUint(f[19], 10, 64)
	return f[0], started, err == nil
}
