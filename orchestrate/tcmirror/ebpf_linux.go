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
	bpfProgLoad      = 5
	bpfSchedCls      = 3
	helperTunnelKey  = 21 // bpf_skb_set_tunnel_key
	helperHash       = 41 // bpf_set_hash_invalid
	skbIngress       = 36 // offset of ingress_ifindex in struct __sk_buff
	tunnelKeyShort   = 8  // struct bpf_tunnel_key up to the IPv4 address
	ebpfMovImm       = 0xb7
	ebpfMovReg       = 0xbf
	ebpfAddImm       = 0x07
	ebpfLoadWord     = 0x61
	ebpfStoreDouble  = 0x7a
	ebpfJumpNotEqual = 0x55
	ebpfCall         = 0x85
	ebpfExit         = 0x95
)

// ebpf is struct bpf_insn; the registers are the destination, in the low half of
// the byte on little-endian machines, and the source.
type ebpf struct {
	op     uint8
	regs   uint8
	offset int16
	imm    int32
}

// gate is the program on a tunnel's way out. It
//
//   - drops what was not mirrored from the interface, such as what a program on
//     this machine sends to every device it finds;
//   - takes the hash off: that of a frame which a socket here has sent is the
//     socket's, and that of a received one the network card's, so the two
//     directions of a flow differ (net/core/sock.c, sk_txhash). Computed anew
//     it is symmetric (net/core/flow_dissector.c), and with it the UDP source
//     port, by which a sensor's workers are chosen;
//   - with detour takes the route off, by putting a tunnel key in its place that
//     nobody reads: a copy that is too long for the way to the sensor would have
//     the kernel lower the path MTU of the original's own destination
//     (skb_tunnel_check_pmtu).
func gate(from int, detour bool) []ebpf {
	code := []ebpf{
		{op: ebpfMovReg, regs: 0x16},                         // r6 = the frame
		{op: ebpfLoadWord, regs: 0x12, offset: skbIngress},   // r2 = where it was mirrored
		{op: ebpfJumpNotEqual, regs: 0x02, imm: int32(from)}, // to the drop at the end
		{op: ebpfMovReg, regs: 0x61},                         // r1 = the frame
		{op: ebpfCall, imm: helperHash},                      //
		{op: ebpfMovImm, regs: 0x00, imm: actContinue},       // r0
		{op: ebpfExit}, //
		{op: ebpfMovImm, regs: 0x00, imm: actShot}, {op: ebpfExit}, //
	}
	if detour {
		key := []ebpf{
			{op: ebpfStoreDouble, regs: 0x0a, offset: -tunnelKeyShort},
			{op: ebpfMovReg, regs: 0x61},
			{op: ebpfMovReg, regs: 0xa2}, {op: ebpfAddImm, regs: 0x02, imm: -tunnelKeyShort},
			{op: ebpfMovImm, regs: 0x03, imm: tunnelKeyShort},
			{op: ebpfMovImm, regs: 0x04},
			{op: ebpfCall, imm: helperTunnelKey},
		}
		code = append(code[:3:3], append(key, code[3:]...)...)
	}
	code[2].offset = int16(len(code) - 2 - 3)
	return code
}

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
	fd, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgLoad, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	if errno != 0 {
		return nil, fmt.Errorf("load an eBPF program: %w", errno)
	}
	unix.CloseOnExec(int(fd))
	return os.NewFile(fd, "bpf program"), nil
}
