package orchestrate

import (
	"context"
	"fmt"
	"net/netip"
)

// Sensor is a running Zeek and the two ways to it.
type Sensor struct {
	Service   Service
	Container Container
	Mode      GeneveMode // what its datagrams hold, by the command that it runs
	Workers   int        // how many processes share its port
	Nodes     Nodes      // these, where they were asked for: see [FindNodes]
	// Published is where the engine publishes its port on this machine; not
	// valid if it does not.
	Published netip.AddrPort
	// Direct is the container's own address on the monitoring network. Which
	// of the container's interfaces that is follows from the address, not
	// from a name such as eth0.
	Direct netip.AddrPort
}

// FindSensor finds the running sensor for an encapsulation, "vxlan" or
// "geneve", by inspecting its container.
func FindSensor(ctx context.Context, engine Engine, encap string) (Sensor, error) {
	service, err := SensorFor(encap)
	if err != nil {
		return Sensor{}, err
	}
	if _, err := engine.Info(ctx); err != nil {
		return Sensor{}, err
	}
	containers, err := byService(ctx, engine)
	if err != nil {
		return Sensor{}, err
	}
	c, err := runningOf(service, containers)
	if err != nil {
		return Sensor{}, err
	}
	s := Sensor{Service: service, Container: c, Mode: modeOf(c.Command), Workers: workersOf(c)}
	s.Published, _ = service.publishedBy(c)
	if addr, ok := c.Addresses[MonitoringNetwork]; ok && addr.IsValid() {
		s.Direct = netip.AddrPortFrom(addr, service.Port)
	}
	return s, nil
}

// runningOf picks the container of a sensor, which must run, from the stack's.
func runningOf(service Service, containers map[string]Container) (Container, error) {
	c, ok := containers[service.Name]
	switch {
	case len(containers) == 0:
		return c, ErrNoStack
	case !ok:
		return c, WithHint(fmt.Errorf("find sensor %s: it has no container", service.Name), "`zeekdemo up` completes the stack")
	case !c.Running():
		return c, WithHint(fmt.Errorf("find sensor %s: its container is %s%s", service.Name, c.State, exitReason(c)),
			"`zeekdemo up` starts it; `zeekdemo logs "+service.Name+"` shows why it stopped")
	}
	return c, nil
}
