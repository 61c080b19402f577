package transmit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

// udpPool is the UDP transmission on Linux.
type udpPool struct {
	writer
	udpPlan
	description Description
	fds         []int
	sender      *sys.Sender
	follower    *follower // nil if there is no following the way
	headers     int       // of outer IP and UDP, bytes
	poller      sys.Poller
	errors      sys.Errors
	queue       *ownQueue // nil where the device's cannot be seen
	seen        Stats     // when it was looked at last
}

var _ Transmitter = (*udpPool)(nil)

func openUDP(ctx context.Context, o Options, reasons []string) (Transmitter, error) {
	p := &udpPool{sender: sys.NewUDPSender(runMessages), headers: ipHeaderLen(o.Destination.Addr()) + udpHeaderLen}
	p.prepare(ctx, p, runMessages)
	if err := p.follow(ctx, o); err != nil && len(reasons) == 0 {
		reasons = append(reasons, err.Error())
	}
	err := o.spreadPorts(func(port uint16) error { return p.open(o, port) })
	if err == nil {
		err = p.ready(o, reasons)
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("open transmission udp to %v: %w", o.Destination, err)
	}
	return p, nil
}

// follow begins to follow the way, as far as that can be seen. What is wrong with
// it is no reason not to try: the kernel knows better.
func (p *udpPool) follow(ctx context.Context, o Options) error {
	e, err := findExit(o.question())
	if err != nil {
		return nil // no way: opening the sockets will tell
	}
	err = e.awaitNeighbour(ctx)
	p.follower = newFollower(e)
	p.follower.known = err == nil
	p.queue = watchQueue(e.link)
	p.follower.measure(ctx)
	return err
}

// open adds one socket to the pool.
func (p *udpPool) open(o Options, port uint16) error {
	fd, err := sys.OpenUDP(o.local(port))
	if err != nil {
		return err
	}
	p.fds = append(p.fds, fd)
	p.poller.Add(fd)
	if _, err := sys.SetSendBuffer(fd, defaultSendBuffer); err != nil {
		return err
	}
	fragment := sys.LetFragment
	if o.Outer.DontFragment {
		fragment = sys.FragmentLast
	}
	if err := errors.Join(sys.KeepErrors(fd), fragment(fd), sys.SetOuter(fd, o.Outer.TTL, o.Outer.DSCP, o.Outer.Device)); err != nil {
		return err
	}
	return explainRoute(o.Destination.Addr(), sys.Connect(fd, o.Destination))
}

// ready decides what depends on the connected sockets.
func (p *udpPool) ready(o Options, reasons []string) error {
	local, err := sys.LocalAddr(p.fds[0])
	if err != nil {
		return err
	}
	addr := o.Destination.Addr()
	p.udpPlan = udpPlan{
		coalescer:  coalescer{sockets: uint16(len(p.fds)), maxTotal: maxIPPacket - p.headers},
		maxPayload: MaxPayload(addr),
	}
	mtu, err := p.pathMTU()
	if err != nil {
		return err
	}
	p.fit(mtu, p.headers)
	p.gso, reasons = p.chooseGSO(o, reasons)
	if err := p.chooseChecksum(o); err != nil {
		return err
	}
	p.description = Description{
		Mode: UDP, Destination: o.Destination, Source: local.Addr(),
		Sockets: len(p.fds), Reasons: reasons,
	}
	return nil
}

// pathMTU is that of the way that is followed, else what a socket knew last.
func (p *udpPool) pathMTU() (int, error) {
	if p.follower != nil {
		return p.follower.exit.mtu(), nil
	}
	return sys.PathMTU(p.fds[0])
}

func (p *udpPool) chooseGSO(o Options, reasons []string) (bool, []string) {
	if o.NoGSO {
		return false, reasons
	}
	if err := sys.CanSegment(p.fds[0]); err != nil {
		return false, append(reasons, "no segmentation offload: "+err.Error())
	}
	return true, reasons
}

// chooseChecksum turns the checksum off where it may be off and nobody needs
// it: segmentation does.
func (p *udpPool) chooseChecksum(o Options) error {
	if p.gso || o.ForceChecksum || !o.Kind.ZeroChecksum(o.Destination.Addr().Is6()) {
		return nil
	}
	for _, fd := range p.fds {
		if err := sys.SetNoChecksum(fd); err != nil {
			return err
		}
	}
	return nil
}

// send implements path. A neighbour that had been known is waited for: what is
// sent meanwhile waits in a short queue of the kernel's, which drops what is too
// much without a word.
func (p *udpPool) send(socket int, msgs []sys.Message) (int, error) {
	if f := p.follower; f != nil && f.lost != nil && f.known {
		return 0, f.lost
	}
	return p.sender.Send(p.fds[socket], msgs)
}

// listen implements path.
func (p *udpPool) listen(wait time.Duration, look bool) error {
	if p.poller.Wait(wait) {
		for i, fd := range p.fds {
			if p.poller.Ready(i) {
				look = p.hear(fd) || look
			}
		}
	}
	f := p.follower
	if f == nil {
		return nil
	}
	now := p.now()
	if !f.notice(now) && !look {
		return nil
	}
	e, _, err := f.look(now)
	if err == nil && p.queue != nil && e.link.Attrs().Index != p.queue.link.Attrs().Index {
		p.queue = nil
	}
	if f.silent {
		f.silent = false
		p.troubles.note(NeighbourSilent, netip.Addr{})
	}
	if err == nil && p.fit(e.mtu(), p.headers) {
		return errReplan
	}
	return nil // without a way the next send says so
}

// hear counts the complaints that a socket has, and reports whether one of them
// is about the path's MTU.
func (p *udpPool) hear(fd int) (news bool) {
	for {
		c, ok := p.errors.Next(fd)
		if !ok {
			return news
		}
		news = news || c.MTU > 0
		p.troubles.note(kindOf(c), c.From)
	}
}

// check implements path.
func (p *udpPool) check() error {
	if p.follower == nil {
		return nil
	}
	return p.follower.lost
}

// Settle implements Transmitter.
func (p *udpPool) Settle(ctx context.Context) Stats {
	p.settle(ctx, p.follower)
	p.askQueue()
	return p.Stats()
}

// askQueue notes what the device's queue dropped since it was asked last. Once the way
// led by another device it is not asked: what it was given is not known.
func (p *udpPool) askQueue() {
	if p.queue == nil {
		return
	}
	s := p.Stats()
	given := s.Datagrams + s.Fragmented - p.seen.Datagrams - p.seen.Fragmented // a datagram in fragments is two packets at least
	if t := p.queue.trouble(given, s.Retries-p.seen.Retries, p.gso); t != nil {
		p.troubles.queue(*t)
	}
	p.queue, p.seen = watchQueue(p.queue.link), s
}

// BatchSize implements forward.BatchSizer.
func (p *udpPool) BatchSize() (datagrams, bytes int) { return batchDatagrams, batchBytes }

// Describe implements Transmitter.
func (p *udpPool) Describe() Description {
	d := p.description
	d.GSO, d.MTU = p.gso, p.whole+p.headers
	return d
}

// Close implements forward.Sink.
func (p *udpPool) Close() error {
	var errs []error
	for _, fd := range p.fds {
		errs = append(errs, sys.Close(fd))
	}
	p.fds = nil
	if p.follower != nil {
		errs = append(errs, p.follower.Close())
		p.follower = nil
	}
	return errors.Join(errs...)
}

var _ forward.BatchSizer = (*udpPool)(nil)
