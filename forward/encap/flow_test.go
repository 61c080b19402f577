package encap

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"
)

// directions lists pairs of frames that are each other's opposite direction.
func directions(sport, dport int) map[string][2][]byte {
	pair := func(make func(a, b byte, p, q int) []byte) [2][]byte {
		return [2][]byte{make(1, 2, sport, dport), make(2, 1, dport, sport)}
	}
	tcp4 := func(a, b byte, p, q int) []byte {
		return ether(b, a, 0x0800, ip4(a, b, 6, 0x4000, tcp(p, q, uint32(p), 0x10, false, payloadBytes(40))))
	}
	in6 := func(a, b byte, next byte, rest []byte) []byte { return ether(b, a, 0x86dd, ip6(a, b, next, rest)) }
	mpls := func(payload []byte) []byte { return slices.Concat(be32(17<<12), be32(18<<12|0x100), payload) }
	return map[string][2][]byte{
		"tcp4": pair(tcp4),
		"vlan": pair(func(a, b byte, p, q int) []byte { return vlanTag(tcp4(a, b, p, q), int(a)) }),
		"qinq": pair(func(a, b byte, p, q int) []byte {
			return vlanTag(ethertyped(vlanTag(tcp4(a, b, p, q), int(a)), 0x88a8), int(b))
		}),
		"mpls": pair(func(a, b byte, p, q int) []byte { return ether(b, a, 0x8847, mpls(tcp4(a, b, p, q)[14:])) }),
		"pseudowire": pair(func(a, b byte, p, q int) []byte {
			return ether(b, a, 0x8847, mpls(slices.Concat(be32(0), tcp4(a, b, p, q))))
		}),
		"pppoe": pair(func(a, b byte, p, q int) []byte {
			ip := tcp4(a, b, p, q)[14:]
			return ether(b, a, 0x8864, slices.Concat([]byte{0x11, 0, 0, a}, be16(len(ip)+2), be16(0x21), ip))
		}),
		"snap": pair(func(a, b byte, p, q int) []byte {
			llc := snap(0x0800, tcp4(a, b, p, q)[14:])
			return ether(b, a, len(llc), llc)
		}),
		"pbb": pair(func(a, b byte, p, q int) []byte {
			return ether(b, a, 0x88e7, slices.Concat(be32(0), tcp4(a, b, p, q)))
		}),
		"udp6": pair(func(a, b byte, p, q int) []byte { return in6(a, b, 17, udp(p, q, payloadBytes(40))) }),
		"extensions": pair(func(a, b byte, p, q int) []byte {
			return in6(a, b, 0, slices.Concat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, []byte{6, 0, 1, 4, 0, 0, 0, 0},
				tcp(p, q, 1, 0x10, false, payloadBytes(40))))
		}),
		"arp": pair(func(a, b byte, p, q int) []byte { return ether(b, a, 0x0806, make([]byte, 28+p%7)) }),
	}
}

func TestFlowHashIsSymmetric(t *testing.T) {
	for name, pair := range directions(40000, 443) {
		if a, b := flowHash(pair[0]), flowHash(pair[1]); a != b {
			t.Errorf("%s: %x one way, %x the other", name, a, b)
		}
	}
}

func TestFlowHashReadsPorts(t *testing.T) {
	other := directions(40001, 443)
	for name, pair := range directions(40000, 443) {
		if same := flowHash(pair[0]) == flowHash(other[name][0]); same != (name == "arp") {
			t.Errorf("%s: another port makes the same hash: %v", name, same)
		}
	}
}

// flowHash is the hash of a frame with none before it, flowHashIP that of a bare
// packet.
func flowHash(frame []byte) uint64            { return (*fragments)(nil).flowHash(frame) }
func flowHashIP(packet []byte) (uint64, bool) { return (*fragments)(nil).flowHashIP(packet) }

// Frames that differ in their envelope only belong to one flow.
func TestFlowHashLooksThroughEnvelopes(t *testing.T) {
	all := directions(40000, 443)
	for _, name := range []string{"vlan", "qinq", "mpls", "pseudowire", "pppoe", "snap", "pbb"} {
		if flowHash(all[name][0]) != flowHash(all["tcp4"][0]) {
			t.Errorf("%s hashes otherwise than without", name)
		}
	}
	if flowHash(all["extensions"][0]) == flowHash(all["udp6"][0]) {
		t.Error("TCP and UDP hash the same")
	}
	tcp4 := all["tcp4"][0]
	if raw, ok := flowHashIP(tcp4[14:]); !ok || raw != flowHash(tcp4) {
		t.Error("a bare packet hashes otherwise than in Ethernet")
	}
	withOptions := slices.Concat(tcp4[:14], []byte{0x46}, tcp4[15:34], []byte{1, 1, 1, 1}, tcp4[34:])
	if flowHash(withOptions) != flowHash(tcp4) {
		t.Error("IPv4 options change the hash")
	}
}

// nestings lists ways to carry a packet, given the ends of the tunnel and the inner
// frame. What is outside differs by direction as much as it can.
func nestings() map[string]func(a, b byte, frame []byte) []byte {
	over4 := func(a, b, proto byte, payload []byte) []byte {
		return ether(b, a, 0x0800, ip4(a, b, proto, 0, payload))
	}
	overUDP := func(port int, header func(a byte) []byte, skip int) func(a, b byte, frame []byte) []byte {
		return func(a, b byte, frame []byte) []byte {
			return over4(a, b, 17, udp(40000+int(a), port, slices.Concat(header(a), frame[skip:])))
		}
	}
	gre := func(flags, proto int, rest ...byte) func(a byte) []byte {
		return func(a byte) []byte { return slices.Concat(be16(flags), be16(proto), rest) }
	}
	overGRE := func(header func(a byte) []byte, skip int) func(a, b byte, frame []byte) []byte {
		return func(a, b byte, frame []byte) []byte {
			return over4(a, b, 47, slices.Concat(header(a), frame[skip:]))
		}
	}
	vxlan := func(a byte) []byte { return []byte{8, 0, 0, 0, 0, 0, a, 0} }
	gtp := func(flags byte, rest ...byte) func(a byte) []byte {
		return func(a byte) []byte { return slices.Concat([]byte{flags, 255, 0, 0, 0, 0, 0, a}, rest) }
	}
	teredo := func(rest ...byte) func(a, b byte, frame []byte) []byte {
		return func(a, b byte, frame []byte) []byte { // which needs IPv6
			inside := ip6(frame[29], frame[33], 6, frame[34:])
			from, to := 40000, 3544
			if a > b {
				from, to = to, from
			}
			return over4(a, b, 17, udp(from, to, slices.Concat(rest, inside)))
		}
	}
	return map[string]func(a, b byte, frame []byte) []byte{
		"vxlan":           overUDP(4789, vxlan, 0),
		"vxlan, Linux":    overUDP(8472, vxlan, 0),
		"vxlan-gpe, IPv4": overUDP(4790, func(a byte) []byte { return []byte{0x0c, 0, 0, 1, 0, 0, a, 0} }, 14),
		"geneve":          overUDP(6081, func(a byte) []byte { return []byte{0, 0, 0x65, 0x58, 0, 0, a, 0} }, 0),
		"geneve, options": overUDP(6081, func(a byte) []byte { return []byte{2, 0, 0x65, 0x58, 0, 0, a, 0, 0, 1, 2, 1, a, a, a, a} }, 0),
		"geneve, IPv4":    overUDP(6081, func(a byte) []byte { return []byte{0, 0, 8, 0, 0, 0, a, 0} }, 14),
		"gre":             overGRE(gre(0, 0x0800), 14),
		"gre, key, sequence": func(a, b byte, frame []byte) []byte {
			return overGRE(gre(0x3000, 0x0800, a, 2, 3, 4, 0, 0, 0, b), 14)(a, b, frame)
		},
		"gre, checksum": overGRE(gre(0x8000, 0x0800, 1, 2, 0, 0), 14),
		"gre, Ethernet": overGRE(gre(0x2000, 0x6558, 1, 2, 3, 4), 0),
		"gre, MPLS":     overGRE(gre(0, 0x8847, 0, 1, 0x11, 64), 14),
		"pptp": func(a, b byte, frame []byte) []byte { // with an acknowledgement one way
			if a > b {
				return overGRE(gre(0x3081, 0x880b, 0, 9, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 3, 0, 0x21), 14)(a, b, frame)
			}
			return overGRE(gre(0x3001, 0x880b, 0, 9, 0, 2, 0, 0, 0, 1, 0x21), 14)(a, b, frame)
		},
		"erspan I":        overGRE(gre(0, 0x88be), 0),
		"erspan II":       overGRE(gre(0x1000, 0x88be, 0, 0, 0, 7, 0x10, 1, 2, 3, 4, 5, 6, 7), 0),
		"erspan III":      overGRE(gre(0x1000, 0x22eb, 0, 0, 0, 7, 0x20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0), 0),
		"erspan III, sub": overGRE(gre(0x1000, 0x22eb, append([]byte{0, 0, 0, 7, 0x20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1}, make([]byte, 8)...)...), 0),
		"gre in udp":      overUDP(4754, gre(0, 0x0800), 14),
		"ip in ip":        func(a, b byte, frame []byte) []byte { return over4(a, b, 4, frame[14:]) },
		"ip in ipv6":      func(a, b byte, frame []byte) []byte { return ether(b, a, 0x86dd, ip6(a, b, 4, frame[14:])) },
		"mpls in ip":      func(a, b byte, frame []byte) []byte { return over4(a, b, 137, slices.Concat(be32(0x1140), frame[14:])) },
		"gtp-u":           overUDP(2152, gtp(0x30), 14),
		"gtp-u, fields":   overUDP(2152, gtp(0x32, 0, 1, 0, 0), 14),
		"gtp-u, extended": overUDP(2152, gtp(0x34, 0, 0, 0, 0x85, 1, 2, 3, 0x85, 2, 1, 2, 3, 4, 5, 6, 0), 14),
		"teredo":          teredo(),
		"teredo, origin":  teredo(0, 0, 1, 2, 3, 4, 5, 6),
		"teredo, both":    teredo(0, 1, 1, 1, 'i', 'a', 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 1, 2, 3, 4, 5, 6),
	}
}

// Both directions of what is inside a tunnel have one hash, also within another
// tunnel, and other flows have another one.
func TestFlowHashLooksIntoTunnels(t *testing.T) {
	inside := func(a, b byte, p, q int) []byte {
		return ether(b, a, 0x0800, ip4(a, b, 6, 0x4000, tcp(p, q, uint32(p), 0x10, false, payloadBytes(40))))
	}
	for name, carry := range nestings() {
		there, back := carry(1, 2, inside(3, 4, 5000, 80)), carry(2, 1, inside(4, 3, 80, 5000))
		if a, b := flowHash(there), flowHash(back); a != b {
			t.Errorf("%s: %x one way, %x the other", name, a, b)
		}
		if flowHash(there) == flowHash(carry(1, 2, inside(3, 4, 5001, 80))) {
			t.Errorf("%s: what is inside does not count", name)
		}
		if elsewhere := carry(5, 6, inside(3, 4, 5000, 80)); flowHash(there) != flowHash(elsewhere) {
			t.Errorf("%s: what is outside counts", name)
		}
		for outer, around := range nestings() {
			if outer[:3] == "ter" {
				continue // carries IPv6 alone
			}
			if flowHash(around(7, 8, there)) != flowHash(there) {
				t.Errorf("%s within %s hashes otherwise than alone", name, outer)
			}
		}
		for n := range len(there) { // cut anywhere, it must only not fail
			flowHash(there[:n])
		}
	}
}

// What only looks like a tunnel counts as what it is.
func TestFlowHashOfWhatIsNoTunnel(t *testing.T) {
	inside := tcp4Frame(40, 1)
	for name, pair := range map[string][2][]byte{
		"no I flag":    {udp(50000, 4789, slices.Concat([]byte{0, 0, 0, 0, 0, 0, 1, 0}, inside)), udp(4789, 50000, payloadBytes(70))},
		"GTP-U echo":   {udp(2152, 2152, []byte{0x32, 1, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0}), udp(2152, 2152, []byte{0x32, 2, 0, 6, 0, 0, 0, 0, 0, 1, 0, 0, 14, 0})},
		"not Teredo":   {udp(50000, 3544, payloadBytes(70)), udp(3544, 50000, payloadBytes(20))},
		"GENEVE, cut":  {udp(50000, 6081, []byte{0x3f, 0, 0x65, 0x58, 0, 0, 1, 0}), udp(6081, 50000, payloadBytes(30))},
		"empty tunnel": {udp(50000, 4789, nil), udp(4789, 50000, nil)},
	} {
		there, back := ether(1, 2, 0x0800, ip4(1, 2, 17, 0, pair[0])), ether(2, 1, 0x0800, ip4(2, 1, 17, 0, pair[1]))
		if flowHash(there) != flowHash(back) {
			t.Errorf("%s: the directions part", name)
		}
	}
}

// An ICMP error goes where the flow goes that it is about, whoever sends it.
func TestICMPErrorsFollowWhatTheyQuote(t *testing.T) {
	flow := ether(2, 1, 0x0800, ip4(1, 2, 17, 0, udp(40000, 53, payloadBytes(100))))
	flow6 := ether(2, 1, 0x86dd, ip6(1, 2, 17, udp(40000, 53, payloadBytes(100))))
	tunnelled := nestings()["vxlan"](1, 2, tcp4Frame(100, 9))
	for _, kind := range []byte{3, 4, 5, 11, 12} {
		for _, quoted := range []int{28, 60} {
			e := ether(1, 9, 0x0800, ip4(9, 1, 1, 0, slices.Concat([]byte{kind, 1, 0, 0, 0, 0, 0, 0}, flow[14:14+quoted])))
			if flowHash(e) != flowHash(flow) {
				t.Errorf("ICMP type %d, %d bytes quoted, parts from its flow", kind, quoted)
			}
		}
		e := ether(1, 9, 0x0800, ip4(9, 1, 1, 0, slices.Concat([]byte{kind, 1, 0, 0, 0, 0, 0, 0}, tunnelled[14:])))
		if flowHash(e) != flowHash(tunnelled) {
			t.Errorf("ICMP type %d about a tunnel parts from what is inside", kind)
		}
	}
	for kind := byte(1); kind <= 4; kind++ {
		e := ether(1, 9, 0x86dd, ip6(9, 1, 58, slices.Concat([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, flow6[14:14+48])))
		if flowHash(e) != flowHash(flow6) {
			t.Errorf("ICMPv6 type %d parts from its flow", kind)
		}
	}
	fragment := ip4(1, 2, 17, 0x2000, udp(40000, 53, payloadBytes(100)))
	e := ether(1, 9, 0x0800, ip4(9, 1, 1, 0, slices.Concat([]byte{11, 1, 0, 0, 0, 0, 0, 0}, fragment)))
	if flowHash(e) != flowHash(ether(2, 1, 0x0800, fragment)) {
		t.Error("an error about a fragment parts from the fragments")
	}
	short := ether(1, 9, 0x0800, ip4(9, 1, 1, 0, slices.Concat([]byte{3, 1, 0, 0, 0, 0, 0, 0}, flow[14:30])))
	request := ether(1, 9, 0x0800, ip4(9, 1, 1, 0, []byte{8, 0, 0, 0, 0, 0, 0, 0}))
	if flowHash(short) != flowHash(request) {
		t.Error("an error that quotes too little does not count as ICMP")
	}
}

// However often tunnels are nested, a hash is found.
func TestNestingHasAnEnd(t *testing.T) {
	frame := tcp4Frame(10, 1)
	for range 100 {
		frame = ether(1, 2, 0x0800, slices.Concat([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 4, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}, frame[14:]))
	}
	if flowHash(frame) == 0 {
		t.Error("no hash")
	}
}

func TestFragmentsStayTogether(t *testing.T) {
	segment := udp(40000, 53, payloadBytes(100))
	first := ether(1, 2, 0x0800, ip4(1, 2, 17, 0x2000, segment))
	later := ether(1, 2, 0x0800, ip4(1, 2, 17, 0x0009, payloadBytes(80)))
	if flowHash(first) != flowHash(later) {
		t.Error("IPv4 fragments part")
	}
	header := func(frag int) []byte { return slices.Concat([]byte{17, 0}, be16(frag), be32(99)) }
	first = ether(1, 2, 0x86dd, ip6(1, 2, 44, slices.Concat(header(1), segment)))
	later = ether(1, 2, 0x86dd, ip6(1, 2, 44, slices.Concat(header(0x48), payloadBytes(80))))
	if flowHash(first) != flowHash(later) {
		t.Error("IPv6 fragments part")
	}
	atomic := ether(1, 2, 0x86dd, ip6(1, 2, 44, slices.Concat(header(0), segment)))
	whole := ether(1, 2, 0x86dd, ip6(1, 2, 17, segment))
	if flowHash(atomic) != flowHash(whole) {
		t.Error("an atomic fragment parts from its flow")
	}
}

// fragmented cuts an IPv4 or IPv6 packet in Ethernet behind so many bytes of its
// payload.
func fragmented(frame []byte, id, size int) (parts [][]byte) {
	six := frame[12] == 0x86
	header := 34
	if six {
		header = 54
	}
	payload := frame[header:]
	for off := 0; off < len(payload); off += size {
		part := payload[off:min(off+size, len(payload))]
		word, more := off/8, 0
		if off+size < len(payload) {
			more = 1
		}
		if six {
			part = ip6(frame[29], frame[45], 44, slices.Concat([]byte{frame[20], 0}, be16(word<<3|more), be32(id), part))
			parts = append(parts, slices.Concat(frame[:14], part[:8], frame[22:54], part[40:]))
			continue
		}
		part = ip4(1, 2, frame[23], more<<13|word, part)
		binary.BigEndian.PutUint16(part[4:], uint16(id))
		parts = append(parts, slices.Concat(frame[:14], part[:12], frame[26:34], part[20:]))
	}
	return parts
}

// Fragments go where the whole packets of their flow go, whatever tunnels they are
// in or it is in, and an error about one of them as well.
func TestFragmentsGoWithTheirFlow(t *testing.T) {
	whole := map[string][]byte{
		"udp":  ether(2, 1, 0x0800, ip4(1, 2, 17, 0, udp(40000, 53, payloadBytes(100)))),
		"udp6": ether(2, 1, 0x86dd, ip6(1, 2, 17, udp(40000, 53, payloadBytes(100)))),
	}
	for name, carry := range nestings() {
		if name[:3] == "ter" {
			continue // known by its whole length, and never longer than 1280 bytes (RFC 4380 section 2.8)
		}
		frame := carry(1, 2, ether(2, 1, 0x0800, ip4(3, 4, 6, 0, tcp(5000, 80, 1, 0x10, false, payloadBytes(100)))))
		whole[name] = frame
	}
	for name, frame := range whole {
		var s fragments
		for id := 1; id < 3; id++ {
			for i, part := range fragmented(frame, id, 80) {
				if s.flowHash(part) != flowHash(frame) {
					t.Errorf("%s: fragment %d parts from its flow", name, i)
				}
				about := ether(1, 9, 0x0800, ip4(9, 1, 1, 0, slices.Concat([]byte{11, 1, 0, 0, 0, 0, 0, 0}, part[14:])))
				if frame[12] == 8 && s.flowHash(about) != flowHash(frame) {
					t.Errorf("%s: an error about fragment %d parts from its flow", name, i)
				}
			}
		}
		for outer, around := range nestings() {
			if outer[:3] == "ter" || frame[12] != 8 {
				continue
			}
			for i, part := range fragmented(frame, 9, 80) {
				if s.flowHash(around(7, 8, part)) != flowHash(frame) {
					t.Errorf("fragment %d of %s in %s parts from its flow", i, name, outer)
				}
			}
		}
	}
}

// Fragments of which the first does not come first stay together, and apart from
// others of the same ends.
func TestFragmentsInAnotherOrderStayTogether(t *testing.T) {
	frame := ether(2, 1, 0x0800, ip4(1, 2, 17, 0, udp(40000, 53, payloadBytes(200))))
	var s fragments
	late := fragmented(frame, 7, 80)
	slices.Reverse(late)
	for i, part := range late {
		if s.flowHash(part) != flowHash(late[0]) {
			t.Errorf("fragment %d parts from the others", i)
		}
	}
	about := ether(1, 9, 0x0800, ip4(9, 1, 1, 0, slices.Concat([]byte{11, 1, 0, 0, 0, 0, 0, 0}, late[0][14:])))
	if s.flowHash(about) != flowHash(late[0]) {
		t.Error("an error about them parts from them")
	}
	if part := fragmented(frame, 8, 80)[0]; s.flowHash(part) != flowHash(frame) {
		t.Error("the next datagram does not go with its flow")
	}
}

// What is quoted only is not remembered, and old datagrams are forgotten.
func TestFragmentsAreForgotten(t *testing.T) {
	frame := ether(2, 1, 0x0800, ip4(1, 2, 17, 0, udp(40000, 53, payloadBytes(100))))
	parts := fragmented(frame, 7, 80)
	var s fragments
	s.flowHash(ether(1, 9, 0x0800, ip4(9, 1, 1, 0, slices.Concat([]byte{11, 1, 0, 0, 0, 0, 0, 0}, parts[0][14:]))))
	if s.begun != 0 {
		t.Error("a quote is remembered")
	}
	s.flowHash(parts[0])
	for id := range maxDatagrams {
		s.flowHash(fragmented(frame, 1000+id, 80)[0])
	}
	if s.flowHash(parts[1]) == flowHash(frame) {
		t.Errorf("a datagram is remembered after %d others", maxDatagrams)
	}
	if n := testing.AllocsPerRun(100, func() { s.flowHash(parts[0]); s.flowHash(parts[1]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestICMPIgnoresTypeAndCode(t *testing.T) {
	request := ether(1, 2, 0x0800, ip4(1, 2, 1, 0, slices.Concat([]byte{8, 0, 0, 0}, payloadBytes(40))))
	reply := ether(2, 1, 0x0800, ip4(2, 1, 1, 0, slices.Concat([]byte{0, 0, 1, 2}, payloadBytes(40))))
	if flowHash(request) != flowHash(reply) {
		t.Error("request and reply part")
	}
}

// TestPortsSpreadEvenly asks chi squared over 1000 source ports for flows that
// differ as little as flows do: neighbouring hosts and ports.
func TestPortsSpreadEvenly(t *testing.T) {
	const flows, ports = 200000, 1000
	e, err := New(Config{PortMin: 60000, PortMax: 60000 + ports - 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name          string
		frame         []byte
		host, srcPort int // offsets of the source address' last byte and the port
	}{{"ipv4", tcp4Frame(30, 1), 29, 34}, {"ipv6", tcp6Frame(30, 1), 37, 54}} {
		var count [ports]int
		for i := range flows {
			tt.frame[tt.host] = byte(i >> 14)
			binary.BigEndian.PutUint16(tt.frame[tt.srcPort:], uint16(1024+i&0x3fff))
			count[e.port(flowHash(tt.frame))-60000]++
		}
		var chi float64
		for _, n := range count {
			d := float64(n) - flows/ports
			chi += d * d / (flows / ports)
		}
		// Mean ports-1, deviation sqrt(2 (ports-1)): five deviations.
		if limit := ports - 1 + 5*math.Sqrt(2*(ports-1)); chi > limit {
			t.Errorf("%s: chi squared %.0f, at most %.0f expected", tt.name, chi, limit)
		}
	}
}

func TestPortRange(t *testing.T) {
	for _, tt := range [][2]uint16{{1, 65535}, {5000, 5000}, {49152, 65535}} {
		e, err := New(Config{PortMin: tt[0], PortMax: tt[1]})
		if err != nil {
			t.Fatal(err)
		}
		if lo, hi := e.port(0), e.port(math.MaxUint64); lo != tt[0] || hi != tt[1] {
			t.Errorf("range %v gives %d to %d", tt, lo, hi)
		}
	}
}

// FuzzFlowPort swaps the two ends of a packet and demands the same port.
func FuzzFlowPort(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), []byte("fedcba9876543210"), uint16(443), uint16(50000), byte(6), byte(0), []byte("payload"))
	f.Add([]byte("0123456789abcdef"), []byte("0123456789abcdef"), uint16(1), uint16(1), byte(17), byte(0x1f), []byte{})
	f.Add([]byte("0123456789abcdef"), []byte("0123456789abcdee"), uint16(0), uint16(9), byte(44), byte(0x83), []byte("x"))
	inside := tcp4Frame(10, 1)
	f.Add([]byte("0123456789abcdef"), []byte("fedcba9876543210"), uint16(0), uint16(0), byte(47), byte(0), slices.Concat(be16(0), be16(0x0800), inside[14:]))
	f.Add([]byte("0123456789abcdef"), []byte("fedcba9876543210"), uint16(0), uint16(0), byte(4), byte(1), inside[14:])
	f.Add([]byte("0123456789abcdef"), []byte("fedcba9876543210"), uint16(0), uint16(0), byte(1), byte(0), slices.Concat([]byte{3, 1, 0, 0, 0, 0, 0, 0}, inside[14:]))
	for _, port := range []uint16{2152, 3544, 4754, 4789, 4790, 6081, 8472} {
		f.Add([]byte("0123456789abcdef"), []byte("fedcba9876543210"), uint16(50000), port, byte(17), byte(0), slices.Concat(be16(100), be16(0), []byte{8, 0, 0, 0, 0, 0, 1, 0}, inside))
	}
	f.Fuzz(func(t *testing.T, a, b []byte, p, q uint16, proto, shape byte, rest []byte) {
		if len(a) < 16 || len(b) < 16 {
			t.Skip()
		}
		build := func(a, b []byte, p, q uint16) []byte {
			l4 := slices.Concat(be16(int(p)), be16(int(q)), rest)
			if !hasPorts(proto) {
				l4 = rest // which may be another packet, the same in both
			}
			etherType, packet := 0x0800, slices.Concat([]byte{0x45, 0}, be16(20+len(l4)), be32(int(shape&0x80)<<6),
				[]byte{64, proto, 0, 0}, a[:4], b[:4], l4)
			if shape&1 != 0 {
				etherType = 0x86dd
				packet = slices.Concat([]byte{0x60, 0, 0, 0}, be16(len(l4)), []byte{proto, 64}, a[:16], b[:16], l4)
			}
			if isExtension(proto) && shape&1 != 0 {
				packet = packet[:40] // ports would be read as an extension header
			}
			frame := slices.Concat(b[:6], a[:6], be16(etherType), packet)
			for range shape >> 1 & 3 {
				frame = vlanTag(frame, int(p))
			}
			return frame
		}
		if x, y := flowHash(build(a, b, p, q)), flowHash(build(b, a, q, p)); x != y {
			t.Fatalf("%x one way, %x the other", x, y)
		}
	})
}
