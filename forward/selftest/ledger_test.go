package selftest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/zeekdemo/zeekdemo/forward"
)

func TestLedger(t *testing.T) {
	type pair struct {
		hash uint64
		port uint16
	}
	type counts struct{ lost, twice, order, unknown, split uint64 }
	tests := []struct {
		name    string
		sent    []pair
		arrived []uint64 // hashes
		want    counts
	}{
		{"all in order", []pair{{1, 9}, {2, 9}, {3, 8}}, []uint64{1, 2, 3}, counts{}},
		{"flows may overtake each other", []pair{{1, 9}, {2, 8}, {3, 9}, {4, 8}}, []uint64{2, 4, 1, 3}, counts{}},
		{"one late", []pair{{1, 9}, {2, 9}, {3, 9}}, []uint64{2, 3, 1}, counts{order: 1}},
		{"reversed", []pair{{1, 9}, {2, 9}, {3, 9}}, []uint64{3, 2, 1}, counts{order: 2}},
		{"equal ones in order", []pair{{1, 9}, {1, 9}, {1, 9}}, []uint64{1, 1, 1}, counts{}},
		{"one of three equal ones lost", []pair{{1, 9}, {1, 9}, {1, 9}}, []uint64{1, 1}, counts{lost: 1}},
		{"a lost one does not make its later equal late", []pair{{1, 9}, {2, 9}, {1, 9}}, []uint64{2, 1}, counts{lost: 1}},
		{"twice", []pair{{1, 9}, {2, 9}}, []uint64{1, 1, 2}, counts{twice: 1}},
		{"three times", []pair{{1, 9}}, []uint64{1, 1, 1}, counts{twice: 2}},
		{"unknown", []pair{{1, 9}}, []uint64{5}, counts{lost: 1, unknown: 1}},
		{"nothing", []pair{{1, 9}, {2, 8}}, nil, counts{lost: 2}},
	}
	for _, tt := range tests {
		l := newLedger()
		for _, p := range tt.sent {
			l.expect(p.hash, p.port)
		}
		for _, hash := range tt.arrived {
			l.arrive(hash, 1000, 10)
		}
		got := counts{l.missing().count, l.duplicated.count, l.reordered.count, l.unknown.count, l.split.count}
		if got != tt.want {
			t.Errorf("%s: found %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestLedgerTakesBack(t *testing.T) {
	l := newLedger()
	for _, hash := range []uint64{1, 2, 1} {
		l.expect(hash, 9)
	}
	l.retract(1)
	l.retract(2)
	if l.sent != 1 || l.missing() != (finding{1, 1}) {
		t.Errorf("%d sent, missing %+v", l.sent, l.missing())
	}
	l.arrive(1, 1000, 10)
	l.retract(1) // has arrived all the same: stays
	if l.sent != 1 || len(l.onWay) != 0 {
		t.Errorf("%d sent, %d on the way", l.sent, len(l.onWay))
	}
}

func TestHistoryForgets(t *testing.T) {
	h := newHistory(3)
	for _, hash := range []uint64{1, 2, 1, 3} { // the first 1 falls out, the second stays
		h.add(hash)
	}
	if !h.has(1) || !h.has(2) || !h.has(3) {
		t.Error("forgot too early")
	}
	h.add(4)
	h.add(5)
	if h.has(1) || h.has(2) || !h.has(3) || len(h.count) != 3 {
		t.Errorf("remembers %v", h.count)
	}
}

func batchOf(lengths ...int) *forward.Batch {
	b := new(forward.Batch)
	for _, n := range lengths {
		b.Datagrams = append(b.Datagrams, forward.Datagram{Len: n})
	}
	return b
}

func TestWindow(t *testing.T) {
	w := newWindow(0)
	w.limit = 3 * kernelMemory(100)
	ctx := t.Context()
	reserve := func(b *forward.Batch) int {
		t.Helper()
		grant, err := w.Reserve(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		return grant.Datagrams
	}
	if n := reserve(batchOf(100, 100)); n != 2 {
		t.Errorf("granted %d of 2", n)
	}
	if n := reserve(batchOf(100, 100)); n != 1 {
		t.Errorf("granted %d where one fits", n)
	}
	w.Sent(batchOf(100), 0) // was not sent: fits again, without waiting
	if n := reserve(batchOf(100)); n != 1 {
		t.Errorf("granted %d after a failure", n)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	select { // the failure's wake-up
	case <-w.wake:
	default:
	}
	if _, err := w.Reserve(cancelled, batchOf(100)); !errors.Is(err, context.Canceled) {
		t.Errorf("a full window, interrupted: %v", err)
	}
	w.arrived(3, 3*kernelMemory(100))
	if n := reserve(batchOf(60000, 1)); n != 1 {
		t.Errorf("granted %d of one that is larger than the window and another", n)
	}
}

// However large the buffer is, the queues before it are not.
func TestWindowCountsDatagrams(t *testing.T) {
	w := newWindow(1 << 30)
	grant, err := w.Reserve(t.Context(), batchOf(make([]int, maxOnWay+5)...))
	if err != nil || grant.Datagrams != maxOnWay {
		t.Errorf("grant %+v, %v", grant, err)
	}
}

func TestWindowWaitsForArrivals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(0)
		w.limit = kernelMemory(100)
		if _, err := w.Reserve(t.Context(), batchOf(100)); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(5*time.Millisecond, func() { w.arrived(1, kernelMemory(100)) })
		grant, err := w.Reserve(t.Context(), batchOf(100))
		if err != nil || grant.Datagrams != 1 || grant.Stalled != 5*time.Millisecond {
			t.Errorf("grant %+v, %v", grant, err)
		}
	})
}

// Every checksum and length is right, and stays right with every number; no two
// frames are equal.
func TestSyntheticFramesAreSound(t *testing.T) {
	source, err := NewSynthetic(3 * templates)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	kinds := map[gopacket.LayerType]int{}
	var f forward.Frame
	for n := 0; source.Next(&f) == nil; n++ {
		if len(f.Data) < minFrame || len(f.Data) > maxFrame || f.Length != len(f.Data) || f.Loop != n/templates {
			t.Fatalf("frame %d: %d bytes, loop %d", n, len(f.Data), f.Loop)
		}
		if seen[string(f.Data)] {
			t.Fatalf("frame %d has been there before", n)
		}
		seen[string(f.Data)] = true
		packet := gopacket.NewPacket(f.Data, layers.LayerTypeEthernet, gopacket.Default)
		if e := packet.ErrorLayer(); e != nil {
			t.Fatalf("frame %d: %v", n, e.Error())
		}
		if l, ok := packet.TransportLayer().(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			_ = l.SetNetworkLayerForChecksum(packet.NetworkLayer())
		}
		if l, ok := packet.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok {
			_ = l.SetNetworkLayerForChecksum(packet.NetworkLayer())
		}
		if err, bad := packet.VerifyChecksums(); err != nil || len(bad) > 0 {
			t.Fatalf("frame %d: checksums %v, %v", n, bad, err)
		}
		for _, layer := range packet.Layers() {
			kinds[layer.LayerType()]++
		}
	}
	for _, kind := range []gopacket.LayerType{layers.LayerTypeIPv4, layers.LayerTypeIPv6, layers.LayerTypeTCP, layers.LayerTypeUDP,
		layers.LayerTypeICMPv4, layers.LayerTypeICMPv6} {
		if kinds[kind] < templates/10 {
			t.Errorf("%d frames with %v", kinds[kind], kind)
		}
	}
}

func TestMemoryDoesNotAllocate(t *testing.T) {
	source, err := NewSynthetic(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	var f forward.Frame
	if n := testing.AllocsPerRun(1000, func() { _ = source.Next(&f) }); n != 0 {
		t.Errorf("%v allocations per frame", n)
	}
}
