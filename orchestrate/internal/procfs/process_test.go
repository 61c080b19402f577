package procfs

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
)

const after = " 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 3133440 414 18446744073709551615 0 0 0\n"

func TestStat(t *testing.T) {
	for text, want := range map[string]Process{
		"42 (zeek) S" + after:     {42, "zeek", "S", 987},
		"42 (a) b (c) T" + after:  {42, "a) b (c", "T", 987},
		"42 (a) Z (b)) R" + after: {42, "a) Z (b)", "R", 987},
		"42 () Z" + after:         {42, "", "Z", 987},
		"42 (tmux: server) X 1 42 42 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 987": {42, "tmux: server", "X", 987},
	} {
		got, err := Stat(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
		if got.Ended() != strings.Contains("ZX", want.State) || got.Stopped() != (want.State == "T") {
			t.Errorf("%q: ended %t, stopped %t", text, got.Ended(), got.Stopped())
		}
	}
	for text, want := range map[string]string{
		"":                   "no name",
		"42 (a":              "no name",
		"42 )a( S" + after:   "no name",
		"42 (zeek) S 1 2 3":  "it has 6 fields, want at least 22",
		"x (zeek) S" + after: "x",
		"42 (zeek) S 1 42 42 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 soon 1": "soon",
	} {
		if got, err := Stat(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want %q", text, got, err, want)
		}
	}
}

// Whatever a process calls itself, its state and start are read.
func FuzzStat(f *testing.F) {
	f.Add(42, "zeek", uint8('S'), uint64(987))
	f.Add(1, "a) Z 1 2 3 (b", uint8('T'), uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, pid int, name string, letter uint8, started uint64) {
		want := Process{pid, name, string(rune('A' + letter%26)), started}
		text := fmt.Sprintf("%d (%s) %s 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 %d 3133440 414\n", pid, name, want.State, started)
		if got, err := Stat(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	})
}

func TestStatus(t *testing.T) {
	const text = "Name:\tCapEff:\nUmask:\t0022\nCapInh:\t0000000000000000\nCapPrm:\t000001fffeffffff\nCapEff:\t0000000000001000\n"
	if got, err := Status(text); err != nil || got.Effective != 1<<12 {
		t.Errorf("%+v, %v, want CAP_NET_ADMIN", got, err)
	}
	for _, bad := range []string{"", "CapPrm:\t000001fffeffffff\n", "CapEff:\tall\n"} {
		if got, err := Status(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for text, want := range map[string][]string{
		"/usr/bin/docker-proxy\x00-proto\x00udp\x00": {"/usr/bin/docker-proxy", "-proto", "udp"},
		"zeek\x00-e\x00\x00":                         {"zeek", "-e", ""}, // an empty argument is one
		"nginx: worker process":                      {"nginx: worker process"},
		"":                                           nil,
	} {
		if got := CommandLine(text); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := Comm("tmux: server\n"); got != "tmux: server" {
		t.Errorf("comm: %q", got)
	}
}

func TestCgroups(t *testing.T) {
	const text = "9:name=systemd:/docker/8174\n2:cpu,cpuacct:/a:b\n0::/system.slice/docker-8174.scope\n\n7\n"
	want := []Cgroup{{"name=systemd", "/docker/8174"}, {"cpu,cpuacct", "/a:b"}, {"", "/system.slice/docker-8174.scope"}}
	if got := Cgroups(text); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestMounts(t *testing.T) {
	const text = "22 27 0:21 / /proc rw,relatime - proc proc rw\n" +
		"23 27 0:22 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro\n" +
		"24 23 0:22 / /sys rw,nosuid shared:7 master:1 - sysfs sysfs ro,seclabel\n" +
		"25 27 0:30 / /mnt/a\\040b\\134c rw - tmpfs  rw,size=4k\n" + // its source is an empty string
		"26 27 0:31 / /mnt/odd\\9\\04 rw - tmpfs none rw\n" +
		"27 27 0:31 / /cut rw\n28 27 0:31 / /cut rw -\n"
	want := []Mount{
		{"/proc", "proc", false, false},
		{"/sys", "sysfs", true, true},
		{"/sys", "sysfs", false, true},
		{"/mnt/a b\\c", "tmpfs", false, false},
		{"/mnt/odd\\9\\04", "tmpfs", false, false},
	}
	if got := Mounts(text); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

func TestMemInfo(t *testing.T) {
	for text, want := range map[string]Memory{
		"MemTotal:       16303428 kB\nMemFree:          802112 kB\nMemAvailable:    9110784 kB\nHugePages_Total:       0\n": {16303428 << 10, 9110784 << 10},
		"MemTotal:        1 kB\nMemFree:         1 kB\n":                                                                    {1 << 10, -1}, // before 3.14
		"MemTotal:        1 kB\nMemAvailable:\nMemAvailable: -5 kB":                                                         {1 << 10, -1},
	} {
		if got, err := MemInfo(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "MemAvailable: 7 kB\n", "MemTotal: much\n", "MemTotal: 9223372036854775807 kB\n"} {
		if got, err := MemInfo(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestUptime(t *testing.T) {
	for text, want := range map[string]float64{"5707.09 10722.87\n": 5707.09, "0.00 0.00\n": 0} {
		if got, err := Uptime(text); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "soon 1\n", "NaN 1\n", "Inf 1\n", "-1 1\n"} {
		if got, err := Uptime(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

// Whatever text the files of a kernel to come have, reading them ends, and what
// is read is in its bounds.
func FuzzAnyText(f *testing.F) {
	for _, text := range []string{udpText, udp6Text, tcpText, routesLittle, trie, snmpText, "42 (zeek) S" + after,
		"  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", "0000beef 00000001 00000002\n", "a b\n1 2\n",
		"25 27 0:30 / /mnt/a\\040b rw - tmpfs none rw\n", "MemTotal: 1 kB\n", "5707.09 10722.87\n",
		"fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = SNMP(text)
		SNMP6(text)
		Devices(text)
		_, _ = Softnet(text)
		_, _ = PerCPU(text)
		_, _ = Status(text)
		CommandLine(text)
		Cgroups(text)
		Mounts(text)
		UDP(text, 4789)
		TCP(text)
		for _, r := range Routes(text) {
			if !r.To.IsValid() || !r.Gateway.Is4() || r.Device == "" {
				t.Errorf("a route: %+v", r)
			}
		}
		for _, a := range LocalAddresses(text) {
			if !a.Is4() {
				t.Errorf("a local address: %v", a)
			}
		}
		for _, a := range Addresses6(text) {
			if !a.Prefix.IsValid() || a.Device == "" {
				t.Errorf("an address: %+v", a)
			}
		}
		if m, err := MemInfo(text); err == nil && (m.Total <= 0 || m.Available < -1) {
			t.Errorf("memory: %+v", m)
		}
		if s, err := Uptime(text); err == nil && !(s >= 0 && s <= math.MaxFloat64) {
			t.Errorf("uptime: %v", s)
		}
	})
}
