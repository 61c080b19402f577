package watch

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
	"github.com/zeekdemo/zeekdemo/orchestrate/sockets"
)

// The places of a route, as accounts and ledgers name them.
const (
	AtSensor = "sensor"
	AtHost   = "host" // this machine: docker-proxy's socket, the bridge
)

// place is where the sockets of a governor's stage are.
func place(stage int) string { return [...]string{AtSensor, AtHost}[stage] }

// Route says where a run's packets may wait and die.
type Route struct {
	// Sensor is the sensor's network namespace, Port what it listens on there.
	Sensor sockets.Place
	Port   uint16
	// Proxy is docker-proxy's socket on this host; not valid without.
	Proxy netip.AddrPort

	places []drops.Place // whose counters go into the ledger
}

// ToContainer is the way into a container of an engine on this machine: by the
// port published at proxy, or straight to its address if proxy is not valid. It
// fails where the container's processes are not this kernel's.
func ToContainer(c orchestrate.Container, port uint16, proxy netip.AddrPort) (Route, error) {
	if !c.RunsHere() {
		return Route{}, errors.New("the sensor does not run on this machine")
	}
	return Route{
		Sensor: sockets.OfProcess(c.PID), Port: port, Proxy: proxy,
		places: []drops.Place{
			{Name: AtSensor, Net: fmt.Sprintf("/proc/%d/net", c.PID)},
			{Name: AtHost, Net: "/proc/self/net", Devices: drops.BridgePorts("/sys", drops.MonitoringBridge), Softnet: true},
		},
	}, nil
}

// Own is the way to a sensor in this process's own network namespace.
func Own(port uint16) Route {
	return Route{Port: port, places: []drops.Place{{Name: AtSensor, Net: "/proc/self/net", Softnet: true}}}
}

// OnBridge is the same way on another bridge than the stack's.
func (r Route) OnBridge(name string) Route {
	r.places = slices.Clone(r.places)
	for i := range r.places {
		if r.places[i].Name == AtHost {
			r.places[i].Devices = drops.BridgePorts("/sys", name)
		}
	}
	return r
}
