package tcmirror

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
)

// Parts of instructions, of the kernel's include/uapi/linux/bpf_common.h.
const (
	classLD, classLDX, classALU, classJMP, classRET = 0x00, 0x01, 0x04, 0x05, 0x06

	sizeW, sizeH, sizeB                                  = 0x00, 0x08, 0x10
	modeIMM, modeABS, modeIND, modeMEM, modeLEN, modeMSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xa0

	aluSub, aluAdd, aluAnd, aluRsh      = 0x10, 0x00, 0x50, 0x70
	jumpAlways, jumpEQ, jumpGE, jumpSet = 0x00, 0x10, 0x30, 0x40
	sourceX                             = 0x08
)

// Offsets of what the kernel knows of a frame beside its bytes, of its
// include/uapi/linux/filter.h: SKF_AD_OFF is -0x1000.
const (
	auxVLANTag     = 0xfffff000 + 44
	auxVLANPresent = 0xfffff000 + 48
	auxVLANType    = 0xfffff000 + 60
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
	code := append(append(pass, bpf.RawInstruction{Op: classLD | sizeW | modeIMM, K: mark}), match...)
	if len(code) > maxProgram {
		return nil, unsupportedf("compile the filter for the kernel: %d instructions, of which it takes %d", len(code), maxProgram)
	}
	return code, nil
}

// divert returns the program for other receivers.
func divert(code []bpf.RawInstruction, receivers []netip.AddrPort) ([]bpf.RawInstruction, error) {
	for i, ins := range code {
		if ins.Op == classLD|sizeW|modeIMM && ins.K == mark {
			return join(receivers, code[i+1:])
		}
	}
	return nil, errors.New("change the filter's receivers: it is not one of ours")
}

// matching is the expression for frames with and without a tag beside them.
func matching(expression []bpf.RawInstruction) ([]bpf.RawInstruction, error) {
	if len(expression) == 0 {
		return []bpf.RawInstruction{{Op: classRET, K: everything}}, nil
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
		{op: classLD | sizeW | modeABS, k: auxVLANPresent},
		{op: classJMP | jumpEQ, k: 0, yes: 2, no: 2 + len(plain)},
	}
	ops = append(ops, moved(plain, 2)...)
	return assemble(append(ops, moved(tagged, 2+len(plain))...)), nil
}

// verdict is a program that always answers the same.
func verdict(v uint32) []bpf.RawInstruction {
	return []bpf.RawInstruction{{Op: classRET, K: v}}
}

// op is an instruction whose jumps name instructions by their index.
type op struct {
	op      uint16
	k       uint32
	yes, no int // for jumps
}

func (o op) jumps() bool  { return o.op&7 == classJMP }
func (o op) always() bool { return o.op == classJMP|jumpAlways }

func decode(raw []bpf.RawInstruction) ([]op, error) {
	ops := make([]op, len(raw))
	for i, r := range raw {
		o := op{op: r.Op, k: r.K}
		switch {
		case o.always():
			o.yes = i + 1 + int(int32(r.K))
			o.no = o.yes
		case o.jumps():
			o.yes, o.no = i+1+int(r.Jt), i+1+int(r.Jf)
		}
		if o.jumps() && (o.yes <= i || o.no <= i || max(o.yes, o.no) >= len(raw)) {
			return nil, unsupportedf("compile the filter for the kernel: it has a jump backwards (protochain)")
		}
		ops[i] = o
	}
	return ops, nil
}

func moved(ops []op, by int) []op {
	out := make([]op, len(ops))
	for i, o := range ops {
		o.yes += by
		o.no += by
		out[i] = o
	}
	return out
}

// assemble lays the instructions out. A conditional jump reaches 255
// instructions; one that has to go further gets two jumps of its own.
func assemble(ops []op) []bpf.RawInstruction {
	far := make([]bool, len(ops))
	at := make([]int, len(ops)+1)
	for again := true; again; {
		again = false
		for i := range ops {
			at[i+1] = at[i] + 1
			if far[i] {
				at[i+1] += 2
			}
		}
		for i, o := range ops {
			if o.jumps() && !o.always() && !far[i] && max(at[o.yes], at[o.no])-at[i]-1 > 255 {
				far[i], again = true, true
			}
		}
	}
	var code []bpf.RawInstruction
	for i, o := range ops {
		code = append(code, layOut(o, at, i, far[i])...)
	}
	return code
}

func layOut(o op, at []int, i int, far bool) []bpf.RawInstruction {
	here := at[i] + 1
	switch {
	case o.always():
		return []bpf.RawInstruction{{Op: o.op, K: uint32(at[o.yes] - here)}}
	case far:
		return []bpf.RawInstruction{{Op: o.op, K: o.k, Jt: 0, Jf: 1},
			{Op: classJMP | jumpAlways, K: uint32(at[o.yes] - here - 1)},
			{Op: classJMP | jumpAlways, K: uint32(at[o.no] - here - 2)}}
	case o.jumps():
		return []bpf.RawInstruction{{Op: o.op, K: o.k, Jt: uint8(at[o.yes] - here), Jf: uint8(at[o.no] - here)}}
	}
	return []bpf.RawInstruction{{Op: o.op, K: o.k}}
}

// assembler collects instructions whose jumps name labels.
type assembler struct {
	ops    []op
	yes    []string
	no     []string
	labels map[string]int
}

const next = "" // the instruction that follows

func (a *assembler) do(code uint16, k uint32) { a.jump(code, k, next, next) }

func (a *assembler) jump(code uint16, k uint32, yes, no string) {
	a.ops = append(a.ops, op{op: code, k: k})
	a.yes, a.no = append(a.yes, yes), append(a.no, no)
}

func (a *assembler) label(name string) { a.labels[name] = len(a.ops) }

func (a *assembler) assemble() []bpf.RawInstruction {
	target := func(name string, i int) int {
		if name == next {
			return i + 1
		}
		return a.labels[name]
	}
	for i := range a.ops {
		a.ops[i].yes, a.ops[i].no = target(a.yes[i], i), target(a.no[i], i)
	}
	return assemble(a.ops)
}

// passBy ends with "nothing" for UDP to one of the receivers, and for every
// fragment of UDP to one of their addresses, and goes on behind its end for
// everything else. A load behind the end of a frame ends a program as if it did
// not match, so lengths are looked at first.
func passBy(receivers []netip.AddrPort) ([]bpf.RawInstruction, error) {
	a := &assembler{labels: map[string]int{}}
	a.do(classLDX|sizeW|modeIMM, 0)
	a.do(classLD|sizeH|modeABS, 12)
	a.jump(classJMP|jumpEQ, etherVLAN, "tag", next)
	a.jump(classJMP|jumpEQ, etherQinQ, "tag", "network")
	a.label("tag")
	a.do(classLD|sizeW|modeLEN, 0)
	a.jump(classJMP|jumpGE, 18, next, "end")
	a.do(classLDX|sizeW|modeIMM, 4)
	a.do(classLD|sizeH|modeABS, 16)
	a.label("network")
	a.jump(classJMP|jumpEQ, etherIPv4, "4", next)
	a.jump(classJMP|jumpEQ, etherIPv6, "6", "end")
	a.label("4")
	a.longEnough(34)
	a.do(classLD|sizeB|modeIND, 23)
	a.jump(classJMP|jumpEQ, protoUDP, next, "end")
	for i, r := range receivers {
		if addr := r.Addr().Unmap(); addr.Is4() {
			a.receiver4(fmt.Sprint("4.", i), addr, r.Port())
		}
	}
	a.jump(classJMP|jumpAlways, 0, "end", "end")
	a.label("6")
	a.longEnough(54)
	a.do(classLD|sizeB|modeIND, 20)
	a.jump(classJMP|jumpEQ, protoUDP, "6 all", next)
	a.jump(classJMP|jumpEQ, protoFrag6, "6 all", "end")
	a.label("6 all")
	for i, r := range receivers {
		switch addr := r.Addr().Unmap(); {
		case !r.IsValid():
			return nil, errors.New("compile the filter for the kernel: a receiver has no address")
		case addr.Is6():
			a.receiver6(fmt.Sprint("6.", i), addr, r.Port())
		}
	}
	a.label("end")
	return a.assemble(), nil
}

// longEnough goes to the end if the frame has less bytes, its tag not counted.
func (a *assembler) longEnough(n uint32) {
	a.do(classLD|sizeW|modeLEN, 0)
	a.do(classALU|aluSub|sourceX, 0)
	a.jump(classJMP|jumpGE, n, next, "end")
}

func (a *assembler) receiver4(name string, addr netip.Addr, port uint16) {
	b := addr.As4()
	a.do(classLD|sizeW|modeIND, 30)
	a.jump(classJMP|jumpEQ, binary.BigEndian.Uint32(b[:]), next, name)
	a.do(classLD|sizeH|modeIND, 20)
	a.jump(classJMP|jumpSet, fragmentOffset, name+" hit", next)
	a.do(classLD|sizeH|modeIND, 36)
	a.jump(classJMP|jumpEQ, uint32(port), next, name)
	a.label(name + " hit")
	a.do(classRET, nothing)
	a.label(name)
}

func (a *assembler) receiver6(name string, addr netip.Addr, port uint16) {
	b := addr.As16()
	for i := range uint32(4) {
		a.do(classLD|sizeW|modeIND, 38+4*i)
		a.jump(classJMP|jumpEQ, binary.BigEndian.Uint32(b[4*i:]), next, name)
	}
	a.do(classLD|sizeB|modeIND, 20)
	a.jump(classJMP|jumpEQ, protoFrag6, name+" fragment", next)
	a.do(classLD|sizeH|modeIND, 56)
	a.jump(classJMP|jumpEQ, uint32(port), name+" hit", name)
	a.label(name + " fragment")
	a.do(classLD|sizeB|modeIND, 54)
	a.jump(classJMP|jumpEQ, protoUDP, next, name)
	a.label(name + " hit")
	a.do(classRET, nothing)
	a.label(name)
}
