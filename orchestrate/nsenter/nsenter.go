// Package nsenter reads and writes the files of the kernel, those under /proc
// and /sys, on the machine that runs the container engine: in the machine's own
// network namespace or in that of a container.
//
// The nouns:
//
//   - A Namespace is a network namespace of that machine. The same path means
//     another file in each: /proc/net and /proc/sys/net, and /sys/class/net.
//   - A Machine is a way to these files. There are two.
//
// [Local] is for root on that machine itself. It reads the machine's own files
// as anybody does. For a container's, a thread enters the container's network
// namespace and a mount namespace of its own, mounts a fresh sysfs there, and
// dies afterwards: it never serves anything else.
//
// A helper container ([Helper]) reaches the machine wherever the engine is,
// also the virtual machine of Docker Desktop or colima, and needs no privilege
// here. It is in the machine's process and network namespaces, and mounts a
// proc and a sysfs of its own.
//
// Beside the kernel's files there are those of sysctl's configuration, and the
// records of what was changed, which both ways find in the same place
// ([RecordFolder]): the helper has a mount of it.
//
// Both leave a container's own /sys as it is, read-only. A fresh sysfs shares
// its superblock with the container's; it is made writable for one write, and
// read-only again if it was. The machine's own sysfs is never remounted.
package nsenter

import (
	"context"
	"errors"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// Namespace is a network namespace of the engine's machine.
type Namespace struct {
	// PID is that of any process in it, in the machine's process namespace; 0
	// stands for the machine's own.
	PID int
}

// Machine reads and writes the kernel's files. Its methods may be called
// concurrently; each call ends what it has begun even when ctx is cancelled,
// so that no file is left half-way.
type Machine interface {
	// Read returns the contents of files, by their paths as under /proc and
	// /sys. A path may be a pattern as of path.Match; the answer has the paths
	// that it matches. What is missing or may not be read is absent.
	//
	// "/proc/net" is the namespace's. Beside what the kernel has as files there
	// is "/ethtool/INTERFACE/FEATURE", see [Feature].
	Read(ctx context.Context, ns Namespace, paths ...string) (map[string]string, error)
	// Write writes a value, in one piece, into a file under /proc/sys or /sys.
	// Its errors are fs.ErrNotExist, fs.ErrPermission (also for a file system
	// that is read-only) or the kernel's refusal of the value.
	//
	// A file in "/etc/sysctl.d" or in [RecordFolder] is replaced as a whole and
	// durably; an empty value removes it.
	Write(ctx context.Context, ns Namespace, path, value string) error
	// Lock keeps others from locking a file in [RecordFolder], by whichever way
	// they come, until unlock is called or the machine is closed. It does not wait:
	// where another one has it, the error is [ErrLocked]. Where that folder cannot
	// be reached, or is not root's alone, it is fs.ErrPermission.
	Lock(ctx context.Context, path string) (unlock func(), err error)
	// Close releases what the machine holds: the helper container.
	Close() error
}

// Way says how a Machine is reached.
type Way string

// The ways.
const (
	Auto   Way = "auto"   // the first that works
	Direct Way = "direct" // this process is root on the engine's machine
	Helper Way = "helper" // by a helper container
)

// Options say how to open a Machine.
type Options struct {
	Way Way // empty for Auto
	// Image is what a helper is made of; empty for that of the stack's sensors.
	Image string
	// Pull says whether the image may be pulled; empty for never.
	Pull orchestrate.PullPolicy
	// Progress is told when an image is pulled. It may be nil.
	Progress orchestrate.Progress
	// Program finds this program, built for the engine's platform. It is only
	// needed for features of interfaces by way of a helper, see [Feature]; nil
	// for none.
	Program func() (path string, err error)
}

// Local returns the way of root on the engine's own machine. On other systems
// than Linux its methods fail with errors.ErrUnsupported.
func Local() Machine { return local() }

// ErrLocked says that another one has the lock.
var ErrLocked = errors.New("another one has it")

// errNoEngine says that an engine cannot run helpers.
var errNoEngine = errors.New("run a helper container: this engine cannot")
