package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/disk"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/hosttune"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// Limit is how long each question may take. Some wait for the answer to another
// (an engine that does not answer is asked nothing more), so all of them take
// five times as long at worst.
const Limit = 5 * time.Second

// Prober finds the facts. Its fields are where it looks; tests put other things
// there.
type Prober struct {
	Engine     orchestrate.Engine // nil where there is none; then
	ConnectErr error              // says why
	Project    orchestrate.Project
	Platform   string // of this program, e.g. "linux/amd64"
	Root       string // what proc, sys and etc are looked for in: "/"
	Limit      time.Duration

	// Filter tries the filter compiler and describes it.
	Filter func(ctx context.Context) (string, error)
	// PortOwner names the process that has a port, see [orchestrate.PortOwner].
	PortOwner func(ctx context.Context, address, protocol string) string
	// Disk measures the file system that holds a path.
	Disk func(ctx context.Context, path string) (Disk, error)
	// Synchronised reports whether a time server steers this machine's clock.
	Synchronised func() (bool, error)
	// Sockets looks at the sockets of the process's network namespace that
	// listen on a UDP port.
	Sockets func(pid int, port uint16) ([]SensorSocket, error)
	// Reach tries whether packets arrive at a sensor's own address.
	Reach func(ctx context.Context, s orchestrate.Sensor) error
	// Settings returns a way to look at the kernel's settings; asking the engine
	// for it is of use only if that answers.
	Settings func(ctx context.Context, answers bool) (nsenter.Machine, error)
	// Store keeps what `tune-host` did.
	Store hosttune.Store
}

// NewProber looks at the real world. The filter compiler is the caller's to add.
func NewProber(engine orchestrate.Engine, project orchestrate.Project, store hosttune.Store) *Prober {
	p := &Prober{Engine: engine, Project: project, Platform: runtime.GOOS + "/" + runtime.GOARCH, Root: "/", Limit: Limit, Store: store,
		PortOwner: orchestrate.PortOwner, Disk: measure, Synchronised: synchronised, Sockets: sensorSockets}
	p.Settings = p.settings
	p.Reach = func(ctx context.Context, s orchestrate.Sensor) error { return s.Reaches(ctx, p.Engine) }
	return p
}

// settings looks without a privilege and without a helper container; where no
// engine answers, at this machine.
func (p *Prober) settings(ctx context.Context, answers bool) (nsenter.Machine, error) {
	if !answers {
		return nsenter.Local(), nil
	}
	list, err := p.Engine.Containers(ctx, orchestrate.ProjectName)
	if err != nil {
		return nil, err
	}
	return nsenter.Peek(ctx, p.Engine, list), nil
}

// measure asks the file system that holds a path.
func measure(ctx context.Context, path string) (Disk, error) {
	usage, err := disk.UsageWithContext(ctx, path)
	if err != nil {
		return Disk{}, err
	}
	return Disk{Path: path, Free: int64(usage.Free), Used: int64(usage.Used), Total: int64(usage.Total)}, nil
}

// Probe finds all facts.
func (p *Prober) Probe(ctx context.Context) Facts {
	f := Facts{Platform: p.Platform}
	var wg sync.WaitGroup
	wg.Go(func() { f.Filter = look(ctx, p.Limit, p.Filter) })
	d, why := p.probeEngine(ctx, &f)
	if d == nil {
		blank(&f, why)
		wg.Go(func() { p.probeHost(ctx, &f) })
	} else {
		f.Stack = look(ctx, p.Limit, func(ctx context.Context) (Stack, error) { return d.Complete(ctx, p.Project) })
		wg.Go(func() { p.probeHost(ctx, &f) })
		wg.Go(func() { p.probePorts(ctx, &f) })
	}
	wg.Go(func() { p.probeTuning(ctx, &f) })
	if why == "" {
		p.probeStack(ctx, d, &f, &wg)
	}
	wg.Wait()
	return f
}

// blank marks what only an engine knows as not known.
func blank(f *Facts, why string) {
	f.Machine, f.Clock = NotKnown[Machine](why), NotKnown[Clock](why)
	f.Stack, f.Images, f.Ports = NotKnown[Stack](why), NotKnown[[]Image](why), NotKnown[[]Port](why)
	f.Networks, f.Proxy, f.Disk = NotKnown[[]Network](why), NotKnown[Proxy](why), NotKnown[Disk](why)
	f.Services, f.Sensors = NotKnown[[]orchestrate.ServiceStatus](why), NotKnown[[]Sensor](why)
}

// probeEngine asks who is there, and returns whom to ask further, with the
// reason if that one can only complete the Compose file.
func (p *Prober) probeEngine(ctx context.Context, f *Facts) (d Engine, why string) {
	if p.Engine == nil {
		f.Engine = reason[orchestrate.EngineInfo](cmp.Or(p.ConnectErr, errors.New("there is no engine")))
		return nil, notLooked
	}
	f.Engine = look(ctx, p.Limit, p.Engine.Info)
	if f.Engine.Late {
		f.Engine.Why = fmt.Sprintf("the Docker engine does not answer within %s", p.Limit)
		f.Engine.Remedy = "sudo systemctl restart docker, or restart Docker Desktop or colima"
	}
	d, asked := p.Engine.(Engine)
	if !asked {
		return nil, "not looked at: this engine cannot be asked"
	}
	if f.Engine.Why != "" {
		blank(f, notLooked)
		// Nobody says whose machine it would be. On Linux it is most likely this one.
		f.Here = strings.HasPrefix(p.Platform, "linux/") && !f.Engine.Value.Remote
		return d, notLooked
	}
	asking := time.Now()
	described := look(ctx, p.Limit, func(ctx context.Context) (answer, error) {
		m, err := d.Machine(ctx)
		return answer{m, time.Since(asking)}, err
	})
	f.Machine = Fact[Machine]{described.Value.machine, described.Why, described.Remedy, described.Late}
	f.Here = f.Machine.Why == "" && !f.Engine.Value.Remote && p.isHere(f.Machine.Value)
	f.Clock = p.compareClocks(described, asking)
	return d, ""
}

// probeTuning compares the machine's settings with what `tune-host` would set.
func (p *Prober) probeTuning(ctx context.Context, f *Facts) {
	if f.Engine.Why != "" && !f.Here {
		f.Tuning = NotKnown[hosttune.Status](notLooked)
		return
	}
	f.Tuning = look(ctx, p.Limit, func(ctx context.Context) (hosttune.Status, error) {
		var sensors []hosttune.Place
		if f.Engine.Why == "" {
			containers, err := p.Engine.Containers(ctx, orchestrate.ProjectName)
			if err != nil {
				return hosttune.Status{}, err
			}
			sensors = hosttune.Sensors(containers)
		}
		m, err := p.Settings(ctx, f.Engine.Why == "")
		if err != nil {
			return hosttune.Status{}, err
		}
		defer m.Close()
		return hosttune.Look(ctx, m, p.Store, sensors)
	})
	if f.Tuning.Why != "" && !f.Here {
		f.Tuning = Fact[hosttune.Status]{Why: elsewhere, Remedy: "zeekdemo tune-host --status (by a helper container)", Late: f.Tuning.Late}
	}
}

// answer is a description and how long it took to come.
type answer struct {
	machine Machine
	took    time.Duration
}

// compareClocks takes it that the engine looked at its clock in the middle of
// the time that its answer took.
func (p *Prober) compareClocks(described Fact[answer], asking time.Time) Fact[Clock] {
	if described.Why != "" {
		return NotKnown[Clock](described.Why)
	}
	took := described.Value.took
	c := Clock{Ahead: described.Value.machine.Time.Sub(asking.Add(took / 2)), Uncertain: took / 2}
	if steered, err := p.Synchronised(); err == nil {
		c.Synchronised = &steered
	}
	return Known(c)
}

// look asks a question and waits a limited time for the answer. A question that
// cannot be interrupted, such as one to a file system that hangs, is left
// behind.
func look[T any](ctx context.Context, limit time.Duration, ask func(context.Context) (T, error)) Fact[T] {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	answered := make(chan Fact[T], 1)
	go func() {
		value, err := ask(ctx)
		if err == nil {
			answered <- Known(value)
			return
		}
		late := ctx.Err() != nil
		if late {
			err = context.Cause(ctx)
		}
		answered <- Fact[T]{Value: value, Why: err.Error(), Remedy: hint(err), Late: late}
	}()
	select {
	case fact := <-answered:
		return fact
	case <-ctx.Done():
	}
	select {
	case fact := <-answered: // what can be interrupted may have half an answer
		return fact
	case <-time.After(grace):
		return Fact[T]{Why: context.Cause(ctx).Error(), Late: true}
	}
}

// grace is how long an interrupted question may take to end.
const grace = 100 * time.Millisecond

// reason is a fact that an error keeps from being known.
func reason[T any](err error) Fact[T] { return Fact[T]{Why: err.Error(), Remedy: hint(err)} }

// hint is the advice that an error carries.
func hint(err error) string {
	var has interface{ Hint() string }
	if errors.As(err, &has) {
		return has.Hint()
	}
	return ""
}
