//go:build !linux

package transmit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

// udpPool is the UDP transmission where there is no sendmmsg: one plain send
// per datagram.
type udpPool struct {
	writer
	udpPlan
	description Description
	conns       []*net.UDPConn
}

var _ Transmitter = (*udpPool)(nil)

func openUDP(ctx context.Context, o Options, reasons []string) (Transmitter, error) {
	if o.Outer.TTL != 0 || o.Outer.DSCP != 0 || o.Outer.DontFragment || o.Outer.Device != "" {
		return nil, fmt.Errorf("open transmission udp to %v: set the outer header or the device: %w", o.Destination, errors.ErrUnsupported)
	}
	p := new(udpPool)
	p.writer.prepare(ctx, p, runMessages)
	if err := o.spreadPorts(func(port uint16) error { return p.open(o, port) }); err != nil {
		p.Close()
		return nil, fmt.Errorf("open transmission udp to %v: %w", o.Destination, err)
	}
	p.udpPlan = udpPlan{coalescer: coalescer{sockets: uint16(len(p.conns))}, maxPayload: MaxPayload(o.Destination.Addr())}
	p.description = Description{
		Mode: UDP, Destination: o.Destination, Sockets: len(p.conns), Reasons: reasons,
		Source: p.conns[0].LocalAddr().(*net.UDPAddr).AddrPort().Addr(),
	}
	return p, nil
}

// open adds one socket to the pool.
func (p *udpPool) open(o Options, port uint16) error {
	local := o.local(port)
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(local), net.UDPAddrFromAddrPort(o.Destination))
	if err != nil {
		return err
	}
	p.conns = append(p.conns, conn)
	return conn.SetWriteBuffer(otherSendBuffer)
}

// otherSendBuffer is asked for each socket's send buffer, in bytes. On BSD
// systems it also bounds the length of a datagram.
const otherSendBuffer = 1 << 20

// send implements path.
func (p *udpPool) send(socket int, msgs []sys.Message) (int, error) {
	if _, err := p.conns[socket].Write(msgs[0].Payload); err != nil {
		return 0, err
	}
	return 1, nil
}

// listen implements path. A connected socket keeps one error, which the next
// call on it returns: a read that does not wait asks for it.
func (p *udpPool) listen(wait time.Duration, _ bool) error {
	if wait == 0 {
		return nil // the next send returns it
	}
	p.sleep(p.now() + int64(wait))
	var one [1]byte
	for _, conn := range p.conns {
		if err := conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			return err
		}
		if _, err := conn.Read(one[:]); errors.Is(err, syscall.ECONNREFUSED) {
			p.troubles.note(PortUnreachable, netip.Addr{})
		}
	}
	return nil
}

// check implements path: a UDP socket's queue always drains.
func (p *udpPool) check() error { return nil }

// Settle implements Transmitter.
func (p *udpPool) Settle(ctx context.Context) Stats {
	deadline := p.lastSent + int64(settleFar)
	for p.counts.datagrams.Load() > 0 && !p.troubles.lost() && ctx.Err() == nil && p.now() < deadline {
		_ = p.listen(settleFar/4, false)
	}
	return p.Stats()
}

// Describe implements Transmitter.
func (p *udpPool) Describe() Description { return p.description }

// Close implements forward.Sink.
func (p *udpPool) Close() error {
	var errs []error
	for _, conn := range p.conns {
		errs = append(errs, conn.Close())
	}
	p.conns = nil
	return errors.Join(errs...)
}
