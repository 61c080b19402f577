package orchestrate

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// probeTimeout bounds one question to one service.
const probeTimeout = 2 * time.Second

// prober asks services whether they answer, from outside: over their published
// ports, over the container's own address where this machine reaches it, and
// for sensors in the kernel's list of sockets. Nothing is needed inside the
// images.
type prober struct {
	client *QueryClient
	proc   string // the proc filesystem, "/proc"
	remote bool   // the engine is not on this machine
}

func newProber(info EngineInfo) *prober {
	return &prober{client: NewQueryClient(probeTimeout), proc: "/proc", remote: info.Remote}
}

// ready returns nil if the service does its work, else why it does not yet.
func (p *prober) ready(ctx context.Context, s Service, containers map[string]Container) error {
	c, ok := containers[s.Name]
	switch {
	case !ok:
		return errors.New("has no container")
	case !c.Running():
		return fmt.Errorf("container is %s%s", c.State, exitReason(c))
	case s.IsSensor():
		return p.sensorListens(s, c)
	case s.Port == 0:
		return healthCheck(c)
	case s.Beside != "":
		if err := follows(s, c, containers[s.Beside]); err != nil {
			return err
		}
		c.Addresses = containers[s.Beside].Addresses
	}
	at, published := s.published(containers)
	switch {
	case published && p.remote && at.Addr().IsLoopback():
		return nil // published on the engine's own loopback: nothing more can be asked from here
	case published:
		return p.get(ctx, at, s.Path)
	}
	return p.unpublished(ctx, s, c, containers)
}

// follows tells whether a service that shares a sensor's network namespace is
// still in it: a sensor that is started again gets a new one.
func follows(s Service, c, sensor Container) error {
	switch {
	case !sensor.Running():
		return fmt.Errorf("%s does not run, whose network namespace it shares", s.Beside)
	case c.StartedAt.Before(sensor.StartedAt):
		return fmt.Errorf("%s was started again without it: it is in the network namespace of before", s.Beside)
	}
	return nil
}

func exitReason(c Container) string {
	switch {
	case c.OOMKilled:
		return ", out of memory"
	case c.State == "exited" || c.State == "restarting":
		return fmt.Sprintf(", exit code %d", c.ExitCode)
	}
	return ""
}

// sensorListens looks for the sensor's UDP socket. On the engine's own machine
// the kernel says so at once; elsewhere the container's health check, which
// looks at the same list from inside, says so within its interval.
func (p *prober) sensorListens(s Service, c Container) error {
	if c.Health == "healthy" {
		return nil
	}
	if !p.remote && c.PID > 0 {
		list, err := os.ReadFile(filepath.Join(p.proc, strconv.Itoa(c.PID), "net", "udp"))
		if err == nil {
			if state := socketState(string(list), s.Port); !state.All(workersOf(c)) {
				return errors.New(missing(state.Listening, workersOf(c), s.Port) + " yet")
			}
			return nil
		}
	}
	return healthCheck(c)
}

// healthCheck is what the engine says of a container that cannot be asked itself.
// Without a check there is nothing to say.
func healthCheck(c Container) error {
	if c.Health == "" || c.Health == "healthy" {
		return nil
	}
	return fmt.Errorf("health check says %s", c.Health)
}

// unpublished asks a service that only its fellows reach: at its own address,
// and where that is not reachable from here, by way of Prometheus, which
// scrapes it.
func (p *prober) unpublished(ctx context.Context, s Service, c Container, containers map[string]Container) error {
	direct := errors.New("has no address")
	for _, addr := range c.Addresses {
		if direct = p.get(ctx, netip.AddrPortFrom(addr, s.Port), s.Path); direct == nil {
			return nil
		}
	}
	prometheus, err := ServiceByName("prometheus")
	if err != nil {
		return err
	}
	at, ok := prometheus.published(containers)
	switch {
	case !ok:
		return direct
	case p.remote && at.Addr().IsLoopback():
		return nil // as in ready
	}
	if up, err := p.scraped(ctx, at, s.Scrape); err != nil || !up {
		return direct
	}
	return nil
}

func (p *prober) get(ctx context.Context, at netip.AddrPort, path string) error {
	_, err := p.client.Get(ctx, "http://"+at.String()+path)
	return err
}

// scraped asks Prometheus whether its last scrape of a target went well.
func (p *prober) scraped(ctx context.Context, at netip.AddrPort, target string) (bool, error) {
	list, err := p.client.Instant(ctx, "http://"+at.String()+"/api/v1/query", url.Values{"query": {"min(up{" + target + "})"}})
	return err == nil && len(list) == 1 && list[0].Value == 1, err
}
