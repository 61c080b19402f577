package transmit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

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
}

var _ Transmitter = (*udpPool)(nil)

func openUDP(ctx context.Context, o Options, reasons []string) (Transmitter, error) {
	p := &udpPool{sender: sys.NewUDPSender(runMessages)}
	p.prepare(ctx, p, runMessages)
	if err := awaitNeighbour(ctx, o.Destination.Addr()); err != nil && len(reasons) == 0 {
		reasons = append(reasons, err.Error())
	}
	err := o.spreadPorts(func(port uint16) error { return p.open(o, port) })
	if err == nil {
		err = p.settle(o, reasons)
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("open transmission udp to %v: %w", o.Destination, err)
	}
	return p, nil
}

// open adds one socket to the pool.
func (p *udpPool) open(o Options, port uint16) error {
	fd, err := sys.OpenUDP(netip.AddrPortFrom(anyAddr(o.Destination.Addr()), port))
	if err != nil {
		return err
	}
	p.fds = append(p.fds, fd)
	if _, err := sys.SetSendBuffer(fd, defaultSendBuffer); err != nil {
		return err
	}
	return sys.Connect(fd, o.Destination)
}

// settle decides what depends on the connected sockets.
func (p *udpPool) settle(o Options, reasons []string) error {
	local, err := sys.LocalAddr(p.fds[0])
	if err != nil {
		return err
	}
	mtu, err := sys.PathMTU(p.fds[0])
	if err != nil {
		return err
	}
	addr := o.Destination.Addr()
	headers := ipHeaderLen(addr) + udpHeaderLen
	p.udpPlan = udpPlan{
		coalescer:  coalescer{sockets: uint16(len(p.fds)), maxSegment: mtu - headers, maxTotal: maxIPPacket - headers},
		maxPayload: MaxPayload(addr),
	}
	p.gso, reasons = p.chooseGSO(o, reasons)
	if err := p.chooseChecksum(o); err != nil {
		return err
	}
	p.description = Description{
		Mode: UDP, Destination: o.Destination, Source: local.Addr(), MTU: mtu,
		Sockets: len(p.fds), Reasons: reasons,
	}
	return nil
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

// send implements path.
func (p *udpPool) send(socket int, msgs []sys.Message) (int, error) {
	return p.sender.Send(p.fds[socket], msgs)
}

// check implements path: a UDP socket's queue always drains.
func (p *udpPool) check() error { return nil }

// BatchSize implements forward.BatchSizer.
func (p *udpPool) BatchSize() (datagrams, bytes int) { return batchDatagrams, batchBytes }

// Describe implements Transmitter.
func (p *udpPool) Describe() Description {
	d := p.description
	d.GSO = p.gso
	return d
}

// Close implements forward.Sink.
func (p *udpPool) Close() error {
	var errs []error
	for _, fd := range p.fds {
		errs = append(errs, sys.Close(fd))
	}
	p.fds = nil
	return errors.Join(errs...)
}

var _ forward.BatchSizer = (*udpPool)(nil)
