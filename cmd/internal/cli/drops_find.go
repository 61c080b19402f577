package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// Ports on which services serve their metrics inside the stack's network.
const collectorMetricsPort = 8888

// openDrops prepares for reading the counters of the engine's machine, by the
// way that is open: directly if that is this one, else by a helper container.
func openDrops(ctx context.Context, app *App, e orchestrate.Engine, via nsenter.Way) (*drops.Reader, func() error, error) {
	here, err := sensorsHere(ctx, e)
	if err != nil {
		return nil, nil, err
	}
	find := func(ctx context.Context) (drops.Path, error) { return dropsPath(ctx, e, here) }
	switch {
	case !here && via == nsenter.Direct:
		return nil, nil, orchestrate.WithHint(errors.New("read this machine's counters: the sensors run on another one"), "--via helper reads them there")
	case here && via != nsenter.Helper:
		host, done := drops.Local()
		return drops.NewReader(drops.Dir("/"), host, find), done, nil
	}
	host, done := drops.Host{}, func() error { return nil }
	if here {
		host, done = drops.Local()
	}
	machine, _, err := nsenter.Open(ctx, e, nsenter.Options{Way: nsenter.Helper})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read the counters of the engine's machine: %w", err), done())
	}
	if !here {
		fmt.Fprintln(app.Err, "The sensors do not run on this machine: their counters are read by a helper container.")
	}
	return drops.NewReader(drops.Entered{Machine: machine}, host, find), func() error { return errors.Join(machine.Close(), done()) }, nil
}

// sensorsHere reports whether the sensors' processes are this kernel's. Without
// a sensor that runs there is nothing to read.
func sensorsHere(ctx context.Context, e orchestrate.Engine) (bool, error) {
	if _, err := e.Info(ctx); err != nil {
		return false, err
	}
	containers, err := e.Containers(ctx, orchestrate.ProjectName)
	if err != nil {
		return false, err
	}
	if len(containers) == 0 {
		return false, orchestrate.ErrNoStack
	}
	alive := false
	for _, c := range containers {
		if s, err := orchestrate.ServiceByName(c.Service); err != nil || s.Encap == "" || c.PID <= 0 {
			continue
		}
		alive = true
		if c.RunsHere() {
			return true, nil
		}
	}
	if !alive {
		return false, orchestrate.WithHint(errors.New("read the sensors' counters: no sensor is running"), "`zeekdemo up` starts them")
	}
	return false, nil
}

// dropsPath asks the engine who is where.
func dropsPath(ctx context.Context, e orchestrate.Engine, here bool) (drops.Path, error) {
	info, err := e.Info(ctx)
	if err != nil {
		return drops.Path{}, err
	}
	list, err := e.Containers(ctx, orchestrate.ProjectName)
	if err != nil {
		return drops.Path{}, err
	}
	containers := map[string]orchestrate.Container{}
	for _, c := range list {
		containers[c.Service] = c
	}
	path := drops.Path{Bridge: "br-zeekmon0", Services: drops.Services{Zeek: map[string]string{}}}
	for _, s := range orchestrate.Services() {
		c, ok := containers[s.Name]
		switch {
		case s.Encap != "":
			path.Sensors = append(path.Sensors, sensorAt(s, c, ok))
			path.Services.Zeek[s.Name] = inside(c, here, orchestrate.MetricsPort)
		case s.Name == "collector":
			path.Services.Collector = inside(c, here, collectorMetricsPort)
		case info.Remote: // what it publishes on its loopback is not to be had here
		case s.Name == "loki":
			path.Services.Loki = s.URL(c)
		case s.Name == "prometheus":
			path.Services.Prometheus = s.URL(c)
		}
	}
	return path, nil
}

func sensorAt(s orchestrate.Service, c orchestrate.Container, there bool) drops.SensorAt {
	at := drops.SensorAt{Name: s.Name, ID: c.ID, Port: s.Port, Started: c.StartedAt, Address: c.Addresses[orchestrate.MonitoringNetwork],
		Paused: c.State == "paused", Published: publishedAt(c, s.Port)}
	switch {
	case !there:
		at.Missing = errors.New("the sensor has no container")
	case c.PID <= 0 || !c.Running() && !at.Paused:
		at.Missing = fmt.Errorf("the sensor's container is %s", c.State)
	default:
		at.PID = c.PID
	}
	return at
}

// publishedAt is the address on the engine's machine at which a UDP port of a
// container is published.
func publishedAt(c orchestrate.Container, port uint16) netip.AddrPort {
	for _, p := range c.Ports {
		if p.ContainerPort == port && p.Protocol == "udp" && p.HostPort != 0 && p.HostIP.IsValid() {
			return netip.AddrPortFrom(p.HostIP, p.HostPort)
		}
	}
	return netip.AddrPort{}
}

// inside is the URL of a port on any of a container's own addresses, where these
// are reached from here.
func inside(c orchestrate.Container, here bool, port int) string {
	if !here || !c.Running() {
		return ""
	}
	best := netip.Addr{}
	for name, addr := range c.Addresses {
		if addr.IsValid() && (!best.IsValid() || name != orchestrate.MonitoringNetwork) {
			best = addr // not by the packets' way, if there is another
		}
	}
	if !best.IsValid() {
		return ""
	}
	return "http://" + net.JoinHostPort(best.String(), strconv.Itoa(port))
}
