package pcapfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// folderOf makes a folder with files of that content.
func folderOf(t *testing.T, content func(i int) []byte, names ...string) string {
	t.Helper()
	folder := t.TempDir()
	for i, name := range names {
		if err := os.WriteFile(filepath.Join(folder, name), content(i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func nothing(int) []byte { return nil }

// baseNames are the names without their folders.
func baseNames(paths []string) (names []string) {
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	return names
}

// TestAFolderStandsForItsCaptures in the order in which they were written.
func TestAFolderStandsForItsCaptures(t *testing.T) {
	for what, want := range map[string][]string{
		"tcpdump -C":        {"a.pcap", "a.pcap1", "a.pcap2", "a.pcap9", "a.pcap10", "a.pcap11", "a.pcap100"},
		"tcpdump -C -W":     {"a.pcap00", "a.pcap01", "a.pcap10", "b.pcap"},
		"tcpdump -z gzip":   {"a.pcap.gz", "a.pcap1.gz", "a.pcap2.gz", "a.pcap10.gz"},
		"log rotation":      {"a.pcap", "a.pcap.1", "a.pcap.2.xz", "a.pcap.10.bz2"},
		"dumpcap":           {"ring_00001_20240101000000.pcapng", "ring_00002_20231231235959.pcapng", "ring_99999_20240101000003.pcapng", "ring_100000_20240101000004.pcapng"},
		"dumpcap, by time":  {"ring_20231231235959_00002.pcapng", "ring_20240101000000_00001.pcapng"},
		"any case, any end": {"A.PCAP", "B.cap", "c.PcapNG.LZ4", "d.pcap.zst"},
	} {
		folder := folderOf(t, nothing, append(slices.Clone(want), "notes.txt", "a.pcap.bak", "pcap", "a.pcapx")...)
		if err := os.Mkdir(filepath.Join(folder, "folder.pcap"), 0o700); err != nil {
			t.Fatal(err)
		}
		got, err := List([]string{folder}, AsGiven)
		if err != nil || !slices.Equal(baseNames(got), want) {
			t.Errorf("%s: %v, want %v: %v", what, baseNames(got), want, err)
		}
	}
}

// TestNamesStayAsTheyWereGiven unless an order is asked for.
func TestNamesStayAsTheyWereGiven(t *testing.T) {
	folder := folderOf(t, nothing, "2.pcap", "1.pcap")
	other := writeFile(t, "zz", nil)
	got, err := List([]string{"-", other, folder, "tcp://host:1"}, AsGiven)
	if want := []string{"-", "zz", "1.pcap", "2.pcap", "host:1"}; err != nil || !slices.Equal(baseNames(got), want) {
		t.Errorf("%v: %v", got, err)
	}
	got, err = List([]string{other, folder, filepath.Join(folder, "1.pcap")}, ByName)
	if err != nil || len(got) != 4 || !slices.IsSortedFunc(got, compareNames) {
		t.Errorf("%v: %v", got, err)
	}
	if _, err := List([]string{folderOf(t, nothing, "x.txt")}, AsGiven); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder without captures: %v", err)
	}
}

// TestSortingByTheFirstPacket: what has none is last.
func TestSortingByTheFirstPacket(t *testing.T) {
	spec := newPcapSpec()
	at := []int64{3e9, 1e9, 2e9}
	folder := folderOf(t, func(i int) []byte {
		if i == 3 {
			return spec.file()
		}
		return append(spec.header(), spec.record(start+at[i], packet(60, 1))...)
	}, "a.pcap", "b.pcap", "c.pcap", "0.pcap")
	got, err := List([]string{folder}, ByTime)
	if want := []string{"b.pcap", "c.pcap", "a.pcap", "0.pcap"}; err != nil || !slices.Equal(baseNames(got), want) {
		t.Errorf("%v, want %v: %v", baseNames(got), want, err)
	}
	for _, names := range [][]string{{"-"}, {filepath.Join(folder, "missing")}, {folderOf(t, nothing, "empty.pcap")}} {
		if _, err := List(names, ByTime); err == nil {
			t.Errorf("%v was sorted", names)
		}
	}
	if _, err := ParseOrder("size"); err == nil || !strings.Contains(err.Error(), "want name or time") {
		t.Errorf("got %v", err)
	}
}

// FuzzCompareNames: it is an order.
func FuzzCompareNames(f *testing.F) {
	f.Add("a.pcap10", "a.pcap9", "a.pcap")
	f.Add("a01", "a1", "a001b")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if compareNames(a, b) != -compareNames(b, a) || (compareNames(a, b) == 0) != (a == b) {
			t.Fatalf("%q and %q: %d, %d", a, b, compareNames(a, b), compareNames(b, a))
		}
		if compareNames(a, b) <= 0 && compareNames(b, c) <= 0 && compareNames(a, c) > 0 {
			t.Fatalf("%q, %q, %q", a, b, c)
		}
	})
}
