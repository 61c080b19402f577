package doctor

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/sockets"
)

// probeStack asks the engine for what is there of the stack, all at once.
func (p *Prober) probeStack(ctx context.Context, d Engine, f *Facts, wg *sync.WaitGroup) {
	wg.Go(func() { f.Networks = look(ctx, p.Limit, d.Networks) })
	wg.Go(func() {
		// Services that do not answer are each waited for, some by two ways.
		f.Services = look(ctx, 2*p.Limit, func(ctx context.Context) ([]orchestrate.ServiceStatus, error) {
			list, err := orchestrate.Status(ctx, p.Engine)
			if errors.Is(err, orchestrate.ErrNoStack) {
				err = nil
			}
			return list, err
		})
	})
	wg.Go(func() {
		f.Sensors = look(ctx, p.Limit, func(ctx context.Context) ([]Sensor, error) { return p.sensors(ctx, f.Here) })
	})
	if !f.Here {
		wg.Go(func() {
			f.Disk = look(ctx, p.Limit, p.diskInside)
			if f.Disk.Why != "" {
				f.Disk = NotKnown[Disk](elsewhere)
			}
		})
	}
	wg.Go(func() {
		if f.Stack.Why != "" {
			f.Images = NotKnown[[]Image](f.Stack.Why)
			return
		}
		f.Images = Known(p.images(ctx, d, f.Stack.Value.Images))
	})
}

// diskInside asks a sensor's container for the file system that holds the
// engine's volumes, where the engine's machine is another one.
func (p *Prober) diskInside(ctx context.Context) (Disk, error) {
	containers, err := p.Engine.Containers(ctx, orchestrate.ProjectName)
	if err != nil {
		return Disk{}, err
	}
	for _, c := range containers {
		service, err := orchestrate.ServiceByName(c.Service)
		if err != nil || !service.IsSensor() || !c.Running() {
			continue
		}
		var out strings.Builder
		// The working directory is on a volume; df's lines are POSIX's, in KiB.
		code, err := p.Engine.Exec(ctx, c.ID, []string{"df", "-Pk", "."}, &out, io.Discard)
		if err != nil || code != 0 {
			return Disk{}, errors.Join(errors.New(elsewhere), err)
		}
		return parseDf(out.String())
	}
	return Disk{}, errors.New(elsewhere)
}

// parseDf reads the second line of `df -Pk`: device, size, used, available.
func parseDf(out string) (Disk, error) {
	_, rest, _ := strings.Cut(out, "\n")
	fields := strings.Fields(rest)
	if len(fields) < 4 {
		return Disk{}, errors.New(elsewhere)
	}
	total, totalErr := strconv.ParseInt(fields[1], 10, 64)
	used, usedErr := strconv.ParseInt(fields[2], 10, 64)
	free, freeErr := strconv.ParseInt(fields[3], 10, 64)
	return Disk{Path: "the engine's volumes", Free: free << 10, Used: used << 10, Total: total << 10}, errors.Join(totalErr, usedErr, freeErr)
}

// images looks for each image, here and where it would come from.
func (p *Prober) images(ctx context.Context, d Engine, refs []string) []Image {
	images := make([]Image, len(refs))
	var wg sync.WaitGroup
	for i, ref := range refs {
		wg.Go(func() {
			found := look(ctx, p.Limit, func(ctx context.Context) (Image, error) { return d.Image(ctx, ref) })
			images[i] = found.Value
			images[i].Ref = ref
			if found.Value.Here {
				return
			}
			offered := look(ctx, p.Limit, func(ctx context.Context) ([]string, error) { return d.Registry(ctx, ref) })
			images[i].Platforms, images[i].Refusal, images[i].Late = offered.Value, offered.Why, offered.Late
		})
	}
	wg.Wait()
	return images
}

// probePorts finds out who has the ports that the stack publishes.
func (p *Prober) probePorts(ctx context.Context, f *Facts) {
	switch {
	case f.Stack.Why != "":
		f.Ports = NotKnown[[]Port](f.Stack.Why)
		return
	case f.Engine.Why != "" && f.Engine.Value.Remote:
		f.Ports = NotKnown[[]Port](notLooked)
		return
	}
	f.Ports = look(ctx, p.Limit, func(ctx context.Context) ([]Port, error) {
		var containers []orchestrate.Container
		if f.Engine.Why == "" {
			var err error
			if containers, err = p.Engine.Containers(ctx, ""); err != nil {
				return nil, err
			}
		}
		ports := make([]Port, 0, len(f.Stack.Value.Ports))
		for _, port := range f.Stack.Value.Ports {
			port.Owner, port.Ours = containerWith(containers, port)
			if port.Owner == "" && !f.Engine.Value.Remote {
				port.Owner = p.PortOwner(ctx, port.Address.String(), port.Protocol)
			}
			ports = append(ports, port)
		}
		return ports, nil
	})
}

// containerWith finds the container that has a port.
func containerWith(containers []orchestrate.Container, port Port) (name string, ours bool) {
	for _, c := range containers {
		for _, p := range c.Ports {
			if p.Protocol == port.Protocol && p.HostPort == port.Address.Port() && covers(p.HostIP, port.Address.Addr()) {
				return "container " + c.Name, c.Project == orchestrate.ProjectName && c.Service == port.Service
			}
		}
	}
	return "", false
}

// covers reports whether a port published on one address is not free on
// another.
func covers(bound, wanted netip.Addr) bool {
	return !bound.IsValid() || bound.IsUnspecified() || wanted.IsUnspecified() || bound.Unmap() == wanted.Unmap()
}

// sensors looks at each sensor that runs, at all of them at once.
func (p *Prober) sensors(ctx context.Context, here bool) ([]Sensor, error) {
	services := orchestrate.Services()
	found := make([]*Sensor, len(services))
	var wg sync.WaitGroup
	for i, service := range services {
		if service.IsSensor() {
			wg.Go(func() { found[i] = p.sensor(ctx, service, here) })
		}
	}
	wg.Wait()
	list := []Sensor{}
	for _, s := range found {
		if s != nil {
			list = append(list, *s)
		}
	}
	return list, ctx.Err()
}

// sensor looks at one; nil if it does not run, of which the check of the stack
// says why.
func (p *Prober) sensor(ctx context.Context, service orchestrate.Service, here bool) *Sensor {
	sensor, err := orchestrate.FindSensor(ctx, p.Engine, service.Encap)
	if err != nil {
		return nil
	}
	s := Sensor{Service: service.Name, Sockets: NotKnown[[]SensorSocket](elsewhere)}
	if err := p.Reach(ctx, sensor); err != nil {
		s.Reach = strings.TrimSpace(err.Error())
	}
	if here {
		s.Sockets = look(ctx, p.Limit, func(context.Context) ([]SensorSocket, error) {
			return p.Sockets(sensor.Container.PID, service.Port)
		})
	}
	return &s
}

// sensorSockets asks the kernel. A buffer of 0 is one whose size it does not
// tell us.
func sensorSockets(pid int, port uint16) ([]SensorSocket, error) {
	watch, err := sockets.Open(sockets.OfProcess(pid), netip.AddrPortFrom(netip.IPv4Unspecified(), port), sockets.AsksForMuch)
	if errors.Is(err, sockets.ErrNoSocket) {
		return []SensorSocket{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer watch.Close()
	list, err := watch.Read(nil)
	if err != nil {
		return nil, err
	}
	found := make([]SensorSocket, 0, len(list))
	for _, s := range list {
		if !watch.Exact() {
			s.Buffer = 0
		}
		found = append(found, SensorSocket{Buffer: s.Buffer, Drops: s.Drops})
	}
	return found, nil
}
