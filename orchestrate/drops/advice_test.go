package drops

import (
	"slices"
	"strings"
	"testing"
)

// grownFrom is the report on counters that grew from zero to what the states
// say. Was changes what else was seen at first; nil changes nothing.
func grownFrom(was func(*State), states ...State) Report {
	var before []State
	for _, s := range states {
		s.Values = slices.Clone(s.Values)
		for i := range s.Values {
			v := &s.Values[i]
			v.N, v.Again = 0, 0
			v.cells = slices.Clone(v.cells)
			for k := range v.cells {
				v.cells[k].n = 0
			}
		}
		if was != nil {
			was(&s)
		}
		before = append(before, s)
	}
	return Compare(picture(0, before...), picture(1, states...))
}

// with gives a state its facts.
func with(s State, f Facts) State {
	f.Since = s.Facts.Since
	s.Facts = f
	return s
}

// queued gives a state a queue.
func queued(s State, used, size int64) State {
	s.Queues = []Queue{{Used: used, Size: size, Unit: "bytes"}}
	return s
}

func part(name string, n uint64) Value { return number64(name, RolePart, n) }
func lost(name string, n uint64) Value { return number64(name, RoleLost, n) }
func vain(name string, n uint64) Value { return number64(name, RoleVain, n) }
func came(name string, n uint64) Value { return number64(name, RoleIn, n) }
func held(name string, n uint64) Value { return number64(name, RoleHeld, n) }

func dropped(n uint64) Value { return number32("0.0.0.0:4789 drops #1", RoleVain, n) }

// adviceCase is a loss of which a cause was seen, and the same loss without it.
type adviceCase struct {
	hop          Hop
	advice       string
	says, cure   string
	seen, absent []State
	was          func(*State) // what else was seen at first, for absent
	otherwise    string       // what is said where the cause is absent
}

func proxyCases() []adviceCase {
	proxy := func(change func(*Facts)) State {
		f := Facts{Listens: true, Process: "docker-proxy (PID 80)", PID: 80, At: "127.0.0.1:4789"}
		if change != nil {
			change(&f)
		}
		return with(queued(state(HopProxy, dropped(30)), 9, 212992), f)
	}
	host := func(values ...Value) State { return state(HopHostUDP, append(values, vain(inErrors, 30))...) }
	slow := []State{proxy(nil), host(part("UdpRcvbufErrors", 30), part("UdpInCsumErrors", 3), part("UdpMemErrors", 3))}
	const direct = "zeekdemo replay --direct"
	return []adviceCase{
		{HopProxy, "proxy, stopped", "is stopped", "kill -CONT 80", []State{proxy(func(f *Facts) { f.Stopped = true }), slow[1]}, slow, nil, "proxy, slow"},
		{HopProxy, "wrong checksum", "checksum", "ethtool -K IFACE tx off", []State{proxy(nil), host(part("UdpInCsumErrors", 30))}, slow, nil, "proxy, slow"},
		{HopProxy, "no memory", "no memory", "sysctl net.ipv4.udp_mem", []State{proxy(nil), host(part("UdpMemErrors", 30))}, slow, nil, "proxy, slow"},
		{HopProxy, "proxy, slow", "docker-proxy (PID 80) copies one packet at a time and never raises its receive buffer (208 KiB)", direct, slow,
			[]State{proxy(func(f *Facts) { f.Process = "rootlessport (PID 9)" }), slow[1]}, nil, "proxy, another process is slow"},
		{HopProxy, "proxy, another process is slow", "packets come faster than the process at 127.0.0.1:4789 (which one is not known) reads", direct,
			[]State{proxy(func(f *Facts) { f.Process = "" }), slow[1]}, []State{proxy(nil), host()}, nil, "proxy, unknown"},
	}
}

func deviceCases() []adviceCase {
	queue := func(kind string) []State {
		return []State{with(state(HopBridge, vain(queueDrops, 5), vain(txDropped, 0)), Facts{Device: "br0", Queueing: kind})}
	}
	refused := with(state(HopBridge, vain(queueDrops, 0), vain(txDropped, 5)), Facts{Device: "br0", Queueing: "tbf"})
	end := func(mtu int) []State {
		return []State{with(state(HopBridge), Facts{Device: "br0", MTU: 9000}), with(state(HopDevice, vain(rxDropped, 5)), Facts{Device: "eth0", MTU: mtu})}
	}
	veth := with(state(HopVeth, vain(txDropped, 5)), Facts{Device: "veth1"})
	quiet := state(HopDevice, vain(rxDropped, 0))
	return []adviceCase{
		{HopBridge, "device, queue limit", "br0, tbf, has a limit and was full", "tc qdisc del dev br0 root", queue("tbf"), queue("netem"), nil, "device, queue"},
		{HopBridge, "device, queue", "netem, dropped them: by its limit or by its rule, which of these is not known", "tc qdisc del dev br0 root", queue("netem"), []State{refused}, nil, "device, unknown"},
		{HopDevice, "device, MTU", "eth0, the sensor's end of its link, takes at most 1500 bytes, and br0 passes on up to 9000", "docker restart zeekdemo-zeek-1", end(1500), end(9000), nil, "device, sensor's end"},
		{HopDevice, "device, sensor's end", "which of these is not known", "zeekdemo status", end(0), end(1500), nil, "device, MTU"},
		{HopVeth, "device, no other end", "the sensor is down, or its link", "zeekdemo up", []State{veth, state(HopDevice)}, []State{veth, quiet}, nil, "device, unknown"},
	}
}

func softnetCases() []adviceCase {
	soft := func(flows uint32, backlog int) []State {
		return []State{state(HopDevice, vain(rxDropped, 10)), with(state(HopSoftnet,
			Value{Name: softDropped, Role: RoleVain, N: 10, bits: 32, cells: []cell{{0, 10}}}, Value{Name: flowLimited, Role: RolePart, N: uint64(flows), bits: 32, cells: []cell{{0, flows}}}),
			Facts{Backlog: backlog, RPS: []string{"lo ff"}})}
	}
	return []adviceCase{
		{HopSoftnet, "softnet, flow limit", "one flow filled more than half", "sysctl -w net.core.flow_limit_cpu_bitmap=0", soft(10, 1000), soft(1, 1000), nil, "softnet, full"},
		{HopSoftnet, "softnet, long queue", "it takes 10000 (net.core.netdev_max_backlog); rps_cpus: lo ff: packets come faster", "zeekdemo replay --pps RATE", soft(0, 10000), soft(0, 1000), nil, "softnet, full"},
	}
}

func ipCases() []adviceCase {
	ip := func(host uint64, values ...Value) []State {
		return []State{with(state(HopProxy, dropped(0)), Facts{Listens: true, Process: "docker-proxy (PID 80)"}), state(HopHostUDP, came(inDatagrams, host)),
			state(HopIP, values...), state(HopUDP, came(inDatagrams, 95))}
	}
	late := []Value{lost(reasmFails, 5), part(reasmTimeout, 5)}
	return []adviceCase{
		{HopIP, "fragments by a relay", "they passed a UDP socket of this machine", "zeekdemo replay --direct", ip(100, late...), ip(2, late...), nil, "fragments, late"},
		{HopIP, "fragments, late", "some of which did not come in time", "", ip(2, late...), ip(2, lost(reasmFails, 5), part(reasmTimeout, 0)), nil, "fragments"},
		{HopIP, "fragments", "fragments that could not be put together", "sysctl net.ipv4.ipfrag_high_thresh", ip(2, lost(reasmFails, 5)), ip(2, lost("IpInHdrErrors", 5)), nil, "ip, unknown"},
		{HopIP, "ip, conntrack", "connection tracking in the sensor's namespace", "", ip(2, lost(conntrackDrop, 5)), ip(2, lost("IpInHdrErrors", 5)), nil, "ip, unknown"},
	}
}

func udpCases() []adviceCase {
	udp := func(listens bool, values ...Value) []State {
		return []State{state(HopUDP, values...), with(state(HopSocket, dropped(0)), Facts{Listens: listens})}
	}
	deaf := func(s *State) { s.Facts.Listens = false }
	other := udp(true, vain(inErrors, 5), part("UdpInCsumErrors", 1), part("UdpMemErrors", 1))
	return []adviceCase{
		{HopUDP, "udp, another port", "a port on which the sensor does not listen", "zeekdemo status", udp(true, vain(noPorts, 5)), udp(true, vain(noPorts, 5)), deaf, "udp, before it listened"},
		{HopUDP, "udp, nobody listens", "nobody listens on the sensor's port", "docker restart zeekdemo-zeek-1", udp(false, vain(noPorts, 5)), udp(true, vain(noPorts, 5)), deaf, "udp, before it listened"},
		{HopUDP, "udp, no port", "whether that is the sensor's is not known", "zeekdemo status", []State{state(HopUDP, vain(noPorts, 5)), state(HopSocket)}, other, nil, "udp, unknown"},
		{HopUDP, "wrong checksum", "checksum", "ethtool -K IFACE tx off", udp(true, vain(inErrors, 5), part("UdpInCsumErrors", 5)), other, nil, "udp, unknown"},
		{HopUDP, "no memory", "no memory", "sysctl net.ipv4.udp_mem", udp(true, vain(inErrors, 5), part("UdpMemErrors", 5)), other, nil, "udp, unknown"},
	}
}

func socketCases() []adviceCase {
	socket := func(stopped bool, size int64, why string) []State {
		return []State{state(HopUDP, vain(inErrors, 30), part(why, 30)), with(queued(state(HopSocket, dropped(30)), 9, size), Facts{Listens: true, Stopped: stopped})}
	}
	const full = "UdpRcvbufErrors"
	large := socket(false, 64<<20, full)
	return []adviceCase{
		{HopSocket, "wrong checksum", "checksum", "ethtool -K IFACE tx off", socket(false, 64<<20, "UdpInCsumErrors"), large, nil, "socket, full"},
		{HopSocket, "socket, stopped", "Zeek is stopped", "docker unpause zeekdemo-zeek-1", socket(true, 64<<20, full), large, nil, "socket, full"},
		{HopSocket, "no memory", "no memory", "sysctl net.ipv4.udp_mem", socket(false, 64<<20, "UdpMemErrors"), large, nil, "socket, full"},
		{HopSocket, "socket, small buffer", "its receive buffer is small (208 KiB)", "zeekdemo tune-host --restart-sensors", socket(false, 212992, full), large, nil, "socket, full"},
		{HopSocket, "socket, full", "for longer than its receive buffer can hold", "zeekdemo replay --lossless require", large, socket(false, 64<<20, "IpInHdrErrors"), nil, "socket, unknown"},
	}
}

func linesCases() []adviceCase {
	collector := func(used int64, values ...Value) State {
		return queued(state(HopCollector, append(values, number64(collectorSent, RoleSign, 0))...), used, 5000)
	}
	loki := state(HopLoki, lost("loki_discarded_samples_total", 0))
	const log = "zeekdemo logs collector --tail 20"
	return []adviceCase{
		{HopCollector, "collector, vanished", "its queue lost lines", log, []State{collector(0, lost(vanishedLines, 5)), loki}, []State{collector(0, lost("failed", 5), lost(vanishedLines, 0)), loki}, nil, "collector, unknown"},
		{HopCollector, "collector, Loki unseen", "whether Loki refused them for good is not known", log, []State{collector(0, lost("failed", 5)), state(HopLoki)}, []State{collector(0, lost("failed", 5)), loki}, nil, "collector, unknown"},
		{HopLoki, "loki, reasons", "line_too_long (5)", "zeekdemo logs loki --tail 20", []State{state(HopLoki, lost("loki_discarded_samples_total", 5), part("discarded: line_too_long", 5))},
			[]State{state(HopLoki, lost("loki_discarded_samples_total", 5))}, nil, "loki, unknown"},
		{heldUp, "held, queue", "its queue is full", log, []State{collector(5000, held(enqueueFailed, 100)), loki}, []State{collector(5000, held(receiverRefused, 100)), loki}, nil, "held, memory"},
		{heldUp, "held, memory", "short of memory", log, []State{collector(0, held(receiverRefused, 100)), loki}, []State{collector(0, held("failed", 100)), loki}, nil, "held, refused"},
		{heldUp, "held, refused", "not known beyond the counters' names: failed (100)", log, []State{collector(0, held("failed", 100)), loki}, []State{collector(18), loki}, nil, "held, unknown"},
		{heldUp, "held, Loki unseen", "Loki does not answer here either", "zeekdemo up", []State{collector(18), state(HopLoki)}, []State{collector(18), loki}, nil, "held, unknown"},
	}
}

func hostCases() []adviceCase {
	sender := func(values ...Value) []State { return []State{state(HopSender, values...)} }
	conntrack := func(used int64, values ...Value) []State {
		s := queued(state(HopConntrack, append(values, lost("drop", 5))...), used, 1000)
		s.Wide = true
		return []State{s}
	}
	host := func(in uint64, v Value) []State {
		return []State{state(HopHostUDP, came(inDatagrams, in), v), with(state(HopProxy, dropped(0)), Facts{Listens: true, Process: "docker-proxy (PID 80)"}), state(HopUDP, came(inDatagrams, 95))}
	}
	return []adviceCase{
		{HopSender, "sender, device queue", "the queue of a device", "tc -s qdisc show", sender(lost("UdpSndbufErrors", 5), number64("IpOutDiscards", RoleSign, 5)), sender(lost("UdpSndbufErrors", 5)), nil, "sender, buffer"},
		{HopSender, "sender, buffer", "socket buffer", "zeekdemo tune-host", sender(lost("UdpSndbufErrors", 5)), sender(lost(unresolved, 5)), nil, "sender, neighbour"},
		{HopSender, "sender, neighbour", "link address", "ip neigh show nud incomplete nud failed", sender(lost(unresolved, 5)), sender(lost(captureDrops+"(PID 7) drops #1", 5)), nil, "sender, mirror"},
		{HopSender, "sender, mirror", "a mirror's packet socket was full", "zeekdemo mirror --how kernel IFACE", sender(lost(captureDrops+"(PID 7) drops #1", 5)), sender(lost("another", 5)), nil, "sender, unknown"},
		{HopConntrack, "conntrack, full", "had no room for more flows", "sysctl net.netfilter.nf_conntrack_max", conntrack(990), conntrack(10), nil, "conntrack, unknown"},
		{HopConntrack, "conntrack, race", "lost races", "zeekdemo replay --direct --tx packet", conntrack(10, number64("insert_failed", RoleSign, 5)), conntrack(10), nil, "conntrack, unknown"},
		{HopHostUDP, "host, no port", "ports on which nobody listens", "zeekdemo status", host(100, vain(noPorts, 5)), host(100, lost(reasmFails, 5)), nil, "host, relayed"},
		{HopHostUDP, "host, relayed", "IP or UDP of the host refused: IpReasmFails (5)", "zeekdemo replay --direct", host(100, lost(reasmFails, 5)), host(2, lost(reasmFails, 5)), nil, "host, unknown"},
	}
}

func orderCases() []adviceCase {
	with := func(f Facts) []State { return []State{with(state(HopProxy, dropped(0)), f)} }
	return []adviceCase{
		{overtaken, "order, docker-proxy", "such as docker-proxy's", "zeekdemo replay --direct   (`zeekdemo verify FILE` tells whether the capture itself has gaps)",
			with(Facts{Listens: true, Process: "docker-proxy (PID 80)"}), with(Facts{}), nil, "order, unknown"},
	}
}

// Lists of advice that belong to no hop.
const (
	heldUp    Hop = "held up"
	overtaken Hop = "overtaken"
)

// listed is the list of advice for a case, and the hop that it is about.
func listed(hop Hop, r *Report) ([]advice, *HopReport) {
	switch hop {
	case heldUp:
		return heldAdvices(), r.hop(HopCollector, "")
	case overtaken:
		return orderAdvices(), nil
	}
	i := slices.IndexFunc(r.Hops, func(h HopReport) bool { return h.Hop == hop })
	return advices(hop), &r.Hops[i]
}

// What is said of a loss follows from what was seen in that very reading: where
// the cause is absent, it is not said. There is such a case for each advice.
func TestAdviceFollowsFromWhatWasSeen(t *testing.T) {
	tested := map[string]bool{}
	for _, tt := range slices.Concat(proxyCases(), deviceCases(), softnetCases(), ipCases(), udpCases(), socketCases(), linesCases(), hostCases(), orderCases()) {
		t.Run(string(tt.hop)+", "+tt.advice, func(t *testing.T) {
			r := grownFrom(nil, tt.seen...)
			list, h := listed(tt.hop, &r)
			c := clues{&r, h}
			got := first(list, c)
			reason, cure := got.say(c)
			if got.name != tt.advice || !strings.Contains(reason, tt.says) || cure != tt.cure {
				t.Errorf("%s: %q, cure %q; want %q, %q", got.name, reason, cure, tt.says, tt.cure)
			}
			r = grownFrom(tt.was, tt.absent...)
			list, h = listed(tt.hop, &r)
			c = clues{&r, h}
			if h != nil && tt.hop != heldUp && (h.Lost == nil || *h.Lost == 0) {
				t.Fatal("nothing is lost where the cause is absent")
			}
			other := first(list, c)
			if reason, _ := other.say(c); other.name != tt.otherwise || strings.Contains(reason, tt.says) {
				t.Errorf("the cause is absent: %s: %q", other.name, reason)
			}
			tested[list[len(list)-1].name+": "+tt.advice], tested[list[len(list)-1].name+": "+tt.otherwise] = true, true
		})
	}
	lists := [][]advice{heldAdvices(), orderAdvices()}
	for hop := range order {
		if hop != HopLogs && hop != HopZeek { // nothing is lost in logs, and of Zeek nothing is ever known
			lists = append(lists, advices(hop))
		}
	}
	for _, list := range lists {
		for _, a := range list {
			if !tested[list[len(list)-1].name+": "+a.name] {
				t.Errorf("no case for %q of %q", a.name, list[len(list)-1].name)
			}
		}
	}
}

// Where nobody can know the cause, that is said. A processor's queue drops for
// its limits alone, so there it is always known.
func TestWhatNobodyKnowsIsSaid(t *testing.T) {
	lists := [][]advice{heldAdvices(), orderAdvices()}
	for hop := range order {
		lists = append(lists, advices(hop))
	}
	for _, list := range lists {
		last := list[len(list)-1]
		r := grownFrom(nil, state(HopBridge, vain("whatever", 5)))
		reason, _ := last.say(clues{&r, &r.Hops[0]})
		for _, honest := range []string{"not known", "not say", "seen to pass there", "the counters grew"} {
			if strings.Contains(reason, honest) {
				reason = ""
			}
		}
		if reason != "" && last.name != "softnet, full" {
			t.Errorf("%s: %s", last.name, reason)
		}
	}
}
