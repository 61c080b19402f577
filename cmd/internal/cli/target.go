package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// target is where a run goes.
type target struct {
	Address netip.AddrPort
	Via     string             // "to", "published" or "direct"
	Grafana string             // base URL of the stack's Grafana; empty without one
	Sensor  orchestrate.Sensor // of the stack; its zero value for --to
}

// findTarget resolves --to, or asks the engine where the stack's sensor is.
func (r *replay) findTarget(ctx context.Context) (target, error) {
	if r.o.out.to != "" {
		address, err := resolve(ctx, r.o.out.to, r.config.DestinationPort())
		return target{Address: address, Via: "to"}, err
	}
	var t target
	err := r.app.withEngine(func(e orchestrate.Engine) (err error) {
		t, err = sensorTarget(ctx, e, r.config, r.o.out.direct)
		return err
	})
	var has interface{ Hint() string }
	if err != nil && !errors.As(err, &has) {
		err = orchestrate.WithHint(err, "--to HOST sends to any monitor without an engine")
	}
	return t, err
}

func sensorTarget(ctx context.Context, e orchestrate.Engine, c encap.Config, direct bool) (target, error) {
	sensor, err := orchestrate.FindSensor(ctx, e, c.Kind.String())
	if err != nil {
		return target{}, err
	}
	t := target{Address: sensor.Published, Via: "published", Grafana: orchestrate.GrafanaURL(ctx, e), Sensor: sensor}
	if direct {
		t.Address, t.Via = sensor.Direct, "direct"
	}
	switch {
	case !t.Address.IsValid() && direct:
		return target{}, fmt.Errorf("find sensor %s: its container has no address on the monitoring network", sensor.Service.Name)
	case !t.Address.IsValid():
		return target{}, orchestrate.WithHint(fmt.Errorf("find sensor %s: its port is not published", sensor.Service.Name),
			"--direct sends to the container's own address")
	case c.Port != 0 && c.Port != t.Address.Port():
		return target{}, usagef("--port %d: the stack's sensor listens on %d (use --to for another receiver)", c.Port, t.Address.Port())
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
