package procfs

import (
	"fmt"
	"strconv"
	"strings"
)

// SoftnetCPU is a line of /proc/net/softnet_stat: a processor's queue of
// received packets. All numbers are 32 bits wide.
type SoftnetCPU struct {
	CPU                          int // its number; without that column (before 5.10) the line's
	Processed, Dropped, Squeezed uint64
	ReceivedRPS, FlowLimit       uint64
	Backlog                      uint64 // packets that wait now
	HasRPS, HasFlowLimit         bool   // the kernel has the column
	HasBacklog                   bool
}

// Softnet reads /proc/net/softnet_stat (softnet_seq_show in
// net/core/net-procfs.c): a line for each processor that is online, hexadecimal,
// of 9 columns in old kernels and 15 in new ones.
func Softnet(text string) (list []SoftnetCPU, err error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) < 3 {
			return nil, fmt.Errorf("line %d has %d columns, want at least 3", len(list)+1, len(fields))
		}
		var n [16]uint64
		for i := range min(len(fields), len(n)) {
			if n[i], err = strconv.ParseUint(fields[i], 16, 64); err != nil {
				return nil, fmt.Errorf("line %d: %w", len(list)+1, err)
			}
		}
		s := SoftnetCPU{CPU: len(list), Processed: n[0], Dropped: n[1], Squeezed: n[2],
			ReceivedRPS: n[9], FlowLimit: n[10], Backlog: n[11],
			HasRPS: len(fields) > 9, HasFlowLimit: len(fields) > 10, HasBacklog: len(fields) > 11}
		if len(fields) > 12 {
			s.CPU = int(n[12])
		}
		list = append(list, s)
	}
	return list, nil
}

// PerCPU adds up the lines of a file in /proc/net/stat, one for each processor:
// a heading of names, then hexadecimal numbers (nf_conntrack, 32 bits:
// ct_cpu_seq_show in net/netfilter/nf_conntrack_standalone.c; arp_cache, unsigned
// long: neigh_stat_seq_show in net/core/neighbour.c). "entries" is the same in
// every line and not added up.
func PerCPU(text string) (Counters, error) {
	heading, rest, _ := strings.Cut(text, "\n")
	names := strings.Fields(heading)
	sum := Counters{}
	for line := range strings.Lines(rest) {
		fields := strings.Fields(line)
		if len(fields) < len(names) {
			return nil, fmt.Errorf("a line has %d numbers, want %d", len(fields), len(names))
		}
		for i, name := range names {
			n, err := strconv.ParseUint(fields[i], 16, 64)
			if err != nil {
				return nil, err
			}
			if name == "entries" {
				sum[name] = n
				continue
			}
			sum[name] += n
		}
	}
	return sum, nil
}
