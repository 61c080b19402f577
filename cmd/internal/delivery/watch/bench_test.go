//go:build linux

package watch

import (
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// taker is a receiver that takes datagrams as a sensor does, 64 at a time, and
// spends some time on each.
type taker struct {
	conn  *net.UDPConn
	spend time.Duration
	count atomic.Uint64
	last  atomic.Int64 // when it took the last, Unix nanoseconds
}

func (s *taker) run() {
	p := ipv4.NewPacketConn(s.conn)
	messages := make([]ipv4.Message, 64)
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, 10_000)}
	}
	for {
		n, err := p.ReadBatch(messages, 0)
		if err != nil {
			return
		}
		for range n {
			spend(s.spend)
		}
		s.count.Add(uint64(n))
		s.last.Store(time.Now().UnixNano())
	}
}

// taken forwards frames into a new taker and returns the rate at which it took
// them, in thousands a second.
func taken(b *testing.B, to testenv.Container, buffer int, each time.Duration, mode Mode, frames uint64) float64 {
	b.Helper()
	s := &taker{spend: each}
	to.Inside(b, func() error { s.conn = testenv.ListenUDP(b, "0.0.0.0:4789", buffer); return nil })
	defer s.conn.Close()
	go s.run()
	start := time.Now()
	rep, doc, err := replayInto(b, netip.AddrPortFrom(to.Addr, 4789), transmit.Packet, routeInto(to), mode, frames)
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%s: %.0f pps sent, stalls %d, %.3f of %.3f s, looks %d", mode, rep.DatagramsPerSecond, rep.Stalls, rep.StalledSeconds, rep.ElapsedSeconds, doc.Seen.Looks)
	if mode != Off && doc.Ledger.Lost > 0 {
		b.Fatal(doc.Ledger.Verdict)
	}
	return float64(s.count.Load()) / float64(time.Unix(0, s.last.Load()).Sub(start).Microseconds()) * 1000
}

// untuned is what a sensor gets that asks for 16 MiB where nobody has raised
// net.core.rmem_max; the kernel doubles it.
const untuned = 208 << 10

// BenchmarkGovernor compares, run by run, the rate at which a receiver takes
// packets while it is governed with that while it is flooded: with a receiver
// that is faster than the sender, and with slower ones.
func BenchmarkGovernor(b *testing.B) {
	for _, bm := range []struct {
		name   string
		buffer int // asked for, bytes; 0: the system's default
		each   time.Duration
		frames uint64
	}{
		{"fast receiver, 16 MiB", 16 << 20, 0, 300_000},
		{"fast receiver, 416 KiB", untuned, 0, 300_000},
		{"fast receiver, 208 KiB", 0, 0, 300_000},
		{"slow receiver, 16 MiB", 16 << 20, 7 * time.Microsecond, 150_000},
		{"slow receiver, 416 KiB", untuned, 7 * time.Microsecond, 150_000},
		{"slower receiver, 416 KiB", untuned, 15 * time.Microsecond, 100_000},
	} {
		b.Run(bm.name, func(b *testing.B) {
			to := testenv.NewContainer(b, 9000)
			var open, governed, ratio []float64
			for b.Loop() {
				o := taken(b, to, bm.buffer, bm.each, Off, bm.frames)
				g := taken(b, to, bm.buffer, bm.each, Auto, bm.frames)
				open, governed, ratio = append(open, o), append(governed, g), append(ratio, g/o)
			}
			b.ReportMetric(median(open), "open_kpps")
			b.ReportMetric(median(governed), "governed_kpps")
			b.ReportMetric(median(ratio), "ratio")
		})
	}
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}
