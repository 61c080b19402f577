package transmit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

const (
	// packetMessages is how many messages one call carries at most. A plan
	// has room for all fragments of the longest datagram at minPacketMTU4.
	packetMessages = 256
	// headerRoom is where a message's virtio-net, Ethernet, IPv6, fragment
	// and UDP headers fit, in bytes: whole cache lines.
	headerRoom = 128
	// earBuffer is room for an ICMP error with what it quotes, in bytes.
	earBuffer = 2048
)

// packetSocket is the packet transmission. Its parts:
//
//   - The way is where frames are put and what stands in their headers. A
//     follower looks after it; when it changes, everything is made anew for it
//     (use) and what was planned is planned again.
//   - Outer headers are written by outer, those of datagrams that are cut by
//     summed: their UDP checksum is always there, because IP identifications are
//     few and a receiver could put fragments of two datagrams together.
//   - Over IPv4 the Don't Fragment bit is clear unless it was asked for, so that no link of an unknown
//     path is a black hole, hence each datagram has an identification.
//   - The ear hears what hosts and routers say about datagrams. The kernel has no
//     socket that it could tell.
type packetSocket struct {
	writer
	coalescer
	description Description
	options     Options
	fd          int
	way         way
	follower    *follower
	sender      *sys.Sender
	outer       *encap.Outer
	summed      *encap.Outer
	fragmenter  fragmenter
	identities  identities
	slot        claim // nil without
	partial     bool  // UDP checksums are needed, and completed by kernel or device
	maxPayload  int   // bytes
	whole       int   // longest payload that needs no fragments, bytes
	headers     []byte
	ear         int // -1 without
	poller      sys.Poller
	heardBuf    []byte
	learnt      learntMTU
}

// learntMTU is what a router said of the path.
type learntMTU struct {
	mtu   int   // bytes; 0 if none did
	until int64 // monotonic, nanoseconds
}

// learntFor is how long that is believed (net.ipv4.route.mtu_expires), and
// leastLearnt what less is not believed over IPv4 (net.ipv4.route.min_pmtu):
// anybody can make such a message up.
const (
	learntFor   = 10 * time.Minute
	leastLearnt = 552
)

var (
	_ Transmitter        = (*packetSocket)(nil)
	_ forward.BatchSizer = (*packetSocket)(nil)
)

func openPacket(ctx context.Context, o Options) (Transmitter, error) {
	exit, err := findExit(o.question())
	if err == nil {
		err = exit.frames()
	}
	if err == nil {
		err = wideEnough(exit.dst, exit.mtu())
	}
	if err != nil {
		return nil, err
	}
	fd, err := sys.OpenPacket()
	if err != nil {
		return nil, permission(err)
	}
	obstacles := exit.obstacles(o)
	if len(obstacles) > 0 && o.Mode == Auto {
		sys.Close(fd)
		return nil, &obstacleError{obstacles}
	}
	p, err := newPacketSocket(ctx, o, exit, fd)
	if err != nil {
		sys.Close(fd)
		return nil, err
	}
	if len(obstacles) > 0 {
		p.description.Warnings = []string{(&obstacleError{obstacles}).Error()}
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

// newPacketSocket makes the socket fd ready for the way that exit begins. If it
// fails, fd is still the caller's.
func newPacketSocket(ctx context.Context, o Options, e exit, fd int) (*packetSocket, error) {
	mac, err := e.neighbour().resolve(ctx) // a path is measured past it
	if err != nil {
		return nil, err
	}
	f := newFollower(e)
	f.known = true
	f.measure(ctx)
	way, err := newWay(f.exit, mac)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	p, err := newPacketPath(ctx, o, way)
	p.follower = f
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	f.alsoOn(way.index)
	if err := p.attach(fd); err != nil {
		p.fd = -1
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// attach binds the socket and opens the ear.
func (p *packetSocket) attach(fd int) (err error) {
	p.fd = fd
	if err := sys.BindPacket(fd, p.way.index); err != nil {
		return err
	}
	if _, err := sys.SetSendBuffer(fd, defaultSendBuffer); err != nil {
		return err
	}
	if p.ear, err = sys.OpenEar(p.way.src.Is6(), p.way.exit); err != nil {
		return err
	}
	p.poller.AddData(p.ear)
	return nil
}

// newPacketPath prepares all that needs no socket. It is to be closed whatever the
// error.
func newPacketPath(ctx context.Context, o Options, w way) (*packetSocket, error) {
	addr := o.Destination.Addr()
	p := &packetSocket{
		fd:         -1,
		ear:        -1,
		options:    o,
		sender:     sys.NewPacketSender(packetMessages),
		partial:    o.ForceChecksum || !o.Kind.ZeroChecksum(addr.Is6()),
		maxPayload: MaxPayload(addr),
		headers:    make([]byte, headerRoom*packetMessages),
		heardBuf:   make([]byte, earBuffer),
	}
	p.prepare(ctx, p, packetMessages)
	var slot int
	slot, p.slot = claimSlot(w.src, addr)
	p.identities = newIdentities(slot, addr.Is6())
	p.gso = !o.NoGSO && w.segments
	if !o.NoGSO && !w.segments {
		p.description.Reasons = []string{"no segmentation offload: device " + w.device + " does not have it (tx-udp-segmentation)"}
	}
	return p, p.use(w)
}

// use makes ready for a way.
func (p *packetSocket) use(w way) error {
	o, addr := p.options, p.options.Destination.Addr()
	config := encap.OuterConfig{
		Kind: o.Kind, SrcMAC: w.srcMAC, DstMAC: w.dstMAC, Src: w.src, Dst: addr,
		DstPort: o.Destination.Port(), ForceChecksum: o.ForceChecksum, TTL: o.Outer.TTL, DSCP: o.Outer.DSCP,
	}
	outer, err := encap.NewOuter(config)
	if err != nil {
		return err
	}
	config.ForceChecksum = true
	summed, err := encap.NewOuter(config)
	if err != nil {
		return err
	}
	headers := ipHeaderLen(addr) + udpHeaderLen
	p.way, p.outer, p.summed, p.whole = w, outer, summed, w.mtu-headers
	p.coalescer = coalescer{maxSegment: p.whole, maxTotal: maxIPPacket - headers}
	p.fragmenter = newFragmenter(ipHeaderLen(addr), w.mtu)
	if p.gso && !w.segments {
		p.gso = false
		p.counts.fallback.Store(&Fallback{Path: "segmentation offload", Cause: "device " + w.device + " does not have it"})
	}
	d := &p.description
	d.Mode, d.Destination, d.Source, d.Sockets = Packet, o.Destination, w.src, 1
	d.Device, d.Bridge, d.MTU = w.device, w.bridge, w.mtu
	return nil
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
			if i == first && len(w.messages) == 0 { // cannot be: no path is so narrow
				return 0, &TooLongError{Length: d.Len}
			}
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
	p.identify(frame, n)
	m.Header = m.Header[:sys.VirtioLen+p.outer.Len()]
	w.add(m, i+n, true)
	return n
}

// identify clears Don't Fragment of an IPv4 header and gives it an
// identification of its own; of a super-packet's the kernel makes as many as it
// has datagrams, by counting up. The header checksum is corrected as RFC 1624
// says.
func (p *packetSocket) identify(frame []byte, datagrams int) {
	if p.fragmenter.headerLen != ipv4HeaderLen || p.options.Outer.DontFragment {
		return
	}
	ip := frame[etherHeaderLen:][:ipv4HeaderLen]
	id := p.identities.take(datagrams)
	binary.BigEndian.PutUint16(ip[4:], uint16(id))
	ip[6] &^= dontFragment4
	sum := uint32(^binary.BigEndian.Uint16(ip[10:])) + uint32(^uint16(dontFragment4<<8)) + id
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum>>16+sum&0xffff))
}

// planFragments plans all fragments of datagram i, for which there is room.
func (p *packetSocket) planFragments(w *writer, b *forward.Batch, i int) {
	payload := b.Payload(i)
	var whole [headerRoom]byte // headers of the datagram as if it fitted
	p.summed.Put(whole[:], payload, b.Datagrams[i].Port)
	p.fragmenter.id = p.identities.take(1)
	total := udpHeaderLen + len(payload)
	for off := 0; off < total; off += p.fragmenter.piece {
		h := p.header(len(w.messages))
		sys.PutVirtioPlain(h)
		length, from, to := p.fragmenter.put(h[sys.VirtioLen:], whole[:], off, len(payload))
		end := i // the datagram is out with its last fragment
		if off+p.fragmenter.piece >= total {
			end = i + 1
		}
		w.add(sys.Message{Header: h[:sys.VirtioLen+length], Payload: payload[from:to]}, end, false)
	}
}

// header returns the memory for message i's headers.
func (p *packetSocket) header(i int) []byte {
	return p.headers[i*headerRoom : (i+1)*headerRoom : (i+1)*headerRoom]
}

// send implements path.
func (p *packetSocket) send(_ int, msgs []sys.Message) (int, error) {
	if f := p.follower; f.lost != nil {
		return 0, f.lost
	}
	return p.sender.Send(p.fd, msgs)
}

// listen implements path.
func (p *packetSocket) listen(wait time.Duration, look bool) error {
	if p.poller.Wait(wait) {
		look = p.hear() || look
	}
	now := p.now()
	if !p.follower.notice(now) && !look {
		return nil
	}
	return p.look(now)
}

// look takes in the way as it is now.
func (p *packetSocket) look(now int64) error {
	f := p.follower
	gone := p.portGone()
	if gone {
		f.doubtNeighbour(now)
	}
	e, mac, err := f.look(now)
	if f.silent {
		f.silent = false
		p.troubles.note(NeighbourSilent, netip.Addr{})
	}
	if err != nil {
		if gone {
			f.lost = fmt.Errorf("%w: device %s is gone: %w", errLost, p.way.device, errGone)
		}
		return nil // the next send says so
	}
	found, err := newWay(e, mac)
	if narrow := (*narrowError)(nil); errors.As(err, &narrow) {
		return err
	}
	if err != nil {
		f.lost = fmt.Errorf("%w: %w", errLost, err)
		return nil
	}
	if p.learnt.mtu > 0 && now < p.learnt.until {
		found.mtu = min(found.mtu, p.learnt.mtu)
	}
	if found == p.way {
		return nil
	}
	return p.turn(found)
}

// portGone reports whether the bridge's port that frames are put on does not exist
// any more. Whoever lived behind it may be gone too.
func (p *packetSocket) portGone() bool {
	if p.way.index == p.way.exit {
		return false // the exit itself is looked at
	}
	_, err := netlink.LinkByIndex(p.way.index)
	return err != nil
}

// turn goes on by another way.
func (p *packetSocket) turn(to way) error {
	before := p.way
	if err := p.use(to); err != nil {
		return err
	}
	p.follower.alsoOn(to.index)
	if err := sys.BindPacket(p.fd, to.index); err != nil { // it may have gone and come back
		p.follower.lost = fmt.Errorf("%w: %w", errLost, err)
	}
	if before.exit != to.exit {
		if err := sys.BindEar(p.ear, to.src.Is6(), to.exit); err != nil {
			return err
		}
	}
	return errReplan
}

// hear counts what is said about this transmission's datagrams, and reports
// whether some of it is about the path's MTU.
func (p *packetSocket) hear() (news bool) {
	hear(p.ear, p.heardBuf, p.way.src, p.options.Destination, func(c sys.Complaint) {
		p.troubles.note(kindOf(c), c.From)
		if c.MTU > 0 {
			p.learn(c)
			news = true
		}
	})
	return news
}

// hear passes on what an ear has heard about datagrams from src to a receiver.
func hear(ear int, buf []byte, src netip.Addr, to netip.AddrPort, note func(sys.Complaint)) {
	for {
		n, ok := sys.Hear(ear, buf)
		if !ok {
			return
		}
		if c, quote, ok := sys.ParseComplaint(buf[:n]); ok && mine(quote, src, to) {
			note(c)
		}
	}
}

// mine recognises a datagram of this transmission, or of another one to the same
// destination, which is as good.
func mine(q sys.Quote, src netip.Addr, to netip.AddrPort) bool {
	return q.Protocol == protocolUDP && q.Src == src && q.Dst == to.Addr().WithZone("") && (!q.Ports || q.DstPort == to.Port())
}

// learn notes what a router said of the path's MTU.
func (p *packetSocket) learn(c sys.Complaint) {
	least := leastLearnt
	if c.Six {
		least = minPacketMTU6
	}
	p.learnt = learntMTU{mtu: max(c.MTU, least), until: p.now() + int64(learntFor)}
}

// check implements path: a device that is gone, down or without carrier never
// takes anything.
func (p *packetSocket) check() error {
	if p.follower.lost != nil {
		return p.follower.lost
	}
	link, err := netlink.LinkByIndex(p.way.index)
	switch {
	case err != nil:
		return fmt.Errorf("device %s is gone: %w", p.way.device, errGone)
	case link.Attrs().RawFlags&linkRunning == 0:
		return fmt.Errorf("device %s is down", p.way.device)
	}
	return nil
}

// Settle implements Transmitter.
func (p *packetSocket) Settle(ctx context.Context) Stats {
	p.settle(ctx, p.follower)
	return p.Stats()
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
func (p *packetSocket) Close() error {
	var errs []error
	for _, fd := range []int{p.fd, p.ear} {
		if fd >= 0 {
			errs = append(errs, sys.Close(fd))
		}
	}
	p.fd, p.ear = -1, -1
	if p.follower != nil {
		errs = append(errs, p.follower.Close())
		p.follower = nil
	}
	if p.slot != nil {
		errs = append(errs, p.slot.Close())
		p.slot = nil
	}
	return errors.Join(errs...)
}
