package nsenter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// TestMain runs on the process's first thread, which must never be the one that
// is used up.
func TestMain(m *testing.M) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		onSpareThread(func() {
			if unix.Gettid() == unix.Getpid() {
				fmt.Println("FAIL: the first thread was used")
				os.Exit(1)
			}
		})
	}
	runtime.UnlockOSThread()
	os.Exit(m.Run())
}

// contained starts a process in a container's likeness, whose /sys is read-only
// as an engine makes it: the superblock and the mount.
func contained(t *testing.T) Namespace {
	t.Helper()
	c := testenv.NewContainer(t, 1500)
	cmd := exec.Command("ip", "netns", "exec", c.Name, "sh", "-c", "mount -o remount,ro /sys && echo ready && exec sleep 300")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatalf("a process in the namespace: %v", err)
	}
	return Namespace{cmd.Process.Pid}
}

// sysMount returns the options of the mount on /sys and of its superblock, as a
// process sees them.
func sysMount(t *testing.T, pid int) (mount, superblock string) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); f[4] == "/sys" {
			mount, superblock = f[5], f[len(f)-1]
		}
	}
	return mount, superblock
}

// checkThreads fails if a thread of this process stays in another network or
// mount namespace than the process had in the beginning.
func checkThreads(t *testing.T) (check func()) {
	t.Helper()
	look := func() map[string]string {
		found := map[string]string{}
		links, err := filepath.Glob("/proc/self/task/*/ns/*")
		if err != nil || len(links) == 0 {
			t.Fatalf("no threads: %v", err)
		}
		for _, link := range links {
			if name := filepath.Base(link); name == "net" || name == "mnt" {
				if to, err := os.Readlink(link); err == nil { // else the thread has ended
					found[link] = to
				}
			}
		}
		return found
	}
	home := map[string]bool{}
	for _, to := range look() {
		home[to] = true
	}
	if len(home) != 2 {
		t.Fatalf("not all threads are at home already: %v", home)
	}
	return func() {
		t.Helper()
		deadline := time.Now().Add(5 * time.Second) // a thread may still be ending
		for {
			var away []string
			for link, to := range look() {
				if !home[to] {
					away = append(away, link+" -> "+to)
				}
			}
			if len(away) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("threads are left in a foreign namespace: %v", away)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func TestLocalReachesAContainersInterface(t *testing.T) {
	testenv.NeedRoot(t)
	ns := contained(t)
	check := checkThreads(t)
	hostMount, hostSuperblock := sysMount(t, os.Getpid())
	m := Local()
	const queue = "/sys/class/net/eth0/queues/rx-0/rps_cpus"
	read := func() string {
		t.Helper()
		got, err := m.Read(t.Context(), ns, "/sys/class/net/eth0/queues/rx-*/rps_cpus", "/proc/net/route", "/proc/sys/net/core/somaxconn", "/proc/uptime")
		if err != nil || got["/proc/uptime"] == "" || !strings.Contains(got["/proc/net/route"], "eth0") || got["/proc/sys/net/core/somaxconn"] == "" {
			t.Fatalf("got %q, %v", got, err)
		}
		mask, err := strconv.ParseUint(strings.ReplaceAll(strings.TrimSpace(got[queue]), ",", ""), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		return strconv.FormatUint(mask, 16)
	}
	if got := read(); got != "0" {
		t.Fatalf("a new interface has the mask %s", got)
	}
	for _, mask := range []string{"1", "0", "1"} {
		if err := m.Write(t.Context(), ns, queue, mask); err != nil {
			t.Fatal(err)
		}
		if got := read(); got != mask {
			t.Errorf("wrote %s, read %s", mask, got)
		}
		mount, superblock := sysMount(t, ns.PID)
		if !strings.HasPrefix(mount, "ro") || !strings.HasPrefix(superblock, "ro") {
			t.Errorf("the container's own /sys is %q of %q now", mount, superblock)
		}
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root%s", ns.PID, queue), []byte("0"), 0); !errors.Is(err, unix.EROFS) {
		t.Errorf("the container's own /sys can be written: %v", err)
	}
	if mount, superblock := sysMount(t, os.Getpid()); mount != hostMount || superblock != hostSuperblock {
		t.Errorf("the machine's own /sys is %q of %q, was %q of %q", mount, superblock, hostMount, hostSuperblock)
	}
	check()
}

func TestLocalIsForMany(t *testing.T) {
	testenv.NeedRoot(t)
	ns := contained(t)
	check := checkThreads(t)
	m := Local()
	const queue = "/sys/class/net/lo/queues/rx-0/rps_cpus"
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			if i%2 == 0 {
				if err := m.Write(t.Context(), ns, queue, "1"); err != nil {
					t.Error(err)
				}
				return
			}
			if got, err := m.Read(t.Context(), ns, queue); err != nil || len(got) != 1 {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	all.Wait()
	if mount, superblock := sysMount(t, ns.PID); !strings.HasPrefix(mount, "ro") || !strings.HasPrefix(superblock, "ro") {
		t.Errorf("the container's own /sys is %q of %q now", mount, superblock)
	}
	check()
}

func TestLocalErrors(t *testing.T) {
	testenv.NeedRoot(t)
	ns := contained(t)
	check := checkThreads(t)
	m := Local()
	for _, tt := range []struct {
		name, path, value string
		ns                Namespace
		is                error
	}{
		{"no such interface", "/sys/class/net/none/queues/rx-0/rps_cpus", "1", ns, fs.ErrNotExist},
		{"no such process", "/sys/class/net/lo/queues/rx-0/rps_cpus", "1", Namespace{1 << 30}, fs.ErrNotExist},
		{"what the kernel refuses", "/sys/class/net/lo/queues/rx-0/rps_cpus", "what", ns, unix.EINVAL},
		{"what may not be written", "/sys/class/net/lo/ifindex", "7", ns, fs.ErrPermission},
		{"no such sysctl", "/proc/sys/net/core/none", "7", Namespace{}, fs.ErrNotExist},
		{"no such feature", Feature("lo", "none"), Off, Namespace{}, nil},
		{"no switch", Feature("lo", "rx-gro"), "maybe", Namespace{}, fs.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := m.Write(t.Context(), tt.ns, tt.path, tt.value)
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.path) && tt.name != "no such process" {
				t.Errorf("got %v, want %v", err, tt.is)
			}
		})
	}
	if mount, superblock := sysMount(t, ns.PID); !strings.HasPrefix(mount, "ro") || !strings.HasPrefix(superblock, "ro") {
		t.Errorf("the container's own /sys is %q of %q after errors", mount, superblock)
	}
	check()
}

// The features of an interface that the test made are switched and read back,
// in the namespace that it is in.
func TestLocalSwitchesFeatures(t *testing.T) {
	testenv.NeedRoot(t)
	ns := contained(t)
	m, gro := Local(), Feature("eth0", "rx-gro")
	read := func() string {
		t.Helper()
		got, err := m.Read(t.Context(), ns, Feature("eth0", "rx-gro*"), Feature("none", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return got[gro]
	}
	before := read()
	for _, value := range []string{Off, On, before} {
		if err := m.Write(t.Context(), ns, gro, value); err != nil {
			t.Fatal(err)
		}
		if got := read(); got != value {
			t.Errorf("switched %s, is %q", value, got)
		}
	}
	all, err := m.Read(t.Context(), ns, Feature("eth0", "*"))
	if err != nil || !anyFixed(all) {
		t.Errorf("no feature of %d is fixed: %v", len(all), err)
	}
}

func anyFixed(features map[string]string) bool {
	for _, value := range features {
		if strings.HasSuffix(value, Fixed) {
			return true
		}
	}
	return false
}
