package nsenter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
)

// here is this machine.
type here struct {
	// writing is held while a container's sysfs may be writable: who finds it so
	// leaves it so.
	writing sync.Mutex
}

func local() Machine { return &here{} }

func (*here) Close() error { return nil }

func (*here) Lock(_ context.Context, file string) (func(), error) { return lockRecord("", file) }

// Read reads what is the same in every namespace, or has a path of its own for
// each process, as anybody does, and enters the namespace only for the rest.
func (h *here) Read(_ context.Context, ns Namespace, paths ...string) (map[string]string, error) {
	found := map[string]string{}
	var outside, inside []string
	for _, p := range paths {
		if ns.PID == 0 && !isFeature(p) || ns.PID != 0 && !isNamespaced(p) {
			outside = append(outside, p)
		} else {
			inside = append(inside, p)
		}
	}
	if err := readFiles("", outside, found); err != nil {
		return nil, err
	}
	if len(inside) == 0 {
		return found, nil
	}
	if ns.PID == 0 {
		readFeatures(inside, found)
		return found, nil
	}
	inside, err := readNet(ns.PID, inside, found)
	if err != nil || len(inside) == 0 {
		return found, err
	}
	err = within(ns.PID, func() error {
		readFeatures(inside, found)
		if err := mountSysfs(unix.MS_RDONLY); err != nil {
			return err
		}
		return readInside(inside, found)
	})
	if err != nil {
		return nil, fmt.Errorf("read in the namespace of process %d: %w", ns.PID, err)
	}
	return found, nil
}

// readInside reads as seen by the thread, its sysfs where that is mounted.
func readInside(paths []string, found map[string]string) error {
	for _, p := range paths {
		rest, ok := strings.CutPrefix(p, "/sys/")
		if !ok {
			if err := readFiles("", []string{p}, found); err != nil {
				return err
			}
			continue
		}
		files := map[string]string{}
		if err := readFiles(sysfs, []string{"/" + rest}, files); err != nil {
			return err
		}
		for name, content := range files {
			found["/sys"+name] = content
		}
	}
	return nil
}

// isNamespaced reports whether a path means another file in each namespace.
func isNamespaced(p string) bool {
	return strings.HasPrefix(p, "/proc/net/") || strings.HasPrefix(p, "/proc/sys/net/") ||
		strings.HasPrefix(p, "/sys/class/net/") || isFeature(p)
}

// readNet reads the files below /proc/net, which anybody may read at the
// process, and returns the other paths.
func readNet(pid int, paths []string, found map[string]string) (rest []string, err error) {
	root := "/proc/" + strconv.Itoa(pid)
	if _, err := os.Stat(root); err != nil {
		return nil, fmt.Errorf("look for process %d: %w", pid, fs.ErrNotExist)
	}
	var net []string
	for _, p := range paths {
		if name, ok := strings.CutPrefix(p, "/proc/net/"); ok {
			net = append(net, root+"/net/"+name)
		} else {
			rest = append(rest, p)
		}
	}
	files := map[string]string{}
	err = readFiles("", net, files)
	for p, content := range files {
		found["/proc/net/"+strings.TrimPrefix(p, root+"/net/")] = content
	}
	return rest, err
}

func (h *here) Write(_ context.Context, ns Namespace, file, value string) error {
	switch {
	case isReplaced(file):
		return replaceFile("", file, value)
	case ns.PID == 0 && isFeature(file):
		return setFeature(file, value)
	case ns.PID == 0 || !isNamespaced(file):
		return explainWrite(file, value, writeFile("", file, value))
	}
	h.writing.Lock()
	defer h.writing.Unlock()
	err := within(ns.PID, func() error {
		switch {
		case isFeature(file):
			return setFeature(file, value)
		case strings.HasPrefix(file, "/sys/"):
			return writeSysfs(file, value)
		}
		return explainWrite(file, value, writeFile("", file, value))
	})
	if err != nil {
		return fmt.Errorf("in the namespace of process %d: %w", ns.PID, err)
	}
	return nil
}

// within calls fn on a thread in the network namespace of a process and in a
// mount namespace of its own. The thread dies afterwards.
func within(pid int, fn func() error) error {
	done := make(chan error)
	go onSpareThread(func() { done <- enter(pid, fn) })
	return <-done
}

// onSpareThread runs fn on a locked thread that ends with it. The process's
// first thread cannot end, and is what /proc/self shows: it is not used.
func onSpareThread(fn func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		fn()
		return // locked, so that the thread ends
	}
	ended := make(chan struct{})
	go func() { // somewhere else, for this thread is taken
		defer close(ended)
		onSpareThread(fn)
	}()
	<-ended
	runtime.UnlockOSThread()
}

func enter(pid int, fn func() error) error {
	target, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer target.Close()
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	return fn()
}

// sysfsFlags are those with which a sysfs is mounted everywhere.
const sysfsFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// sysfs is where a thread mounts a namespace's sysfs, in its own mount namespace
// alone: a folder that every machine has. (Over /sys itself the kernel refuses
// to mount the same sysfs again.)
const sysfs = "/sys/fs"

// mountSysfs mounts the sysfs of the thread's network namespace.
// MS_RDONLY concerns this mount alone where the namespace has one already.
func mountSysfs(flags uintptr) error {
	if err := unix.Mount("sysfs", sysfs, "sysfs", sysfsFlags|flags, ""); err != nil {
		return fmt.Errorf("mount a sysfs: %w", err)
	}
	return nil
}

// writeSysfs makes the namespace's sysfs writable where it is not, writes, and
// puts it back. It is never called in the machine's own namespace.
func writeSysfs(file, value string) (err error) {
	if err := mountSysfs(0); err != nil {
		return err
	}
	readOnly, err := sysfsReadOnly()
	if err != nil {
		return err
	}
	if readOnly {
		if err := unix.Mount("", sysfs, "", unix.MS_REMOUNT|sysfsFlags, ""); err != nil {
			return fmt.Errorf("make the sysfs writable: %w", err)
		}
		defer func() {
			if back := unix.Mount("", sysfs, "", unix.MS_REMOUNT|unix.MS_RDONLY|sysfsFlags, ""); back != nil {
				err = errors.Join(err, fmt.Errorf("make the sysfs read-only again: %w", back))
			}
		}()
	}
	return explainWrite(file, value, writeFile(sysfs, strings.TrimPrefix(file, "/sys"), value))
}

// sysfsReadOnly tells whether the superblock of the newest mount there is
// read-only.
func sysfsReadOnly() (bool, error) {
	data, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return false, err
	}
	readOnly := false
	for _, m := range procfs.Mounts(string(data)) {
		if m.Point == sysfs {
			readOnly = m.SuperblockReadOnly
		}
	}
	return readOnly, nil
}

// readFeatures adds the features that match. What the interface does not have
// is left out.
func readFeatures(patterns []string, found map[string]string) {
	for _, pattern := range patterns {
		device, want, ok := splitFeature(pattern)
		if !ok {
			continue
		}
		states, err := featureStates(device)
		if err != nil {
			continue // no such interface, or one without features
		}
		for name, s := range states {
			if match, err := path.Match(want, name); err == nil && match {
				found[Feature(device, name)] = describeFeature(s)
			}
		}
	}
}

func describeFeature(s ethtool.FeatureState) string {
	value := Off
	if s.Active {
		value = On
	}
	if s.NeverChanged || !s.Available {
		value += Fixed
	}
	return value
}

func featureStates(device string) (map[string]ethtool.FeatureState, error) {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return nil, err
	}
	defer e.Close()
	return e.FeaturesWithState(device)
}

func setFeature(file, value string) error {
	device, name, ok := splitFeature(file)
	if !ok {
		return fmt.Errorf("write %s: %w", file, fs.ErrNotExist)
	}
	on, err := parseSwitch(file, value)
	if err != nil {
		return err
	}
	e, err := ethtool.NewEthtool()
	if err != nil {
		return explainWrite(file, value, err)
	}
	defer e.Close()
	return explainWrite(file, value, e.Change(device, map[string]bool{name: on}))
}

// isThisMachine returns nil if the engine's machine is this one, as far as its
// kernel's own description goes, else the first difference. A machine's virtual
// machine differs in its memory at least; a container of it in its name, or in
// its network namespace, where this setting does not exist.
func isThisMachine(engine orchestrate.EngineHost) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	memory := int64(info.Totalram) * int64(info.Unit)
	for _, fact := range []struct{ what, here, there string }{
		{"host name", unix.ByteSliceToString(uts.Nodename[:]), engine.Name},
		{"kernel", unix.ByteSliceToString(uts.Release[:]), engine.Kernel},
		{"memory", strconv.FormatInt(memory, 10), strconv.FormatInt(engine.Memory, 10)},
	} {
		if fact.here != fact.there {
			return fmt.Errorf("the engine's machine has the %s %s, this one %s", fact.what, fact.there, fact.here)
		}
	}
	if _, err := os.Stat("/proc/sys/net/core/netdev_max_backlog"); err != nil {
		return errors.New("this process is in a network namespace of its own")
	}
	return nil
}
