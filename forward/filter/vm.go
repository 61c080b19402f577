package filter

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/bpf"
)

// An instruction is a classic BPF instruction whose opcode has been replaced by
// a dense number, so that the interpreter's switch becomes one indexed jump.
type instruction struct {
	op     op
	jt, jf uint8
	k      uint32
}

// op numbers the opcodes of bpf(4) (libpcap pcap/bpf.h) that libpcap emits.
type op uint8

const (
	opRetK op = iota
	opRetA
	opLoadWord
	opLoadHalf
	opLoadByte
	opLoadIndirectWord
	opLoadIndirectHalf
	opLoadIndirectByte
	opLoadLen
	opLoadImm
	opLoadMem
	opLoadXImm
	opLoadXMem
	opLoadXLen
	opLoadXHeader
	opStore
	opStoreX
	opJump
	opJumpEqual
	opJumpGreater
	opJumpGreaterEqual
	opJumpSet
	opJumpEqualX
	opJumpGreaterX
	opJumpGreaterEqualX
	opJumpSetX
	opAdd
	opSub
	opMul
	opDiv
	opMod
	opOr
	opAnd
	opXor
	opShiftLeft
	opShiftRight
	opAddX
	opSubX
	opMulX
	opDivX
	opModX
	opOrX
	opAndX
	opXorX
	opShiftLeftX
	opShiftRightX
	opNegate
	opAToX
	opXToA
)

// opOf maps an opcode as the format stores it, class and mode and size, to its
// number here.
func opOf(code uint16) (op, bool) {
	codes := [...]struct {
		code uint16
		op   op
	}{
		{0x06, opRetK}, {0x16, opRetA},
		{0x20, opLoadWord}, {0x28, opLoadHalf}, {0x30, opLoadByte},
		{0x40, opLoadIndirectWord}, {0x48, opLoadIndirectHalf}, {0x50, opLoadIndirectByte},
		{0x80, opLoadLen}, {0x00, opLoadImm}, {0x60, opLoadMem},
		{0x01, opLoadXImm}, {0x61, opLoadXMem}, {0x81, opLoadXLen}, {0xb1, opLoadXHeader},
		{0x02, opStore}, {0x03, opStoreX},
		{0x05, opJump},
		{0x15, opJumpEqual}, {0x25, opJumpGreater}, {0x35, opJumpGreaterEqual}, {0x45, opJumpSet},
		{0x1d, opJumpEqualX}, {0x2d, opJumpGreaterX}, {0x3d, opJumpGreaterEqualX}, {0x4d, opJumpSetX},
		{0x04, opAdd}, {0x14, opSub}, {0x24, opMul}, {0x34, opDiv}, {0x94, opMod},
		{0x44, opOr}, {0x54, opAnd}, {0xa4, opXor}, {0x64, opShiftLeft}, {0x74, opShiftRight},
		{0x0c, opAddX}, {0x1c, opSubX}, {0x2c, opMulX}, {0x3c, opDivX}, {0x9c, opModX},
		{0x4c, opOrX}, {0x5c, opAndX}, {0xac, opXorX}, {0x6c, opShiftLeftX}, {0x7c, opShiftRightX},
		{0x84, opNegate}, {0x07, opAToX}, {0x87, opXToA},
	}
	for _, c := range codes {
		if c.code == code {
			return c.op, true
		}
	}
	return 0, false
}

// memWords is the size of the scratch memory, BPF_MEMWORDS.
const memWords = 16

// maxLoops bounds the backward jumps of one run. Only "protochain" makes them,
// once per extension header.
const maxLoops = 1024

// decode checks a program and makes it ready to run: every path ends in a
// return, no jump leaves the program, no access leaves the scratch memory, no
// constant divisor is zero.
func decode(raw []bpf.RawInstruction) ([]instruction, error) {
	if len(raw) == 0 {
		return nil, fmt.Errorf("it is empty")
	}
	code := make([]instruction, len(raw))
	for i, r := range raw {
		number, ok := opOf(r.Op)
		if !ok {
			return nil, fmt.Errorf("instruction %d: unknown opcode %#x", i, r.Op)
		}
		code[i] = instruction{number, r.Jt, r.Jf, r.K}
		if err := code[i].check(i, len(raw)); err != nil {
			return nil, fmt.Errorf("instruction %d: %w", i, err)
		}
	}
	return code, nil
}

// check checks instruction i of n.
func (ins instruction) check(i, n int) error {
	switch {
	case ins.op >= opJumpEqual && ins.op <= opJumpSetX:
		if i+1+int(max(ins.jt, ins.jf)) >= n {
			return fmt.Errorf("jump out of the program")
		}
	case ins.op == opJump:
		if to := i + 1 + int(int32(ins.k)); to < 0 || to >= n {
			return fmt.Errorf("jump out of the program")
		}
	case ins.op != opRetK && ins.op != opRetA && i+1 >= n:
		return fmt.Errorf("the program does not end in a return")
	case (ins.op == opDiv || ins.op == opMod) && ins.k == 0:
		return fmt.Errorf("division by zero")
	case ins.usesMemory() && ins.k >= memWords:
		return fmt.Errorf("access to scratch word %d of %d", ins.k, memWords)
	}
	return nil
}

func (ins instruction) usesMemory() bool {
	return ins.op == opLoadMem || ins.op == opLoadXMem || ins.op == opStore || ins.op == opStoreX
}

// run interprets a checked program on a frame of which length bytes were on the
// wire, as libpcap's bpf_filter.c does: a load beyond the data and a division by
// zero reject the frame, and the offset of a "jump always" has a sign. One
// function with one case per opcode is what makes it fast.
//
//nolint:gocyclo,funlen // an interpreter's switch
func run(code []instruction, data []byte, length uint32) uint32 {
	var (
		a, x  uint32
		mem   [memWords]uint32
		loops int
	)
	for pc := 0; uint(pc) < uint(len(code)); pc++ {
		ins := &code[pc]
		k := ins.k
		switch ins.op {
		case opRetK:
			return k
		case opRetA:
			return a

		case opLoadWord, opLoadIndirectWord:
			at := uint64(k)
			if ins.op == opLoadIndirectWord {
				at += uint64(x)
			}
			if at+4 > uint64(len(data)) {
				return 0
			}
			a = binary.BigEndian.Uint32(data[at:])
		case opLoadHalf, opLoadIndirectHalf:
			at := uint64(k)
			if ins.op == opLoadIndirectHalf {
				at += uint64(x)
			}
			if at+2 > uint64(len(data)) {
				return 0
			}
			a = uint32(binary.BigEndian.Uint16(data[at:]))
		case opLoadByte, opLoadIndirectByte:
			at := uint64(k)
			if ins.op == opLoadIndirectByte {
				at += uint64(x)
			}
			if at >= uint64(len(data)) {
				return 0
			}
			a = uint32(data[at])
		case opLoadXHeader:
			if uint64(k) >= uint64(len(data)) {
				return 0
			}
			x = uint32(data[k]&0xf) * 4

		case opLoadLen:
			a = length
		case opLoadXLen:
			x = length
		case opLoadImm:
			a = k
		case opLoadXImm:
			x = k
		case opLoadMem:
			a = mem[k%memWords]
		case opLoadXMem:
			x = mem[k%memWords]
		case opStore:
			mem[k%memWords] = a
		case opStoreX:
			mem[k%memWords] = x
		case opAToX:
			x = a
		case opXToA:
			a = x

		case opJump:
			if pc += int(int32(k)); int32(k) < 0 {
				if loops++; loops > maxLoops {
					return 0
				}
			}
		case opJumpEqual:
			pc += ins.branch(a == k)
		case opJumpGreater:
			pc += ins.branch(a > k)
		case opJumpGreaterEqual:
			pc += ins.branch(a >= k)
		case opJumpSet:
			pc += ins.branch(a&k != 0)
		case opJumpEqualX:
			pc += ins.branch(a == x)
		case opJumpGreaterX:
			pc += ins.branch(a > x)
		case opJumpGreaterEqualX:
			pc += ins.branch(a >= x)
		case opJumpSetX:
			pc += ins.branch(a&x != 0)

		case opAdd:
			a += k
		case opSub:
			a -= k
		case opMul:
			a *= k
		case opDiv:
			a /= k
		case opMod:
			a %= k
		case opOr:
			a |= k
		case opAnd:
			a &= k
		case opXor:
			a ^= k
		case opShiftLeft:
			a <<= k
		case opShiftRight:
			a >>= k
		case opAddX:
			a += x
		case opSubX:
			a -= x
		case opMulX:
			a *= x
		case opDivX, opModX:
			if x == 0 {
				return 0
			}
			if ins.op == opDivX {
				a /= x
			} else {
				a %= x
			}
		case opOrX:
			a |= x
		case opAndX:
			a &= x
		case opXorX:
			a ^= x
		case opShiftLeftX:
			a <<= x
		case opShiftRightX:
			a >>= x
		case opNegate:
			a = -a
		}
	}
	return 0 // not reached: decode saw to it
}

// branch is how far a conditional jump goes.
func (ins *instruction) branch(condition bool) int {
	if condition {
		return int(ins.jt)
	}
	return int(ins.jf)
}
