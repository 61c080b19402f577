package sockets

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// listenAt opens a socket that others may share, with the smallest buffer.
func listenAt(t testing.TB, network, address string) *net.UDPConn {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
		})
	}}
	c, err := config.ListenPacket(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// watches are both ways to look at the same sockets.
func watches(t testing.TB, listen netip.AddrPort) map[string]*Watch {
	t.Helper()
	diag, err := Open(Place{}, listen, AsksForMuch)
	if err != nil {
		t.Fatal(err)
	}
	proc := &Watch{place: Place{Process: os.Getpid()}, listen: listen}
	if err := proc.openProc(AsksForMuch); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { diag.Close(); proc.Close() })
	return map[string]*Watch{"sock_diag": diag, "proc": proc}
}

func send(t testing.TB, to netip.AddrPort, n int) {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := c.Write(make([]byte, 500)); err != nil {
			t.Fatal(err)
		}
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

// Both ways tell the same of a queue that fills, overflows and is emptied.
func TestQueueIsSeen(t *testing.T) {
	for _, at := range []struct{ network, address string }{{"udp4", "127.0.0.1:0"}, {"udp6", "[::1]:0"}} {
		c := listenAt(t, at.network, at.address)
		to := c.LocalAddr().(*net.UDPAddr).AddrPort()
		for name, w := range watches(t, to) {
			read := func() Socket {
				list, err := w.Read(nil)
				if err != nil || len(list) != 1 || list[0].Local != to {
					t.Fatalf("%s %s: %+v, %v", name, to, list, err)
				}
				return list[0]
			}
			before, taken := read(), mustTaken(t, w)
			if before.Queued != 0 || before.ID == 0 || before.Buffer < 2048 {
				t.Errorf("%s: empty: %+v", name, before)
			}
			send(t, to, 50)
			full, same := read(), 0 // another CPU may still deliver: receive packet steering
			eventually(t, "all 50 are queued or dropped", func() bool {
				next := read()
				if same++; next != full {
					full, same = next, 0
				}
				return same == 20 && full.Drops > before.Drops
			})
			if full.Queued <= 0 || full.Allocated < full.Queued || full.Drops-before.Drops == 0 || full.ID != before.ID {
				t.Errorf("%s: full: %+v", name, full)
			}
			queued := 50 - int(full.Drops-before.Drops)
			for range queued {
				c.SetReadDeadline(time.Now().Add(time.Second))
				if _, err := c.Read(make([]byte, 1000)); err != nil {
					t.Fatal(err)
				}
			}
			if after := read(); after.Queued != 0 || after.Drops != full.Drops {
				t.Errorf("%s: emptied: %+v", name, after)
			}
			if got := mustTaken(t, w) - taken; got < uint64(queued) {
				t.Errorf("%s: %d taken, want at least %d", name, got, queued)
			}
		}
	}
}

func mustTaken(t testing.TB, w *Watch) uint64 {
	t.Helper()
	n, err := w.Taken()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Sockets that share a port are seen all, and also those that come and go while
// they are watched.
func TestSocketsComeAndGo(t *testing.T) {
	first := listenAt(t, "udp4", "127.0.0.1:0")
	to := first.LocalAddr().(*net.UDPAddr).AddrPort()
	for name, w := range watches(t, to) {
		more := []*net.UDPConn{}
		for range 7 {
			more = append(more, listenAt(t, "udp4", to.String()))
		}
		count := func(want int) func() bool {
			return func() bool {
				list, err := w.Read(nil)
				if err != nil {
					t.Fatal(err)
				}
				ids := map[uint64]bool{}
				for _, s := range list {
					ids[s.ID] = true
				}
				return len(list) == want && len(ids) == want
			}
		}
		eventually(t, name+": eight sockets", count(8))
		for _, c := range more {
			c.Close()
		}
		eventually(t, name+": one socket", count(1))
	}
	diag := watches(t, to)["sock_diag"]
	first.Close()
	if list, err := diag.Read(nil); err != nil || len(list) != 0 {
		t.Errorf("after the last one: %+v, %v", list, err)
	}
	if _, err := Open(Place{}, to, AsksForMuch); !errors.Is(err, ErrNoSocket) {
		t.Errorf("open where nobody listens: %v", err)
	}
}

func TestConnectedSocketsAreNone(t *testing.T) {
	c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := Open(Place{}, c.LocalAddr().(*net.UDPAddr).AddrPort(), AsksForMuch); !errors.Is(err, ErrNoSocket) {
		t.Errorf("a connected socket: %v", err)
	}
}

// Another namespace is looked into from here, and stays visible when the last
// process in it has gone.
func TestOtherNamespace(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedTool(t, "ip")
	name := fmt.Sprintf("zs%d", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
	var c *net.UDPConn
	path := "/run/netns/" + name
	if err := within(path, func() error {
		if out, err := exec.Command("ip", "-n", name, "link", "set", "lo", "up").CombinedOutput(); err != nil {
			return errors.New(string(out))
		}
		c = listenAt(t, "udp4", "0.0.0.0:4789")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w, err := Open(Place{Path: path}, netip.MustParseAddrPort("0.0.0.0:4789"), AsksForMuch)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := within(path, func() error { send(t, netip.MustParseAddrPort("127.0.0.1:4789"), 1); return nil }); err != nil {
		t.Fatal(err)
	}
	list, err := w.Read(nil)
	if err != nil || len(list) != 1 || list[0].Queued == 0 || !w.Exact() {
		t.Errorf("%+v, %v", list, err)
	}
	if n := mustTaken(t, w); n != 0 {
		t.Errorf("%d taken before anything was read", n)
	}
	if _, err := c.Read(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if n := mustTaken(t, w); n != 1 {
		t.Errorf("%d taken, want 1", n)
	}
	c.Close()
	if list, err := w.Read(nil); err != nil || len(list) != 0 {
		t.Errorf("after the socket has gone: %+v, %v", list, err)
	}
	if _, err := Open(Place{Path: path + "x"}, netip.MustParseAddrPort("0.0.0.0:4789"), AsksForMuch); err == nil || !strings.Contains(err.Error(), path+"x") {
		t.Errorf("no such namespace: %v", err)
	}
}

// Both ways tell the inode by which a process's open files name its socket.
func TestWhoseSocketItIs(t *testing.T) {
	c := listenAt(t, "udp4", "127.0.0.1:0")
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var link string
	if err := raw.Control(func(fd uintptr) { link, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)) }); err != nil {
		t.Fatal(err)
	}
	for name, w := range watches(t, c.LocalAddr().(*net.UDPAddr).AddrPort()) {
		list, err := w.Read(nil)
		if err != nil || len(list) != 1 || fmt.Sprintf("socket:[%d]", list[0].Inode) != link {
			t.Errorf("%s: %+v, want %s (%v)", name, list, link, err)
		}
	}
}

// Sockets that share a port are looked up one by one after they were listed, each with
// its own numbers; a change among them is seen at the next look.
func TestSocketsOfAGroupAreToldApart(t *testing.T) {
	first := listenAt(t, "udp4", "127.0.0.1:0")
	to := first.LocalAddr().(*net.UDPAddr).AddrPort()
	group := []*net.UDPConn{first}
	for range 3 {
		group = append(group, listenAt(t, "udp4", to.String()))
	}
	w := watches(t, to)["sock_diag"]
	for range 40 {
		send(t, to, 1)
	}
	other, before, same := watches(t, to)["sock_diag"], []Socket(nil), 0
	eventually(t, "all 40 are queued", func() bool { // another CPU may still deliver
		now, err := other.Read(nil)
		if same++; err != nil || !slices.Equal(now, before) {
			before, same = now, 0
		}
		return same == 20
	})
	listed := map[uint64]int{}
	for look := range 4 { // the first lists, the others look up
		list, err := w.Read(nil)
		if err != nil || len(list) != 4 {
			t.Fatalf("%+v, %v", list, err)
		}
		for _, s := range list {
			if look == 0 {
				listed[s.ID] = s.Queued
			} else if queued, there := listed[s.ID]; !there || queued != s.Queued {
				t.Errorf("look %d: %+v, listed with %d", look, s, queued)
			}
		}
	}
	if d := w.reader.(*diagReader); len(d.known) != 4 || d.lookups >= refreshGroup {
		t.Errorf("%d sockets are looked up, %d times yet", len(d.known), d.lookups)
	}
	group[2].Close()
	if list, err := w.Read(nil); err != nil || len(list) != 3 {
		t.Errorf("after one has gone: %+v, %v", list, err)
	}
	for range 2 {
		if list, err := w.Read(nil); err != nil || len(list) != 3 {
			t.Errorf("after one has gone: %+v, %v", list, err)
		}
	}
}

func TestReadingDoesNotAllocate(t *testing.T) {
	c := listenAt(t, "udp4", "127.0.0.1:0")
	for range 7 {
		listenAt(t, "udp4", c.LocalAddr().String())
	}
	for name, w := range watches(t, c.LocalAddr().(*net.UDPAddr).AddrPort()) {
		buf := make([]Socket, 0, 8)
		if n := testing.AllocsPerRun(300, func() {
			list, err := w.Read(buf)
			if _, err2 := w.Taken(); err != nil || err2 != nil || len(list) != 8 {
				t.Fatal(list, err, err2)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	for _, sockets := range []int{1, 8} {
		c := listenAt(b, "udp4", "127.0.0.1:0")
		to := c.LocalAddr().(*net.UDPAddr).AddrPort()
		for range sockets - 1 {
			listenAt(b, "udp4", to.String())
		}
		all := watches(b, to)
		for _, name := range slices.Sorted(func(yield func(string) bool) {
			for n := range all {
				if !yield(n) {
					return
				}
			}
		}) {
			w := all[name]
			buf := make([]Socket, 0, 8)
			b.Run(fmt.Sprintf("%s/%d", name, sockets), func(b *testing.B) {
				for b.Loop() {
					if _, err := w.Read(buf); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		b.Run("taken", func(b *testing.B) {
			for b.Loop() {
				mustTaken(b, all["sock_diag"])
			}
		})
	}
}
