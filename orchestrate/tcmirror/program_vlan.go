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
			out = append(out, op{Instruction: bpf.RetConstant{Val: nothing}})
			continue
		}
		rewritten, err := besideOne(o.Instruction)
		if err != nil {
			return nil, err
		}
		for _, ins := range rewritten {
			out = append(out, op{Instruction: ins})
		}
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
		switch s := state[i]; {
		case s == no || o.ends():
		case s == tag && o.refutesTag():
			arrive(o.no, s)
		case o.jumps():
			arrive(o.yes, s)
			arrive(o.no, s)
		case o.Instruction == bpf.LoadAbsolute{Off: 12, Size: 2}:
			arrive(i+1, tag)
		case o.accumulates():
			arrive(i+1, unknown)
		default:
			arrive(i+1, s)
		}
	}
	reached := make([]bool, len(ops))
	for i := range reached {
		reached[i] = state[i] != no
	}
	return reached
}

func (o op) ends() bool {
	switch o.Instruction.(type) {
	case bpf.RetA, bpf.RetConstant:
		return true
	}
	return false
}

// refutesTag says that the instruction asks whether an EtherType is another than
// that of a tag.
func (o op) refutesTag() bool {
	j, ok := o.Instruction.(bpf.JumpIf)
	return ok && j.Cond == bpf.JumpEqual && j.Val != etherVLAN && j.Val != etherQinQ
}

// accumulates says that the instruction, which is no jump, changes the
// accumulator.
func (o op) accumulates() bool {
	switch i := o.Instruction.(type) {
	case bpf.LoadConstant:
		return i.Dst == bpf.RegA
	case bpf.LoadScratch:
		return i.Dst == bpf.RegA
	case bpf.LoadMemShift, bpf.StoreScratch, bpf.TAX:
		return false
	}
	return true
}

// besideOne rewrites one instruction.
func besideOne(ins bpf.Instruction) ([]bpf.Instruction, error) {
	same := []bpf.Instruction{ins}
	switch i := ins.(type) {
	case bpf.LoadExtension:
		if i.Num == bpf.ExtLen {
			return append(same, bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 4}), nil
		}
	case bpf.LoadAbsolute:
		return besideAbsolute(i)
	case bpf.LoadIndirect:
		if i.Off < 16 || i.Off >= 1<<31 {
			return nil, errBeside(i)
		}
		return []bpf.Instruction{bpf.LoadIndirect{Off: i.Off - 4, Size: i.Size}}, nil
	case bpf.LoadMemShift:
		if i.Off < 16 || i.Off >= 1<<31 {
			return nil, errBeside(i)
		}
		return []bpf.Instruction{bpf.LoadMemShift{Off: i.Off - 4}}, nil
	}
	return same, nil
}

func besideAbsolute(i bpf.LoadAbsolute) ([]bpf.Instruction, error) {
	tag, at := bpf.LoadExtension{Num: bpf.ExtVLANProto}, i.Off-12
	if i.Off >= 14 {
		tag, at = bpf.LoadExtension{Num: bpf.ExtVLANTag}, i.Off-14
	}
	switch {
	case i.Off >= 1<<31 || i.Off+uint32(i.Size) <= 12: // beside already, or before the tag
		return []bpf.Instruction{i}, nil
	case i.Off >= 16:
		return []bpf.Instruction{bpf.LoadAbsolute{Off: i.Off - 4, Size: i.Size}}, nil
	case i.Size == 2 && at == 0:
		return []bpf.Instruction{tag}, nil
	case i.Size == 1 && at == 0:
		return []bpf.Instruction{tag, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 8}}, nil
	case i.Size == 1:
		return []bpf.Instruction{tag, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xff}}, nil
	}
	return nil, errBeside(i)
}

func errBeside(i bpf.Instruction) error {
	return unsupportedf("compile the filter for the kernel: %q cannot be asked of frames whose VLAN tag the kernel keeps beside them", fmt.Sprint(i))
}
