package watch

import (
	"errors"
	"net/netip"

	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/orchestrate/sockets"
)

// probe implements pace.Probe with the sockets of a route.
type probe struct {
	sensor *sockets.Watch
	proxy  *sockets.Watch // nil without docker-proxy
	buf    []sockets.Socket
	names  map[uint64]names  // made once per socket
	nodes  map[uint64]string // of workers, by the inode of their socket
}

// names are what a socket is called.
type names struct {
	address string // as bound
	full    string // with whose it is
}

var _ pace.Probe = (*probe)(nil)

func openProbe(r Route) (*probe, error) {
	p := &probe{names: map[uint64]names{}, nodes: r.names}
	var err error
	if p.sensor, err = sockets.Open(r.Sensor, netip.AddrPortFrom(netip.IPv4Unspecified(), r.Port), sockets.AsksForMuch); err != nil {
		return nil, err
	}
	if !r.Proxy.IsValid() {
		return p, nil
	}
	p.proxy, err = sockets.Open(sockets.Place{}, r.Proxy, sockets.AsksForNothing)
	if errors.Is(err, sockets.ErrNoSocket) {
		return p, nil // the engine publishes the port by packet filter alone
	}
	if err != nil {
		return nil, errors.Join(err, p.sensor.Close())
	}
	return p, nil
}

func (p *probe) close() error {
	err := p.sensor.Close()
	if p.proxy != nil {
		err = errors.Join(err, p.proxy.Close())
	}
	return err
}

// Taken implements pace.Probe.
func (p *probe) Taken() (uint64, error) { return p.sensor.Taken() }

// Sockets implements pace.Probe.
func (p *probe) Sockets(buf []pace.Socket) ([]pace.Socket, error) {
	buf, err := p.stage(buf, p.sensor, 0)
	if err == nil && p.proxy != nil {
		buf, err = p.stage(buf, p.proxy, 1)
	}
	return buf, err
}

func (p *probe) stage(buf []pace.Socket, w *sockets.Watch, stage int) ([]pace.Socket, error) {
	var err error
	if p.buf, err = w.Read(p.buf[:0]); err != nil {
		return buf, err
	}
	for i := range p.buf {
		s := &p.buf[i]
		// Cookies are of one kernel, so no two sockets have the same.
		n, ok := p.names[s.ID]
		if !ok {
			local := s.Local.String()
			if node := p.nodes[s.Inode]; node != "" && stage == 0 {
				local = node + " at " + local
			}
			n = names{local, local + " of " + [...]string{"the sensor", "docker-proxy"}[stage]}
			p.names[s.ID] = n
		}
		buf = append(buf, pace.Socket{ID: s.ID, Stage: stage, Name: n.full, Queued: s.Queued, Allocated: s.Allocated, Buffer: s.Buffer, Drops: s.Drops})
	}
	return buf, nil
}

// address is what a socket is bound to.
func (p *probe) address(id uint64) string { return p.names[id].address }

// exact reports whether all buffer sizes are known.
func (p *probe) exact() bool { return p.sensor.Exact() && (p.proxy == nil || p.proxy.Exact()) }
