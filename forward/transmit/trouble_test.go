package transmit

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

func TestKindOfComplaint(t *testing.T) {
	for _, test := range []struct {
		six        bool
		kind, code uint8
		want       TroubleKind
	}{
		{false, 3, 0, NetworkUnreachable}, {false, 3, 1, HostUnreachable}, {false, 3, 2, PortUnreachable}, {false, 3, 3, PortUnreachable},
		{false, 3, 4, TooBig}, {false, 3, 9, Prohibited}, {false, 3, 13, Prohibited}, {false, 3, 200, HostUnreachable},
		{false, 11, 0, TimeExceeded}, {false, 11, 1, TimeExceeded}, {false, 12, 0, HostUnreachable},
		{true, 1, 0, NetworkUnreachable}, {true, 1, 1, Prohibited}, {true, 1, 3, HostUnreachable}, {true, 1, 4, PortUnreachable},
		{true, 2, 0, TooBig}, {true, 3, 0, TimeExceeded}, {true, 4, 1, PortUnreachable}, {true, 4, 0, HostUnreachable},
	} {
		t.Run(fmt.Sprintf("%v,%d,%d", test.six, test.kind, test.code), func(t *testing.T) {
			if got := kindOf(sys.Complaint{Six: test.six, Type: test.kind, Code: test.code}); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func TestTroublesAddUp(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	var list troubles
	for _, from := range []netip.Addr{a, b, a} {
		list.note(PortUnreachable, from)
	}
	list.note(LinkDown, netip.Addr{})
	s := Stats{Datagrams: 3, Troubles: list.snapshot(), Fallbacks: []Fallback{{Path: "x"}}}
	sum := s.Add(s)
	if sum.Datagrams != 6 || len(sum.Troubles) != 3 || sum.Troubles[0] != (Trouble{Kind: PortUnreachable, Count: 4, From: a}) || len(sum.Fallbacks) != 1 {
		t.Errorf("twice %+v is %+v", s, sum)
	}
	if s.Troubles[0].Count != 2 {
		t.Errorf("adding changed what was added: %+v", s)
	}
	if lost := sum.Lost(); len(lost) != 2 || slices.ContainsFunc(lost, func(t Trouble) bool { return t.Kind == LinkDown }) {
		t.Errorf("lost: %v", lost)
	}
}

// TestTroublesAreBounded lets complaints come from many addresses.
func TestTroublesAreBounded(t *testing.T) {
	var list troubles
	from := netip.MustParseAddr("192.0.2.1")
	for range 1000 {
		list.note(PortUnreachable, from)
		from = from.Next()
	}
	if n := len(list.snapshot()); n > maxTroubles+1 || list.count(PortUnreachable) != 1000 {
		t.Errorf("%d entries count %d", n, list.count(PortUnreachable))
	}
}

func TestTroubleInWords(t *testing.T) {
	for _, test := range []struct {
		trouble Trouble
		want    string
	}{
		{Trouble{Kind: PortUnreachable, Count: 3, From: netip.MustParseAddr("192.0.2.1")}, "nobody listens at the port, or a firewall rejects the datagrams (said 3 times by 192.0.2.1)"},
		{Trouble{Kind: NeighbourSilent, Count: 1}, "the neighbour does not answer (said once)"},
		{Trouble{Kind: Filtered, Count: 2}, "a packet filter of this machine refused for a while (met 2 times)"},
		{Trouble{Kind: WayLost, Count: 1}, "the way was lost for a while (met once)"},
		{Trouble{Kind: OwnQueue, Count: 7, Device: "eth0"}, "the queue of eth0 dropped at least 7 packets"},
		{Trouble{Kind: SharedQueue, Count: 7, Device: "eth0"}, "the queue of eth0 dropped 7 packets meanwhile, ours or others'"},
	} {
		if got := test.trouble.String(); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

// TestIdentities checks that each slot's stay its own, whole runs of them too,
// and that they start anywhere.
func TestIdentities(t *testing.T) {
	for _, six := range []bool{false, true} {
		starts := make(map[uint32]bool)
		for slot := range slots {
			size := uint32(1) << 13
			if six {
				size = 1 << 29
			}
			i := newIdentities(slot, six)
			starts[i.next] = true
			if i.next = size - 100; i.take(64) != uint32(slot)*size+size-100 {
				t.Errorf("slot %d: a run that fits does not begin where the last one ended", slot)
			}
			for range 3 {
				if first := i.take(64); first/size != uint32(slot) || (first+63)/size != uint32(slot) {
					t.Errorf("slot %d: run from %d", slot, first)
				}
			}
		}
		if len(starts) < 3 {
			t.Errorf("six %v: starts %v", six, starts)
		}
	}
	if i := newIdentities(noSlot, false); i.take(1) > 0xffff {
		t.Error("not 16 bits")
	}
}
