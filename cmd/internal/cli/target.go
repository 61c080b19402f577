package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// target is where a run goes.
type target struct {
	Address netip.AddrPort
	Via     string              // "to", "published", "direct" or "sidecar"
	Reasons []string            // why not by a better way
	Grafana orchestrate.Grafana // the stack's
	Sensor  orchestrate.Sensor
}

// findTarget resolves --to, or asks the engine where the stack's sensor is and
// chooses the way there.
func (r *replay) findTarget(ctx context.Context) (target, error) {
	if r.o.out.to != "" {
		address, err := resolve(ctx, r.o.out.to, r.config.DestinationPort())
		return target{Address: address, Via: viaTo}, err
	}
	e, err := r.app.Connect(r.app.Err)
	if err != nil {
		return target{}, err
	}
	if c, ok := e.(io.Closer); ok {
		r.atEnd(func() { c.Close() }) // a sidecar needs it until the end
	}
	t, err := r.sensorTarget(ctx, e)
	var has interface{ Hint() string }
	if err != nil && !errors.As(err, &has) {
		err = orchestrate.WithHint(err, "--to HOST sends to any monitor without an engine")
	}
	return t, err
}

// atEnd adds to what is done when the replay is over, whatever its end.
func (r *replay) atEnd(f func()) {
	before := r.cleanup
	r.cleanup = func() { f(); before() }
}

func (r *replay) sensorTarget(ctx context.Context, e orchestrate.Engine) (target, error) {
	sensor, err := orchestrate.FindSensor(ctx, e, r.config.Kind.String())
	if err != nil {
		return target{}, err
	}
	if port := sensor.Service.Port; r.config.Port != 0 && r.config.Port != port && r.config.Port != sensor.Published.Port() {
		return target{}, usagef("--port %d: the stack's sensor listens on %d (use --to for another receiver)", r.config.Port, port)
	}
	way, err := r.o.out.via.choose(ctx, e, sensor, r.mode)
	if err != nil {
		return target{}, err
	}
	way.announce(r.app.Err)
	t := target{Address: way.address(sensor), Via: way.via, Reasons: way.reasons, Grafana: orchestrate.FindGrafana(ctx, e), Sensor: sensor}
	if t.Via == viaSidecar {
		r.useSidecar(e, t.Address, way.sidecar)
	}
	if !t.Address.IsValid() {
		return target{}, orchestrate.WithHint(fmt.Errorf("find sensor %s: its port is not published", sensor.Service.Name),
			"--direct sends to the container's own address, or by sidecar")
	}
	return t, nil
}

// resolve reads HOST or HOST:PORT; an IPv6 address with a port is in brackets.
func resolve(ctx context.Context, to string, defaultPort uint16) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(to); err == nil {
		return netip.AddrPortFrom(addr, defaultPort), nil
	}
	host, port := to, strconv.Itoa(int(defaultPort))
	if h, p, err := net.SplitHostPort(to); err == nil {
		host, port = h, p
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 || host == "" {
		return netip.AddrPort{}, usagef("--to %q: want HOST or HOST:PORT", to)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(addrs) == 0 {
		return netip.AddrPort{}, fmt.Errorf("look up %s: %w", host, err)
	}
	return netip.AddrPortFrom(preferIPv4(addrs), uint16(number)), nil
}

// preferIPv4 takes the first IPv4 address, since sensors listen on 0.0.0.0.
func preferIPv4(addrs []netip.Addr) netip.Addr {
	for _, a := range addrs {
		if a.Unmap().Is4() {
			return a.Unmap()
		}
	}
	return addrs[0]
}
