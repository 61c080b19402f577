// Package procfs reads the files of the proc file system that the rest of
// orchestrate asks: one reader per file, text in, struct out. No other package
// of orchestrate takes them apart.
//
//	/proc/net/udp, udp6               [UDP]
//	/proc/net/tcp, tcp6               [TCP]
//	/proc/net/route                   [Routes]
//	/proc/net/fib_trie                [LocalAddresses]
//	/proc/net/if_inet6                [Addresses6]
//	/proc/net/snmp, netstat           [SNMP]
//	/proc/net/snmp6                   [SNMP6]
//	/proc/net/dev                     [Devices]
//	/proc/net/softnet_stat            [Softnet]
//	/proc/net/stat/*                  [PerCPU]
//	/proc/PID/stat                    [Stat]
//	/proc/PID/status                  [Status]
//	/proc/PID/comm                    [Comm]
//	/proc/PID/cmdline                 [CommandLine]
//	/proc/PID/cgroup                  [Cgroups]
//	/proc/PID/mountinfo               [Mounts]
//	/proc/meminfo                     [MemInfo]
//	/proc/uptime                      [Uptime]
//
// They take text, not names of files, because that is what the ways to a kernel
// have in common: this machine's own files, a fixture tree, cat inside a
// container, a helper container on another machine. Libraries that open the
// files themselves cannot read the last two. Files of /proc/sys hold one value
// each and need no reader.
//
// One file has a second reader: package sockets reads /proc/net/udp a thousand
// times a second while packets flow, and so without allocating. It says so
// there, and is held to the same answers as [UDP] by its tests.
//
// What a table tells of IPv4 and IPv6 addresses is mostly printed as numbers of
// the kernel's machine, whose byte order is taken to be this one's: see [UDP]
// and [Routes].
package procfs

import (
	"fmt"
	"strconv"
)

// Counters are a kernel's counters by name. They wrap where the kernel's do,
// which is for each file to say.
type Counters map[string]uint64

// counter reads a decimal counter. A negative number, which only settings have
// that are shown among the counters of TCP, counts as 0.
func counter(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err == nil {
		return n, nil
	}
	if _, signed := strconv.ParseInt(text, 10, 64); signed == nil {
		return 0, nil
	}
	return 0, fmt.Errorf("%q is no counter", text)
}
