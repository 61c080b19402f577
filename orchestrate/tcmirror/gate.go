package tcmirror

import (
	"encoding/binary"
	"slices"

	"github.com/cilium/ebpf/asm"
)

// Offsets in struct __sk_buff of include/uapi/linux/bpf.h, and the length of
// struct bpf_tunnel_key up to the IPv4 address.
const (
	skbLength      = 0
	skbIngress     = 36
	skbMergedSize  = 176 // gso_size, 0 if nothing was merged
	tunnelKeyShort = 8
)

// Verdicts of include/uapi/linux/pkt_cls.h.
const (
	actContinue = -1 // TC_ACT_UNSPEC: go on with the next filter
	actShot     = 2  // TC_ACT_SHOT
)

// Registers, by what they hold. Calls keep all but [asm.R0] to [asm.R5].
const (
	rFrame  = asm.R6
	rOffset = asm.R7 // in the frame, where its next header begins
	rSum    = asm.R8
	rTemp   = asm.R9
)

// scratch is where on the stack the frame's headers are read to.
const scratch = -40

const (
	protoTCP, protoSCTP = 6, 132
	fragmentAny         = 0x3fff // offset or "more follow"
	// headersOfMerged is more than the headers that each part of a merged frame
	// gets.
	headersOfMerged = headerEther + tags + 40 + 60
)

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
func gate(from int, limit int32, detour bool) asm.Instructions {
	code := admit(from, limit)
	if detour {
		code = append(code, loseRoute()...)
	}
	return slices.Concat(code, flow(), labelled("end", spread()), asm.Instructions{
		asm.Mov.Reg(asm.R1, rFrame),
		asm.Mov.Reg(asm.R2, rSum),
		asm.FnSetHash.Call(),
		asm.Mov.Imm(asm.R0, actContinue),
		asm.Return(),
		asm.Mov.Imm(asm.R0, actShot).WithSymbol("drop"),
		asm.Return(),
	})
}

// labelled makes the beginning of the code what jumps to the name arrive at.
func labelled(name string, code asm.Instructions) asm.Instructions {
	code[0] = code[0].WithSymbol(name)
	return code
}

// admit drops what has no business in the tunnel, or does not fit.
func admit(from int, limit int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(rFrame, asm.R1),
		asm.LoadMem(rTemp, asm.R1, skbIngress, asm.Word),
		asm.JNE.Imm(rTemp, int32(from), "drop"),
		asm.LoadMem(rTemp, asm.R1, skbMergedSize, asm.Word),
		asm.JNE.Imm(rTemp, 0, "merged"),
		asm.LoadMem(rTemp, asm.R1, skbLength, asm.Word),
		asm.Add.Imm(rTemp, -headersOfMerged),
		asm.JSGT.Imm(rTemp, limit-headersOfMerged, "drop").WithSymbol("merged"),
	}
}

// loseRoute puts an empty tunnel key in the place of the route.
func loseRoute() asm.Instructions {
	return asm.Instructions{
		{OpCode: asm.StoreImmOp(asm.DWord), Dst: asm.RFP, Offset: -tunnelKeyShort},
		asm.Mov.Reg(asm.R1, rFrame),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -tunnelKeyShort),
		asm.Mov.Imm(asm.R3, tunnelKeyShort),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnSkbSetTunnelKey.Call(),
	}
}

// flow sums what tells the flow: addresses, protocol and ports; of frames that
// are not IP the Ethernet addresses. It goes to "end".
func flow() asm.Instructions {
	code := asm.Instructions{asm.Mov.Imm(rSum, 0), asm.Mov.Imm(rOffset, 12)}
	// Behind up to two tags.
	code = append(code, etherType("second type")...)
	code = append(code, labelled("second type", etherType("third type"))...)
	code = append(code, labelled("third type", etherType("other"))...)
	return slices.Concat(code, labelled("other", ethernet()), labelled("ipv4", ipv4()), labelled("ipv6", ipv6()), labelled("ports", ports()))
}

// etherType goes to "ipv4" or "ipv6", behind a tag, or to "other".
func etherType(behindTag string) asm.Instructions {
	return append(read(2),
		asm.Add.Imm(rOffset, 2),
		asm.LoadMem(rTemp, asm.RFP, scratch, asm.Half),
		asm.JEq.Imm(rTemp, loaded(etherIPv4), "ipv4"),
		asm.JEq.Imm(rTemp, loaded(etherIPv6), "ipv6"),
		asm.Add.Imm(rOffset, 2),
		asm.JEq.Imm(rTemp, loaded(etherVLAN), behindTag),
		asm.JNE.Imm(rTemp, loaded(etherQinQ), "other"),
	)
}

func ethernet() asm.Instructions {
	return slices.Concat(
		asm.Instructions{asm.Mov.Imm(rOffset, 0)},
		read(12),
		sum(asm.Half, 0, 6),
		asm.Instructions{asm.Ja.Label("end")},
	)
}

// ipv4 leaves the protocol in rTemp, as ipv6 does. Ports are in the first
// fragment only, so no fragment's count.
func ipv4() asm.Instructions {
	return slices.Concat(read(20), sum(asm.Word, 12, 2), asm.Instructions{
		asm.LoadMem(rTemp, asm.RFP, scratch+9, asm.Byte),
		asm.Add.Reg(rSum, rTemp),
		asm.LoadMem(asm.R0, asm.RFP, scratch+6, asm.Half),
		asm.JSet.Imm(asm.R0, loaded(fragmentAny), "end"),
		asm.LoadMem(asm.R0, asm.RFP, scratch, asm.Byte),
		asm.And.Imm(asm.R0, 0x0f),
		asm.LSh.Imm(asm.R0, 2),
		asm.Add.Reg(rOffset, asm.R0),
		asm.Ja.Label("ports"),
	})
}

func ipv6() asm.Instructions {
	return slices.Concat(read(40), sum(asm.Word, 8, 8), asm.Instructions{
		asm.LoadMem(rTemp, asm.RFP, scratch+6, asm.Byte),
		asm.Add.Reg(rSum, rTemp),
		asm.Add.Imm(rOffset, 40),
	})
}

// ports are those of the protocols that have them.
func ports() asm.Instructions {
	return slices.Concat(asm.Instructions{
		asm.JEq.Imm(rTemp, protoTCP, "have ports"),
		asm.JEq.Imm(rTemp, protoUDP, "have ports"),
		asm.JNE.Imm(rTemp, protoSCTP, "end"),
	}, labelled("have ports", read(4)), sum(asm.Half, 0, 2))
}

// read copies bytes of the frame, at rOffset, to the scratch; zeros, if it ends
// before.
func read(length int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, rFrame),
		asm.Mov.Reg(asm.R2, rOffset),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, scratch),
		asm.Mov.Imm(asm.R4, length),
		asm.FnSkbLoadBytes.Call(),
	}
}

// sum adds words of the scratch.
func sum(size asm.Size, from, count int16) (code asm.Instructions) {
	for i := range count {
		code = append(code,
			asm.LoadMem(rTemp, asm.RFP, scratch+from+i*int16(size.Sizeof()), size),
			asm.Add.Reg(rSum, rTemp))
	}
	return code
}

// spread hashes the sum over 32 bits; never zero, which would mean "none".
func spread() (code asm.Instructions) {
	for _, step := range []struct {
		shift  int32
		factor uint32
	}{{16, 0x7feb352d}, {15, 0x846ca68b}, {16, 1}} {
		code = append(code,
			asm.Mov.Reg32(rTemp, rSum),
			asm.RSh.Imm32(rTemp, step.shift),
			asm.Xor.Reg32(rSum, rTemp),
			asm.Mul.Imm32(rSum, int32(step.factor)))
	}
	return append(code, asm.Or.Imm32(rSum, 1))
}

// loaded is what a load makes of a 16-bit number of the frame, which has it in
// network byte order.
func loaded(n uint16) int32 {
	return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n)))
}
