package hosttune

import (
	"fmt"
	"io/fs"
	"math/big"
	"strconv"
	"strings"
)

// maxCPU bounds the numbers of processors that are believed; the kernel's own
// limit is NR_CPUS, at most 8192.
const maxCPU = 1 << 16

// parseList reads a list of processors as the kernel prints it, e.g. "0-3,8-11"
// (bitmap_print_list in lib/bitmap-str.c). An empty list is an empty set.
func parseList(text string) (*big.Int, error) {
	set := new(big.Int)
	text = strings.TrimSpace(text)
	if text == "" || text == "(null)" { // as a kernel without the feature prints nohz_full
		return set, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(part, "-")
		first, err := strconv.ParseUint(low, 10, 16)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(high, 10, 16)
		}
		if err != nil || last < first || last >= maxCPU {
			return nil, fmt.Errorf("list of processors %q: %w", text, fs.ErrInvalid)
		}
		for cpu := first; cpu <= last; cpu++ {
			set.SetBit(set, int(cpu), 1)
		}
	}
	return set, nil
}

// parseMask reads a mask in the form of formatMask; the kernel fills groups up
// with zeros.
func parseMask(text string) (*big.Int, error) {
	digits := strings.ReplaceAll(strings.TrimSpace(text), ",", "")
	set, ok := new(big.Int).SetString(digits, 16)
	if !ok || set.Sign() < 0 || len(digits) > maxCPU/4 {
		return nil, fmt.Errorf("mask of processors %q: %w", text, fs.ErrInvalid)
	}
	return set, nil
}

// formatMask writes a mask as the kernel reads it: hexadecimal digits in groups
// of 32 bits, the highest first, with commas between (bitmap_parse in
// lib/bitmap-str.c).
func formatMask(set *big.Int) string {
	digits := set.Text(16)
	first := (len(digits)-1)%8 + 1
	groups := []string{digits[:first]}
	for at := first; at < len(digits); at += 8 {
		groups = append(groups, digits[at:at+8])
	}
	return strings.Join(groups, ",")
}

// count returns how many processors a set has.
func count(set *big.Int) (n int) {
	for i := range set.BitLen() {
		n += int(set.Bit(i))
	}
	return n
}

// The files that tell the processors.
const (
	cpuOnline   = "/sys/devices/system/cpu/online"
	cpuIsolated = "/sys/devices/system/cpu/isolated"
	cpuNoTick   = "/sys/devices/system/cpu/nohz_full"
)

// steerable returns the processors that receive packet steering may use: those
// that are online, without those set apart for something else, which the kernel
// takes out of every mask (rps_cpumask_housekeeping in net/core/net-sysfs.c).
func steerable(files map[string]string) (*big.Int, error) {
	online, err := parseList(files[cpuOnline])
	if err != nil {
		return nil, err
	}
	free := new(big.Int).Set(online)
	for _, path := range []string{cpuIsolated, cpuNoTick} {
		apart, err := parseList(files[path])
		if err != nil {
			return nil, err
		}
		free.AndNot(free, apart)
	}
	if free.Sign() == 0 {
		return online, nil
	}
	return free, nil
}
