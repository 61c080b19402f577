package transmit

import (
	"errors"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

func TestChooseCPU(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s + "\n")} }
	hybrid := fstest.MapFS{
		"sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": file("5000000"), "sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq": file("5000000"),
		"sys/devices/system/cpu/cpu2/cpufreq/cpuinfo_max_freq": file("5000000"), "sys/devices/system/cpu/cpu3/cpufreq/cpuinfo_max_freq": file("3800000"),
	}
	arm := fstest.MapFS{"sys/devices/system/cpu/cpu0/cpu_capacity": file("1024"), "sys/devices/system/cpu/cpu1/cpu_capacity": file("446"), "sys/devices/system/cpu/cpu2/cpu_capacity": file("446")}
	busy := fstest.MapFS{"proc/interrupts": file(`           CPU0       CPU1       CPU2
  1:          5          0          0   IO-APIC   1-edge      i8042
 36:          0    1046798        700  PCI-MSIX 1-edge      virtio1-req.0
LOC:   99999999          1          1   Local timer interrupts
ERR:          0`)}
	for _, test := range []struct {
		name    string
		root    fstest.MapFS
		allowed []int
		want    CPU
	}{
		{"none known", nil, nil, CPUOff},
		{"only CPU 0", nil, []int{0}, 0},
		{"only one other", nil, []int{3}, 3},
		{"all alike: the last", nil, []int{0, 1, 2, 3}, 3},
		{"fast and slow cores: a fast one", hybrid, []int{0, 1, 2, 3}, 2},
		{"only slow cores allowed", hybrid, []int{3}, 3},
		{"big and little cores: the big one", arm, []int{0, 1, 2}, 0},
		{"all alike: the one that devices interrupt least", busy, []int{0, 1, 2}, 0},
		{"the quietest is not allowed", busy, []int{1, 2}, 2},
		{"unreadable capacity", fstest.MapFS{"sys/devices/system/cpu/cpu1/cpu_capacity": file("x")}, []int{0, 1, 2}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := chooseCPU(test.root, test.allowed); got != test.want {
				t.Errorf("chose %v, want %v", got, test.want)
			}
		})
	}
}

func TestPinned(t *testing.T) {
	before, err := sys.Affinity()
	if err != nil {
		t.Fatal(err)
	}
	sentinel := errors.New("from fn")
	last := members(before)[before.Count()-1]
	for _, test := range []struct {
		cpu   CPU
		count int // processors inside
	}{{CPUAuto, 1}, {CPU(last), 1}, {CPUOff, before.Count()}} {
		err := Pinned(test.cpu, func() error {
			inside, err := sys.Affinity()
			if err != nil || inside.Count() != test.count {
				t.Errorf("%v: %d processors inside, want %d: %v", test.cpu, inside.Count(), test.count, err)
			}
			if test.cpu >= 0 && !inside.IsSet(int(test.cpu)) {
				t.Errorf("%v: runs elsewhere", test.cpu)
			}
			return sentinel
		})
		if err != sentinel {
			t.Errorf("%v: error %v", test.cpu, err)
		}
	}
	if after, err := sys.Affinity(); err != nil || after != before {
		t.Errorf("affinity %v afterwards, was %v: %v", members(after), members(before), err)
	}
}

func TestPinnedToAMissingCPU(t *testing.T) {
	called := false
	err := Pinned(1000, func() error { called = true; return nil })
	if err == nil || called {
		t.Errorf("called %v, error %v", called, err)
	}
}

// TestSendersAvoidEachOther claims processors as senders that run at the same
// time do, in a namespace where nobody else does.
func TestSendersAvoidEachOther(t *testing.T) {
	testenv.Inside(t, testenv.Namespace(t), func() error {
		allowed := []int{0, 1, 2}
		var got []CPU
		var held []claim
		for range len(allowed) + 1 {
			cpu, c := claimBest(fstest.MapFS{}, allowed)
			got, held = append(got, cpu), append(held, c)
		}
		if want := []CPU{2, 1, 0, 2}; !slices.Equal(got, want) {
			t.Errorf("one after the other took %v, want %v", got, want)
		}
		if held[3] != nil {
			t.Error("the last one holds what another has")
		}
		release(held[1])
		if order := unclaimedLast(allowed); order[2] != 1 {
			t.Errorf("the one that is free is not the first choice: %v", order)
		}
		if cpu, c := claimBest(fstest.MapFS{}, allowed); cpu != 1 {
			t.Errorf("took %v, want the one that was given up", cpu)
		} else {
			release(c)
		}
		release(held[0])
		release(held[2])
		return nil
	})
}
