package hosttune

import (
	"net/netip"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// Sensors returns the places of the stack's sensors that run, in the order of
// the services.
func Sensors(containers []orchestrate.Container) []Place {
	var places []Place
	for _, s := range orchestrate.Services() {
		for _, c := range containers {
			if !s.IsSensor() || c.Service != s.Name || !c.Running() || c.PID == 0 {
				continue
			}
			place := Place{Name: s.Name, Container: c.ID, Started: c.StartedAt.UTC(),
				Namespace: nsenter.Namespace{PID: c.PID}, Address: c.Addresses[orchestrate.MonitoringNetwork], Port: s.Port}
			for _, p := range c.Ports {
				if p.ContainerPort == s.Port && p.Protocol == "udp" && p.HostPort != 0 && !place.Published.IsValid() {
					place.Published = netip.AddrPortFrom(p.HostIP, p.HostPort)
				}
			}
			places = append(places, place)
		}
	}
	return places
}
