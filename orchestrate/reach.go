package orchestrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
)

// MetricsPort is the TCP port on which every sensor of the stack serves its
// metrics, on all its addresses.
const MetricsPort = 9991

// reachTimeout is how long a container that can be reached may take to accept a
// connection. It is never further than a bridge or a tunnel.
const reachTimeout = 300 * time.Millisecond

// Reaches returns nil if packets for the sensor's own address arrive there when
// they are sent from here, else why they do not.
//
// The proof does not touch the packets' port: a TCP connection to the sensor's
// metrics port. That somebody accepts it is not enough, for private address
// ranges repeat: the address of a container of a remote engine may be that of a
// local one, or of a machine in the office. So the sensor's own list of
// connections must show ours, by its port. It is read from /proc/PID/net
// where the sensor's process is one of this machine's, which needs no privilege,
// and otherwise inside the container.
//
// A refused connection proves nothing of that kind and does not count; a sensor
// of the stack always serves its metrics.
func (s Sensor) Reaches(ctx context.Context, engine Engine) error {
	return s.reaches(ctx, engine, MetricsPort, "/proc")
}

func (s Sensor) reaches(ctx context.Context, engine Engine, port uint16, proc string) error {
	if !s.Direct.IsValid() {
		return errors.New("its container has no address on the monitoring network")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	to := netip.AddrPortFrom(s.Direct.Addr(), port)
	dialer := net.Dialer{Timeout: reachTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return fmt.Errorf("%s does not answer from here: %w", to.Addr(), unwrapOp(err))
	}
	defer conn.Close()
	from, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return err
	}
	if connected(tablesOf(proc, s.Container.PID), port, from.Port()) {
		return nil
	}
	var inside bytes.Buffer
	if _, err := engine.Exec(ctx, s.Container.ID, []string{"cat", "/proc/net/tcp", "/proc/net/tcp6"}, &inside, io.Discard); err != nil {
		return fmt.Errorf("%s answers from here, but whether it is the sensor cannot be seen: %w", to.Addr(), err)
	}
	if !connected(inside.String(), port, from.Port()) {
		return fmt.Errorf("%s answers from here, but is not the sensor", to.Addr())
	}
	return nil
}

// RunsHere reports whether the container's process is one of this machine's: it
// has one of the container's addresses. The engine may run in a virtual machine
// or far away, where the same number is another process.
func (c Container) RunsHere() bool {
	if c.PID <= 0 {
		return false
	}
	for _, addr := range c.Addresses {
		if hasAddress(c.PID, addr.Unmap()) {
			return true
		}
	}
	return false
}

// hasAddress looks whether a process's network namespace has an address itself.
func hasAddress(pid int, addr netip.Addr) bool {
	net := filepath.Join("/proc", strconv.Itoa(pid), "net")
	if addr.Is4() {
		table, err := os.ReadFile(filepath.Join(net, "fib_trie"))
		return err == nil && slices.Contains(procfs.LocalAddresses(string(table)), addr)
	}
	table, err := os.ReadFile(filepath.Join(net, "if_inet6"))
	has := func(a procfs.Address6) bool { return a.Prefix.Addr() == addr }
	return err == nil && slices.ContainsFunc(procfs.Addresses6(string(table)), has)
}

// AwaitReach is Reaches for a sensor that has just begun to listen: its metrics,
// by which that is tried, may be served a moment later.
func (s Sensor) AwaitReach(ctx context.Context, engine Engine, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		err := s.Reaches(ctx, engine)
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Now().After(deadline) {
			return err
		}
		if err := pause(ctx, pollInterval/4); err != nil {
			return err
		}
	}
}

// tablesOf returns the connections in the namespace of a process of this
// machine; nothing where there is no such process. A listener on [::] has its
// IPv4 connections in the second table.
func tablesOf(proc string, pid int) string {
	if pid <= 0 {
		return ""
	}
	net := filepath.Join(proc, strconv.Itoa(pid), "net")
	four, _ := os.ReadFile(filepath.Join(net, "tcp"))
	six, _ := os.ReadFile(filepath.Join(net, "tcp6")) // not there without IPv6
	return string(four) + string(six)
}

// connected reports whether the text of /proc/net/tcp has an established
// connection with these ports.
func connected(table string, local, remote uint16) bool {
	return slices.ContainsFunc(procfs.TCP(table, local), func(s procfs.TCPSocket) bool {
		return s.State == procfs.Established && s.Remote.Port() == remote
	})
}

// unwrapOp drops what net puts before a cause: the address is named already.
func unwrapOp(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
