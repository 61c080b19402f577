package testenv

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// number tells what this process makes apart; its PID tells it from what other
// processes make at the same time.
var number atomic.Int64

// IP runs iproute2's ip with the words of line, and ends the test if it fails.
func IP(tb testing.TB, line string) {
	tb.Helper()
	if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
		tb.Fatalf("ip %s: %v: %s", line, err, out)
	}
}

// Namespace makes a network namespace with lo up, by a name that no other test
// has, and removes it after the test. It needs root and ip.
func Namespace(tb testing.TB) (name string) {
	tb.Helper()
	NeedRoot(tb)
	NeedTool(tb, "ip")
	name = fmt.Sprintf("zt%d-%d", os.Getpid(), number.Add(1))
	IP(tb, "netns add "+name)
	tb.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	IP(tb, "-n "+name+" link set lo up")
	return name
}

// NamespacePath is where the namespace of that name is found.
func NamespacePath(name string) string { return "/run/netns/" + name }

// Inside calls fn on a thread that lives in the named network namespace and
// dies afterwards. Sockets and processes that fn makes stay in it. An error of
// fn ends the test.
func Inside(tb testing.TB, namespace string, fn func() error) {
	tb.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is poisoned
		ns, err := netns.GetFromPath(NamespacePath(namespace))
		if err == nil {
			err = netns.Set(ns)
			ns.Close()
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		tb.Fatal(err)
	}
}

// Container is what a container looks like from this machine: a network
// namespace behind veth and a bridge, with the address it has there.
type Container struct {
	Name   string     // of the namespace, where the device is called eth0
	Addr   netip.Addr // in it; a /24
	Bridge string     // on this machine, which has the address ending in .1
	Port   string     // the bridge's only port, the other end of eth0
}

// NewContainer makes one whose devices have the MTU, and removes it after the
// test. It needs root and ip.
func NewContainer(tb testing.TB, mtu int) Container {
	tb.Helper()
	c := Container{Name: Namespace(tb)}
	id := strings.TrimPrefix(c.Name, "zt")
	c.Bridge, c.Port = "ztb"+id, "ztp"+id // at most 15 bytes: PIDs have seven digits
	network := freeSubnet(tb)
	c.Addr = netip.MustParseAddr(network + ".2")
	tb.Cleanup(func() { _ = exec.Command("ip", "link", "del", c.Bridge).Run() })
	for _, line := range []string{
		"link add BRIDGE type bridge", "addr add " + network + ".1/24 dev BRIDGE",
		"link add PORT mtu MTU type veth peer name eth0 mtu MTU netns NAME",
		"link set PORT master BRIDGE up", "link set BRIDGE up mtu MTU",
		"-n NAME link set eth0 up", "-n NAME addr add " + network + ".2/24 dev eth0",
	} {
		IP(tb, strings.NewReplacer("BRIDGE", c.Bridge, "PORT", c.Port, "NAME", c.Name, "MTU", strconv.Itoa(mtu)).Replace(line))
	}
	return c
}

// freeSubnet returns the first three numbers of a /24 that this machine does
// not have yet. Where it looks first depends on the process.
func freeSubnet(tb testing.TB) string {
	tb.Helper()
	have, err := net.InterfaceAddrs()
	if err != nil {
		tb.Fatal(err)
	}
	for range 10_000 {
		n := os.Getpid() + int(number.Add(1))*613
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(200 + n%50), byte(n / 50 % 250), 0}), 24)
		free := true
		for _, a := range have {
			p, err := netip.ParsePrefix(a.String())
			free = free && (err != nil || !p.Overlaps(subnet))
		}
		if free {
			return strings.TrimSuffix(subnet.Addr().String(), ".0")
		}
	}
	tb.Fatal("no subnet of 10.200.0.0/10 is free")
	return ""
}

// Inside is [Inside] in the container's namespace.
func (c Container) Inside(tb testing.TB, fn func() error) { tb.Helper(); Inside(tb, c.Name, fn) }

// Path is where its network namespace is found.
func (c Container) Path() string { return NamespacePath(c.Name) }

// ListenUDP opens a UDP socket over IPv4 in this thread's namespace, which
// others may share, and closes it after the test. Buffer is the receive buffer
// that it asks for, as root beyond the system's limit (the kernel doubles it); 0
// leaves the default.
func ListenUDP(tb testing.TB, address string, buffer int) *net.UDPConn {
	tb.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			if buffer > 0 {
				setReadBuffer(int(fd), buffer)
			}
		})
	}}
	c, err := config.ListenPacket(context.Background(), "udp4", address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}
