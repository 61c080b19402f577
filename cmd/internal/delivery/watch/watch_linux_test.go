package watch

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/selftest"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate/sockets"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// reader is a receiver with its own manners.
type reader struct {
	conn  *net.UDPConn
	count atomic.Uint64
}

// read takes datagrams until the socket is closed; before each it calls manners
// with how many there have been.
func (r *reader) read(manners func(n uint64)) {
	buf := make([]byte, 1<<16)
	for {
		manners(r.count.Load())
		if _, err := r.conn.Read(buf); err != nil {
			return
		}
		r.count.Add(1)
	}
}

func readers(t *testing.T, b testenv.Container, n, buffer int, manners func(n uint64)) []*reader {
	t.Helper()
	var list []*reader
	b.Inside(t, func() error {
		for range n {
			list = append(list, &reader{conn: testenv.ListenUDP(t, "0.0.0.0:4789", buffer)})
		}
		return nil
	})
	var all sync.WaitGroup
	for _, r := range list {
		all.Go(func() { r.read(manners) })
	}
	t.Cleanup(func() {
		for _, r := range list {
			r.conn.Close()
		}
		all.Wait()
	})
	return list
}

// routeInto is the way into a container of a test.
func routeInto(b testenv.Container) Route {
	return Route{Sensor: sockets.Place{Path: b.Path()}, Port: 4789}
}

// replayInto forwards n synthetic frames over the given way.
func replayInto(t testing.TB, to netip.AddrPort, mode transmit.Mode, rt Route, lossless Mode, n uint64) (forward.Report, Account, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return forwardInto(ctx, t, to, mode, rt, lossless, n, func(*Watch) {})
}

// forwardInto is replayInto until ctx ends; prepare is given the watch before
// anything is sent.
func forwardInto(ctx context.Context, t testing.TB, to netip.AddrPort, mode transmit.Mode, rt Route, lossless Mode, n uint64, prepare func(*Watch)) (forward.Report, Account, error) {
	t.Helper()
	source, err := selftest.NewSynthetic(n)
	if err != nil {
		t.Fatal(err)
	}
	encapsulator, err := encap.New(encap.Config{Kind: encap.VXLAN, VNI: 7})
	if err != nil {
		t.Fatal(err)
	}
	tx, err := transmit.Open(context.WithoutCancel(ctx), transmit.Options{Destination: to, Mode: mode, Kind: encap.VXLAN})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	w, err := rt.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.By(tx)
	prepare(w)
	stats := &forward.Stats{}
	doc, err := Forward(ctx, forward.Pipeline{Source: source, Encapsulator: encapsulator, Sink: tx, Pacer: pace.Max(), Clock: pace.NewClock(), Stats: stats},
		transmit.CPUAuto, lossless, w, "")
	return stats.Snapshot(), doc, err
}

func spend(d time.Duration) {
	for start := time.Now(); time.Since(start) < d; {
	}
}

// heavy skips a test that keeps the kernel busy for seconds where only a glance
// is wanted.
func heavy(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: hundreds of thousands of packets; runs without -short")
	}
}

// Whatever the manners of who reads, nothing is lost.
func TestNothingIsLostInTheKernel(t *testing.T) {
	heavy(t)
	slow := func(uint64) { spend(15 * time.Microsecond) }
	tests := []struct {
		name    string
		mode    transmit.Mode
		sockets int
		buffer  int // 0: untuned
		frames  uint64
		manners func(uint64)
	}{
		{"fast reader", transmit.Packet, 1, buffer16MiB, 60_000, func(uint64) {}},
		{"slow reader, untuned", transmit.Packet, 1, 0, 30_000, slow},
		{"slow reader, by UDP", transmit.UDP, 1, 0, 30_000, slow},
		{"tiny buffer", transmit.Packet, 1, 1, 2000, slow},
		{"tiny buffer, by UDP", transmit.UDP, 1, 1, 2000, slow},
		{"huge buffer", transmit.Packet, 1, 32 << 20, 60_000, slow},
		{"pauses", transmit.Packet, 1, 0, 20_000, func(n uint64) {
			if n%8000 == 4000 {
				time.Sleep(1500 * time.Millisecond)
			}
		}},
		{"eight sockets", transmit.Packet, 8, 0, 40_000, func(n uint64) {
			if n%500 == 0 {
				time.Sleep(3 * time.Millisecond)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := testenv.NewContainer(t, 9000)
			list := readers(t, b, tt.sockets, tt.buffer, tt.manners)
			report, doc, err := replayInto(t, netip.AddrPortFrom(b.Addr, 4789), tt.mode, routeInto(b), Auto, tt.frames)
			if err != nil {
				t.Fatal(err)
			}
			var got uint64
			for _, r := range list {
				got += r.count.Load()
			}
			l := doc.Ledger
			if got != tt.frames || l.Taken != tt.frames || l.Lost != 0 || doc.Result() != nil || report.DatagramsSent != tt.frames || len(doc.Sockets) != tt.sockets {
				t.Errorf("%d of %d arrived; %+v; sockets %+v", got, tt.frames, *l, doc.Sockets)
			}
			t.Logf("%.0f pps, %.3f s of %.3f s stalled, %+v", report.DatagramsPerSecond, report.StalledSeconds, report.ElapsedSeconds, *doc.Seen)
		})
	}
}

const buffer16MiB = 16 << 20

// Through a proxy with a small buffer there are two queues, and neither
// overflows.
func TestNothingIsLostBehindAProxy(t *testing.T) {
	heavy(t)
	t.Parallel()
	b := testenv.NewContainer(t, 9000)
	list := readers(t, b, 1, 0, func(n uint64) {
		if n%5000 == 2500 {
			time.Sleep(300 * time.Millisecond)
		}
	})
	proxy := testenv.ListenUDP(t, "127.0.0.1:0", 0)
	out, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.Addr, 4789)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	go func() {
		for buf := make([]byte, 1<<16); ; {
			n, err := proxy.Read(buf)
			if err != nil {
				return
			}
			if _, err := out.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	rt := routeInto(b)
	rt.Proxy = proxy.LocalAddr().(*net.UDPAddr).AddrPort()
	const n = 30_000
	report, doc, err := replayInto(t, rt.Proxy, transmit.UDP, rt, Auto, n)
	if err != nil {
		t.Fatal(err)
	}
	if got := list[0].count.Load(); got != n || doc.Ledger.Lost != 0 || len(doc.Sockets) != 2 {
		t.Errorf("%d of %d arrived; %+v; sockets %+v", got, n, *doc.Ledger, doc.Sockets)
	}
	t.Logf("%.0f pps, %.3f s stalled, %+v", report.DatagramsPerSecond, report.StalledSeconds, *doc.Seen)
}

// Without the governor the same reader loses, and the ledger says where.
func TestOpenLoopLosesAndSaysWhere(t *testing.T) {
	heavy(t)
	t.Parallel()
	b := testenv.NewContainer(t, 9000)
	list := readers(t, b, 1, 0, func(uint64) { spend(20 * time.Microsecond) })
	const n = 30_000
	_, doc, err := replayInto(t, netip.AddrPortFrom(b.Addr, 4789), transmit.Packet, routeInto(b), Off, n)
	if err != nil {
		t.Fatal(err)
	}
	got, l := list[0].count.Load(), doc.Ledger
	var loss *LossError
	if got == n || l.Lost == 0 || l.Taken != got || l.Lost+got != n || !errors.As(doc.Result(), &loss) || doc.Governed {
		t.Errorf("%d of %d arrived; %+v", got, n, *l)
	}
	if !strings.Contains(l.Verdict, "socket 0.0.0.0:4789 of the sensor") {
		t.Errorf("verdict %q", l.Verdict)
	}
}

// A sensor that dies ends the run, and the error tells how far it got.
func TestSensorThatDies(t *testing.T) {
	heavy(t)
	t.Parallel()
	b := testenv.NewContainer(t, 9000)
	const last = 5000
	var list []*reader
	die := make(chan struct{})
	list = readers(t, b, 1, 0, func(n uint64) {
		if n == last {
			close(die)
		}
	})
	go func() { <-die; list[0].conn.Close() }()
	_, doc, err := replayInto(t, netip.AddrPortFrom(b.Addr, 4789), transmit.Packet, routeInto(b), Auto, 10_000_000)
	var gone *pace.GoneError
	if !errors.As(err, &gone) || gone.Taken < last || gone.Taken > gone.Granted || gone.Granted > 1_000_000 {
		t.Fatalf("%v; %+v", err, doc.Ledger)
	}
	if doc.Ledger == nil || doc.Ledger.Taken != gone.Taken || !strings.Contains(err.Error(), "0.0.0.0:4789 of the sensor has gone") {
		t.Errorf("%v; %+v", err, doc.Ledger)
	}
}

// What the governor takes a datagram to cost is never less than it costs, by
// whatever way it is sent. No one reads, so what is queued is exactly what was
// sent, and the room that it leaves is what an honest bound allows.
func TestCostIsAnUpperBound(t *testing.T) {
	heavy(t)
	for _, mtu := range []int{1500, 9000, 65535} {
		t.Run(strconv.Itoa(mtu), func(t *testing.T) {
			t.Parallel()
			b := testenv.NewContainer(t, mtu)
			var conn *net.UDPConn
			b.Inside(t, func() error { conn = testenv.ListenUDP(t, "0.0.0.0:4789", 32<<20); return nil })
			to := netip.AddrPortFrom(b.Addr, 4789)
			checkCosts(t, probed(t, routeInto(b)), conn, way{"packet", to, transmit.Packet, false}, way{"packet, alone", to, transmit.Packet, true},
				way{"udp", to, transmit.UDP, false}, way{"udp, alone", to, transmit.UDP, true})
		})
	}
	t.Run("lo", func(t *testing.T) {
		t.Parallel()
		conn := testenv.ListenUDP(t, "127.0.0.1:0", 32<<20)
		to := conn.LocalAddr().(*net.UDPAddr).AddrPort()
		checkCosts(t, probed(t, Route{Port: to.Port()}), conn, way{"lo", to, transmit.UDP, false}, way{"lo, alone", to, transmit.UDP, true})
	})
}

// way is a transmission to a socket that nobody reads.
type way struct {
	name  string
	to    netip.AddrPort
	mode  transmit.Mode
	noGSO bool
}

func checkCosts(t *testing.T, p *probe, conn *net.UDPConn, ways ...way) {
	t.Helper()
	for _, w := range ways {
		tx, err := transmit.Open(t.Context(), transmit.Options{Destination: w.to, Mode: w.mode, Kind: encap.VXLAN, NoGSO: w.noGSO})
		if err != nil {
			t.Fatal(err)
		}
		worst := 0.0
		for _, length := range lengths() {
			worst = max(worst, costOf(t, tx, p, conn, length))
		}
		tx.Close()
		t.Logf("%s: at worst %.2f of the bound", w.name, worst)
	}
}

// probed opens the probe of a route.
func probed(t *testing.T, r Route) *probe {
	t.Helper()
	p, err := openProbe(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.close() })
	return p
}

// lengths are those around which the kernel's allocations change.
func lengths() []int {
	list := []int{1, 60, 100, 350, 1400, 1472, 1514, 8900, 9000, 9248, 20_000, 40_000, 65_000}
	for size := 512; size <= 16384; size *= 2 {
		for d := 200; d <= 700; d += 20 {
			if size > d {
				list = append(list, size-d)
			}
		}
	}
	return list
}

// costOf sends a few datagrams of one length and returns the share of the bound
// that they take.
func costOf(t *testing.T, tx transmit.Transmitter, p *probe, conn *net.UDPConn, length int) float64 {
	t.Helper()
	const n = 8
	b := &forward.Batch{Buf: make([]byte, n*length)}
	for i := range n {
		b.Datagrams = append(b.Datagrams, forward.Datagram{Off: i * length, Len: length, Port: 50000})
	}
	if _, err := tx.Send(b); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	conn.SetReadDeadline(deadline)
	if err := awaitLast(conn, n, length); err != nil {
		t.Fatalf("%d bytes: %v", length, err)
	}
	list, err := p.Sockets(nil)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d bytes: %+v, %v", length, list, err)
	}
	last, buf := list[0].Queued, make([]byte, 1<<16)
	for range n {
		if _, err := conn.Read(buf); err != nil {
			t.Fatalf("%d bytes: %v", length, err)
		}
	}
	bound := n * pace.Cost(length, tx.Describe().MTU)
	if last > bound || last < n*length {
		t.Errorf("%d bytes: %d in the queue of %d datagrams, the bound is %d", length, last, n, bound)
	}
	return float64(last) / float64(bound)
}

// awaitLast waits until n datagrams of one length are in the queue, and leaves
// them there: it looks for a byte behind those of all others (SO_PEEK_OFF,
// socket(7)).
func awaitLast(conn *net.UDPConn, n, length int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Read(func(fd uintptr) (done bool) {
		if failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEEK_OFF, (n-1)*length); failed != nil {
			return true
		}
		_, _, failed = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return failed != unix.EAGAIN
	})
	return errors.Join(err, failed)
}
