//go:build linux

package watch

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate/sockets"
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

// cluster runs the stand-in for Zeek with so many workers in a container, by process 1
// of a sensor, and waits until all listen. Each takes a packet every delay at most; 0
// is as fast as it can.
func cluster(b *testing.B, c testenv.Container, workers int, delay time.Duration) *sockets.Watch {
	b.Helper()
	dir, logs := standIn(b), b.TempDir()
	script, err := os.ReadFile("../../../../assets/stack/zeek/sensor.sh")
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", string(script), "sensor", "zeek", "-i", "udp::0.0.0.0:4789:vxlan", "local", "-e",
		"redef PacketSource::UDP::udp_recv_buffer_size = 33554432;\nredef PacketSource::UDP::recvmmsg_buffer_size = 65535;")
	cmd.Dir = logs
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "TMPDIR="+dir, "ZEEK_STANDIN_IDLE=1h",
		"ZEEK_STANDIN_DELAY="+delay.String(), "SENSOR_WORKERS="+strconv.Itoa(workers))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Inside(b, cmd.Start)
	b.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		w, err := sockets.Open(sockets.Place{Path: c.Path()}, netip.MustParseAddrPort("0.0.0.0:4789"), sockets.AsksForMuch)
		if err != nil {
			continue
		}
		if list, err := w.Read(nil); err == nil && len(list) == workers {
			b.Cleanup(func() { w.Close() })
			return w
		}
		w.Close()
	}
	b.Fatalf("no %d workers listen", workers)
	return nil
}

// standIn builds the programs of the stand-in for Zeek's image.
func standIn(b *testing.B) (folder string) {
	b.Helper()
	folder = b.TempDir()
	cmd := exec.Command("go", "build", "-C", "../../../../testdata/images", "-o", filepath.Join(folder, "zeek"), "./zeek-standin")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	layout := "#!/bin/sh\nexec zeek --standin-cluster-layout \"$@\"\n"
	if err := os.WriteFile(filepath.Join(folder, "zeek-cluster-layout-generator"), []byte(layout), 0o755); err != nil {
		b.Fatal(err)
	}
	return folder
}

// lookTime is how long the governor's look at the sockets takes, with what it costs to
// see how much was taken: the shortest mean of several, for whatever else runs here makes
// it longer.
func lookTime(b *testing.B, w *sockets.Watch) time.Duration {
	b.Helper()
	const batches, looks = 20, 500
	buf := make([]sockets.Socket, 0, 16)
	best := time.Hour
	for range batches {
		start := time.Now()
		for range looks {
			_, err := w.Read(buf)
			if _, err2 := w.Taken(); err != nil || err2 != nil {
				b.Fatal(err, err2)
			}
		}
		best = min(best, time.Since(start)/looks)
	}
	return best
}

// BenchmarkWorkers is the rate at which a cluster takes packets without loss, by the
// number of its workers, each slowed to a rate of its own; and what looking at their
// sockets costs the sender, as a share of its time.
func BenchmarkWorkers(b *testing.B) {
	for _, bm := range []struct {
		workers int
		delay   time.Duration
		frames  uint64
	}{
		{1, 50 * time.Microsecond, 60_000}, {2, 50 * time.Microsecond, 120_000},
		{3, 50 * time.Microsecond, 180_000}, {4, 50 * time.Microsecond, 240_000}, {8, 50 * time.Microsecond, 480_000},
		{1, 0, 400_000}, {8, 0, 400_000},
	} {
		b.Run(fmt.Sprintf("%d workers, %v a packet", bm.workers, bm.delay), func(b *testing.B) {
			to := testenv.NewContainer(b, 9000)
			look := lookTime(b, cluster(b, to, bm.workers, bm.delay))
			var rates, shares []float64
			for b.Loop() {
				start := time.Now()
				_, doc, err := replayInto(b, netip.AddrPortFrom(to.Addr, 4789), transmit.Packet, routeInto(to), Auto, bm.frames)
				took := time.Since(start)
				if err != nil || doc.Ledger.Lost > 0 {
					b.Fatal(err, doc.Ledger)
				}
				rates = append(rates, float64(bm.frames)/took.Seconds()/1000)
				shares = append(shares, 100*float64(doc.Seen.Looks)*look.Seconds()/took.Seconds())
			}
			b.ReportMetric(median(rates), "kpps")
			b.ReportMetric(float64(look.Nanoseconds())/1000, "us/look")
			b.ReportMetric(median(shares), "%looking")
		})
	}
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}
