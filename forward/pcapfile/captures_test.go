package pcapfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/zeekdemo/zeekdemo/forward"
)

// start is the time of the first packet of made captures, in nanoseconds.
const start = int64(1_700_000_000_123_456_000)

// pcapSpec describes a pcap file to be made.
type pcapSpec struct {
	order    byteOrder
	magic    uint32
	link     uint32 // the whole field
	version  [2]uint16
	swapped  bool // write the lengths the other way round
	original int  // added to the length on the wire
}

func newPcapSpec() pcapSpec {
	return pcapSpec{order: binary.LittleEndian, magic: magicNanos, link: 1, version: [2]uint16{2, 4}}
}

// header is the file header.
func (s pcapSpec) header() []byte {
	b := make([]byte, pcapHeaderLen)
	s.order.PutUint32(b, s.magic)
	s.order.PutUint16(b[4:], s.version[0])
	s.order.PutUint16(b[6:], s.version[1])
	s.order.PutUint32(b[16:], 262144)
	s.order.PutUint32(b[20:], s.link)
	return b
}

// record is one packet record.
func (s pcapSpec) record(at int64, data []byte) []byte {
	b := make([]byte, recordHeaderLen)
	if s.magic == magicModified {
		b = make([]byte, modifiedHeaderLen)
	}
	fraction := at % 1e9
	if s.magic != magicNanos {
		fraction /= 1000
	}
	lengths := [2]int{len(data), len(data) + s.original}
	if s.swapped {
		lengths[0], lengths[1] = lengths[1], lengths[0]
	}
	s.order.PutUint32(b, uint32(at/1e9))
	s.order.PutUint32(b[4:], uint32(fraction))
	s.order.PutUint32(b[8:], uint32(lengths[0]))
	s.order.PutUint32(b[12:], uint32(lengths[1]))
	return append(b, data...)
}

// file is a whole capture of packets a millisecond apart.
func (s pcapSpec) file(packets ...[]byte) []byte {
	b := s.header()
	for i, data := range packets {
		b = append(b, s.record(start+int64(i)*1e6, data)...)
	}
	return b
}

// ng writes the blocks of a pcapng file.
type ng struct{ order byteOrder }

// byteOrder is binary.LittleEndian or binary.BigEndian.
type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

func (n ng) u16(v uint16) []byte { return n.order.AppendUint16(nil, v) }
func (n ng) u32(v uint32) []byte { return n.order.AppendUint32(nil, v) }
func (n ng) u64(v uint64) []byte { return n.order.AppendUint64(nil, v) }

// block adds type, padding and both lengths.
func (n ng) block(kind uint32, parts ...[]byte) []byte {
	body := pad(bytes.Join(parts, nil))
	length := n.u32(uint32(len(body) + 12))
	return bytes.Join([][]byte{n.u32(kind), length, body, length}, nil)
}

func pad(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }

// option is one option with its padding.
func (n ng) option(code uint16, value ...byte) []byte {
	return pad(bytes.Join([][]byte{n.u16(code), n.u16(uint16(len(value))), value}, nil))
}

func (n ng) section() []byte {
	return n.block(blockSection, n.u32(byteOrderMagic), n.u16(1), n.u16(0), n.u64(1<<64-1))
}

func (n ng) iface(link uint16, snap uint32, options ...[]byte) []byte {
	return n.block(blockInterface, n.u16(link), n.u16(0), n.u32(snap), bytes.Join(options, nil))
}

func (n ng) enhanced(iface uint32, at uint64, data []byte, length int, options ...[]byte) []byte {
	return n.block(blockEnhanced, n.u32(iface), n.u32(uint32(at>>32)), n.u32(uint32(at)),
		n.u32(uint32(len(data))), n.u32(uint32(length)), pad(bytes.Clone(data)), bytes.Join(options, nil))
}

func (n ng) obsolete(iface uint16, at uint64, data []byte, length int) []byte {
	return n.block(blockObsolete, n.u16(iface), n.u16(7), n.u32(uint32(at>>32)), n.u32(uint32(at)),
		n.u32(uint32(len(data))), n.u32(uint32(length)), data)
}

func (n ng) simple(data []byte, length int) []byte {
	return n.block(blockSimple, n.u32(uint32(length)), data)
}

// packet makes recognisable bytes.
func packet(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i)
	}
	return b
}

// gzipped and zstded compress.
func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func zstded(tb testing.TB, b []byte) []byte {
	tb.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// readAll copies every frame of src, and returns the error that ended it, nil
// for io.EOF.
func readAll(src forward.Source) ([]forward.Frame, error) {
	var all []forward.Frame
	for {
		var f forward.Frame
		if err := src.Next(&f); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, err
		}
		f.Data = bytes.Clone(f.Data)
		all = append(all, f)
	}
}

// readBytes reads a capture from memory.
func readBytes(tb testing.TB, b []byte) ([]forward.Frame, error) {
	tb.Helper()
	r, err := NewReader(bytes.NewReader(b), "made.pcap")
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readAll(r)
}
