package drops

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// MonitoringBridge is the device of the monitoring network on the engine's
// machine, as assets/stack/compose.yaml names it.
const MonitoringBridge = "br-zeekmon0"

// collectorMetricsPort is where the collector serves its metrics inside the
// stack's network.
const collectorMetricsPort = 8888

// Opened is a reader of the counters of the engine's machine.
type Opened struct {
	*Reader
	// Away is true where the sensors run on another machine than this one, so
	// that a helper container reads.
	Away  bool
	close func() error
}

// Close gives back what the reader holds; a helper container is removed.
func (o Opened) Close() error { return o.close() }

// Open prepares for reading the counters of the engine's machine, by the way
// that is open: directly if that is this one, else by a helper container.
// Without a sensor that runs there is nothing to read.
func Open(ctx context.Context, e orchestrate.Engine, via nsenter.Way) (Opened, error) {
	here, err := sensorsHere(ctx, e)
	if err != nil {
		return Opened{}, err
	}
	if !here && via == nsenter.Direct {
		return Opened{}, orchestrate.WithHint(errors.New("read this machine's counters: the sensors run on another one"), "--reach helper reads them there")
	}
	host, done := Host{}, func() error { return nil }
	if here {
		host, done = Local()
	}
	find := func(ctx context.Context) (Path, error) { return findPath(ctx, e, here) }
	if here && via != nsenter.Helper {
		return Opened{NewReader(Dir("/"), host, find), false, done}, nil
	}
	machine, _, err := nsenter.Open(ctx, e, nsenter.Options{Way: nsenter.Helper})
	if err != nil {
		return Opened{}, errors.Join(fmt.Errorf("read the counters of the engine's machine: %w", err), done())
	}
	return Opened{NewReader(Entered{Machine: machine}, host, find), !here, func() error { return errors.Join(machine.Close(), done()) }}, nil
}

// sensorsHere reports whether the sensors' processes are this kernel's.
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
		if s, err := orchestrate.ServiceByName(c.Service); err != nil || !s.IsSensor() || c.PID <= 0 {
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

// findPath asks the engine who is where. Here says that its machine is this one.
func findPath(ctx context.Context, e orchestrate.Engine, here bool) (Path, error) {
	info, err := e.Info(ctx)
	if err != nil {
		return Path{}, err
	}
	list, err := e.Containers(ctx, orchestrate.ProjectName)
	if err != nil {
		return Path{}, err
	}
	containers := map[string]orchestrate.Container{}
	for _, c := range list {
		containers[c.Service] = c
	}
	path := Path{Bridge: MonitoringBridge, Services: Services{Zeek: map[string][]string{}}}
	for _, s := range orchestrate.Services() {
		c, ok := containers[s.Name]
		if s.IsSensor() {
			path.Sensors = append(path.Sensors, sensorAt(s, c, ok))
		}
		path.Services.add(s, containers, here, info.Remote)
	}
	return path, nil
}

// add says where a service is asked. Remote says that what the engine publishes
// on its machine's loopback is not to be had here.
func (all *Services) add(s orchestrate.Service, containers map[string]orchestrate.Container, here, remote bool) {
	switch {
	case s.IsSensor():
		for _, port := range orchestrate.PacketMetricsPorts(containers[s.Name]) {
			all.Zeek[s.Name] = append(all.Zeek[s.Name], one(inside(containers[s.Name], here, port))...)
		}
	case s.Name == "collector":
		all.Collector = inside(containers[s.Name], here, collectorMetricsPort)
	case remote:
	case s.Name == "loki":
		all.Loki = s.URL(containers)
	case s.Name == "prometheus":
		all.Prometheus = s.URL(containers)
	}
}

// sensorAt is where a sensor is found, there being a container or not.
func sensorAt(s orchestrate.Service, c orchestrate.Container, there bool) SensorAt {
	at := SensorAt{Name: s.Name, ID: c.ID, Port: s.Port, Started: c.StartedAt, Address: c.Addresses[orchestrate.MonitoringNetwork],
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
