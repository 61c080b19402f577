package pcapfile

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Order is how captures are sorted before they are read.
type Order string

// The orders.
const (
	AsGiven Order = ""     // as they were named; a folder's captures by name
	ByName  Order = "name" // numbers in names by their value
	ByTime  Order = "time" // by the time of the first packet
)

// tcpScheme begins the name of a PCAP-over-IP source.
const tcpScheme = "tcp://"

// ParseOrder reads an order as a person writes it.
func ParseOrder(text string) (Order, error) {
	switch o := Order(text); o {
	case AsGiven, ByName, ByTime:
		return o, nil
	}
	return "", fmt.Errorf("order %q: want name or time", text)
}

// List replaces folders by the captures in them and sorts. In a folder a capture is
// what is named so: *.pcap, *.pcapng and *.cap, compressed or not, and with a number
// behind, as tcpdump -C and log rotation have it. Sorted by name, such rotations are in
// their order, and so are the ring buffers of dumpcap (NAME_00001_20240101120000.pcap).
// Folders in folders are left alone. What is no folder is not opened, unless its
// first packet is to say where it belongs.
func List(names []string, order Order) ([]string, error) {
	var list []string
	for _, name := range names {
		in, err := expand(name)
		if err != nil {
			return nil, err
		}
		list = append(list, in...)
	}
	switch order {
	case ByName:
		slices.SortStableFunc(list, compareNames)
	case ByTime:
		return sortByTime(list)
	}
	return list, nil
}

// expand is what a name stands for: itself, or what is in the folder of that name.
func expand(name string) ([]string, error) {
	if name == "-" || strings.HasPrefix(name, tcpScheme) {
		return []string{name}, nil
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("open capture: %w", err)
	case info.IsDir():
		return inFolder(name)
	}
	return []string{name}, nil
}

// captureName is what captures are called, in lower case.
const captureName = `\.(pcap|pcapng|cap)(\.?[0-9]+)?(\.(gz|zst|xz|bz2|lz4))?$`

// inFolder lists the captures in a folder by name.
func inFolder(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("list captures: %w", err)
	}
	named := regexp.MustCompile(captureName)
	var list []string
	for _, entry := range entries {
		if !entry.IsDir() && named.MatchString(strings.ToLower(entry.Name())) {
			list = append(list, filepath.Join(folder, entry.Name()))
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("list captures in %s: none is named *.pcap, *.pcapng, *.cap: %w", folder, fs.ErrNotExist)
	}
	slices.SortStableFunc(list, compareNames)
	return list, nil
}

// compareNames compares runs of digits by their value and all else byte by byte, so
// that trace.pcap comes before trace.pcap2 and that before trace.pcap10.
func compareNames(a, b string) int {
	whole := strings.Compare(a, b)
	for a != "" && b != "" {
		m, n := digits(a), digits(b)
		if m == 0 || n == 0 {
			if a[0] != b[0] {
				return cmp.Compare(a[0], b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		if c := compareNumbers(a[:m], b[:n]); c != 0 {
			return c
		}
		a, b = a[m:], b[n:]
	}
	return cmp.Or(cmp.Compare(len(a), len(b)), whole)
}

// digits is the length of the number that s begins with.
func digits(s string) int { return len(s) - len(strings.TrimLeft(s, "0123456789")) }

// compareNumbers compares numbers of any length.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// sortByTime sorts by the first packet that has a time; captures without one are last.
func sortByTime(names []string) ([]string, error) {
	type dated struct {
		name string
		at   int64
	}
	var list []dated
	for _, name := range names {
		at, err := firstTime(name)
		if err != nil {
			return nil, err
		}
		list = append(list, dated{name, at})
	}
	slices.SortStableFunc(list, func(a, b dated) int { return cmp.Or(cmp.Compare(a.at, b.at), compareNames(a.name, b.name)) })
	sorted := make([]string, len(list))
	for i := range list {
		sorted[i] = list[i].name
	}
	return sorted, nil
}

// firstTime is the time of a capture's first packet that has one. Damage is for whoever
// reads the capture.
func firstTime(name string) (int64, error) {
	if info, err := os.Stat(name); name == "-" || err == nil && !info.Mode().IsRegular() {
		return 0, fmt.Errorf("sort by time: %s can be read only once", name)
	}
	r, err := Open(name, nil)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	var damage *DamageError
	for {
		var f forward.Frame
		err := r.Next(&f)
		switch {
		case errors.Is(err, io.EOF), errors.As(err, &damage):
			return math.MaxInt64, nil
		case err != nil:
			return 0, err
		case !f.Retimed:
			return f.Time, nil
		}
	}
}
