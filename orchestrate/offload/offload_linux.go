package offload

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/safchain/ethtool"
)

// Hold keeps the merging features of one interface off.
type Hold struct {
	file   *os.File // locked, shared
	record record
}

// merging are the features that make a capture see several packets as one. What
// the stack segments by itself, in software, it does before a capture sees it.
func merging() []string {
	return []string{
		"rx-gro", "rx-gro-hw", "rx-gro-list", "rx-lro", "rx-udp-gro-forwarding",
		"tx-tcp-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation", "tx-tcp6-segmentation",
		"tx-udp-segmentation", "tx-gre-segmentation", "tx-gre-csum-segmentation", "tx-ipxip4-segmentation",
		"tx-ipxip6-segmentation", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation",
		"tx-sctp-segmentation", "tx-esp-segmentation", "tx-gso-list", "tx-gso-partial", "tx-tunnel-remcsum-segmentation",
	}
}

// Merging returns the merging features of an interface that are on.
func Merging(name string) ([]string, error) {
	var on []string
	err := withEthtool(func(e *ethtool.Ethtool) (err error) {
		on, err = mergingOn(e, name)
		return err
	})
	return on, err
}

func withEthtool(f func(*ethtool.Ethtool) error) error {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("open a socket for ethtool: %w", err)
	}
	defer e.Close()
	return f(e)
}

func mergingOn(e *ethtool.Ethtool, name string) (on []string, err error) {
	features, err := e.Features(name)
	if err != nil {
		return nil, fmt.Errorf("read the offloads of %s: %w", name, err)
	}
	for _, feature := range merging() {
		if features[feature] {
			on = append(on, feature)
		}
	}
	return on, nil
}

// Off switches the merging features of an interface off, after it has recorded
// which were on. Features that the device has fixed stay on. What a dead process
// left is put right first. It needs CAP_NET_ADMIN, and to write to dir, which is
// [StateDir] but for tests.
func Off(dir, name string) (*Hold, error) {
	if _, err := Restore(dir, name); err != nil && !errors.Is(err, ErrHeld) {
		return nil, err
	}
	h, fresh, err := claim(dir, name)
	if err != nil {
		return nil, fmt.Errorf("record the offloads of %s: %w", name, err)
	}
	if !fresh {
		return h, nil // another process has switched them off already
	}
	if err := change(name, h.record.On, false); err != nil {
		return nil, errors.Join(err, h.Release())
	}
	return h, nil
}

// claim locks the interface's record, shared, and writes it if there is none.
func claim(dir, name string) (h *Hold, fresh bool, err error) {
	device, err := net.InterfaceByName(name)
	if err != nil {
		return nil, false, err
	}
	namespace, err := namespaceID()
	if err != nil {
		return nil, false, err
	}
	f, err := open(filepath.Join(dir, fmt.Sprintf("%d-%s.json", namespace, name)))
	if err != nil {
		return nil, false, err
	}
	h = &Hold{file: f}
	fresh, err = h.fill(name, device.Index, namespace)
	if err == nil {
		err = lock(f, syscall.LOCK_SH)
	}
	if err != nil {
		return nil, false, errors.Join(err, f.Close())
	}
	return h, fresh, nil
}

// open opens a record and locks it: exclusively where nobody else has it, for who
// gets it alone may write it. Else it is another process's, which wrote it before
// it shared the lock.
func open(path string) (*os.File, error) {
	for {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o644)
		if errors.Is(err, fs.ErrNotExist) { // somebody removed the folder meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		if lock(f, syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			if err := lock(f, syscall.LOCK_SH); err != nil {
				return nil, errors.Join(err, f.Close())
			}
		}
		if same(f, path) {
			return f, nil
		}
		f.Close() // somebody removed it meanwhile
	}
}

// fill reads the record, or makes it, while it is locked exclusively.
func (h *Hold) fill(name string, index int, namespace uint64) (fresh bool, err error) {
	if json.NewDecoder(h.file).Decode(&h.record) == nil && h.record.Index == index {
		return false, nil
	}
	h.record = record{Interface: name, Index: index, Namespace: namespace}
	if h.record.On, err = Merging(name); err != nil {
		return false, err
	}
	return true, h.write()
}

// write puts the record on the disk before it returns.
func (h *Hold) write() error {
	data, err := json.Marshal(h.record)
	if err != nil {
		return err
	}
	if err := h.file.Truncate(0); err != nil {
		return err
	}
	if _, err := h.file.WriteAt(append(data, '\n'), 0); err != nil {
		return err
	}
	return h.file.Sync()
}

// Detach leaves the features off when the process ends, until Restore is told to
// take back what is detached.
func (h *Hold) Detach() error {
	h.record.Detached = true
	if err := h.write(); err != nil {
		return fmt.Errorf("record the offloads of %s: %w", h.record.Interface, err)
	}
	return h.file.Close()
}

// Release switches the features on again, unless another process still holds
// them off.
func (h *Hold) Release() error {
	defer h.file.Close()
	if h.record.Detached {
		return nil
	}
	// An exclusive lock is had by the last one only. Converting gives up the
	// shared one first, so of two that end at once one gets it.
	if err := lock(h.file, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil //nolint:nilerr // another one holds it, and will do it
	}
	return h.record.restore(h.file.Name())
}

// restore switches the features on and removes the record, which is locked
// exclusively.
func (r record) restore(path string) error {
	device, err := net.InterfaceByName(r.Interface)
	if err == nil && device.Index == r.Index { // else it is gone, and its settings with it
		if err := change(r.Interface, r.On, true); err != nil {
			return err
		}
	}
	return remove(path)
}

// remove removes a record, and the folder with the last one.
func remove(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if os.Remove(dir) == nil { // it was empty
		_ = os.Remove(filepath.Dir(dir)) // likewise, if nobody else keeps anything there
	}
	return nil
}

// Restore takes back what dead processes left in this network namespace, of the
// given interface or of all if the name is empty, and returns on which. Where a
// process lives that holds them off, it says so with [ErrHeld].
func Restore(dir, name string) ([]string, error) { return restore(dir, name, false) }

// RestoreDetached is Restore for what was detached as well.
func RestoreDetached(dir, name string) ([]string, error) { return restore(dir, name, true) }

func restore(dir, name string, detached bool) (done []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for offloads to restore: %w", err)
	}
	namespace, err := namespaceID()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range entries {
		restored, err := restoreOne(filepath.Join(dir, e.Name()), namespace, name, detached)
		if restored != "" {
			done = append(done, restored)
		}
		errs = append(errs, err)
	}
	return done, errors.Join(errs...)
}

func restoreOne(path string, namespace uint64, name string, detached bool) (string, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("restore offloads: %w", err)
	}
	defer f.Close()
	locked := lock(f, syscall.LOCK_EX|syscall.LOCK_NB) == nil
	var r record
	if json.NewDecoder(f).Decode(&r) != nil {
		if locked { // written by a process that died before it had changed anything
			return "", remove(path)
		}
		return "", nil
	}
	switch {
	case r.Namespace != namespace || name != "" && r.Interface != name:
		return "", nil
	case !locked:
		return "", fmt.Errorf("restore the offloads of %s: %w", r.Interface, ErrHeld)
	case r.Detached && !detached:
		return "", nil
	}
	if err := r.restore(path); err != nil {
		return "", fmt.Errorf("restore the offloads of %s: %w", r.Interface, err)
	}
	return r.Interface, nil
}

// change switches features, and leaves out what the device does not let change.
func change(name string, features []string, on bool) error {
	return withEthtool(func(e *ethtool.Ethtool) error {
		states, err := e.FeaturesWithState(name)
		if err != nil {
			return fmt.Errorf("read the offloads of %s: %w", name, err)
		}
		wanted := map[string]bool{}
		for _, f := range features {
			if s, ok := states[f]; ok && s.Available && !s.NeverChanged {
				wanted[f] = on
			}
		}
		if len(wanted) == 0 {
			return nil
		}
		if err := e.Change(name, wanted); err != nil {
			return fmt.Errorf("switch the offloads of %s: %w", name, err)
		}
		return nil
	})
}

func lock(f *os.File, how int) error {
	for {
		if err := syscall.Flock(int(f.Fd()), how); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// same reports whether the open file is still the one of that name.
func same(f *os.File, path string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// namespaceID identifies the calling thread's network namespace.
func namespaceID() (uint64, error) {
	info, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return 0, fmt.Errorf("identify the network namespace: %w", err)
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, errors.New("identify the network namespace: no inode")
	}
	return s.Ino, nil
}
