package afpacket

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

// Offsets in struct tpacket_block_desc and its struct tpacket_hdr_v1, and in
// struct tpacket3_hdr, which struct sockaddr_ll follows (linux/if_packet.h). All
// numbers are in the host's byte order.
const (
	blockFrames, blockFirst = 12, 16

	frameNext, frameSec, frameNsec   = 0, 4, 8
	frameCaptured, frameLength       = 12, 16
	frameStatus, frameData           = 20, 24
	frameTCI, frameTPID, frameSource = 32, 36, 48
	frameHeader                      = frameSource + 20

	sourceType = frameSource + 10 // sll_pkttype
)

// Bits of tp_status, and a value of sll_pkttype.
const (
	statusUser         = 1 << 0 // TP_STATUS_USER
	statusChecksumOpen = 1 << 3 // TP_STATUS_CSUMNOTREADY
	statusTag          = 1 << 4 // TP_STATUS_VLAN_VALID
	statusTagType      = 1 << 6 // TP_STATUS_VLAN_TPID_VALID
	packetOutgoing     = 4
)

// Offsets in struct virtio_net_hdr, and its values (linux/virtio_net.h).
const (
	virtioFlags, virtioType, virtioSize, virtioStart, virtioOffset = 0, 1, 4, 6, 8

	virtioOpen        = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	virtioECN         = 0x80
	virtioTunnel      = 0x60 // VIRTIO_NET_HDR_GSO_UDP_TUNNEL: over IPv4 or over IPv6
	virtioTCP4        = 1
	virtioTCP6        = 4
	virtioUDP         = 5
	ethernetAddresses = 12
	tagLen            = 4
	mostLinkHeader    = 14 + 2*tagLen // which the MTU does not count
)

// ring reads the blocks of a [sys.Ring].
type ring struct {
	*sys.Ring
	capture *Capture
	face    *watched
	virtio  bool
	gone    bool

	index int    // of the block in hand, or of the next
	held  bool   // it is in hand
	block []byte // the block in hand
	off   int    // of the next frame in it
	left  int    // frames in it
	read  uint64 // frames taken in all, as the kernel counts
	tally tally
	seen  seen
}

// tally counts since the last publication; its owner is the ring's reader.
type tally struct{ packets, bytes, merged, whole, checksums, cut, late uint64 }

// seen is what others may read.
type seen struct {
	packets, bytes, merged, whole, checksums, cut, late atomic.Uint64
	read                                                atomic.Uint64
	queued, dropped                                     atomic.Uint64 // as the kernel counts, under Capture.mu
}

func (s *seen) addTo(c *Counts) {
	c.Packets += s.packets.Load()
	c.Bytes += s.bytes.Load()
	c.Merged += s.merged.Load()
	c.Whole += s.whole.Load()
	c.Checksums += s.checksums.Load()
	c.Cut += s.cut.Load()
	c.Late += s.late.Load()
	c.Dropped += s.dropped.Load()
	if queued, read := s.queued.Load(), s.read.Load(); queued > read {
		c.Abandoned += queued - read
	}
}

// publish makes the tally visible.
func (r *ring) publish() {
	t, s := &r.tally, &r.seen
	s.read.Store(r.read)
	if *t == (tally{}) {
		return
	}
	s.packets.Add(t.packets)
	s.bytes.Add(t.bytes)
	s.merged.Add(t.merged)
	s.whole.Add(t.whole)
	s.checksums.Add(t.checksums)
	s.cut.Add(t.cut)
	s.late.Add(t.late)
	*t = tally{}
}

func (r *ring) count(bytes int) {
	r.tally.packets++
	r.tally.bytes += uint64(bytes)
}

// statistics fetches the kernel's counts, which it forgets when they are read.
// The caller holds Capture.mu.
func (r *ring) statistics() error {
	frames, dropped, err := r.Statistics()
	if err == nil {
		r.seen.queued.Add(frames - dropped)
		r.seen.dropped.Add(dropped)
	}
	return err
}

// open makes sure that there is a frame in hand, if there is a block. A block
// that was read is given back first: nothing of it is lent any more.
func (r *ring) open() bool {
	for r.left == 0 {
		if r.held {
			r.Release(r.index)
			r.index, r.held = (r.index+1)%r.Blocks(), false
			r.publish()
		}
		if !r.Ready(r.index) {
			return false
		}
		r.block, r.held = r.Block(r.index), true
		r.capture.lives(r.face)
		r.left = int(binary.NativeEndian.Uint32(r.block[blockFrames:]))
		r.off = int(binary.NativeEndian.Uint32(r.block[blockFirst:]))
	}
	return true
}

// frameInfo is one frame of a block.
type frameInfo struct {
	data   []byte
	length int // on the wire
	time   int64
	link   forward.LinkType
	merged bool // several packets were merged into it, as merge says
	merge  encap.Merge
	// A checksum is open: where its coverage starts and, behind that, its field;
	// start is negative where the kernel does not tell.
	open          bool
	start, offset int
}

// next takes the next frame in hand, if there is one.
func (r *ring) next(info *frameInfo) bool {
	for r.left > 0 || r.open() {
		p := r.block[r.off:]
		r.off += int(binary.NativeEndian.Uint32(p[frameNext:]))
		r.left--
		if binary.NativeEndian.Uint32(p[frameStatus:])&statusUser == 0 {
			// The kernel made room for a frame and then found that it cannot describe
			// it in a virtio-net header, as a merged SCTP packet. It has counted it as
			// dropped, and what lies here is older.
			continue
		}
		r.read++
		if r.face.Loopback && p[sourceType] == packetOutgoing {
			continue
		}
		r.parse(p, info)
		return true
	}
	return false
}

// parse reads the frame whose header p begins with.
func (r *ring) parse(p []byte, info *frameInfo) {
	ne := binary.NativeEndian
	status, at := ne.Uint32(p[frameStatus:]), int(ne.Uint16(p[frameData:]))
	captured := int(ne.Uint32(p[frameCaptured:]))
	*info = frameInfo{
		data: p[at : at+captured : at+captured], length: int(ne.Uint32(p[frameLength:])), link: r.face.LinkType,
		time: int64(ne.Uint32(p[frameSec:]))*1e9 + int64(ne.Uint32(p[frameNsec:])),
	}
	switch {
	case r.virtio:
		info.virtio(p[at-sys.VirtioLen : at])
	case status&statusChecksumOpen != 0:
		info.open, info.start = true, -1
	}
	if status&statusTag != 0 && info.link == forward.LinkEthernet && captured >= ethernetAddresses {
		tpid := uint16(0x8100)
		if status&statusTagType != 0 {
			tpid = ne.Uint16(p[frameTPID:])
		}
		info.data = p[at-tagLen : at+captured : at+captured]
		encap.InsertTag(info.data, tpid, uint16(ne.Uint32(p[frameTCI:])))
		info.length += tagLen
		info.start += tagLen
		if info.merge.Start >= 0 {
			info.merge.Start += tagLen
		}
	}
}

// virtio reads what offloads have done to the frame.
func (i *frameInfo) virtio(h []byte) {
	ne := binary.NativeEndian
	if h[virtioFlags]&virtioOpen != 0 {
		i.open, i.start, i.offset = true, int(ne.Uint16(h[virtioStart:])), int(ne.Uint16(h[virtioOffset:]))
	}
	kind := h[virtioType] &^ (virtioECN | virtioTunnel)
	if i.merged = kind != 0; !i.merged {
		return
	}
	i.merge = encap.Merge{UDP: kind == virtioUDP, Tunnel: h[virtioType]&virtioTunnel != 0, Start: -1}
	if kind == virtioTCP4 || kind == virtioTCP6 || kind == virtioUDP { // others are left whole: a size of 0
		i.merge.Size = int(ne.Uint16(h[virtioSize:]))
	}
	if i.open {
		i.merge.Start = i.start
	}
}

// finish does the network card's work on a frame that is one packet, or cannot be
// cut.
func (i *frameInfo) finish(r *ring) {
	if !r.virtio && i.length > r.face.MTU+mostLinkHeader { // merged, but nothing says so
		r.tally.whole++
	}
	if i.length > len(i.data) {
		r.tally.cut++
		return
	}
	if !i.open {
		return
	}
	done := false
	if i.start >= 0 && r.virtio {
		done = encap.PartialChecksum(i.data, i.start, i.offset)
	} else {
		done = encap.FillChecksum(i.data, i.link == forward.LinkRaw)
	}
	if done {
		r.tally.checksums++
	}
}

// fill describes the frame, or a segment of it.
func (i *frameInfo) fill(f *forward.Frame, data []byte) {
	*f = forward.Frame{Data: data, Length: max(len(data), i.length), Time: i.time, LinkType: i.link}
	if len(data) != len(i.data) {
		f.Length = len(data)
	}
}
