package mirror

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/offload"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
)

// Stopped is what `mirror --stop --json` prints.
type Stopped struct {
	Mirrors  []tcmirror.Mirror `json:"stopped"`
	Offloads []string          `json:"offloads_restored"` // interfaces
}

// Stop ends those of the kernel's mirrors whose interfaces are named, or all if
// none is, whoever started them, and takes back what killed ones left.
func Stop(running []tcmirror.Mirror, interfaces []string) (Stopped, error) {
	doc := Stopped{Mirrors: []tcmirror.Mirror{}, Offloads: []string{}}
	var errs []error
	for _, m := range running {
		if len(interfaces) > 0 && !slices.Contains(interfaces, m.Interface) {
			continue
		}
		if err := m.Stop(); err != nil {
			errs = append(errs, KernelHint(fmt.Errorf("stop mirrors in the kernel: %w", err)))
			continue
		}
		doc.Mirrors = append(doc.Mirrors, m)
	}
	if len(interfaces) == 0 {
		interfaces = []string{""} // every one
	}
	for _, name := range interfaces {
		restored, err := offload.RestoreDetached(offload.StateDir, name)
		doc.Offloads = append(doc.Offloads, restored...)
		if !errors.Is(err, offload.ErrHeld) { // a forwarder that runs
			errs = append(errs, err)
		}
	}
	return doc, errors.Join(errs...)
}

// FollowDetached points the mirrors that no process watches to where the stack's
// sensors are now, and says of each what came of it.
func FollowDetached(running []tcmirror.Mirror, services []orchestrate.ServiceStatus, say func(string)) {
	at, exclude := sensorAddresses(services)
	modes := map[string]orchestrate.GeneveMode{}
	for _, s := range services {
		modes[s.Service] = s.Mode
	}
	for _, m := range running {
		to, ok := at[m.Service]
		if !m.Detached || !m.Alive || !ok {
			continue
		}
		if takes := modes[m.Service]; takes != orchestrate.GeneveEthernet {
			say(fmt.Sprintf("warning: the mirror of %s sends Ethernet, and %s takes %s now: `zeekdemo mirror --stop %s` ends it, `zeekdemo up --geneve-mode ethernet` makes the sensor take it",
				m.Interface, m.Service, takes.Phrase(), m.Interface))
			continue
		}
		changed, err := m.Follow(to, exclude)
		if err != nil {
			say(fmt.Sprintf("warning: point the mirror of %s to %s: %v; run `zeekdemo up` again as root", m.Interface, to, err))
		}
		if changed {
			say(fmt.Sprintf("The mirror of %s goes to %s at %s now.", m.Interface, m.Service, to))
		}
	}
}

// ToStack are the interfaces that are mirrored to the stack.
func ToStack(running []tcmirror.Mirror) (names []string) {
	for _, m := range running {
		if m.Service != "" && !slices.Contains(names, m.Interface) {
			names = append(names, m.Interface)
		}
	}
	return names
}

// sensorAddresses are the sensors' own addresses by service, and every address
// at which tunnels arrive.
func sensorAddresses(services []orchestrate.ServiceStatus) (at map[string]netip.AddrPort, all []netip.AddrPort) {
	at = map[string]netip.AddrPort{}
	for _, s := range services {
		service, err := orchestrate.ServiceByName(s.Service)
		if err != nil || !service.IsSensor() {
			continue
		}
		if addr, ok := s.Addresses[orchestrate.MonitoringNetwork]; ok && addr.IsValid() {
			at[s.Service] = netip.AddrPortFrom(addr, service.Port)
			all = append(all, at[s.Service])
		}
		for _, port := range s.Ports {
			text, _ := strings.CutSuffix(port, "/udp")
			if published, err := netip.ParseAddrPort(text); err == nil {
				all = append(all, published)
			}
		}
	}
	return at, all
}
