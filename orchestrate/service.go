package orchestrate

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// Service describes what the orchestrator must know of one service of the
// embedded stack beyond what its Compose file says.
type Service struct {
	Name string
	// Encap is the encapsulation that a sensor listens for; empty for others.
	Encap string
	// Port is the port inside the container that shows whether it answers; 0 where
	// only its health check does.
	Port uint16
	// Path is requested over HTTP to see whether it is ready.
	Path string
	// Title is what a person calls its web page; empty where there is none.
	Title string
	// Scrape selects it among the targets of Prometheus' own scrape list; empty
	// where it is none.
	Scrape string
	// Door names the service whose published port of the same number leads to it, for
	// what asks nobody for a password; empty where it is its own.
	Door string
	// Beside names the sensor whose network namespace it shares: there it has no
	// addresses of its own. Empty for most.
	Beside string
}

// IsSensor reports whether it is a Zeek that listens for packets.
func (s Service) IsSensor() bool { return s.Encap != "" }

// takes says what its container takes; empty for what is no sensor.
func (s Service) takes(c Container) string {
	if s.Encap != "geneve" {
		return s.Encap
	}
	return s.Encap + ":" + string(s.mode(c))
}

// mode is what the datagrams of its container hold; empty for what is no sensor.
func (s Service) mode(c Container) GeneveMode {
	if !s.IsSensor() {
		return ""
	}
	return modeOf(c.Command)
}

// Services lists the stack in the order in which it is shown: the sensors
// first, then the way of their logs and numbers to the eye, and last what reads
// the kernel's counters in each network namespace on the packets' way.
func Services() []Service {
	return []Service{
		{Name: "zeek", Encap: "vxlan", Port: 4789, Scrape: `job="zeek",sensor="zeek"`},
		{Name: "zeek-geneve", Encap: "geneve", Port: 6081, Scrape: `job="zeek",sensor="zeek-geneve"`},
		{Name: "collector", Port: 13133, Path: "/", Scrape: `job="collector"`},
		{Name: "loki", Port: 3100, Path: "/ready", Title: "Loki", Door: gateway, Scrape: `job="loki"`},
		{Name: "prometheus", Port: 9090, Path: "/-/ready", Title: "Prometheus", Door: gateway, Scrape: `job="prometheus"`},
		{Name: gateway, Port: 9090, Path: "/-/gateway"},
		{Name: "grafana", Port: 3000, Path: "/api/health", Title: "Grafana"},
		{Name: janitorName},
		exporter("host", ""), exporter("zeek", "zeek"), exporter("zeek-geneve", "zeek-geneve"),
	}
}

// gateway lets only what reads pass from the published ports of Loki and
// Prometheus, see assets/stack/gateway/Caddyfile.
const gateway = "gateway"

// exporter describes the one that reads a network namespace.
func exporter(namespace, beside string) Service {
	return Service{Name: "exporter-" + namespace, Port: 9100, Path: "/", Beside: beside,
		Scrape: fmt.Sprintf("job=\"path\",namespace=%q", namespace)}
}

// ServiceByName finds a service of the stack.
func ServiceByName(name string) (Service, error) {
	i := slices.IndexFunc(Services(), func(s Service) bool { return s.Name == name })
	if i < 0 {
		return Service{}, fmt.Errorf("no service %q in the stack: there are %s", name, serviceNames())
	}
	return Services()[i], nil
}

// SensorFor returns the sensor that takes an encapsulation, "vxlan" or "geneve".
func SensorFor(encap string) (Service, error) {
	i := slices.IndexFunc(Services(), func(s Service) bool { return s.IsSensor() && s.Encap == encap })
	if i < 0 {
		return Service{}, fmt.Errorf("no sensor takes the encapsulation %q", encap)
	}
	return Services()[i], nil
}

func serviceNames() string {
	var names string
	for i, s := range Services() {
		if i > 0 {
			names += ", "
		}
		names += s.Name
	}
	return names
}

// published returns where the service's port can be reached from this machine,
// given the stack's containers by service, and whether it is published at all.
func (s Service) published(containers map[string]Container) (netip.AddrPort, bool) {
	return s.publishedBy(containers[cmp.Or(s.Door, s.Name)])
}

// publishedBy is where a container publishes the service's port. One bound to
// every address is reached over loopback.
func (s Service) publishedBy(c Container) (netip.AddrPort, bool) {
	for _, p := range c.Ports {
		if p.ContainerPort != s.Port || p.HostPort == 0 {
			continue
		}
		ip := p.HostIP
		if !ip.IsValid() || ip.IsUnspecified() {
			ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		return netip.AddrPortFrom(ip, p.HostPort), true
	}
	return netip.AddrPort{}, false
}

// URL returns the address of the service's web page, or nothing, given the stack's
// containers by service.
func (s Service) URL(containers map[string]Container) string {
	at, ok := s.published(containers)
	if !ok || s.Title == "" {
		return ""
	}
	return "http://" + net.JoinHostPort(at.Addr().String(), strconv.Itoa(int(at.Port())))
}
