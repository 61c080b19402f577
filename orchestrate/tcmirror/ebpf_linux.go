package tcmirror

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// loadGate gives the program to the kernel. It needs CAP_BPF beside
// CAP_NET_ADMIN, or root. Where the verifier refuses it, the error has its words
// (an [ebpf.VerifierError] with all of them).
func loadGate(code asm.Instructions) (*ebpf.Program, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "BSD", Instructions: code})
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("load an eBPF program: %w (CAP_BPF is missing)", unix.EPERM)
	}
	if err != nil {
		return nil, fmt.Errorf("load an eBPF program: %w", err)
	}
	return program, nil
}
