package transmit

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

const (
	// packetMessages is how many messages one call carries at most. A plan
	// has room for all fragments of the longest datagram at minPacketMTU.
	packetMessages = 256
	// minPacketMTU is the narrowest device that the packet transmission uses,
	// in bytes: what every IPv4 host must be able to receive (RFC 791).
	minPacketMTU = 576
	// headerRoom is where a message's virtio-net, Ethernet, IPv6, fragment
	// and UDP headers fit, in bytes: whole cache lines.
	headerRoom = 128
)

// packetSocket is the packet transmission.
type packetSocket struct {
	writer
	coalescer
	description Description
	fd          int
	device      int // index
	sender      *sys.Sender
	outer       *encap.Outer
	fragmenter  fragmenter
	partial     bool // UDP checksums are needed, and completed by kernel or device
	maxPayload  int  // bytes
	whole       int  // longest payload that needs no fragments, bytes
	headers     []byte
}

var (
	_ Transmitter        = (*packetSocket)(nil)
	_ forward.BatchSizer = (*packetSocket)(nil)
)

func openPacket(ctx context.Context, o Options) (Transmitter, error) {
	exit, err := findExit(o.Destination.Addr())
	if err != nil {
		return nil, err
	}
	fd, err := sys.OpenPacket()
	if err != nil {
		return nil, permission(err)
	}
	p, err := newPacketSocket(ctx, o, exit, fd)
	if err != nil {
		sys.Close(fd)
		return nil, err
	}
	return p, nil
}

// permission says which privilege is missing.
func permission(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w (it needs CAP_NET_RAW)", err)
	}
	return err
}

// newPacketSocket makes the socket fd ready for the way that exit begins.
func newPacketSocket(ctx context.Context, o Options, exit exit, fd int) (*packetSocket, error) {
	way, err := findWay(ctx, exit)
	if err != nil {
		return nil, err
	}
	p, err := newPacketPath(ctx, o, way)
	if err != nil {
		return nil, err
	}
	p.fd = fd
	if err := sys.BindPacket(fd, way.index); err != nil {
		return nil, err
	}
	if _, err := sys.SetSendBuffer(fd, defaultSendBuffer); err != nil {
		return nil, err
	}
	return p, nil
}

// newPacketPath prepares all that needs no socket.
func newPacketPath(ctx context.Context, o Options, way way) (*packetSocket, error) {
	addr := o.Destination.Addr()
	outer, err := encap.NewOuter(encap.OuterConfig{
		Kind: o.Kind, SrcMAC: way.srcMAC, DstMAC: way.dstMAC, Src: way.src, Dst: addr,
		DstPort: o.Destination.Port(), ForceChecksum: o.ForceChecksum,
	})
	if err != nil {
		return nil, err
	}
	headers := ipHeaderLen(addr) + udpHeaderLen
	p := &packetSocket{
		coalescer:  coalescer{maxSegment: way.mtu - headers, maxTotal: maxIPPacket - headers},
		device:     way.index,
		sender:     sys.NewPacketSender(packetMessages),
		outer:      outer,
		fragmenter: newFragmenter(ipHeaderLen(addr), way.mtu),
		partial:    o.ForceChecksum || !o.Kind.ZeroChecksum(addr.Is6()),
		maxPayload: MaxPayload(addr),
		whole:      way.mtu - headers,
		headers:    make([]byte, headerRoom*packetMessages),
		description: Description{
			Mode: Packet, Destination: o.Destination, Source: way.src,
			Device: way.device, Bridge: way.bridge, MTU: way.mtu, Sockets: 1,
		},
	}
	p.prepare(ctx, p, packetMessages)
	p.gso = !o.NoGSO && way.segments
	if !o.NoGSO && !way.segments {
		p.description.Reasons = []string{"no segmentation offload: device " + way.device + " does not have it (tx-udp-segmentation)"}
	}
	return p, nil
}

// plan implements path.
func (p *packetSocket) plan(w *writer, b *forward.Batch, first int) (int, error) {
	for i := first; i < len(b.Datagrams) && w.room() > 0; {
		d := &b.Datagrams[i]
		switch {
		case d.Len <= p.whole:
			i += p.planMessage(w, b, i)
		case d.Len > p.maxPayload:
			if i == first {
				return 0, &TooLongError{Length: d.Len, Limit: p.maxPayload}
			}
			return 0, nil
		case p.fragmenter.pieces(d.Len) > w.room():
			return 0, nil
		default:
			p.planFragments(w, b, i)
			i++
		}
	}
	return 0, nil
}

// planMessage plans one message that begins with datagram i and returns how
// many datagrams it holds.
func (p *packetSocket) planMessage(w *writer, b *forward.Batch, i int) int {
	ds := b.Datagrams[i:]
	n := 1
	if w.gso {
		n = p.span(ds)
	}
	first, last := &ds[0], &ds[n-1]
	m := sys.Message{Header: p.header(len(w.messages)), Payload: b.Buf[first.Off : last.Off+last.Len]}
	frame := m.Header[sys.VirtioLen:]
	if n > 1 {
		m.Segment = first.Len
	}
	if n > 1 || p.partial {
		sys.PutVirtioChecksum(m.Header, p.outer.ChecksumStart(), m.Segment)
		p.outer.PutPartial(frame, len(m.Payload), first.Port)
	} else {
		sys.PutVirtioPlain(m.Header)
		p.outer.Put(frame, m.Payload, first.Port)
	}
	m.Header = m.Header[:sys.VirtioLen+p.outer.Len()]
	w.add(m, i+n)
	return n
}

// planFragments plans all fragments of datagram i, for which there is room.
func (p *packetSocket) planFragments(w *writer, b *forward.Batch, i int) {
	payload := b.Payload(i)
	var whole [headerRoom]byte // headers of the datagram as if it fitted
	p.outer.Put(whole[:], payload, b.Datagrams[i].Port)
	p.fragmenter.id++
	total := udpHeaderLen + len(payload)
	for off := 0; off < total; off += p.fragmenter.piece {
		h := p.header(len(w.messages))
		sys.PutVirtioPlain(h)
		length, from, to := p.fragmenter.put(h[sys.VirtioLen:], whole[:], off, len(payload))
		end := i // the datagram is out with its last fragment
		if off+p.fragmenter.piece >= total {
			end = i + 1
		}
		w.add(sys.Message{Header: h[:sys.VirtioLen+length], Payload: payload[from:to]}, end)
	}
	w.counts.fragmented.Add(1)
}

// header returns the memory for message i's headers.
func (p *packetSocket) header(i int) []byte {
	return p.headers[i*headerRoom : (i+1)*headerRoom : (i+1)*headerRoom]
}

// send implements path.
func (p *packetSocket) send(_ int, msgs []sys.Message) (int, error) {
	return p.sender.Send(p.fd, msgs)
}

// check implements path: a device that is gone, down or without carrier never
// takes anything.
func (p *packetSocket) check() error {
	link, err := netlink.LinkByIndex(p.device)
	switch {
	case err != nil:
		return fmt.Errorf("device %s is gone: %w", p.description.Device, err)
	case link.Attrs().RawFlags&linkRunning == 0:
		return fmt.Errorf("device %s is down", p.description.Device)
	}
	return nil
}

// BatchSize implements forward.BatchSizer.
func (p *packetSocket) BatchSize() (datagrams, bytes int) { return batchDatagrams, batchBytes }

// Describe implements Transmitter.
func (p *packetSocket) Describe() Description {
	d := p.description
	d.GSO = p.gso
	return d
}

// Close implements forward.Sink.
func (p *packetSocket) Close() error { return sys.Close(p.fd) }
