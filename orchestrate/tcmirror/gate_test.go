package tcmirror

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf/asm"
)

// machine interprets what gates are made of, as the kernel does, for one frame.
type machine struct {
	frame   []byte
	context map[int16]uint64 // what struct __sk_buff has, by its offset
	reg     [11]uint64
	stack   [64]byte
	hash    uint32 // that was set
	key     []byte // of a tunnel, that was set
}

// theContext is a pointer to struct __sk_buff; pointers to the stack are indices.
const theContext = 1 << 40

// arrive is a frame, not merged, that was mirrored from the interface.
func arrive(frame []byte, from int) *machine {
	return &machine{frame: frame, context: map[int16]uint64{skbLength: uint64(len(frame)), skbIngress: uint64(from), skbMergedSize: 0}}
}

// run returns the verdict.
func (m *machine) run(tb testing.TB, code asm.Instructions) int32 {
	tb.Helper()
	labels, err := code.SymbolOffsets()
	if err != nil {
		tb.Fatal(err)
	}
	m.reg[asm.R1], m.reg[asm.RFP] = theContext, uint64(len(m.stack))
	for pc := 0; pc < len(code); pc++ {
		ins := code[pc]
		switch ins.OpCode.Class() {
		case asm.ALUClass, asm.ALU64Class:
			m.reg[ins.Dst] = m.compute(tb, ins)
		case asm.LdXClass:
			m.reg[ins.Dst] = m.load(tb, ins)
		case asm.StClass:
			m.store(tb, ins)
		case asm.JumpClass:
			switch op := ins.OpCode.JumpOp(); {
			case op == asm.Exit:
				return int32(m.reg[asm.R0])
			case op == asm.Call:
				m.call(tb, ins)
			case m.jumps(tb, ins):
				to, ok := labels[ins.Reference()]
				if !ok || to <= pc {
					tb.Fatalf("%d: %v goes to %q, which is at %d", pc, ins, ins.Reference(), to)
				}
				pc = to - 1
			}
		default:
			tb.Fatalf("%d: %v", pc, ins)
		}
	}
	tb.Fatal("the program has no end")
	return 0
}

func (m *machine) operand(ins asm.Instruction) uint64 {
	if ins.OpCode.Source() == asm.RegSource {
		return m.reg[ins.Src]
	}
	return uint64(ins.Constant)
}

func (m *machine) compute(tb testing.TB, ins asm.Instruction) uint64 {
	tb.Helper()
	a, b, mask := m.reg[ins.Dst], m.operand(ins), ^uint64(0)
	if ins.OpCode.Class() == asm.ALUClass {
		mask = 1<<32 - 1
	}
	a, b = a&mask, b&mask
	switch ins.OpCode.ALUOp() {
	case asm.Mov:
		return b
	case asm.Add:
		return (a + b) & mask
	case asm.Mul:
		return (a * b) & mask
	case asm.And:
		return a & b
	case asm.Or:
		return a | b
	case asm.Xor:
		return a ^ b
	case asm.LSh:
		return (a << b) & mask
	case asm.RSh:
		return a >> b
	}
	tb.Fatalf("compute %v", ins)
	return 0
}

func (m *machine) jumps(tb testing.TB, ins asm.Instruction) bool {
	tb.Helper()
	a, b := m.reg[ins.Dst], m.operand(ins)
	switch ins.OpCode.JumpOp() {
	case asm.Ja:
		return true
	case asm.JEq:
		return a == b
	case asm.JNE:
		return a != b
	case asm.JSet:
		return a&b != 0
	case asm.JSGT:
		return int64(a) > int64(b)
	}
	tb.Fatalf("compare %v", ins)
	return false
}

func (m *machine) load(tb testing.TB, ins asm.Instruction) uint64 {
	tb.Helper()
	if m.reg[ins.Src] == theContext {
		v, ok := m.context[ins.Offset]
		if !ok {
			tb.Fatalf("%v: struct __sk_buff has other fields", ins)
		}
		return v
	}
	at := m.stack[int(m.reg[ins.Src])+int(ins.Offset):]
	switch ins.OpCode.Size() {
	case asm.Byte:
		return uint64(at[0])
	case asm.Half:
		return uint64(binary.NativeEndian.Uint16(at))
	case asm.Word:
		return uint64(binary.NativeEndian.Uint32(at))
	}
	tb.Fatalf("load %v", ins)
	return 0
}

func (m *machine) store(tb testing.TB, ins asm.Instruction) {
	tb.Helper()
	if ins.OpCode.Size() != asm.DWord {
		tb.Fatalf("store %v", ins)
	}
	binary.NativeEndian.PutUint64(m.stack[int(m.reg[ins.Dst])+int(ins.Offset):], uint64(ins.Constant))
}

// call leaves nothing in the registers of the arguments.
func (m *machine) call(tb testing.TB, ins asm.Instruction) {
	tb.Helper()
	arg := m.reg
	if arg[asm.R1] != theContext {
		tb.Fatalf("%v for %#x", ins, arg[asm.R1])
	}
	switch asm.BuiltinFunc(ins.Constant) {
	case asm.FnSkbLoadBytes:
		to := m.stack[arg[asm.R3]:][:arg[asm.R4]]
		clear(to)
		if at := arg[asm.R2]; at+uint64(len(to)) <= uint64(len(m.frame)) {
			copy(to, m.frame[at:])
		}
	case asm.FnSetHash:
		m.hash = uint32(arg[asm.R2])
	case asm.FnSkbSetTunnelKey:
		m.key = bytes.Clone(m.stack[arg[asm.R2]:][:arg[asm.R3]])
	default:
		tb.Fatalf("call %v", ins)
	}
	for r := asm.R0; r <= asm.R5; r++ {
		m.reg[r] = 0xdeadbeef
	}
}

const (
	labIndex = 7
	labLimit = 65000
)

// What comes from elsewhere, or is too long, or would be once it is cut, is
// dropped.
func TestGateAdmits(t *testing.T) {
	for name, test := range map[string]struct {
		from, length, merged int
		want                 int32
	}{
		"a frame":                        {labIndex, 60, 0, actContinue},
		"the longest":                    {labIndex, labLimit, 0, actContinue},
		"one too long":                   {labIndex, labLimit + 1, 0, actShot},
		"from another interface":         {labIndex + 1, 60, 0, actShot},
		"from this machine":              {0, 60, 0, actShot},
		"merged of short ones":           {labIndex, 200_000, 1448, actContinue},
		"merged of those that just fit":  {labIndex, 200_000, labLimit - headersOfMerged, actContinue},
		"merged of those that are long":  {labIndex, 200_000, labLimit - headersOfMerged + 1, actShot},
		"merged and from somewhere else": {labIndex + 1, 200_000, 1448, actShot},
	} {
		m := arrive(make([]byte, 60), test.from)
		m.context[skbLength], m.context[skbMergedSize] = uint64(test.length), uint64(test.merged)
		if got := m.run(t, gate(labIndex, labLimit, false)); got != test.want || (m.hash != 0) != (got == actContinue) {
			t.Errorf("%s: verdict %d, hash %#x", name, got, m.hash)
		}
	}
}

// With a detour every frame gets an empty tunnel key; else none.
func TestGateTakesTheRouteOff(t *testing.T) {
	for _, detour := range []bool{false, true} {
		m := arrive(make([]byte, 60), labIndex)
		for i := range m.stack {
			m.stack[i] = 0xff
		}
		m.run(t, gate(labIndex, labLimit, detour))
		if want := make([]byte, tunnelKeyShort); detour != (m.key != nil) || detour && !bytes.Equal(m.key, want) {
			t.Errorf("detour %t: tunnel key %x", detour, m.key)
		}
	}
}

// packet is one of a flow, to the port of that protocol.
func packet(proto byte, from, to netip.AddrPort) []byte {
	kind, header := uint16(etherIPv6), []byte{0x60, 0, 0, 0, 0, 0, proto, 64}
	if from.Addr().Is4() {
		kind, header = etherIPv4, []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0}
	}
	header = append(append(header, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	header = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(header, from.Port()), to.Port())
	frame := ether(kind, append(header, make([]byte, 16)...)...)
	copy(frame[0:], to.Addr().AsSlice()[:4])
	copy(frame[6:], from.Addr().AsSlice()[:4])
	return frame
}

func hashOf(tb testing.TB, frame []byte) uint32 {
	tb.Helper()
	m := arrive(frame, labIndex)
	if m.run(tb, gate(labIndex, labLimit, true)) != actContinue || m.hash == 0 {
		tb.Errorf("hash %#x of %x", m.hash, frame)
	}
	return m.hash
}

// Both directions of a flow have one hash, and other flows another.
func TestGateHashIsSymmetric(t *testing.T) {
	a4, b4 := netip.MustParseAddrPort("10.1.2.3:40000"), netip.MustParseAddrPort("192.0.2.9:443")
	a6, b6 := netip.MustParseAddrPort("[fd00::1:2]:40000"), netip.MustParseAddrPort("[2001:db8::9]:443")
	seen := map[uint32]string{}
	add := func(name string, there, back []byte) {
		h := hashOf(t, there)
		if other, ok := seen[h]; ok {
			t.Errorf("%s has the hash of %s", name, other)
		}
		seen[h] = name
		for _, tags := range [][]uint16{{}, {etherVLAN}, {etherQinQ, etherVLAN}} {
			x, y := there, back
			for _, kind := range tags {
				x, y = tagged(kind, 5, x), tagged(kind, 5, y)
			}
			if hx, hy := hashOf(t, x), hashOf(t, y); hx != h || hy != h {
				t.Errorf("%s with the tags %#x: %#x, and back %#x; without %#x", name, tags, hx, hy, h)
			}
		}
	}
	for proto, name := range map[byte]string{protoTCP: "TCP", protoUDP: "UDP", protoSCTP: "SCTP"} {
		add(name+" over IPv4", packet(proto, a4, b4), packet(proto, b4, a4))
		add(name+" over IPv6", packet(proto, a6, b6), packet(proto, b6, a6))
		next := netip.AddrPortFrom(a4.Addr(), a4.Port()+1)
		add(name+" from the next port", packet(proto, next, b4), packet(proto, b4, next))
	}
	add("ICMP", packet(1, a4, b4), packet(1, b4, a4))
	add("ICMPv6", packet(58, a6, b6), packet(58, b6, a6))
	arp, answer := packet(1, a4, b4), packet(1, b4, a4)
	arp[12], arp[13], answer[12], answer[13] = 8, 6, 8, 6
	add("ARP", arp, answer)
}

// Only the first fragment has ports, so none is told by them; nor is ICMP told
// by what is in their place. Options of IPv4 are stepped over.
func TestGateReadsPortsWhereTheyAre(t *testing.T) {
	a, b := netip.MustParseAddrPort("10.1.2.3:40000"), netip.MustParseAddrPort("192.0.2.9:443")
	other := netip.AddrPortFrom(a.Addr(), 9)
	fragment := func(from netip.AddrPort, bits uint16) []byte {
		f := packet(protoUDP, from, b)
		binary.BigEndian.PutUint16(f[20:], bits)
		return f
	}
	first, later, last := fragment(a, 0x2000), fragment(other, 0x2001), fragment(other, 185)
	if h := hashOf(t, first); hashOf(t, later) != h || hashOf(t, last) != h {
		t.Error("fragments have several hashes")
	}
	if dont := fragment(a, 0x4000); hashOf(t, dont) != hashOf(t, packet(protoUDP, a, b)) {
		t.Error("a packet that must not be cut is taken for a fragment")
	}
	if hashOf(t, packet(1, a, b)) != hashOf(t, packet(1, other, b)) {
		t.Error("ICMP has ports")
	}
	plain := packet(protoTCP, a, b)
	options := append(append(bytes.Clone(plain[:34]), 1, 1, 1, 1), plain[34:]...)
	options[14] = 0x46
	if hashOf(t, options) != hashOf(t, plain) {
		t.Error("options are taken for ports")
	}
}

// A frame that ends too early is not told from others of its kind, and does no
// harm.
func TestGateTakesShortFrames(t *testing.T) {
	whole := packet(protoTCP, netip.MustParseAddrPort("10.1.2.3:40000"), netip.MustParseAddrPort("192.0.2.9:443"))
	for n := range whole {
		hashOf(t, whole[:n])
	}
}

// Frames that are not IP are told by every byte of their Ethernet addresses.
func TestGateReadsEthernetAddresses(t *testing.T) {
	seen := map[uint32]int{hashOf(t, ether(0x0806, make([]byte, 46)...)): -1}
	for i := range 12 {
		f := ether(0x0806, make([]byte, 46)...)
		f[i] = byte(i + 1)
		h := hashOf(t, f)
		if other, ok := seen[h]; ok {
			t.Errorf("byte %d is as good as byte %d", i, other)
		}
		seen[h] = i
	}
}
