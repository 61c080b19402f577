package drops

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
	"github.com/zeekdemo/zeekdemo/orchestrate/sockets"
)

// local looks at this machine. It keeps what it has opened.
type local struct {
	mu      sync.Mutex
	watches map[string]*sockets.Watch
	buf     []sockets.Socket
	names   map[int]string // of devices, by index
}

// Local returns what is to be known of this machine, and what closes it.
func Local() (Host, func() error) {
	l := &local{watches: map[string]*sockets.Watch{}}
	return Host{Sockets: l.sockets, Queues: l.queueing, Captures: captures, Owner: socketOwner}, l.close
}

func (l *local) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	for _, w := range l.watches {
		err = errors.Join(err, w.Close())
	}
	clear(l.watches)
	return err
}

// sockets implements Host.Sockets. A place is opened once; it is opened again
// when nobody listens there any more, for the process may have another namespace.
func (l *local) sockets(pid int, at netip.AddrPort) ([]QueueState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := fmt.Sprintf("%d %s", pid, at)
	w, ok := l.watches[key]
	if !ok {
		place, asking := sockets.Place{}, sockets.AsksForNothing
		if pid != 0 {
			place, asking = sockets.OfProcess(pid), sockets.AsksForMuch
		}
		var err error
		if w, err = sockets.Open(place, at, asking); err != nil {
			return nil, err
		}
		l.watches[key] = w
	}
	var err error
	l.buf, err = w.Read(l.buf[:0])
	if err != nil || len(l.buf) == 0 {
		delete(l.watches, key)
		return nil, errors.Join(err, w.Close())
	}
	list := make([]QueueState, 0, len(l.buf))
	for _, s := range l.buf {
		list = append(list, QueueState{ID: s.ID, Local: s.Local, Queued: s.Queued, Buffer: s.Buffer, Exact: w.Exact(), Drops: s.Drops})
	}
	return list, nil
}

// queueing asks the kernel for the root queueing discipline of every device
// (TCA_STATS2 of RTM_GETQDISC); anybody may.
func (l *local) queueing() (map[string]Queueing, error) {
	list, err := netlink.QdiscList(nil)
	if err != nil {
		return nil, fmt.Errorf("list the queueing disciplines: %w", err)
	}
	m := map[string]Queueing{}
	for _, q := range list {
		a := q.Attrs()
		if a.Parent != netlink.HANDLE_ROOT || a.Statistics == nil || a.Statistics.Queue == nil || a.Statistics.Basic == nil {
			continue
		}
		name, err := l.deviceName(a.LinkIndex)
		if err != nil {
			return nil, err
		}
		m[name] = Queueing{Kind: q.Type(), Packets: uint64(a.Statistics.Basic.Packets),
			Drops: uint64(a.Statistics.Queue.Drops), Backlog: uint64(a.Statistics.Queue.Qlen)}
	}
	return m, nil
}

// Sizes, offsets and numbers of include/uapi/linux/packet_diag.h and sock_diag.h.
const (
	packetMessageLen  = 16   // struct packet_diag_msg: inode at 4, cookie at 8
	packetShowMemory  = 0x10 // PACKET_SHOW_MEMINFO
	packetMemory      = 6    // PACKET_DIAG_MEMINFO
	memoryDropsOffset = 32   // SK_MEMINFO_DROPS, the ninth number
)

// captures asks for the packet sockets by sock_diag(7).
func captures() ([]Capture, error) {
	request := nl.NewNetlinkRequest(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	query := make([]byte, 20) // struct packet_diag_req
	query[0] = unix.AF_PACKET
	binary.NativeEndian.PutUint32(query[8:], packetShowMemory)
	request.AddRawData(query)
	answers, err := request.Execute(unix.NETLINK_SOCK_DIAG, 0)
	if err != nil {
		return nil, fmt.Errorf("list the packet sockets: %w", err)
	}
	var list []Capture
	for _, m := range answers {
		if len(m) < packetMessageLen {
			continue
		}
		c := Capture{Inode: uint64(binary.NativeEndian.Uint32(m[4:])), ID: binary.NativeEndian.Uint64(m[8:])}
		attributes, err := nl.ParseRouteAttr(m[packetMessageLen:])
		if err != nil {
			return nil, fmt.Errorf("list the packet sockets: %w", err)
		}
		for _, a := range attributes {
			if a.Attr.Type == packetMemory && len(a.Value) >= memoryDropsOffset+4 {
				c.Drops = uint64(binary.NativeEndian.Uint32(a.Value[memoryDropsOffset:]))
			}
		}
		list = append(list, c)
	}
	return list, nil
}

// deviceName returns a device's name. They are listed again when an index is
// new; a device that was renamed meanwhile keeps its old name here.
func (l *local) deviceName(index int) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if name, ok := l.names[index]; ok {
		return name, nil
	}
	links, err := net.Interfaces()
	if err != nil {
		return "", fmt.Errorf("list the devices: %w", err)
	}
	l.names = map[int]string{index: ""} // gone already, unless it is listed
	for _, link := range links {
		l.names[link.Index] = link.Name
	}
	return l.names[index], nil
}

// socketOwner looks for the process that has the socket open. That takes root,
// but docker-proxy says on its command line, which anybody may read, where it
// listens.
func socketOwner(inode uint64, at netip.AddrPort) (pid int, name string, err error) {
	want := fmt.Sprintf("socket:[%d]", inode)
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, "", err
	}
	hidden := false
	for _, dir := range processes {
		entries, err := os.ReadDir(dir + "/fd")
		hidden = hidden || errors.Is(err, os.ErrPermission)
		for _, e := range entries {
			if to, err := os.Readlink(filepath.Join(dir, "fd", e.Name())); err == nil && to == want {
				return processName(dir)
			}
		}
		if proxyFor(dir, at) {
			return processName(dir)
		}
	}
	if hidden {
		return 0, "", fmt.Errorf("find the process at %s: %w", at, os.ErrPermission)
	}
	return 0, "", fmt.Errorf("no process has the socket at %s", at)
}

// processName reads a process's name from its folder.
func processName(dir string) (pid int, name string, err error) {
	if pid, err = strconv.Atoi(filepath.Base(dir)); err != nil {
		return 0, "", err
	}
	comm, err := os.ReadFile(dir + "/comm")
	return pid, procfs.Comm(string(comm)), err
}

// proxyFor reports whether a process is docker-proxy for a UDP port.
func proxyFor(dir string, at netip.AddrPort) bool {
	text, err := os.ReadFile(dir + "/cmdline")
	if err != nil || !strings.Contains(string(text), "docker-proxy\x00") {
		return false
	}
	args := procfs.CommandLine(string(text))
	has := func(flag, value string) bool {
		for i := 1; i < len(args); i++ {
			if args[i-1] == flag && args[i] == value {
				return true
			}
		}
		return false
	}
	return has("-proto", "udp") && has("-host-port", strconv.Itoa(int(at.Port()))) && has("-host-ip", at.Addr().String())
}
