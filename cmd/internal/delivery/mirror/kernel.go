package mirror

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/filter"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
)

// kernelRequest is what is to be mirrored by the kernel, and where to.
type kernelRequest struct {
	Interfaces []string
	Encap      string         // "vxlan" or "geneve"
	VNI        uint32         // of the run
	To         netip.AddrPort // an address of the sensor that this machine reaches
	Service    string         // the stack's name of the sensor; empty with --to
	Exclude    []netip.AddrPort
	Expression string // pcap-filter; empty takes all
	Detached   bool
	Oversize   bool // frames may be too long for a datagram: count those as dropped
}

// kernelRun are the mirrors of one run, one per interface.
type kernelRun struct {
	mirrors []tcmirror.Mirror
	indexes []int // parallel: of the interfaces; 0 where it has gone already
}

// specs compiles the expression: for files, since package tcmirror itself knows
// where the kernel keeps VLAN tags.
func (k kernelRequest) specs(ctx context.Context) ([]tcmirror.Spec, error) {
	spec := tcmirror.Spec{Encap: k.Encap, VNI: k.VNI, Sensor: k.To, Service: k.Service, Exclude: k.Exclude,
		Expression: k.Expression, Detached: k.Detached, Oversize: k.Oversize}
	if k.Expression != "" {
		program, err := filter.Compile(ctx, k.Expression, forward.LinkEthernet, 0)
		if err != nil {
			return nil, err
		}
		spec.Filter = program.Raw()
	}
	specs := make([]tcmirror.Spec, len(k.Interfaces))
	for i, name := range k.Interfaces {
		specs[i] = spec
		specs[i].Interface = name
	}
	return specs, nil
}

// possible says why the kernel cannot mirror so; errors.ErrUnsupported is in it
// where the forwarder may be able to. It leaves nothing behind.
func (k kernelRequest) possible(ctx context.Context) error {
	if k.Encap == tcmirror.GENEVE && len(k.Interfaces) > 1 {
		return fmt.Errorf("the kernel has one geneve device for a VNI and a sensor, so one interface: %w", errors.ErrUnsupported)
	}
	specs, err := k.specs(ctx)
	for _, s := range specs {
		if err == nil {
			err = tcmirror.Supports(s)
		}
	}
	return err
}

// start mirrors every interface, or none. One that is mirrored to the same
// sensor already is an error (tcmirror.ErrRunning).
func (k kernelRequest) start(ctx context.Context) (*kernelRun, error) {
	specs, err := k.specs(ctx)
	if err != nil {
		return nil, err
	}
	run := &kernelRun{}
	for _, s := range specs {
		m, err := tcmirror.Start(ctx, s)
		if errors.Is(err, tcmirror.ErrRunning) {
			err = orchestrate.WithHint(err, "`zeekdemo mirror --stop "+s.Interface+"` ends that one")
		}
		if err != nil {
			return nil, errors.Join(err, run.stop())
		}
		run.mirrors = append(run.mirrors, m)
		run.indexes = append(run.indexes, indexOf(s.Interface))
	}
	return run, nil
}

// indexOf is the number of an interface, which another one of its name does not have.
func indexOf(name string) int {
	if i, err := net.InterfaceByName(name); err == nil {
		return i.Index
	}
	return 0
}

// look reads the counters anew. An error that is tcmirror.ErrGone says that a mirror
// has gone with its interface, or was stopped by somebody else; the last counters
// stay.
func (k *kernelRun) look() ([]tcmirror.Mirror, error) {
	now, err := tcmirror.List()
	if err != nil {
		return slices.Clone(k.mirrors), err
	}
	for i, m := range k.mirrors {
		at := slices.IndexFunc(now, func(n tcmirror.Mirror) bool { return n.Device == m.Device })
		if at < 0 || !now[at].Complete {
			err = errors.Join(err, k.gone(i))
			continue
		}
		now[at].Notes = m.Notes
		k.mirrors[i] = now[at]
	}
	return slices.Clone(k.mirrors), err
}

// gone says of a mirror that it is, and why if that is known.
func (k *kernelRun) gone(i int) error {
	name := k.mirrors[i].Interface
	if _, err := net.InterfaceByIndex(k.indexes[i]); err != nil {
		return fmt.Errorf("interface %s has gone: %w", name, tcmirror.ErrGone)
	}
	return fmt.Errorf("mirror %s: %w", name, tcmirror.ErrGone)
}

// follow points every mirror to another address of the sensor.
func (k *kernelRun) follow(to netip.AddrPort, exclude []netip.AddrPort) error {
	var all error
	for _, m := range k.mirrors {
		_, err := m.Follow(to, exclude)
		all = errors.Join(all, err)
	}
	return all
}

// finish stops the mirrors, whose counters then are the last ones. That one has gone
// before is an error, however late: what passed its interface since is not known.
func (k *kernelRun) finish() (last []tcmirror.Mirror, err error) {
	var all error
	for _, m := range k.mirrors {
		all = errors.Join(all, m.Pause())
	}
	last, err = k.look()
	return last, errors.Join(all, err, k.stop())
}

// stop takes everything back.
func (k *kernelRun) stop() error {
	var all error
	for _, m := range k.mirrors {
		all = errors.Join(all, m.Stop())
	}
	return all
}
