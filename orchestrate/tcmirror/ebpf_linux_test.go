package tcmirror

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// The kernel takes every gate, and a process that is started does not inherit
// it.
func TestKernelTakesGates(t *testing.T) {
	testenv.NeedRoot(t)
	for _, detour := range []bool{false, true} {
		program, err := loadGate(gate(labIndex, labLimit, detour))
		if err != nil {
			t.Fatal(err)
		}
		flags, err := unix.FcntlInt(uintptr(program.FD()), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("flags of the descriptor: %#x, %v", flags, err)
		}
		if err := program.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Where the verifier refuses a program, the error has its words.
func TestVerifierIsQuoted(t *testing.T) {
	testenv.NeedRoot(t)
	_, err := loadGate(asm.Instructions{asm.Mov.Reg(asm.R0, asm.R3), asm.Return()})
	if err == nil || !strings.Contains(err.Error(), "R3 !read_ok") {
		t.Errorf("got %v", err)
	}
}

// Without the capability it is a matter of permission, and which one is said.
func TestGateNeedsCapability(t *testing.T) {
	testenv.NeedRoot(t)
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread has lost its capabilities
		var none [2]unix.CapUserData
		err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
		if err == nil {
			_, err = loadGate(gate(labIndex, labLimit, false))
		}
		failed <- err
	}()
	if err := <-failed; !errors.Is(err, os.ErrPermission) || !strings.HasSuffix(err.Error(), "(CAP_BPF is missing)") {
		t.Errorf("got %v", err)
	}
}
