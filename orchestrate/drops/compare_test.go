package drops

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// hop makes a state of counters: "name role value [again]".
func state(hop Hop, values ...Value) State {
	s := State{Hop: hop, Name: string(hop), Identity: "1", Values: values}
	if order[hop] >= order[HopVeth] && hop != HopSoftnet && order[hop] <= order[HopLogs] || hop == HopProxy {
		s.Sensor, s.Facts.Since = "zeek", time.Unix(1000, 0)
	}
	s.Wide = hop == HopSoftnet || hop == HopHostUDP || hop == HopSender
	s.Lines = hop == HopLogs || hop == HopCollector || hop == HopLoki
	return s
}

func number64(name string, role Role, n uint64) Value {
	return Value{Name: name, Role: role, N: n, Again: n, bits: 64}
}

func number32(name string, role Role, n uint64) Value {
	return Value{Name: name, Role: role, N: n, Again: n, bits: 32}
}

func picture(second int64, states ...State) Picture {
	return Picture{At: time.Unix(2000+second, 0), States: states}
}

func lostAt(r Report) map[Hop]uint64 {
	m := map[Hop]uint64{}
	for _, h := range r.Hops {
		if h.Lost != nil && *h.Lost > 0 {
			m[h.Hop] = *h.Lost
		}
	}
	return m
}

// What the kernel counts several times died once.
func TestEachPacketDiesOnce(t *testing.T) {
	type values = map[Hop][]Value
	rx := func(n uint64) Value { return number64(rxDropped, RoleVain, n) }
	tx := func(n uint64) Value { return number64(txDropped, RoleVain, n) }
	soft := func(n uint32) Value {
		return Value{Name: softDropped, Role: RoleVain, N: uint64(n), bits: 32, cells: []cell{{0, n}}}
	}
	errs := func(n uint64) Value { return number64(inErrors, RoleVain, n) }
	socket := func(n uint64) Value { return number32("0.0.0.0:4789 drops #1", RoleVain, n) }
	for _, tt := range []struct {
		name  string
		grown values
		want  map[Hop]uint64
		total uint64
	}{
		{"in a processor's queue", values{HopVeth: {tx(10)}, HopSoftnet: {soft(10)}, HopDevice: {rx(10)}}, map[Hop]uint64{HopSoftnet: 10}, 10},
		{"in a processor's queue, others' too", values{HopVeth: {tx(10)}, HopSoftnet: {soft(25)}, HopDevice: {rx(10)}}, map[Hop]uint64{HopSoftnet: 10}, 10},
		{"others' only", values{HopVeth: {tx(0)}, HopSoftnet: {soft(25)}, HopDevice: {rx(0)}}, map[Hop]uint64{}, 0},
		{"partly at the device itself", values{HopVeth: {tx(15)}, HopSoftnet: {soft(10)}, HopDevice: {rx(15)}}, map[Hop]uint64{HopSoftnet: 10, HopDevice: 5}, 15},
		{"on lo and at the sensor", values{HopLoopback: {rx(4)}, HopVeth: {tx(6)}, HopSoftnet: {soft(10)}, HopDevice: {rx(6)}}, map[Hop]uint64{HopSoftnet: 10}, 10},
		{"at the veth alone", values{HopVeth: {tx(3)}, HopSoftnet: {soft(0)}, HopDevice: {rx(0)}}, map[Hop]uint64{HopVeth: 3}, 3},
		{"at the socket", values{HopUDP: {errs(7)}, HopSocket: {socket(7)}}, map[Hop]uint64{HopSocket: 7}, 7},
		{"at the socket and elsewhere in UDP", values{HopUDP: {errs(9), number64(noPorts, RoleVain, 2)}, HopSocket: {socket(7)}}, map[Hop]uint64{HopUDP: 4, HopSocket: 7}, 11},
		{"at docker-proxy's socket", values{HopHostUDP: {errs(30)}, HopProxy: {socket(30)}}, map[Hop]uint64{HopProxy: 30}, 30},
		{"at somebody else's socket", values{HopHostUDP: {errs(30)}, HopProxy: {socket(0)}}, map[Hop]uint64{HopHostUDP: 30}, 0},
	} {
		var before, after []State
		for hop, grown := range tt.grown {
			zero := slices.Clone(grown)
			for i := range zero {
				zero[i].N, zero[i].Again = 0, 0
				if zero[i].cells != nil {
					zero[i].cells = []cell{{0, 0}}
				}
			}
			before, after = append(before, state(hop, zero...)), append(after, state(hop, grown...))
		}
		r := Compare(picture(0, before...), picture(1, after...))
		got := lostAt(r)
		if len(got) != len(tt.want) || r.Lost != tt.total {
			t.Errorf("%s: %v, %d in all; want %v, %d", tt.name, got, r.Lost, tt.want, tt.total)
		}
		for hop, n := range tt.want {
			if got[hop] != n {
				t.Errorf("%s: %d at %s, want %d", tt.name, got[hop], hop, n)
			}
		}
	}
}

// Counters are read one after the other while packets go on dying. What one
// shows that another cannot show yet is not taken for a death of its own.
func TestReadingTakesTime(t *testing.T) {
	errs := func(n, again uint64) Value {
		return Value{Name: inErrors, Role: RoleVain, N: n, Again: again, bits: 64}
	}
	// At first 100 had died when UDP was read, 103 when the socket was, 105 at
	// the end; then 200, 201, 204.
	before := picture(0, state(HopUDP, errs(100, 105)), state(HopSocket, number32("drops #1", RoleVain, 103)))
	after := picture(1, state(HopUDP, errs(200, 204)), state(HopSocket, number32("drops #1", RoleVain, 201)))
	if r := Compare(before, after); r.Lost != 98 || r.Culprit.Hop != HopSocket {
		t.Errorf("%d lost: %v", r.Lost, lostAt(r))
	}
}

func TestCountersThatAreNotSteady(t *testing.T) {
	for _, tt := range []struct {
		name          string
		before, after Value
		anew          bool
		grown         uint64
		note          string
	}{
		{"steady", number32("x", RoleLost, 5), number32("x", RoleLost, 9), false, 4, ""},
		{"wrapped", number32("x", RoleLost, 1<<32-3), number32("x", RoleLost, 4), false, 7, "x wrapped at 32 bits"},
		{"32 bits, but began anew", number32("x", RoleLost, 5000), number32("x", RoleLost, 4), false, 4, "x began anew"},
		{"64 bits do not wrap", number64("x", RoleLost, 1<<32-3), number64("x", RoleLost, 4), false, 4, "x began anew"},
		{"another container", number64("x", RoleLost, 3), number64("x", RoleLost, 4), true, 4, "began anew"},
		{"a processor wrapped", Value{Name: "x", Role: RoleLost, N: 1<<32 + 4, cells: []cell{{0, 1<<32 - 1}, {3, 5}}},
			Value{Name: "x", Role: RoleLost, N: 7, cells: []cell{{0, 1}, {3, 6}}}, false, 3, "x of CPU 0 wrapped"},
		{"a processor came online", Value{Name: "x", Role: RoleLost, N: 4, cells: []cell{{0, 4}}},
			Value{Name: "x", Role: RoleLost, N: 1005, cells: []cell{{0, 5}, {1, 1000}}}, false, 1, "CPU 1 came online"},
	} {
		a, b := state(HopIP, tt.before), state(HopIP, tt.after)
		if tt.anew {
			b.Identity = "2"
		}
		h := Compare(picture(0, a), picture(2, b)).Hops[0]
		if *h.Lost != tt.grown || !strings.HasPrefix(strings.Join(h.Notes, ";"), tt.note) || tt.note == "" && len(h.Notes) > 0 {
			t.Errorf("%s: %d, notes %q", tt.name, *h.Lost, h.Notes)
		}
		if *h.PerSec != float64(tt.grown)/2 {
			t.Errorf("%s: %v a second", tt.name, *h.PerSec)
		}
	}
}

// What could not be read is not known; it is never 0.
func TestNotKnown(t *testing.T) {
	dark := state(HopSocket)
	dark.Unknown = []Unknown{{"sockets", "no light"}}
	lit := state(HopSocket, number32("drops #1", RoleVain, 5))
	other := state(HopSocket, number32("drops #2", RoleVain, 6))
	for _, tt := range []struct {
		name          string
		before, after State
		lost          int
		why           string
	}{
		{"never seen", dark, dark, -1, "no light"},
		{"not seen before", dark, lit, -1, "it was not known before"},
		{"not seen any more", lit, dark, -1, "no light"},
		{"another socket instead", lit, other, 6, "it was there before and is gone"},
	} {
		r := Compare(picture(0, tt.before), picture(1, tt.after))
		h := r.Hops[0]
		if (h.Lost == nil) != (tt.lost < 0) || h.Lost != nil && int(*h.Lost) != tt.lost {
			t.Errorf("%s: lost %v", tt.name, h.Lost)
		}
		if !slices.ContainsFunc(h.Unknown, func(u Unknown) bool { return u.Why == tt.why }) {
			t.Errorf("%s: not known: %v", tt.name, h.Unknown)
		}
		if tt.lost < 0 && (r.Verdict != VerdictUnknown || !strings.Contains(r.Sentence, "not known: socket")) {
			t.Errorf("%s: %s", tt.name, r.Sentence)
		}
	}
}

// Missed bytes without a loss are told apart from those with one, by arithmetic.
func TestReordering(t *testing.T) {
	logs := func(connections, bytes, fresh uint64) State {
		return state(HopLogs, number64("connections with missed bytes", RoleSign, connections), number64("missed bytes", RoleSign, bytes), number64("fresh", RoleSign, fresh))
	}
	// So many came to the sensor so far, so many to UDP of the host, and so many died at the sensor's socket.
	type so struct{ came, host, dropped uint64 }
	way := func(n so, l State) []State {
		return []State{state(HopHostUDP, number64(inDatagrams, RoleIn, n.host)), state(HopDevice, number64("rx_packets", RoleIn, n.came), number64(rxDropped, RoleVain, 0)), state(HopIP, number64(reasmFails, RoleLost, 0)),
			state(HopUDP, number64(inDatagrams, RoleIn, n.came), number64(inErrors, RoleVain, n.dropped), number64("UdpRcvbufErrors", RolePart, n.dropped)),
			state(HopSocket, number64(inDatagrams, RoleIn, n.came), number32("drops #1", RoleVain, n.dropped)), l}
	}
	proxied := func(n, dropped uint64) so { return so{n, n, dropped} }
	direct := func(n, dropped uint64) so { return so{n, n / 20, dropped} } // and a name that was asked for
	none := logs(0, 0, 0)
	const order = "packets came in another order than they were sent"
	for _, tt := range []struct {
		name           string
		first, a, b    []State
		want           Verdict
		sentence, cure string
	}{
		{"nothing lost, by docker-proxy", nil, way(proxied(100, 0), none), way(proxied(200, 0), logs(3, 14713, 0)), VerdictReordered, "3 connections miss 14713 bytes: so " + order, ""},
		{"nothing lost, and past it", nil, way(direct(100, 0), none), way(direct(200, 0), logs(3, 14713, 0)), VerdictMissed, "took fewer than half as many packets as came to the sensor: the capture itself has gaps, or", ""},
		{"logged when nothing comes any more", nil, way(proxied(100, 0), none), way(proxied(100, 0), logs(3, 14713, 0)), VerdictMissed, "which of these is not known", ""},
		{"but seen from the beginning, by docker-proxy", way(proxied(0, 0), none), way(proxied(100, 0), none), way(proxied(100, 0), logs(3, 14713, 3)), VerdictReordered, order, ""},
		{"or past it", way(direct(0, 0), none), way(direct(100, 0), none), way(direct(100, 0), logs(3, 14713, 3)), VerdictMissed, "fewer than half", ""},
		{"and not seen from the beginning", way(proxied(50, 0), none), way(proxied(100, 0), none), way(proxied(100, 0), logs(3, 14713, 2)), VerdictMissed, "which of these is not known", ""},
		{"a line that came between two questions", way(proxied(0, 0), none), way(proxied(100, 0), logs(2, 14713, 3)), way(proxied(100, 0), logs(3, 14713, 3)), VerdictReordered, order, ""},
		{"UDP of the host unseen", nil, way(proxied(100, 0), none)[1:], way(proxied(200, 0), logs(3, 14713, 0))[1:], VerdictMissed, "which of these is not known", ""},
		{"lost meanwhile", nil, way(proxied(100, 0), none), way(proxied(100, 8), logs(3, 14713, 0)), VerdictLost, "8 packets lost in 1s", "--lossless require"},
		{"lost before", nil, way(proxied(100, 8), none), way(proxied(200, 8), logs(1, 10, 0)), VerdictMissed, "1 connection misses 10 bytes that were logged in 1s; nothing was lost in that time, but 8 packets before", ""},
		{"lost before, but these connections are younger", way(proxied(0, 8), none), way(proxied(100, 8), logs(2, 9, 0)), way(proxied(100, 8), logs(4, 20, 2)), VerdictReordered, "2 connections miss 11 bytes", ""},
		{"lost before, these connections are younger and came past docker-proxy", way(direct(0, 8), none), way(direct(100, 8), logs(2, 9, 0)), way(direct(100, 8), logs(4, 20, 2)), VerdictMissed, "fewer than half", ""},
		{"lost before, and while these connections lived", way(proxied(0, 7), none), way(proxied(100, 8), logs(2, 9, 0)), way(proxied(100, 8), logs(4, 20, 2)), VerdictMissed, "1", ""},
		{"some of them older", way(proxied(0, 8), none), way(proxied(100, 8), logs(2, 9, 0)), way(proxied(100, 8), logs(4, 20, 1)), VerdictMissed, "8 packets before", ""},
		{"nothing missed", nil, way(proxied(100, 0), logs(5, 5, 0)), way(proxied(100, 0), logs(5, 5, 0)), VerdictIdle, "no packet came", ""},
	} {
		b := picture(1, tt.b...)
		if tt.first != nil {
			first := picture(-5, tt.first...)
			b.first = &first
		}
		r := Compare(picture(0, tt.a...), b)
		if r.Verdict != tt.want || !strings.Contains(r.Sentence, tt.sentence) {
			t.Errorf("%s: %s: %s", tt.name, r.Verdict, r.Sentence)
		}
		if tt.cure != "" && !strings.Contains(r.Culprit.Cure, tt.cure) {
			t.Errorf("%s: cure %s", tt.name, r.Culprit.Cure)
		}
		if reason, cure := r.Why(); r.Verdict == VerdictMissed && reason+cure != "" || r.Verdict != VerdictReordered && strings.Contains(r.Sentence, order) {
			t.Errorf("%s: %s\nwhy: %s, cure: %s", tt.name, r.Sentence, reason, cure)
		}
	}
	// Of all that was counted since the machine started nobody knows what passed docker-proxy.
	p := picture(1, way(proxied(200, 0), logs(3, 14713, 3))...)
	if r := Compare(Origin(p), p); r.Verdict != VerdictMissed || !strings.Contains(r.Sentence, "not known") {
		t.Errorf("since the start: %s: %s", r.Verdict, r.Sentence)
	}
}

// Since the start: what a sensor's own counters say counts from its start on;
// what is older than the sensors is not blamed.
func TestSinceStart(t *testing.T) {
	p := picture(10, state(HopLoopback, number64(rxDropped, RoleVain, 50)), state(HopBridge, number64(txDropped, RoleVain, 2)),
		state(HopUDP, number64(inErrors, RoleVain, 9)), state(HopSocket, number64(inDatagrams, RoleIn, 991), number32("drops #1", RoleVain, 9)))
	r := Compare(Origin(p), p)
	if r.Lost != 9 || r.Culprit.Hop != HopSocket || !r.SinceStart || r.Seconds != 1010 || !strings.HasPrefix(r.Sentence, "9 packets lost since the sensors started") {
		t.Errorf("%+v", r)
	}
	if *r.hop(HopSocket, "zeek").In != 1000 {
		t.Errorf("%d came", *r.hop(HopSocket, "zeek").In)
	}
}

// Loki refuses one line and stores the others of the same request; the collector
// counts all as failed.
func TestOneLineIsRefused(t *testing.T) {
	lines := func(second int64, accepted, sent, failed, received, discarded uint64) Picture {
		return picture(second,
			state(HopCollector, number64("accepted", RoleIn, accepted), number64("failed", RoleLost, failed), number64(collectorSent, RoleSign, sent)),
			state(HopLoki, number64("received", RoleIn, received), number64("discarded", RoleLost, discarded)))
	}
	before := lines(0, 100, 100, 0, 100, 0)
	for _, tt := range []struct {
		name            string
		after           Picture
		collector, loki uint64
	}{
		{"one of thirty", lines(2, 130, 100, 30, 130, 1), 0, 1},
		{"one of thirty, and seven that Loki never saw", lines(2, 137, 100, 37, 130, 1), 7, 1},
		{"one of thirty, and ten delivered", lines(2, 140, 110, 30, 140, 1), 0, 1},
		{"none refused: what failed is lost", lines(2, 130, 100, 30, 130, 0), 30, 0},
	} {
		r := Compare(before, tt.after)
		if c, l := r.hop(HopCollector, ""), r.hop(HopLoki, ""); *c.Lost != tt.collector || *l.Lost != tt.loki || r.LostLines != tt.collector+tt.loki {
			t.Errorf("%s: the collector lost %d, Loki %d, together %d", tt.name, *c.Lost, *l.Lost, r.LostLines)
		}
	}
}
