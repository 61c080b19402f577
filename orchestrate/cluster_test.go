package orchestrate

import (
	"maps"
	"testing"
)

func TestParseWorkers(t *testing.T) {
	for text, want := range map[string]map[string]int{
		"1": {"vxlan": 1}, "4": {"vxlan": 4}, "auto": {"vxlan": AutoWorkers}, "geneve=3": {"geneve": 3},
		"vxlan=2,geneve=auto": {"vxlan": 2, "geneve": AutoWorkers}, "64": {"vxlan": 64},
	} {
		if got, err := ParseWorkers(text); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "65", "x", "1,2", "gre=2", "vxlan", "vxlan=", "=3", "2,"} {
		if got, err := ParseWorkers(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// Auto leaves processors for the rest, and shares them out where both sensors ask.
func TestWhatAutoIs(t *testing.T) {
	for _, tt := range []struct {
		cpus          int
		asked, fitted map[string]int
	}{
		{1, map[string]int{"vxlan": AutoWorkers}, map[string]int{"vxlan": 1}},
		{4, map[string]int{"vxlan": AutoWorkers}, map[string]int{"vxlan": 2}},
		{64, map[string]int{"vxlan": AutoWorkers}, map[string]int{"vxlan": 8}},
		{10, map[string]int{"vxlan": AutoWorkers, "geneve": AutoWorkers}, map[string]int{"vxlan": 4, "geneve": 4}},
		{10, map[string]int{"vxlan": AutoWorkers, "geneve": 2}, map[string]int{"vxlan": 8, "geneve": 2}},
	} {
		got, err := Cluster{Workers: tt.asked}.fit(Capacity{CPUs: tt.cpus})
		if err != nil || !maps.Equal(got.Workers, tt.fitted) {
			t.Errorf("%d processors, %v: %v, %v", tt.cpus, tt.asked, got.Workers, err)
		}
	}
}

// What a container prints of its processes' open files, as busybox and coreutils do.
func TestWhoseSockets(t *testing.T) {
	const text = `node worker-1
total 0
lrwx------ 1 root root 64 Nov 28 05:00 0 -> /dev/null
lrwx------    1 root     root            64 Nov 28 05:00 12 -> socket:[924317]
l-wx------ 1 root root 64 Nov 28 05:00 3 -> pipe:[77]
node worker-2
lrwx------ 1 root root 64 Nov 28 05:00 9 -> socket:[922543]
node worker-3
ls: /proc/99/fd: No such file or directory
`
	want := map[uint64]string{924317: "worker-1", 922543: "worker-2"}
	if got := parseNodeFiles(text); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
