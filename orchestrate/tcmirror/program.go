package tcmirror

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
)

// Numbers of protocols.
const (
	etherIPv4, etherIPv6 = 0x0800, 0x86dd
	etherVLAN, etherQinQ = 0x8100, 0x88a8
	protoUDP, protoFrag6 = 17, 44
	fragmentOffset       = 0x1fff
	maxProgram           = 4096 // BPF_MAXINSNS
	everything, nothing  = 0xffffffff, 0
)

// program returns the whole classifier: what is on its way to one of the
// receivers already is passed by, of the rest what the expression matches is
// taken. A load of [mark] divides what depends on the receivers from the rest.
//
// The frame begins at its Ethernet header, in both directions. On its way in its
// outermost VLAN tag is never among its bytes but beside them (the kernel's
// skb_vlan_untag), on its way out it is where the sender put it. An expression
// is compiled for bytes, so it is there twice, see [beside].
func program(receivers []netip.AddrPort, expression []bpf.RawInstruction) ([]bpf.RawInstruction, error) {
	match, err := matching(expression)
	if err != nil {
		return nil, err
	}
	return join(receivers, match)
}

// mark is loaded, to no effect, where the part that depends on the receivers
// ends.
const mark = 0x7a656b64

func join(receivers []netip.AddrPort, match []bpf.RawInstruction) ([]bpf.RawInstruction, error) {
	pass, err := passBy(receivers)
	if err != nil {
		return nil, err
	}
	code, err := bpf.Assemble(append(pass, bpf.LoadConstant{Val: mark}))
	if err != nil {
		return nil, fmt.Errorf("compile the filter for the kernel: %w", err)
	}
	code = append(code, match...)
	if len(code) > maxProgram {
		return nil, unsupportedf("compile the filter for the kernel: %d instructions, of which it takes %d", len(code), maxProgram)
	}
	return code, nil
}

// divert returns the program for other receivers.
func divert(code []bpf.RawInstruction, receivers []netip.AddrPort) ([]bpf.RawInstruction, error) {
	for i, ins := range code {
		if ins.Disassemble() == (bpf.LoadConstant{Val: mark}) {
			return join(receivers, code[i+1:])
		}
	}
	return nil, errors.New("change the filter's receivers: it is not one of ours")
}

// matching is the expression for frames with and without a tag beside them.
func matching(expression []bpf.RawInstruction) ([]bpf.RawInstruction, error) {
	if len(expression) == 0 {
		return verdict(everything), nil
	}
	plain, err := decode(expression)
	if err != nil {
		return nil, err
	}
	tagged, err := beside(plain)
	if err != nil {
		return nil, err
	}
	ops := []op{
		{Instruction: bpf.LoadExtension{Num: bpf.ExtVLANTagPresent}},
		{Instruction: bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0}, yes: 2, no: 2 + len(plain)},
	}
	ops = append(ops, moved(plain, 2)...)
	return bpf.Assemble(layOut(append(ops, moved(tagged, 2+len(plain))...)))
}

// verdict is a program that always answers the same.
func verdict(v uint32) []bpf.RawInstruction {
	answer, _ := bpf.RetConstant{Val: v}.Assemble() // never fails
	return []bpf.RawInstruction{answer}
}

// op is an instruction. Where it jumps is told by the indices of instructions.
type op struct {
	bpf.Instruction
	yes, no int
}

func (o op) jumps() bool {
	switch o.Instruction.(type) {
	case bpf.Jump, bpf.JumpIf, bpf.JumpIfX:
		return true
	}
	return false
}

// skipping is the jump that skips so many instructions.
func (o op) skipping(yes, no int) bpf.Instruction {
	switch j := o.Instruction.(type) {
	case bpf.Jump:
		j.Skip = uint32(yes)
		return j
	case bpf.JumpIf:
		j.SkipTrue, j.SkipFalse = uint8(yes), uint8(no)
		return j
	case bpf.JumpIfX:
		j.SkipTrue, j.SkipFalse = uint8(yes), uint8(no)
		return j
	}
	return o.Instruction
}

func decode(raw []bpf.RawInstruction) ([]op, error) {
	ops := make([]op, len(raw))
	for i, r := range raw {
		o := decodeOne(r, i+1)
		// Libpcap leaves what it likes in a field that an instruction does not use.
		_, unknown := o.Instruction.(bpf.RawInstruction)
		if back, err := o.Assemble(); unknown || err != nil || back.Op != r.Op {
			return nil, unsupportedf("compile the filter for the kernel: instruction %#x is not known", r.Op)
		}
		if o.jumps() && (o.yes <= i || o.no <= i || max(o.yes, o.no) >= len(raw)) {
			return nil, unsupportedf("compile the filter for the kernel: it has a jump backwards (protochain)")
		}
		ops[i] = o
	}
	return ops, nil
}

// decodeOne reads an instruction that the one of index next follows. What the
// library reads as "unless equal" is "if equal" the other way round.
func decodeOne(raw bpf.RawInstruction, next int) op {
	o := op{Instruction: raw.Disassemble()}
	switch j := o.Instruction.(type) {
	case bpf.Jump:
		o.yes = next + int(int32(j.Skip))
		o.no = o.yes
	case bpf.JumpIf:
		o.yes, o.no = next+int(j.SkipTrue), next+int(j.SkipFalse)
		if j.Cond == bpf.JumpNotEqual {
			j.Cond, o.yes, o.no = bpf.JumpEqual, o.no, o.yes
			o.Instruction = j
		}
	case bpf.JumpIfX:
		o.yes, o.no = next+int(j.SkipTrue), next+int(j.SkipFalse)
	}
	return o
}

func moved(ops []op, by int) []op {
	out := make([]op, len(ops))
	for i, o := range ops {
		out[i] = op{o.Instruction, o.yes + by, o.no + by}
	}
	return out
}

// layOut has jumps skip instructions. A conditional one skips up to 255; one
// that has to go further gets two jumps of its own.
func layOut(ops []op) (code []bpf.Instruction) {
	far, at := reaches(ops)
	for i, o := range ops {
		yes, no := at[o.yes]-at[i]-1, at[o.no]-at[i]-1
		if far[i] {
			code = append(code, o.skipping(0, 1), bpf.Jump{Skip: uint32(yes - 1)}, bpf.Jump{Skip: uint32(no - 2)})
		} else {
			code = append(code, o.skipping(yes, no))
		}
	}
	return code
}

// reaches says which jumps go too far, and where each instruction will be.
func reaches(ops []op) (far []bool, at []int) {
	far, at = make([]bool, len(ops)), make([]int, len(ops)+1)
	for again := true; again; {
		again = false
		for i := range ops {
			at[i+1] = at[i] + 1
			if far[i] {
				at[i+1] += 2
			}
		}
		for i, o := range ops {
			if _, always := o.Instruction.(bpf.Jump); o.jumps() && !always && !far[i] && max(at[o.yes], at[o.no])-at[i]-1 > 255 {
				far[i], again = true, true
			}
		}
	}
	return far, at
}

// assembler collects instructions whose jumps name labels.
type assembler struct {
	ops    []op
	yes    []string
	no     []string
	labels map[string]int
}

const next = "" // the instruction that follows

func (a *assembler) do(ins ...bpf.Instruction) {
	for _, i := range ins {
		a.add(i, next, next)
	}
}

// jump goes to one of two labels, by what the accumulator holds.
func (a *assembler) jump(cond bpf.JumpTest, val uint32, yes, no string) {
	a.add(bpf.JumpIf{Cond: cond, Val: val}, yes, no)
}

func (a *assembler) add(ins bpf.Instruction, yes, no string) {
	a.ops = append(a.ops, op{Instruction: ins})
	a.yes, a.no = append(a.yes, yes), append(a.no, no)
}

func (a *assembler) label(name string) { a.labels[name] = len(a.ops) }

func (a *assembler) assemble() []bpf.Instruction {
	target := func(name string, i int) int {
		if name == next {
			return i + 1
		}
		return a.labels[name]
	}
	for i := range a.ops {
		a.ops[i].yes, a.ops[i].no = target(a.yes[i], i), target(a.no[i], i)
	}
	return layOut(a.ops)
}

// passBy ends with "nothing" for UDP to one of the receivers, and for every
// fragment of UDP to one of their addresses, and goes on behind its end for
// everything else. A load behind the end of a frame ends a program as if it did
// not match, so lengths are looked at first.
func passBy(receivers []netip.AddrPort) ([]bpf.Instruction, error) {
	if slices.ContainsFunc(receivers, func(r netip.AddrPort) bool { return !r.IsValid() }) {
		return nil, errors.New("compile the filter for the kernel: a receiver has no address")
	}
	a := &assembler{labels: map[string]int{}}
	a.do(bpf.LoadConstant{Dst: bpf.RegX}, bpf.LoadAbsolute{Off: 12, Size: 2})
	a.jump(bpf.JumpEqual, etherVLAN, "tag", next)
	a.jump(bpf.JumpEqual, etherQinQ, "tag", "network")
	a.label("tag")
	a.do(bpf.LoadExtension{Num: bpf.ExtLen})
	a.jump(bpf.JumpGreaterOrEqual, 18, next, "end")
	a.do(bpf.LoadConstant{Dst: bpf.RegX, Val: 4}, bpf.LoadAbsolute{Off: 16, Size: 2})
	a.label("network")
	a.jump(bpf.JumpEqual, etherIPv4, "4", next)
	a.jump(bpf.JumpEqual, etherIPv6, "6", "end")
	a.label("4")
	a.pass4(receivers)
	a.label("6")
	a.pass6(receivers)
	a.label("end")
	return a.assemble(), nil
}

func (a *assembler) pass4(receivers []netip.AddrPort) {
	a.longEnough(34)
	a.do(bpf.LoadIndirect{Off: 23, Size: 1})
	a.jump(bpf.JumpEqual, protoUDP, next, "end")
	for i, r := range receivers {
		if addr := r.Addr().Unmap(); addr.Is4() {
			a.receiver4(fmt.Sprint("4.", i), addr, r.Port())
		}
	}
	a.add(bpf.Jump{}, "end", "end")
}

func (a *assembler) pass6(receivers []netip.AddrPort) {
	a.longEnough(54)
	a.do(bpf.LoadIndirect{Off: 20, Size: 1})
	a.jump(bpf.JumpEqual, protoUDP, "6 all", next)
	a.jump(bpf.JumpEqual, protoFrag6, "6 all", "end")
	a.label("6 all")
	for i, r := range receivers {
		if addr := r.Addr().Unmap(); addr.Is6() {
			a.receiver6(fmt.Sprint("6.", i), addr, r.Port())
		}
	}
}

// longEnough goes to the end if the frame has less bytes, its tag not counted.
func (a *assembler) longEnough(n uint32) {
	a.do(bpf.LoadExtension{Num: bpf.ExtLen}, bpf.ALUOpX{Op: bpf.ALUOpSub})
	a.jump(bpf.JumpGreaterOrEqual, n, next, "end")
}

func (a *assembler) receiver4(name string, addr netip.Addr, port uint16) {
	b := addr.As4()
	a.do(bpf.LoadIndirect{Off: 30, Size: 4})
	a.jump(bpf.JumpEqual, binary.BigEndian.Uint32(b[:]), next, name)
	a.do(bpf.LoadIndirect{Off: 20, Size: 2})
	a.jump(bpf.JumpBitsSet, fragmentOffset, name+" hit", next)
	a.do(bpf.LoadIndirect{Off: 36, Size: 2})
	a.jump(bpf.JumpEqual, uint32(port), next, name)
	a.label(name + " hit")
	a.do(bpf.RetConstant{Val: nothing})
	a.label(name)
}

func (a *assembler) receiver6(name string, addr netip.Addr, port uint16) {
	b := addr.As16()
	for i := range uint32(4) {
		a.do(bpf.LoadIndirect{Off: 38 + 4*i, Size: 4})
		a.jump(bpf.JumpEqual, binary.BigEndian.Uint32(b[4*i:]), next, name)
	}
	a.do(bpf.LoadIndirect{Off: 20, Size: 1})
	a.jump(bpf.JumpEqual, protoFrag6, name+" fragment", next)
	a.do(bpf.LoadIndirect{Off: 56, Size: 2})
	a.jump(bpf.JumpEqual, uint32(port), name+" hit", name)
	a.label(name + " fragment")
	a.do(bpf.LoadIndirect{Off: 54, Size: 1})
	a.jump(bpf.JumpEqual, protoUDP, next, name)
	a.label(name + " hit")
	a.do(bpf.RetConstant{Val: nothing})
	a.label(name)
}
