package watch

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
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

	places  []drops.Place     // whose counters go into the ledger
	witness Witness           // of what the sensor received; nil for none
	names   map[uint64]string // of workers, by the inode of their socket
	inside  bool              // this process sends from the sensor's namespace
}

// ToContainer is the way into a sensor's container of an engine on this machine: by
// the port published at proxy, or straight to its address if proxy is not valid. It
// fails where the container's processes are not this kernel's.
func ToContainer(s orchestrate.Sensor, proxy netip.AddrPort) (Route, error) {
	c := s.Container
	if !c.RunsHere() {
		return Route{}, errors.New("the sensor does not run on this machine")
	}
	return Route{
		Sensor: sockets.OfProcess(c.PID), Port: s.Service.Port, Proxy: proxy,
		places: []drops.Place{
			{Name: AtSensor, Net: fmt.Sprintf("/proc/%d/net", c.PID)},
			{Name: AtHost, Net: "/proc/self/net", Devices: drops.BridgePorts("/sys", drops.MonitoringBridge), Softnet: true},
		},
		witness: zeekAt(anyAddress(c), orchestrate.PacketMetricsPorts(c)),
		names:   s.Nodes.Names,
		inside:  sameNamespace(c.PID),
	}, nil
}

// anyAddress is the first of a container's addresses, by its networks' names. Its
// sensor serves its metrics on all.
func anyAddress(c orchestrate.Container) (addr netip.Addr) {
	for _, network := range slices.Sorted(maps.Keys(c.Addresses)) {
		if addr = c.Addresses[network]; addr.IsValid() {
			return addr
		}
	}
	return addr
}

// sameNamespace reports whether a process has this one's network namespace, as on
// the host's network.
func sameNamespace(pid int) bool {
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
	ours, errOurs := os.Stat("/proc/self/ns/net")
	return err == nil && errOurs == nil && os.SameFile(theirs, ours)
}

// Own is the way to a sensor in this process's own network namespace.
func Own(port uint16, nodes orchestrate.Nodes) Route {
	return Route{Port: port, places: []drops.Place{{Name: AtSensor, Net: "/proc/self/net", Softnet: true}},
		witness: zeekAt(netip.AddrFrom4([4]byte{127, 0, 0, 1}), nodes.Ports), names: nodes.Names, inside: true}
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
