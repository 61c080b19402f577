package pcapfile

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Block types of draft-ietf-opsawg-pcapng section 4; the obsolete packet block
// is in its appendix.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockObsolete  = 2
	blockSimple    = 3
	blockEnhanced  = 6
)

// Lengths in bytes.
const (
	blockHeaderLen  = 8  // type and total length
	blockTrailerLen = 4  // total length again
	sectionLen      = 28 // of the shortest section header block
	interfaceLen    = 20 // of the shortest interface description block
	packetHeadLen   = 28 // up to the data of an enhanced or obsolete packet block
	simpleHeadLen   = 12 // up to the data of a simple packet block

	// maxBlock is the longest block of a kind that is read whole: a frame and
	// more options than anybody writes. Blocks that are skipped may be longer.
	maxBlock = maxFrame + 1<<20

	// maxInterfaces is how many interfaces a section may have. Each takes some
	// memory for as long as the section lasts, and almost none in a compressed file.
	maxInterfaces = 1 << 16
)

// byteOrderMagic tells a section's byte order.
const byteOrderMagic = 0x1a2b3c4d

// isPcapng reports whether head, at least four bytes, starts a section header
// block, whose type reads the same in both byte orders.
func isPcapng(head []byte) bool { return binary.LittleEndian.Uint32(head) == blockSection }

// pcapng is the block format.
type pcapng struct {
	win        *window
	start      int64 // of the block being read
	big        bool  // byte order of the section
	interfaces []iface
	known      []forward.LinkType // of all sections so far, each once
	last       int64              // time of the last packet that had one, or noTime
	early      error              // found by newPcapng before the first packet
}

// iface is one interface of the section.
type iface struct {
	link forward.LinkType
	snap uint32 // 0: no limit
	fcs  int    // bytes at the end of every frame
	clock
}

// newPcapng reads everything before the first packet, so that the interfaces
// described there are known. What is wrong behind the section header is kept
// for next.
func newPcapng(w *window) (*pcapng, error) {
	p := &pcapng{win: w, last: noTime}
	_, length, err := p.header()
	if err == nil {
		err = p.section(length)
	}
	if err != nil {
		return nil, err
	}
	for {
		var kind uint32
		kind, length, p.early = p.header()
		if p.early != nil || isPacket(kind) {
			return p, nil
		}
		if p.early = p.other(kind, length); p.early != nil {
			return p, nil
		}
	}
}

func isPacket(kind uint32) bool {
	return kind == blockEnhanced || kind == blockSimple || kind == blockObsolete
}

// u32 reads a number in the section's byte order.
func (p *pcapng) u32(b []byte) uint32 {
	v := binary.LittleEndian.Uint32(b)
	if p.big {
		v = bits.ReverseBytes32(v)
	}
	return v
}

func (p *pcapng) u16(b []byte) uint16 {
	v := binary.LittleEndian.Uint16(b)
	if p.big {
		v = bits.ReverseBytes16(v)
	}
	return v
}

func (p *pcapng) at() int64 { return p.start }

func (p *pcapng) links(to []forward.LinkType) []forward.LinkType { return append(to, p.known...) }

func (p *pcapng) ready() bool {
	b := p.win.inMemory()
	if len(b) < blockHeaderLen {
		return p.early != nil
	}
	return isPacket(p.u32(b)) && int64(len(b)) >= int64(p.u32(b[4:]))
}

// next reads blocks up to and including the next packet.
func (p *pcapng) next(f *forward.Frame) error {
	if p.early != nil {
		return p.early
	}
	for {
		kind, length, err := p.header()
		if err != nil {
			return err
		}
		switch kind {
		case blockEnhanced, blockObsolete:
			return p.packet(f, kind, length)
		case blockSimple:
			return p.simple(f, length)
		}
		if err := p.other(kind, length); err != nil {
			return err
		}
	}
}

// header looks at the type and the total length of the next block, which stays
// where it is.
func (p *pcapng) header() (kind uint32, length int64, err error) {
	p.start = p.win.offset()
	head, err := p.win.peek(blockHeaderLen)
	if err != nil {
		return 0, 0, endOr(p.win, "block header", err)
	}
	kind = p.u32(head)
	if isPcap(head) && glued(p.win) {
		return 0, 0, errGlued
	}
	if kind == blockSection {
		if err := p.turn(); err != nil {
			return 0, 0, err
		}
	}
	length = int64(p.u32(p.win.buf[p.win.r+4:]))
	if length < blockHeaderLen+blockTrailerLen || length%4 != 0 {
		return 0, 0, corrupt("block of type %#x with the impossible length %d", kind, length)
	}
	return kind, length, nil
}

// turn takes over the byte order of the section that begins here.
func (p *pcapng) turn() error {
	head, err := p.win.peek(blockHeaderLen + 4)
	if err != nil {
		return cut("section header block", err)
	}
	switch magic := head[blockHeaderLen:]; uint32(byteOrderMagic) {
	case binary.LittleEndian.Uint32(magic):
		p.big = false
	case binary.BigEndian.Uint32(magic):
		p.big = true
	default:
		return corrupt("section header block without a byte-order magic")
	}
	return nil
}

// other consumes a block that is no packet.
func (p *pcapng) other(kind uint32, length int64) error {
	switch kind {
	case blockSection:
		return p.section(length)
	case blockInterface:
		return p.describe(length)
	}
	return p.skip(length)
}

// skip consumes a block, of which less may be in memory than its length.
func (p *pcapng) skip(length int64) error {
	err := p.win.skip(length - blockTrailerLen)
	if err != nil {
		return cut("block", err)
	}
	trailer, err := p.win.peek(blockTrailerLen)
	if err != nil {
		return cut("block", err)
	}
	if err := sameLength(length, p.u32(trailer)); err != nil {
		return err
	}
	p.win.advance(blockTrailerLen)
	return nil
}

// sameLength compares the total lengths at both ends of a block.
func sameLength(length int64, trailer uint32) error {
	if length != int64(trailer) {
		return corrupt("block length is %d at its start and %d at its end", length, trailer)
	}
	return nil
}

// block returns a whole block, which is to be at least least bytes long, and
// consumes it. It stays valid until the next peek.
func (p *pcapng) block(what string, length int64, least int) ([]byte, error) {
	if length < int64(least+blockTrailerLen) || length > maxBlock {
		return nil, corrupt("%s with the implausible length %d", what, length)
	}
	b, err := p.win.peek(int(length))
	if err != nil {
		return nil, cut(what, err)
	}
	b, trailer := b[:length-blockTrailerLen], b[length-blockTrailerLen:]
	if err := sameLength(length, p.u32(trailer)); err != nil {
		return nil, err
	}
	p.win.advance(int(length))
	return b, nil
}

// section consumes a section header block: interfaces are counted from zero
// again. The length of the section is not needed, and often not there.
func (p *pcapng) section(length int64) error {
	head, err := p.win.peek(16)
	if err != nil {
		return cut("section header block", err)
	}
	if length < sectionLen {
		return corrupt("section header block with the impossible length %d", length)
	}
	if major := p.u16(head[12:]); major != 1 {
		return corrupt("pcapng version %d, only 1 is known", major)
	}
	p.interfaces = p.interfaces[:0]
	return p.skip(length)
}

// describe consumes an interface description block.
func (p *pcapng) describe(length int64) error {
	b, err := p.block("interface description block", length, 16)
	if err != nil {
		return err
	}
	if len(p.interfaces) == maxInterfaces {
		return corrupt("more than %d interfaces in a section", maxInterfaces)
	}
	i := iface{link: forward.LinkType(p.u16(b[8:])), snap: p.u32(b[12:]), clock: microseconds}
	if err := p.interfaceOptions(&i, b[16:]); err != nil {
		return err
	}
	p.interfaces = append(p.interfaces, i)
	if !slices.Contains(p.known, i.link) {
		p.known = append(p.known, i.link)
	}
	return nil
}

// Options of an interface description block, section 4.2, and of packet blocks, section
// 4.3 and appendix A.
const (
	optEnd      = 0
	optFlags    = 2 // epb_flags, pack_flags
	optTSResol  = 9
	optFCSLen   = 13
	optTSOffset = 14
)

// interfaceOptions reads those options that change how packets are read.
func (p *pcapng) interfaceOptions(i *iface, opts []byte) error {
	for len(opts) >= 4 {
		code, n := p.u16(opts), int(p.u16(opts[2:]))
		if code == optEnd {
			return nil
		}
		if n > len(opts)-4 {
			return corrupt("option %d of an interface reaches beyond its block", code)
		}
		value := opts[4 : 4+n]
		switch {
		case code == optTSResol && n >= 1:
			i.clock = i.resolution(value[0])
		case code == optFCSLen && n >= 1:
			i.fcs = fcsBytes(value[0])
		case code == optTSOffset && n >= 8:
			i.offset = int64(p.u64(value))
		}
		opts = opts[min(4+(n+3)&^3, len(opts)):]
	}
	return nil
}

// fcsBytes is the length that an if_fcslen option gives: in bits by the drafts of many
// years, whose example is a 4 nevertheless, and so written by some.
func fcsBytes(option byte) int {
	if option < 8 {
		return int(option)
	}
	return int(option) / 8
}

// packetFCS is the length of the frame check sequence that a packet's own options give
// in bytes, or else that of its interface. Options that are broken give none: the packet
// is sound.
func (p *pcapng) packetFCS(i *iface, opts []byte) int {
	for len(opts) >= 8 {
		code, n := p.u16(opts), int(p.u16(opts[2:]))
		if code == optEnd || n > len(opts)-4 {
			break
		}
		if code == optFlags && n == 4 {
			if own := int(p.u32(opts[4:]) >> 5 & 0xf); own != 0 {
				return own
			}
		}
		opts = opts[min(4+(n+3)&^3, len(opts)):]
	}
	return i.fcs
}

// u64 reads a number in the section's byte order.
func (p *pcapng) u64(b []byte) uint64 {
	if p.big {
		return binary.BigEndian.Uint64(b)
	}
	return binary.LittleEndian.Uint64(b)
}

// packet consumes an enhanced packet block, or the obsolete packet block, whose
// interface number has 16 bits and is followed by a drop count.
func (p *pcapng) packet(f *forward.Frame, kind uint32, length int64) error {
	b, err := p.block("packet block", length, packetHeadLen)
	if err != nil {
		return err
	}
	number := p.u32(b[8:])
	if kind == blockObsolete {
		number = uint32(p.u16(b[8:]))
	}
	i, err := p.interfaceOf(number)
	if err != nil {
		return err
	}
	captured := p.u32(b[20:])
	if captured > maxFrame || int(captured) > len(b)-packetHeadLen {
		return corrupt("captured length %d in a block of %d bytes", captured, length)
	}
	end := packetHeadLen + int(captured)
	f.Time = i.nanoseconds(uint64(p.u32(b[12:]))<<32 | uint64(p.u32(b[16:])))
	f.LinkType = i.link
	setData(f, b[packetHeadLen:end:end], int(p.u32(b[24:])), p.packetFCS(i, b[min((end+3)&^3, len(b)):]))
	if f.Time >= 0 && f.Time <= lastTime {
		p.last = f.Time
	}
	return nil
}

// simple consumes a simple packet block: of the first interface, without a
// time, so that of the packet before it is kept. How much was captured follows
// from the snap length.
func (p *pcapng) simple(f *forward.Frame, length int64) error {
	b, err := p.block("simple packet block", length, simpleHeadLen)
	if err != nil {
		return err
	}
	i, err := p.interfaceOf(0)
	if err != nil {
		return err
	}
	original := p.u32(b[8:])
	captured := original
	if i.snap != 0 {
		captured = min(captured, i.snap)
	}
	room := len(b) - simpleHeadLen
	if int64(captured) > int64(room) {
		return corrupt("captured length %d in a block of %d bytes", captured, length)
	}
	end := simpleHeadLen + int(captured)
	f.Time, f.LinkType = p.last, i.link
	setData(f, b[simpleHeadLen:end:end], int(original), i.fcs)
	return nil
}

// interfaceOf looks an interface up.
func (p *pcapng) interfaceOf(number uint32) (*iface, error) {
	if int64(number) >= int64(len(p.interfaces)) {
		return nil, corrupt("packet of interface %d, of which there are %d", number, len(p.interfaces))
	}
	return &p.interfaces[number], nil
}
