package tcmirror

// Numbers of include/uapi/linux/bpf.h and bpf_common.h.
const (
	helperTunnelKey = 21 // bpf_skb_set_tunnel_key
	helperLoad      = 26 // bpf_skb_load_bytes
	helperSetHash   = 48 // bpf_set_hash
	skbLength       = 0  // offsets in struct __sk_buff
	skbIngress      = 36
	skbMergedSize   = 176 // gso_size, 0 if nothing was merged
	tunnelKeyShort  = 8   // struct bpf_tunnel_key up to the IPv4 address

	ebpfMovImm, ebpfMovReg   = 0xb7, 0xbf
	ebpfAddImm, ebpfAddReg   = 0x07, 0x0f
	ebpfXor32, ebpfMul32     = 0xac, 0x24
	ebpfOr32, ebpfMov32      = 0x44, 0xbc
	ebpfShiftRight32         = 0x74
	ebpfAnd, ebpfShiftLeft   = 0x57, 0x67
	ebpfLoad4, ebpfLoad2     = 0x61, 0x69
	ebpfLoad1, ebpfStore8    = 0x71, 0x7a
	ebpfJump, ebpfEqual      = 0x05, 0x15
	ebpfNotEqual, ebpfIfBits = 0x55, 0x45
	ebpfGreaterSigned        = 0x65
	ebpfCall, ebpfExit       = 0x85, 0x95
)

// Verdicts of include/uapi/linux/pkt_cls.h.
const (
	actContinue = -1 // TC_ACT_UNSPEC: go on with the next filter
	actShot     = 2  // TC_ACT_SHOT
)

// ebpf is struct bpf_insn; the registers are the destination, in the low half of
// the byte on little-endian machines, and the source.
type ebpf struct {
	op     uint8
	regs   uint8
	offset int16
	imm    int32
}

// Registers, by what they hold.
const (
	rResult, rArg1, rArg2, rArg3, rArg4  = 0, 1, 2, 3, 4
	rFrame, rOffset, rSum, rTemp, rStack = 6, 7, 8, 9, 10
)

// The frame's headers are read to here on the stack.
const scratch = -40

// Numbers as a little-endian machine reads them from a frame.
const (
	leIPv4, leIPv6 = 0x0008, 0xdd86
	leVLAN, leQinQ = 0x0081, 0xa888
	leFragment     = 0xff3f // offset or "more follow"
	protoTCP       = 6
	// headersOfMerged is more than the headers that each part of a merged frame
	// gets.
	headersOfMerged = 14 + 8 + 40 + 60
	protoSCTP       = 132
)

// gateCode collects instructions whose jumps name labels that come later.
type gateCode struct {
	code  []ebpf
	jumps map[int]string
}

func (g *gateCode) add(op uint8, dst, src uint8, offset int16, imm int32) {
	g.code = append(g.code, ebpf{op, dst | src<<4, offset, imm})
}

// jump goes to a label if the register compares so with the number.
func (g *gateCode) jump(op uint8, dst uint8, imm int32, label string) {
	g.jumps[len(g.code)] = label
	g.add(op, dst, 0, 0, imm)
}

// label is where jumps to it arrive.
func (g *gateCode) label(name string) {
	for at, wanted := range g.jumps {
		if wanted == name {
			g.code[at].offset = int16(len(g.code) - at - 1)
			delete(g.jumps, at)
		}
	}
}

// read copies bytes of the frame to the scratch, at rOffset and so many further.
// What a short frame does not have is zero.
func (g *gateCode) read(further, length int32) {
	g.add(ebpfMovReg, rArg1, rFrame, 0, 0)
	g.add(ebpfMovReg, rArg2, rOffset, 0, 0)
	g.add(ebpfAddImm, rArg2, 0, 0, further)
	g.add(ebpfMovReg, rArg3, rStack, 0, 0)
	g.add(ebpfAddImm, rArg3, 0, 0, scratch)
	g.add(ebpfMovImm, rArg4, 0, 0, length)
	g.add(ebpfCall, 0, 0, 0, helperLoad)
}

// sum adds words of the scratch.
func (g *gateCode) sum(load uint8, from, count, size int16) {
	for i := range count {
		g.add(load, rTemp, rStack, scratch+from+i*size, 0)
		g.add(ebpfAddReg, rSum, rTemp, 0, 0)
	}
}

// gate is the program on a tunnel's way out. It
//
//   - drops what was not mirrored from the interface, such as what a program on
//     this machine sends to every device it finds;
//   - drops, so that it is counted, what is longer than the limit, or would be
//     once it was cut into what a NIC offload merged;
//   - gives the frame a hash that is the same for both directions of a flow, from
//     which the tunnel takes its UDP source port, by which a sensor's workers are
//     chosen. The kernel's own is not: that of a frame which a socket here has
//     sent is the socket's (net/core/sock.c, sk_txhash), that of a received one
//     the network card's, and for IPv6 it is that of the flow label, of which
//     each direction has its own (net/core/flow_dissector.c);
//   - with detour takes the route off, by putting a tunnel key in its place that
//     nobody reads: a copy that is too long for the way to the sensor would have
//     the kernel lower the path MTU of the original's own destination
//     (net/ipv4/ip_tunnel_core.c, skb_tunnel_check_pmtu).
func gate(from int, limit int32, detour bool) []ebpf {
	g := &gateCode{jumps: map[int]string{}}
	g.add(ebpfMovReg, rFrame, rArg1, 0, 0)
	g.add(ebpfLoad4, rTemp, rArg1, skbIngress, 0)
	g.jump(ebpfNotEqual, rTemp, int32(from), "drop")
	g.add(ebpfLoad4, rTemp, rArg1, skbMergedSize, 0)
	g.jump(ebpfNotEqual, rTemp, 0, "merged")
	g.add(ebpfLoad4, rTemp, rArg1, skbLength, 0)
	g.add(ebpfAddImm, rTemp, 0, 0, -headersOfMerged)
	g.label("merged")
	g.jump(ebpfGreaterSigned, rTemp, limit-headersOfMerged, "drop")
	if detour {
		g.add(ebpfStore8, rStack, 0, -tunnelKeyShort, 0)
		g.add(ebpfMovReg, rArg1, rFrame, 0, 0)
		g.add(ebpfMovReg, rArg2, rStack, 0, 0)
		g.add(ebpfAddImm, rArg2, 0, 0, -tunnelKeyShort)
		g.add(ebpfMovImm, rArg3, 0, 0, tunnelKeyShort)
		g.add(ebpfMovImm, rArg4, 0, 0, 0)
		g.add(ebpfCall, 0, 0, 0, helperTunnelKey)
	}
	g.network()
	g.hash()
	g.add(ebpfMovReg, rArg1, rFrame, 0, 0)
	g.add(ebpfMovReg, rArg2, rSum, 0, 0)
	g.add(ebpfCall, 0, 0, 0, helperSetHash)
	g.add(ebpfMovImm, rResult, 0, 0, actContinue)
	g.add(ebpfExit, 0, 0, 0, 0)
	g.label("drop")
	g.add(ebpfMovImm, rResult, 0, 0, actShot)
	g.add(ebpfExit, 0, 0, 0, 0)
	return g.code
}

// network sums what tells the flow: addresses, protocol and ports; of frames that
// are not IP the Ethernet addresses.
func (g *gateCode) network() {
	g.add(ebpfMovImm, rSum, 0, 0, 0)
	g.add(ebpfMovImm, rOffset, 0, 0, 12)
	for range 3 { // behind up to two tags
		g.read(0, 2)
		g.add(ebpfAddImm, rOffset, 0, 0, 2)
		g.add(ebpfLoad2, rTemp, rStack, scratch, 0)
		g.jump(ebpfEqual, rTemp, leIPv4, "ipv4")
		g.jump(ebpfEqual, rTemp, leIPv6, "ipv6")
		g.add(ebpfAddImm, rOffset, 0, 0, 2)
		g.jump(ebpfEqual, rTemp, leVLAN, "tag")
		g.jump(ebpfNotEqual, rTemp, leQinQ, "other")
		g.label("tag")
	}
	g.label("other")
	g.add(ebpfMovImm, rOffset, 0, 0, 0)
	g.read(0, 12)
	g.sum(ebpfLoad2, 0, 6, 2)
	g.jump(ebpfJump, 0, 0, "end")
	g.label("ipv4")
	g.read(0, 20)
	g.sum(ebpfLoad4, 12, 2, 4)
	g.add(ebpfLoad1, rTemp, rStack, scratch+9, 0)
	g.add(ebpfAddReg, rSum, rTemp, 0, 0)
	g.add(ebpfLoad2, rResult, rStack, scratch+6, 0)
	g.jump(ebpfIfBits, rResult, leFragment, "end")
	g.add(ebpfLoad1, rResult, rStack, scratch, 0)
	g.add(ebpfAnd, rResult, 0, 0, 0x0f)
	g.add(ebpfShiftLeft, rResult, 0, 0, 2)
	g.add(ebpfAddReg, rOffset, rResult, 0, 0)
	g.jump(ebpfJump, 0, 0, "ports")
	g.label("ipv6")
	g.read(0, 40)
	g.sum(ebpfLoad4, 8, 8, 4)
	g.add(ebpfLoad1, rTemp, rStack, scratch+6, 0)
	g.add(ebpfAddReg, rSum, rTemp, 0, 0)
	g.add(ebpfAddImm, rOffset, 0, 0, 40)
	g.label("ports")
	g.jump(ebpfEqual, rTemp, protoTCP, "have ports")
	g.jump(ebpfEqual, rTemp, protoUDP, "have ports")
	g.jump(ebpfNotEqual, rTemp, protoSCTP, "end")
	g.label("have ports")
	g.read(0, 4)
	g.sum(ebpfLoad2, 0, 2, 2)
	g.label("end")
}

// hash spreads the sum over 32 bits; never zero, which would mean "none".
func (g *gateCode) hash() {
	for _, step := range []struct {
		shift  int32
		factor uint32
	}{{16, 0x7feb352d}, {15, 0x846ca68b}, {16, 1}} {
		g.add(ebpfMov32, rTemp, rSum, 0, 0)
		g.add(ebpfShiftRight32, rTemp, 0, 0, step.shift)
		g.add(ebpfXor32, rSum, rTemp, 0, 0)
		g.add(ebpfMul32, rSum, 0, 0, int32(step.factor))
	}
	g.add(ebpfOr32, rSum, 0, 0, 1)
}
