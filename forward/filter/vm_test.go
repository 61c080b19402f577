package filter

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// TestProgramChecks refuses programs that could run out of themselves.
func TestProgramChecks(t *testing.T) {
	ret := bpf.RawInstruction{Op: 6, K: 1}
	tests := map[string][]bpf.RawInstruction{
		"empty":                   {},
		"no return at the end":    {ret, {Op: 0x20}},
		"unknown opcode":          {{Op: 0xffff}, ret},
		"conditional jump beyond": {{Op: 0x15, Jt: 1}, ret},
		"else jump beyond":        {{Op: 0x15, Jf: 1}, ret},
		"jump beyond":             {{Op: 5, K: 1}, ret},
		"jump before":             {{Op: 5, K: 0xfffffffe}, ret},
		"division by zero":        {{Op: 0x34}, ret},
		"modulus by zero":         {{Op: 0x94}, ret},
		"scratch memory":          {{Op: 0x60, K: 16}, ret},
		"scratch memory store":    {{Op: 3, K: 16}, ret},
	}
	for name, raw := range tests {
		if _, err := NewProgram(raw); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestEndlessLoop ends: such a program rejects.
func TestEndlessLoop(t *testing.T) {
	p, err := NewProgram([]bpf.RawInstruction{{Op: 5, K: 0xffffffff}, {Op: 6, K: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if p.Match(nil, 0) {
		t.Error("an endless loop matched")
	}
}

// TestWireLength takes "len" for the length on the wire, not the captured one.
func TestWireLength(t *testing.T) {
	p, err := NewProgram([]bpf.RawInstruction{{Op: 0x80}, {Op: 0x35, Jf: 1, K: 1000}, {Op: 6, K: 1}, {Op: 6}})
	if err != nil {
		t.Fatal(err)
	}
	if !p.Match(make([]byte, 96), 1500) || p.Match(make([]byte, 96), 96) {
		t.Error("greater 1000 looks at the captured length")
	}
}

// FuzzVM runs arbitrary sound programs on arbitrary frames, beside the
// interpreter of golang.org/x/net/bpf.
func FuzzVM(f *testing.F) {
	seed := func(raw ...bpf.RawInstruction) {
		var b []byte
		for _, r := range raw {
			b = append(b, byte(r.Op), r.Jt, r.Jf)
			b = binary.BigEndian.AppendUint32(b, r.K)
		}
		f.Add(b, []byte("a frame of some length, long enough for a header"))
	}
	seed(bpf.RawInstruction{Op: 0x28, K: 12}, bpf.RawInstruction{Op: 0x15, Jf: 1, K: 0x0800}, bpf.RawInstruction{Op: 6, K: 1}, bpf.RawInstruction{Op: 6})
	for code := range 256 {
		if _, ok := opOf(uint16(code)); ok {
			seed(bpf.RawInstruction{Op: 0x20, K: 2}, bpf.RawInstruction{Op: 7}, bpf.RawInstruction{Op: uint16(code), K: 3},
				bpf.RawInstruction{Op: 2, K: 3}, bpf.RawInstruction{Op: 0x60, K: 3}, bpf.RawInstruction{Op: 0x16})
		}
	}
	f.Fuzz(func(t *testing.T, program, frame []byte) {
		var raw []bpf.RawInstruction
		for ; len(program) >= 7; program = program[7:] {
			raw = append(raw, bpf.RawInstruction{Op: uint16(program[0]), Jt: program[1], Jf: program[2], K: binary.BigEndian.Uint32(program[3:])})
		}
		p, err := NewProgram(raw)
		if err != nil {
			return
		}
		got := p.Match(frame, len(frame))
		vm, err := peerVM(raw)
		if err != nil {
			return
		}
		// Offsets this large are the kernel's extensions to the peer.
		for _, r := range raw {
			if r.K >= 1<<31 {
				return
			}
		}
		if want, err := vm.Run(frame); err != nil || (want > 0) != got {
			t.Fatalf("%v on %x: %v, the peer says %d, %v", raw, frame, got, want, err)
		}
	})
}

// BenchmarkMatch is what filtering costs per frame, beside the peer.
func BenchmarkMatch(b *testing.B) {
	testenv.NeedTool(b, "tcpdump")
	_, frames := readFrames(b, testenv.Shared(b, "pcaps", "bro.org.pcap"))
	for _, expr := range []string{"tcp port 80", "host 10.0.0.1 and not port 22", "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "portrange 20-1023 or net 10.0.0.0/8 or ip6"} {
		p, err := Compile(b.Context(), expr, 1, 0)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(expr, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				f := &frames[i%len(frames)]
				p.Match(f.Data, f.Length)
			}
		})
		vm, err := peerVM(p.Raw())
		if err != nil {
			b.Fatal(err)
		}
		b.Run(expr+"/peer", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				vm.Run(frames[i%len(frames)].Data)
			}
		})
	}
}
