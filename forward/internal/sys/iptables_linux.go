package sys

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// IPTable is a table of the older iptables as the kernel keeps it: entries one
// behind the other (struct ipt_entry of linux/netfilter_ipv4/ip_tables.h, or
// ip6t_entry).
type IPTable struct {
	Six     bool
	Hooks   [5]uint32 // where each hook's rules begin in Entries; valid where Valid has its bit
	Valid   uint32    // one bit per hook
	Entries []byte
}

// Layout of struct ipt_getinfo and ipt_get_entries.
const (
	tableNameLen  = 32
	tableInfoLen  = 84
	tableHeadLen  = 40
	getInfo       = 64 // IPT_SO_GET_INFO
	getEntries    = 65 // IPT_SO_GET_ENTRIES
	maxTableBytes = 64 << 20
)

// ReadIPTable reads a table, in this thread's network namespace. Asking for one
// that is not there makes it. It needs CAP_NET_ADMIN.
func ReadIPTable(six bool, name string) (IPTable, error) {
	t := IPTable{Six: six}
	domain, level := unix.AF_INET, unix.IPPROTO_IP
	if six {
		domain, level = unix.AF_INET6, unix.IPPROTO_IPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return t, fmt.Errorf("open raw socket: %w", err)
	}
	defer unix.Close(fd)
	info := make([]byte, tableInfoLen)
	copy(info, name)
	if err := getSocketOption(fd, level, getInfo, info); err != nil {
		return t, fmt.Errorf("read iptables' table %s: %w", name, err)
	}
	t.Valid = binary.NativeEndian.Uint32(info[tableNameLen:])
	for i := range t.Hooks {
		t.Hooks[i] = binary.NativeEndian.Uint32(info[tableNameLen+4+4*i:])
	}
	size := binary.NativeEndian.Uint32(info[tableInfoLen-4:])
	if size > maxTableBytes {
		return t, fmt.Errorf("read iptables' table %s: it has %d bytes", name, size)
	}
	entries := make([]byte, tableHeadLen+int(size))
	copy(entries, name)
	binary.NativeEndian.PutUint32(entries[tableNameLen:], size)
	if err := getSocketOption(fd, level, getEntries, entries); err != nil {
		return t, fmt.Errorf("read iptables' table %s: %w", name, err)
	}
	t.Entries = entries[tableHeadLen:]
	return t, nil
}

// getSocketOption is getsockopt(2) with a buffer that is read and written.
func getSocketOption(fd, level, option int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(unsafe.Pointer(&size)), 0)
	runtime.KeepAlive(b)
	if errno != 0 {
		return errno
	}
	return nil
}
