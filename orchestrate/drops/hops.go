package drops

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
)

// Names of values that arithmetic refers to.
const (
	rxDropped     = "rx_dropped"
	txDropped     = "tx_dropped"
	inErrors      = "UdpInErrors"
	inErrors6     = "Udp6InErrors"
	inDatagrams   = "UdpInDatagrams"
	inDatagrams6  = "Udp6InDatagrams"
	noPorts       = "UdpNoPorts"
	noPorts6      = "Udp6NoPorts"
	softDropped   = "dropped"
	flowLimited   = "flow_limit_count"
	queueDrops    = "qdisc drops"
	socketDrops   = "drops" // of a socket: its address comes before
	reasmFails    = "IpReasmFails"
	reasmFails6   = "Ip6ReasmFails"
	reasmTimeout  = "IpReasmTimeout"
	reasmTimeout6 = "Ip6ReasmTimeout"
	conntrackDrop = "conntrack drop" // of a sensor's namespace
	unresolved    = "unresolved_discards"
)

// add appends the counters that are there; the others are named as not known.
func (s *State) add(role Role, from procfs.Counters, names ...string) {
	for _, name := range names {
		if n, ok := from[name]; ok {
			s.Values = append(s.Values, Value{Name: name, Role: role, N: n, bits: 64})
			continue
		}
		// IPv6 may be switched off, and newer names are missing on older kernels.
		if !strings.HasPrefix(name, "Ip6") && !strings.HasPrefix(name, "Udp6") {
			s.Unknown = append(s.Unknown, Unknown{name, "this kernel does not have it"})
		}
	}
}

// protocols says that the counters of IP and UDP are not to be had, if so.
func (s *State) protocols(from *sight) bool {
	switch {
	case from == nil:
		s.unknown("counters", errors.New("its network namespace cannot be seen from here"))
		return false
	case from.snmp == nil:
		s.unknown(fileSNMP, from.errs[fileSNMP])
		return false
	}
	return true
}

// shared are the hops of the host that all sensors' packets pass.
func (r *Reader) shared(_ context.Context, host *sight, queues map[string]Queueing, queuesErr error) []State {
	sender := State{Hop: HopSender, Name: "sender (UDP of the host)", Wide: true}
	if sender.protocols(host) {
		sender.add(RoleIn, host.snmp, "UdpOutDatagrams", "Udp6OutDatagrams")
		sender.add(RoleLost, host.snmp, "UdpSndbufErrors", "Udp6SndbufErrors")
		// What a device queue refuses of UDP is counted here and above
		// (ip_send_skb in net/ipv4/ip_output.c, udp_send_skb in net/ipv4/udp.c).
		sender.add(RoleSign, host.snmp, "IpOutDiscards", "IpOutNoRoutes", "Ip6OutNoRoutes", "Ip6OutDiscards", "IpFragFails")
	}
	sender.neighbours(host)
	r.captures(&sender)
	udp := State{Hop: HopHostUDP, Name: "IP and UDP of the host", Wide: true}
	if udp.protocols(host) {
		udp.add(RoleIn, host.snmp, inDatagrams, inDatagrams6)
		udp.receive(host.snmp)
		udp.add(RoleLost, host.snmp, "IpInHdrErrors", "IpInDiscards", reasmFails, reasmFails6)
		udp.add(RoleSign, host.snmp, "IpInAddrErrors", "Ip6InDiscards", "IpReasmReqds", reasmTimeout)
	}
	lo := State{Hop: HopLoopback, Name: "lo"}
	lo.device("lo", host, queues, queuesErr, false)
	states := []State{sender, conntrack(host), lo, udp}
	bridge := State{Hop: HopBridge, Name: r.path.Bridge, Identity: r.path.Bridge + " " + r.index}
	if r.path.Bridge == "" {
		bridge.Name = "bridge"
		bridge.unknown("the monitoring network's device", errors.New("there is none"))
	} else {
		bridge.device(r.path.Bridge, host, queues, queuesErr, true)
	}
	return append(states, bridge)
}

// neighbours adds what was dropped while the receiver's link address was asked
// for: a few hundred packets wait for the answer (neigh_resolve_output).
func (s *State) neighbours(host *sight) {
	f, ok := host.files[fileARP]
	n, err := procfs.PerCPU(f.Text)
	v, has := n[unresolved]
	switch {
	case !ok || f.Err != nil || err != nil:
		s.unknown(fileARP, errors.Join(f.Err, err))
	case has:
		s.Values = append(s.Values, Value{Name: unresolved, Role: RoleLost, N: v, bits: 32})
	}
}

// captures adds what packet sockets could not take: a mirror's among them are on
// the way of packets, somebody's tcpdump is not.
func (r *Reader) captures(s *State) {
	if r.host.Captures == nil {
		s.unknown("packet sockets", errors.New("only known on the engine's own machine"))
		return
	}
	list, err := r.host.Captures()
	if err != nil {
		s.unknown("packet sockets", err)
		return
	}
	for _, c := range list {
		if c.Drops == 0 {
			continue // not worth the search for whose it is
		}
		role, name := RoleSign, "a process that is not known"
		if o := r.ownerOf(c.Inode, netip.AddrPort{}); o.err == nil {
			name = fmt.Sprintf("%s (PID %d)", o.name, o.pid)
			if o.name == ownName {
				role = RoleLost
			}
		}
		s.Values = append(s.Values, Value{Name: fmt.Sprintf("packet socket of %s drops #%d", name, c.ID), Role: role, N: c.Drops, bits: 32})
	}
}

// ownName is the name of this program's processes.
const ownName = "zeekdemo"

// receive adds what UDP counts of datagrams that came in vain. InErrors contains
// what fell out of sockets' queues (RcvbufErrors), what the limit of memory for
// all UDP forbade (MemErrors), and wrong checksums: __udp_queue_rcv_skb in
// net/ipv4/udp.c.
func (s *State) receive(from procfs.Counters) {
	s.add(RoleVain, from, inErrors, noPorts, inErrors6, noPorts6)
	s.add(RolePart, from, "UdpRcvbufErrors", "UdpInCsumErrors", "Udp6RcvbufErrors", "Udp6InCsumErrors")
	for _, newer := range []string{"UdpMemErrors", "Udp6MemErrors"} { // since 5.11
		if _, ok := from[newer]; ok {
			s.add(RolePart, from, newer)
		}
	}
}

// conntrack is the host's connection tracking. Each flow of the sender is an
// entry, and what finds no room is dropped.
func conntrack(host *sight) State {
	s := State{Hop: HopConntrack, Name: "conntrack of the host", Wide: true}
	f, ok := host.files[fileConntrack]
	if !ok || f.Err != nil {
		s.unknown(fileConntrack, f.Err)
		return s
	}
	n, err := procfs.PerCPU(f.Text)
	if err != nil {
		s.unknown(fileConntrack, err)
		return s
	}
	for _, c := range []struct {
		name string
		role Role
	}{{"drop", RoleLost}, {"insert_failed", RoleSign}, {"early_drop", RoleSign}, {"invalid", RoleSign}} {
		if v, ok := n[c.name]; ok {
			s.Values = append(s.Values, Value{Name: c.name, Role: c.role, N: v, bits: 32})
		}
	}
	count, max := number(host.files[fileTracked]), number(host.files[fileTrackMax])
	if max > 0 {
		s.Queues = append(s.Queues, Queue{Used: int64(count), Size: int64(max), Unit: "connections", Exact: true})
	}
	return s
}

func number(f File) int {
	n, _ := strconv.Atoi(strings.TrimSpace(f.Text))
	return n
}

// device adds a device's counters: those of sending where packets leave through
// it, else those of receiving; and what its queueing discipline dropped, which
// the device does not count.
func (s *State) device(name string, in *sight, queues map[string]Queueing, queuesErr error, sends bool) {
	s.Facts.Device, s.Facts.MTU = name, number(in.files[fileMTU(name)])
	d, ok := in.devices[name]
	if !ok {
		err := in.errs[fileDevices]
		if err == nil {
			err = fmt.Errorf("there is no device %s", name)
		}
		s.unknown("counters", err)
		return
	}
	add := func(role Role, name string, n uint64) {
		s.Values = append(s.Values, Value{Name: name, Role: role, N: n, bits: 64})
	}
	if sends {
		add(RoleIn, "tx_packets", d.TxPackets)
		add(RoleVain, txDropped, d.TxDropped)
		add(RoleVain, "tx_errors", max(d.TxErrors, d.TxFIFO+d.TxCarrier))
		add(RolePart, "tx_fifo_errors", d.TxFIFO)
	} else {
		add(RoleIn, "rx_packets", d.RxPackets)
		add(RoleVain, rxDropped, d.RxDropped)
		add(RoleVain, "rx_errors", max(d.RxErrors, d.RxFIFO+d.RxFrame))
		add(RolePart, "rx_fifo_errors", d.RxFIFO)
	}
	switch q, ok := queues[name]; {
	case queuesErr != nil:
		s.unknown("its queueing discipline", queuesErr)
	case ok:
		s.Facts.Queueing = q.Kind
		s.Values = append(s.Values, Value{Name: queueDrops, Role: RoleVain, N: q.Drops, bits: 32})
		if q.Backlog > 0 {
			s.Queues = append(s.Queues, Queue{Used: int64(q.Backlog), Unit: "packets", Exact: true})
		}
	}
}

// softnet is the hop of the processors' queues. In is where each sensor's packets
// are received.
func (r *Reader) softnet(host *sight, in []*sight) State {
	s := State{Hop: HopSoftnet, Wide: true, Name: "softnet"}
	f := host.files[fileSoftnet]
	lines, err := procfs.Softnet(f.Text)
	if err = errors.Join(f.Err, err); err != nil {
		s.unknown(fileSoftnet, err)
		return s
	}
	s.Name = fmt.Sprintf("softnet (%d CPUs)", len(lines))
	s.Facts.Backlog = number(host.files[fileBacklog])
	s.Facts.RPS = r.steering(host, in)
	sum := func(name string, role Role, of func(procfs.SoftnetCPU) uint64) {
		v := Value{Name: name, Role: role, bits: 32}
		for _, l := range lines {
			v.cells = append(v.cells, cell{l.CPU, uint32(of(l))})
			v.N += of(l)
		}
		s.Values = append(s.Values, v)
	}
	sum("processed", RoleIn, func(l procfs.SoftnetCPU) uint64 { return l.Processed })
	sum(softDropped, RoleVain, func(l procfs.SoftnetCPU) uint64 { return l.Dropped })
	sum("time_squeeze", RoleSign, func(l procfs.SoftnetCPU) uint64 { return l.Squeezed })
	if len(lines) == 0 {
		return s
	}
	if !lines[0].HasRPS || !lines[0].HasFlowLimit {
		s.Unknown = append(s.Unknown, Unknown{"received_rps, " + flowLimited, "this kernel does not have it"})
		return s
	}
	sum("received_rps", RoleSign, func(l procfs.SoftnetCPU) uint64 { return l.ReceivedRPS })
	sum(flowLimited, RolePart, func(l procfs.SoftnetCPU) uint64 { return l.FlowLimit })
	if lines[0].HasBacklog {
		fullest := slices.MaxFunc(lines, func(a, b procfs.SoftnetCPU) int { return int(a.Backlog) - int(b.Backlog) })
		s.Queues = append(s.Queues, Queue{Used: int64(fullest.Backlog), Size: int64(s.Facts.Backlog), Unit: "packets", Exact: true})
	}
	return s
}

// steering tells by which devices packets come to the sensors, and on which
// processors they may be received: a mask, 0 for the one that they came in on.
func (r *Reader) steering(host *sight, in []*sight) []string {
	var list []string
	add := func(from *sight, device, of string) {
		if f, ok := from.files[fileRPS(device)]; ok && f.Err == nil {
			list = append(list, fmt.Sprintf("%s%s %s", device, of, strings.TrimSpace(f.Text)))
		}
	}
	add(host, "lo", "")
	for i, s := range r.path.Sensors {
		if in[i] != nil {
			add(in[i], r.links[s.Name].inside, " of "+s.Name)
		}
	}
	return list
}

// fileRPS is the mask of a device's first queue.
func fileRPS(device string) string { return "/sys/class/net/" + device + "/queues/rx-0/rps_cpus" }

// fileMTU is the length of the longest packet that a device passes on.
func fileMTU(device string) string { return "/sys/class/net/" + device + "/mtu" }

// proxy is the socket at a sensor's published port, which docker-proxy holds, or
// what stands in for it.
func (r *Reader) proxy(ctx context.Context, s SensorAt, host *sight) State {
	at := s.Published
	st := State{Hop: HopProxy, Sensor: s.Name, Name: "docker-proxy " + at.String(), Facts: Facts{At: at.String()}}
	if !at.IsValid() {
		st.Name = "docker-proxy"
		st.unknown("its socket", errors.New("the engine does not publish the sensor's port on its machine"))
		return st
	}
	list, err := host.listening(at)
	switch {
	case err != nil:
		st.unknown("its socket", err)
		return st
	case len(list) == 0:
		st.unknown("its socket", fmt.Errorf("nobody listens at %s: without the userland proxy the engine redirects packets instead", at))
		return st
	}
	st.Facts.Listens = true
	o := r.ownerOf(list[0].Inode, at)
	if o.err != nil {
		st.unknown("whose socket it is", o.err)
	} else {
		st.Facts.PID, st.Facts.Process = o.pid, fmt.Sprintf("%s (PID %d)", o.name, o.pid)
		st.Facts.Stopped = r.stopped(ctx, o.pid)
		if o.name != "docker-proxy" {
			st.Name = o.name + " " + at.String()
		}
	}
	r.sockets(&st, 0, at, list)
	return st
}

// sockets adds sockets' drops and queues. Where the kernel can be asked for the
// buffers it is, else the table tells.
func (r *Reader) sockets(st *State, pid int, at netip.AddrPort, list []procfs.UDPSocket) {
	var exact []QueueState
	if r.host.Sockets != nil {
		exact, _ = r.host.Sockets(pid, at) // the table has been read already
	}
	if len(exact) == 0 {
		for _, s := range list {
			exact = append(exact, QueueState{ID: s.Inode, Local: s.Local, Queued: int(s.Queued), Drops: s.Drops})
		}
		st.Unknown = append(st.Unknown, Unknown{"the buffer's size", "only known on the engine's own machine"})
	}
	for _, s := range exact {
		st.Values = append(st.Values, Value{Name: fmt.Sprintf("%s %s #%d", s.Local, socketDrops, s.ID), Role: RoleVain, N: s.Drops, bits: 32})
		st.Queues = append(st.Queues, Queue{Used: int64(s.Queued), Size: int64(s.Buffer), Unit: "bytes", Exact: s.Exact})
	}
}

// sensor are the hops of one sensor, from the host's end of its link on.
func (r *Reader) sensor(ctx context.Context, s SensorAt, host, in *sight, queues map[string]Queueing, queuesErr error) []State {
	l := r.links[s.Name]
	veth := State{Hop: HopVeth, Sensor: s.Name, Name: "veth of " + s.Name, Identity: l.identity, Facts: Facts{Since: s.Started}}
	if l.outside != "" {
		veth.Name = l.outside
		veth.device(l.outside, host, queues, queuesErr, true)
	} else {
		veth.unknown("which device it is", l.whyNot)
	}
	if in == nil {
		return append([]State{veth}, unseen(s)...)
	}
	own := func(hop Hop, name string) State {
		return State{Hop: hop, Sensor: s.Name, Name: name + " of " + s.Name, Identity: l.identity, Facts: Facts{Since: s.Started}}
	}
	ip, udp := own(HopIP, "IP"), own(HopUDP, "UDP")
	if ip.protocols(in) {
		ip.internet(in)
	}
	if udp.protocols(in) {
		udp.add(RoleIn, in.snmp, inDatagrams, inDatagrams6)
		udp.receive(in.snmp)
		udp.add(RoleSign, in.snmp, "UdpSndbufErrors")
	}
	return []State{veth, l.innerEnd(own(HopDevice, "device"), in), ip, udp, r.receiver(ctx, own(HopSocket, "socket"), s, in)}
}

// unseen are the hops in the namespace of a sensor into which nobody sees.
func unseen(s SensorAt) (states []State) {
	why := s.Missing
	if why == nil {
		why = errors.New("its network namespace cannot be seen from here")
	}
	for _, hop := range []Hop{HopDevice, HopIP, HopUDP, HopSocket} {
		st := State{Hop: hop, Sensor: s.Name, Name: fmt.Sprintf("%s of %s", hop, s.Name)}
		st.unknown("counters", why)
		states = append(states, st)
	}
	return states
}

// innerEnd is the sensor's end of its link.
func (l link) innerEnd(st State, in *sight) State {
	if l.inside == "" {
		st.unknown("counters", errors.New("it has no device on the monitoring network"))
		return st
	}
	st.Name = l.inside + " of " + st.Sensor
	st.device(l.inside, in, nil, nil, false)
	if !l.proven {
		st.Facts.MTU = 0 // it may be that of another device with this name
	}
	return st
}

// internet adds what IP counts in a sensor's namespace. In the counts of
// congestion marks each datagram and fragment counts, also where the kernel
// passes many as one (ip_rcv_core in net/ipv4/ip_input.c).
func (s *State) internet(in *sight) {
	s.add(RoleIn, in.snmp, "IpExtInNoECTPkts", "IpExtInECT0Pkts", "IpExtInECT1Pkts", "IpExtInCEPkts", "Ip6InNoECTPkts")
	s.add(RoleLost, in.snmp, "IpInHdrErrors", "IpInAddrErrors", "IpInDiscards", reasmFails, reasmFails6, "Ip6InHdrErrors", "IpExtInTruncatedPkts", "IpExtInNoRoutes")
	s.add(RolePart, in.snmp, reasmTimeout, reasmTimeout6, "IpExtInCsumErrors")
	s.add(RoleSign, in.snmp, "IpReasmReqds", "IpReasmOKs", "Ip6InDiscards", "Ip6InAddrErrors")
	if n, err := procfs.PerCPU(in.files[fileConntrack].Text); err == nil {
		if v, ok := n["drop"]; ok {
			s.Values = append(s.Values, Value{Name: conntrackDrop, Role: RoleLost, N: v, bits: 32})
		}
	}
}

// receiver are the sensor's own sockets.
func (r *Reader) receiver(ctx context.Context, st State, s SensorAt, in *sight) State {
	at := netip.AddrPortFrom(netip.IPv4Unspecified(), s.Port)
	st.Name = fmt.Sprintf("socket of %s", s.Name)
	st.Facts.At = at.String()
	st.Facts.Process, st.Facts.PID = "Zeek", s.PID
	st.Facts.Stopped = s.Paused || r.stopped(ctx, s.PID)
	if in.snmp != nil {
		st.add(RoleIn, in.snmp, inDatagrams, inDatagrams6)
	}
	list, err := in.listening(at)
	switch {
	case err != nil:
		st.unknown("sockets", err)
	case len(list) == 0:
		st.Notes = append(st.Notes, fmt.Sprintf("nobody listens on UDP port %d", s.Port))
		st.Values = append(st.Values, Value{Name: socketDrops, Role: RoleVain, bits: 32}) // no socket, no drops
	default:
		st.Facts.Listens = true
		r.sockets(&st, s.PID, at, list)
	}
	return st
}
