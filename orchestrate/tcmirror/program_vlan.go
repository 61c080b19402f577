package tcmirror

import (
	"fmt"

	"golang.org/x/net/bpf"
)

// beside rewrites a program that was compiled for frames whose VLAN tag is
// among their bytes, so that it decides the same about frames whose tag the
// kernel keeps beside them: bytes 12 to 15 are then elsewhere, and what follows
// begins four bytes earlier. What such a frame can never reach (everything
// behind "it is IPv4 without a tag") becomes "no match".
func beside(ops []op) ([]op, error) {
	reached := reach(ops)
	var out []op
	at := make([]int, len(ops)+1)
	for i, o := range ops {
		at[i] = len(out)
		if !reached[i] {
			out = append(out, op{op: classRET, k: nothing})
			continue
		}
		rewritten, err := besideOne(o)
		if err != nil {
			return nil, err
		}
		out = append(out, rewritten...)
	}
	// The last instruction of each rewritten one is the one that jumps.
	at[len(ops)] = len(out)
	for i, o := range ops {
		if reached[i] && o.jumps() {
			j := &out[at[i+1]-1]
			j.yes, j.no = at[o.yes], at[o.no]
		}
	}
	return out, nil
}

// isEtherType says that the instruction loads the first EtherType.
func isEtherType(o op) bool { return o.op == classLD|sizeH|modeABS && o.k == 12 }

// reach follows the program for a frame whose EtherType is that of a tag. It
// jumps forward only, so one pass in order is enough.
func reach(ops []op) []bool {
	const no, unknown, tag = 0, 1, 2 // what is in the accumulator on arrival
	state := make([]int, len(ops)+1)
	arrive := func(i, s int) {
		if state[i] != no && state[i] != s {
			s = unknown
		}
		state[i] = s
	}
	arrive(0, unknown)
	for i, o := range ops {
		s := state[i]
		switch {
		case s == no || o.op&7 == classRET:
		case o.op == classJMP|jumpEQ && s == tag && o.k != etherVLAN && o.k != etherQinQ:
			arrive(o.no, s)
		case o.jumps():
			arrive(o.yes, s)
			arrive(o.no, s)
		case isEtherType(o):
			arrive(i+1, tag)
		case o.op&7 == classLD || o.op&7 == classALU || o.op == txa:
			arrive(i+1, unknown)
		default: // loads of the index register and stores leave the accumulator
			arrive(i+1, s)
		}
	}
	reached := make([]bool, len(ops))
	for i := range reached {
		reached[i] = state[i] != no
	}
	return reached
}

// txa copies the index register to the accumulator.
const txa = 0x87

// besideOne rewrites one instruction.
func besideOne(o op) ([]op, error) {
	mode := o.op & 0xe0
	switch class := o.op & 7; {
	case class == classLD && mode == modeLEN:
		return []op{o, {op: classALU | aluAdd, k: 4}}, nil
	case class == classLD && mode == modeABS:
		return besideAbsolute(o)
	case class == classLDX && mode == modeLEN:
		return nil, errBeside(o)
	case (class == classLD && mode == modeIND) || (class == classLDX && mode == modeMSH):
		if o.k < 16 || o.k >= 1<<31 {
			return nil, errBeside(o)
		}
		o.k -= 4
	}
	return []op{o}, nil
}

func besideAbsolute(o op) ([]op, error) {
	size := map[uint16]uint32{sizeW: 4, sizeH: 2, sizeB: 1}[o.op&0x18]
	load := func(k uint32) op { return op{op: classLD | sizeW | modeABS, k: k} }
	high, low := op{op: classALU | aluRsh, k: 8}, op{op: classALU | aluAnd, k: 0xff}
	switch {
	case o.k >= 1<<31 || o.k+size <= 12: // beside already, or before the tag
		return []op{o}, nil
	case o.k >= 16:
		o.k -= 4
		return []op{o}, nil
	case size == 2 && o.k == 12:
		return []op{load(auxVLANType)}, nil
	case size == 2 && o.k == 14:
		return []op{load(auxVLANTag)}, nil
	case size == 1:
		from := load(auxVLANType)
		if o.k >= 14 {
			from = load(auxVLANTag)
		}
		if o.k%2 == 0 {
			return []op{from, high}, nil
		}
		return []op{from, low}, nil
	}
	return nil, errBeside(o)
}

func errBeside(o op) error {
	text := fmt.Sprintf("%#x %d", o.op, o.k)
	if d := (bpf.RawInstruction{Op: o.op, K: o.k}).Disassemble(); d != nil {
		text = fmt.Sprint(d)
	}
	return unsupportedf("compile the filter for the kernel: %q cannot be asked of frames whose VLAN tag the kernel keeps beside them", text)
}
