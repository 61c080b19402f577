package afpacket

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"

	"github.com/zeekdemo/zeekdemo/forward"
)

// takeAll is what a program returns for a frame that is to be captured whole.
const takeAll = 1 << 30

// nothing is a program that takes no frame.
func nothing() []bpf.RawInstruction { return raw(bpf.RetConstant{Val: 0}) }

func raw(code ...bpf.Instruction) []bpf.RawInstruction {
	out := make([]bpf.RawInstruction, len(code))
	for i, ins := range code {
		r, err := ins.Assemble()
		if err != nil {
			panic(err) // a constant of this file is wrong
		}
		out[i] = r
	}
	return out
}

// program refuses what belongs to the tunnels and to connections with the streams'
// addresses, and leaves the rest to filter.
func program(lt forward.LinkType, tunnels []Tunnel, streams []netip.AddrPort, filter []bpf.RawInstruction) []bpf.RawInstruction {
	if len(filter) == 0 {
		filter = raw(bpf.RetConstant{Val: takeAll})
	}
	var e emitter
	for _, t := range tunnels {
		to := t.To.Addr().Unmap()
		e.packets(lt, to, func(e *emitter, ip uint32) {
			if to.Is4() {
				tunnel4(e, ip, t)
			} else {
				tunnel6(e, ip, t)
			}
		})
	}
	for _, s := range streams {
		e.packets(lt, s.Addr().Unmap(), func(e *emitter, ip uint32) { stream(e, ip, s) })
	}
	return append(raw(e...), filter...)
}

// emitter collects instructions.
type emitter []bpf.Instruction

// test emits what then emits, and before it a jump over that unless what load
// leaves in the accumulator passes the condition.
func (e *emitter) test(cond bpf.JumpTest, val uint32, then func(*emitter), load ...bpf.Instruction) {
	var inner emitter
	then(&inner)
	*e = append(*e, load...)
	// A condition reaches 255 instructions far, a jump as far as need be.
	*e = append(*e, bpf.JumpIf{Cond: cond, Val: val, SkipTrue: 1}, bpf.Jump{Skip: uint32(len(inner))})
	*e = append(*e, inner...)
}

// equal is test for one value.
func (e *emitter) equal(val uint32, then func(*emitter), load ...bpf.Instruction) {
	e.test(bpf.JumpEqual, val, then, load...)
}

func (e *emitter) refuse() { *e = append(*e, bpf.RetConstant{Val: 0}) }

// at loads size bytes at a fixed offset, behindX at one relative to register X.
func at(off uint32, size int) bpf.Instruction      { return bpf.LoadAbsolute{Off: off, Size: size} }
func behindX(off uint32, size int) bpf.Instruction { return bpf.LoadIndirect{Off: off, Size: size} }

// Values of headers: EtherTypes, protocols, and the types of ICMP messages that
// quote a packet which could not be delivered.
const (
	etherIPv4, etherIPv6              = 0x0800, 0x86dd
	protoICMP, protoICMPv6            = 1, 58
	protoTCP, protoUDP, protoFragment = 6, 17, 44
	unreachable, unreachable6         = 3, 1
)

// packets emits what body emits for IP packets of the version of addr, at every
// offset at which there may be one: in Ethernet frames behind up to two VLAN tags.
// Such a packet is there as far as the headers that are looked at: a load beyond
// the frame's end would refuse the frame.
func (e *emitter) packets(lt forward.LinkType, addr netip.Addr, body func(e *emitter, ip uint32)) {
	version, etherType, least := uint32(4), uint32(etherIPv4), uint32(28)
	if !addr.Is4() {
		version, etherType, least = 6, etherIPv6, 48
	}
	offsets := []uint32{14, 18, 22}
	switch {
	case !addr.IsValid() || lt != forward.LinkEthernet && lt != forward.LinkRaw:
		return
	case lt == forward.LinkRaw:
		offsets = []uint32{0}
	}
	for _, ip := range offsets {
		is, load := etherType, []bpf.Instruction{at(ip-2, 2)}
		if ip == 0 {
			is, load = version, []bpf.Instruction{at(0, 1), bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4}}
		}
		e.test(bpf.JumpGreaterOrEqual, ip+least, func(e *emitter) {
			e.equal(is, func(e *emitter) { body(e, ip) }, load...)
		}, bpf.LoadExtension{Num: bpf.ExtLen})
	}
}

// stream refuses TCP segments to and from an address and port.
func stream(e *emitter, ip uint32, s netip.AddrPort) {
	port, addr := uint32(s.Port()), s.Addr().Unmap()
	if addr.Is6() {
		e.equal(protoTCP, func(e *emitter) {
			e.address6(ip+24, addr.As16(), func(e *emitter) { e.equal(port, (*emitter).refuse, at(ip+42, 2)) })
			e.address6(ip+8, addr.As16(), func(e *emitter) { e.equal(port, (*emitter).refuse, at(ip+40, 2)) })
		}, at(ip+6, 1))
		return
	}
	b := addr.As4()
	word, header := binary.BigEndian.Uint32(b[:]), bpf.LoadMemShift{Off: ip}
	e.equal(protoTCP, func(e *emitter) {
		e.equal(word, func(e *emitter) { e.equal(port, (*emitter).refuse, header, behindX(ip+2, 2)) }, at(ip+16, 4))
		e.equal(word, func(e *emitter) { e.equal(port, (*emitter).refuse, header, behindX(ip, 2)) }, at(ip+12, 4))
	}, at(ip+9, 1))
}

// tunnel4 refuses what belongs to a tunnel over IPv4 (RFC 791): the datagrams to its
// receiver, and ICMP errors about them.
func tunnel4(e *emitter, ip uint32, t Tunnel) {
	to := t.To.Addr().Unmap().As4()
	port, address := uint32(t.To.Port()), binary.BigEndian.Uint32(to[:])
	e.equal(protoUDP, func(e *emitter) {
		e.equal(address, func(e *emitter) {
			if from := t.From.Unmap(); from.Is4() { // a fragment that is not the first
				b := from.As4()
				e.test(bpf.JumpBitsSet, 0x1fff, func(e *emitter) {
					e.equal(binary.BigEndian.Uint32(b[:]), (*emitter).refuse, at(ip+12, 4))
				}, at(ip+6, 2))
			}
			e.test(bpf.JumpBitsNotSet, 0x1fff, func(e *emitter) {
				e.equal(port, (*emitter).refuse, bpf.LoadMemShift{Off: ip}, behindX(ip+2, 2))
			}, at(ip+6, 2))
		}, at(ip+16, 4))
	}, at(ip+9, 1))
	e.equal(protoICMP, func(e *emitter) { // RFC 792: 8 bytes, then the packet in question
		e.equal(unreachable, func(e *emitter) {
			e.equal(address, func(e *emitter) {
				e.equal(protoUDP, func(e *emitter) {
					e.equal(port, (*emitter).refuse, behindX(ip+8+20+2, 2))
				}, behindX(ip+8+9, 1))
			}, behindX(ip+8+16, 4))
		}, bpf.LoadMemShift{Off: ip}, behindX(ip, 1))
	}, at(ip+9, 1))
}

// tunnel6 is tunnel4 for IPv6 (RFC 8200).
func tunnel6(e *emitter, ip uint32, t Tunnel) {
	to, port := t.To.Addr().As16(), uint32(t.To.Port())
	e.equal(protoUDP, func(e *emitter) {
		e.address6(ip+24, to, func(e *emitter) { e.equal(port, (*emitter).refuse, at(ip+42, 2)) })
	}, at(ip+6, 1))
	e.equal(protoFragment, func(e *emitter) {
		e.equal(protoUDP, func(e *emitter) {
			e.address6(ip+24, to, func(e *emitter) {
				if t.From.Is6() {
					e.address6(ip+8, t.From.As16(), (*emitter).refuse)
				}
			})
		}, at(ip+40, 1))
	}, at(ip+6, 1))
	e.equal(protoICMPv6, func(e *emitter) { // RFC 4443
		e.equal(unreachable6, func(e *emitter) {
			e.test(bpf.JumpGreaterOrEqual, ip+48+44, func(e *emitter) {
				e.equal(protoUDP, func(e *emitter) {
					e.address6(ip+48+24, to, func(e *emitter) { e.equal(port, (*emitter).refuse, at(ip+48+42, 2)) })
				}, at(ip+48+6, 1))
			}, bpf.LoadExtension{Num: bpf.ExtLen})
		}, at(ip+40, 1))
	}, at(ip+6, 1))
}

// address6 tests an IPv6 address word by word.
func (e *emitter) address6(off uint32, addr [16]byte, then func(*emitter)) {
	for i := 3; i >= 0; i-- {
		inner, word := then, binary.BigEndian.Uint32(addr[4*i:])
		o := off + uint32(4*i)
		then = func(e *emitter) { e.equal(word, inner, at(o, 4)) }
	}
	then(e)
}
