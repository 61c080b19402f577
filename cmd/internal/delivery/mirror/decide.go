package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/offload"
)

// decide chooses between the kernel and the forwarder.
func (m *mirror) decide(ctx context.Context) error {
	if m.How == Forwarder {
		m.how = Forwarder
		return nil
	}
	obstacle, err := m.obstacle(ctx)
	switch {
	case err != nil:
		return err
	case obstacle == nil:
		m.how = Kernel
	case m.How == Kernel || m.Detach:
		return KernelHint(fmt.Errorf("mirror in the kernel: %w", obstacle))
	default:
		m.how, m.howReason = Forwarder, obstacle.Error()
		m.say("Mirroring by the forwarder: " + m.howReason)
	}
	return nil
}

// KernelHint says what helps where the kernel does not mirror.
func KernelHint(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return orchestrate.WithHint(err, "it needs root or CAP_NET_ADMIN")
	}
	return orchestrate.WithHint(err, "--how forwarder needs none of this")
}

// obstacle is why the kernel cannot mirror so, or ought not to.
func (m *mirror) obstacle(ctx context.Context) (why, err error) {
	if why := m.unfit(); why != nil {
		return why, nil
	}
	switch err := m.request().possible(ctx); {
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, os.ErrPermission):
		return err, nil
	case err != nil:
		return nil, err
	}
	if m.How == Auto && !m.Detach {
		return m.merged(), nil
	}
	return nil, nil
}

// unfit is what was asked for that a tunnel device does not do.
func (m *mirror) unfit() error {
	switch {
	case m.Workers > 1 || m.TxGiven:
		return errors.New("--workers and --tx are the forwarder's")
	case m.target.Kind != way.Direct && m.target.Kind != way.To:
		return fmt.Errorf("a tunnel device needs the sensor's own address, which is reached %s", m.target.Kind.Phrase())
	case m.Config.RawIP:
		return errors.New("a tunnel device carries Ethernet, no bare IP packets")
	case m.Config.InVXLAN:
		return errors.New("a tunnel device makes one tunnel, no VXLAN in GENEVE")
	case len(m.Config.Options) > 0 || m.Preset:
		return errors.New("a tunnel device adds no GENEVE options")
	}
	return nil
}

// merged says which interface merges packets. The kernel cuts them as well, but in
// the way of the traffic itself, of which the forwarder is out.
func (m *mirror) merged() error {
	if m.Unmerge {
		return nil
	}
	for _, name := range m.interfaces {
		if on, err := offload.Merging(name); err == nil && len(on) > 0 {
			if more := len(on) - 2; more > 1 {
				on = append(on[:2:2], fmt.Sprintf("and %d more features", more))
			}
			return fmt.Errorf("%s merges packets (%s), which have to be cut", name, strings.Join(on, ", "))
		}
	}
	return nil
}

// request describes the mirrors to the kernel.
func (m *mirror) request() kernelRequest {
	return kernelRequest{Interfaces: m.interfaces, Encap: m.Config.Kind.String(), VNI: m.Config.VNI, To: m.target.Address,
		Service: m.target.Sensor.Service.Name, Exclude: m.excluded(), Expression: m.Filter, Detached: m.Detach,
		Oversize: m.How == Kernel || m.Detach}
}

// excluded are the tunnels' receivers, for the kernel.
func (m *mirror) excluded() (list []netip.AddrPort) {
	for _, t := range m.tunnels() {
		list = append(list, t.To)
	}
	return list
}
