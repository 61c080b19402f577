package tcmirror

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of include/uapi/linux/bpf.h.
const (
	bpfProgLoad = 5
	bpfSchedCls = 3
)

// loadTries is how often a program is given to the kernel until that takes it.
const loadTries = 20

// loadGate gives the program to the kernel. It needs CAP_BPF beside
// CAP_NET_ADMIN, or root.
func loadGate(code []ebpf) (*os.File, error) {
	license := []byte("BSD\x00")
	// The beginning of union bpf_attr.
	attr := struct {
		kind, count      uint32
		code, license    uint64
		logLevel, logLen uint32
		log              uint64
		version, flags   uint32
	}{kind: bpfSchedCls, count: uint32(len(code)),
		code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	fd, errno := uintptr(0), unix.EAGAIN
	// The verifier gives up where a signal is pending (bpf_check in the kernel's
	// kernel/bpf/verifier.c), and the Go runtime sends some at any time.
	for try := 0; try < loadTries && errno == unix.EAGAIN; try++ {
		fd, _, errno = unix.Syscall(unix.SYS_BPF, bpfProgLoad, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	}
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	if errno == unix.EPERM {
		return nil, fmt.Errorf("load an eBPF program: %w (CAP_BPF is missing)", errno)
	}
	if errno != 0 {
		return nil, fmt.Errorf("load an eBPF program: %w", errno)
	}
	unix.CloseOnExec(int(fd))
	return os.NewFile(fd, "bpf program"), nil
}
