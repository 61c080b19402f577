package pcapfile

import (
	"encoding/binary"
	"math/bits"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Magic numbers of draft-ietf-opsawg-pcap section 4, and that of libpcaps with
// Alexey Kuznetzov's patch, whose record headers are eight bytes longer
// (libpcap sf-pcap.c, KUZNETZOV_TCPDUMP_MAGIC).
const (
	magicMicros   = 0xa1b2c3d4
	magicNanos    = 0xa1b23c4d
	magicModified = 0xa1b2cd34
)

// Lengths of pcap's headers in bytes.
const (
	pcapHeaderLen     = 24
	recordHeaderLen   = 16
	modifiedHeaderLen = 24
)

// isPcap reports whether head, at least four bytes, is a pcap magic number in
// either byte order.
func isPcap(head []byte) bool {
	le, be := binary.LittleEndian.Uint32(head), binary.BigEndian.Uint32(head)
	return isPcapMagic(le) || isPcapMagic(be)
}

func isPcapMagic(m uint32) bool {
	return m == magicMicros || m == magicNanos || m == magicModified
}

// glued reports whether a file header is next, where a record or block would be: two
// captures were put together as by cat. As a record the header of a pcap file would be
// empty, and from the year 2055, that of a pcapng file absurdly long.
func glued(w *window) bool {
	const enough = 16
	head, err := w.peek(enough)
	if err != nil {
		return false
	}
	if isPcapng(head) {
		magic := head[8:]
		return binary.LittleEndian.Uint32(magic) == byteOrderMagic || binary.BigEndian.Uint32(magic) == byteOrderMagic
	}
	var order binary.ByteOrder = binary.LittleEndian
	if isPcapMagic(binary.BigEndian.Uint32(head)) {
		order = binary.BigEndian
	}
	const day = 24 * 60 * 60
	zone, accuracy := int32(order.Uint32(head[8:])), order.Uint32(head[12:])
	return isPcap(head) && order.Uint16(head[4:]) == 2 && order.Uint16(head[6:]) <= 4 && zone > -day && zone < day && accuracy == 0
}

// pcap is the classic format.
type pcap struct {
	win       *window
	big       bool  // byte order of the file
	unit      int64 // of the fraction of a second, nanoseconds
	headerLen int   // of a record
	minor     uint16
	link      forward.LinkType
	fcs       int // bytes of frame check sequence at the end of every frame
}

// newPcap reads the file header, whose magic number is known to be right.
func newPcap(w *window) (*pcap, error) {
	head, err := w.peek(pcapHeaderLen)
	if err != nil {
		return nil, cut("file header", err)
	}
	p := &pcap{win: w, unit: 1000, headerLen: recordHeaderLen}
	p.big = isPcapMagic(binary.BigEndian.Uint32(head))
	switch p.u32(head) {
	case magicNanos:
		p.unit = 1
	case magicModified:
		p.headerLen = modifiedHeaderLen
	}
	version := p.u32(head[4:]) // two 16-bit numbers
	major := uint16(version)
	p.minor = uint16(version >> 16)
	if p.big {
		major, p.minor = p.minor, major
	}
	if major != 2 {
		return nil, corrupt("pcap version %d.%d, only 2.x is known", major, p.minor)
	}
	p.setLink(p.u32(head[20:]))
	w.advance(pcapHeaderLen)
	return p, nil
}

// setLink takes the field of the link type apart: 16 bits link type, and if bit
// 26 is set, in the upper four bits the length of the frame check sequence in
// units of 16 bits (libpcap pcap/pcap.h, LT_FCS_LENGTH).
func (p *pcap) setLink(field uint32) {
	p.link = forward.LinkType(field)
	if field&0x04000000 != 0 {
		p.fcs = int(field>>28) * 2
	}
}

// u32 reads a number in the file's byte order.
func (p *pcap) u32(b []byte) uint32 {
	v := binary.LittleEndian.Uint32(b)
	if p.big {
		v = bits.ReverseBytes32(v)
	}
	return v
}

func (p *pcap) at() int64 { return p.win.offset() }

func (p *pcap) links(to []forward.LinkType) []forward.LinkType { return append(to, p.link) }

func (p *pcap) ready() bool {
	record := p.win.inMemory()
	if len(record) < p.headerLen {
		return false
	}
	captured, _ := p.lengths(p.u32(record[8:]), p.u32(record[12:]))
	return int64(len(record)) >= int64(p.headerLen)+int64(captured)
}

// next reads one record.
func (p *pcap) next(f *forward.Frame) error {
	head, err := p.win.peek(p.headerLen)
	if err != nil {
		return endOr(p.win, "record header", err)
	}
	if (isPcap(head) || isPcapng(head)) && glued(p.win) {
		return errGlued
	}
	seconds, fraction := int64(p.u32(head)), int64(p.u32(head[4:]))
	captured, length := p.lengths(p.u32(head[8:]), p.u32(head[12:]))
	if captured > maxFrame {
		if compressed(head) {
			return corrupt("compressed data instead of a packet: was it appended to the capture?")
		}
		return corrupt("captured length %d is implausible", captured)
	}
	total := p.headerLen + int(captured)
	record, err := p.win.peek(total)
	if err != nil {
		return cut("packet data", err)
	}
	p.win.advance(total)
	f.Time = seconds*1e9 + fraction*p.unit
	f.LinkType = p.link
	setData(f, record[p.headerLen:total:total], int(length), p.fcs)
	return nil
}

// lengths undoes what old writers did: before version 2.3 the two lengths were
// the other way round, and in 2.3 they may be (libpcap sf-pcap.c).
func (p *pcap) lengths(captured, length uint32) (uint32, uint32) {
	if p.minor < 3 || p.minor == 3 && captured > length {
		return length, captured
	}
	return captured, length
}

// endOr is for a read at a record's border that ended in err: io.EOF if nothing
// at all was there, otherwise damage.
func endOr(w *window, what string, err error) error {
	if w.empty() && isEOF(err) {
		return err
	}
	return cut(what, err)
}

// setData sets data and length of a frame whose last fcs bytes, counted from
// length, are a frame check sequence, which no monitor wants. Writers exist
// whose length is smaller than what they captured; the larger one holds then.
func setData(f *forward.Frame, data []byte, length, fcs int) {
	length = max(length, len(data))
	if fcs > 0 {
		length = max(length-fcs, 0)
		data = data[:min(len(data), length)]
	}
	f.Data, f.Length = data, length
}
