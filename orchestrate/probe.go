package orchestrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// probeTimeout bounds one question to one service.
const probeTimeout = 2 * time.Second

// prober asks services whether they answer, from outside: over their published
// ports, over the container's own address where this machine reaches it, and
// for sensors in the kernel's list of sockets. Nothing is needed inside the
// images.
type prober struct {
	client *http.Client
	proc   string // the proc filesystem, "/proc"
	remote bool   // the engine is not on this machine
}

func newProber(info EngineInfo) *prober {
	// No proxy: every address asked is this machine's own or a container's.
	return &prober{
		client: &http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}},
		proc:   "/proc",
		remote: info.Remote,
	}
}

// ready returns nil if the service does its work, else why it does not yet.
func (p *prober) ready(ctx context.Context, s Service, containers map[string]Container) error {
	c, ok := containers[s.Name]
	switch {
	case !ok:
		return errors.New("has no container")
	case !c.Running():
		return fmt.Errorf("container is %s%s", c.State, exitReason(c))
	case s.Encap != "":
		return p.sensorListens(s, c)
	case s.Beside != "":
		if err := follows(s, c, containers[s.Beside]); err != nil {
			return err
		}
		c.Addresses = containers[s.Beside].Addresses
	}
	at, published := s.published(c)
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
		if err == nil && socketState(string(list), s.Port).Listening {
			return nil
		}
		if err == nil {
			return fmt.Errorf("no socket listens on UDP port %d yet", s.Port)
		}
	}
	if c.Health == "" {
		return nil // no health check and no view into its namespace
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
	at, ok := prometheus.published(containers[prometheus.Name])
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
	body, status, err := p.fetch(ctx, "http://"+at.String()+path)
	switch {
	case err != nil:
		return unwrapURL(err)
	case status != http.StatusOK:
		return fmt.Errorf("answers %d %s", status, strings.TrimSpace(firstLine(body)))
	}
	return nil
}

// scraped asks Prometheus whether its last scrape of a target went well.
func (p *prober) scraped(ctx context.Context, at netip.AddrPort, target string) (bool, error) {
	query := url.Values{"query": {"min(up{" + target + "})"}}
	body, _, err := p.fetch(ctx, "http://"+at.String()+"/api/v1/query?"+query.Encode())
	if err != nil {
		return false, err
	}
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return false, err
	}
	return len(answer.Data.Result) == 1 && answer.Data.Result[0].Value[1] == "1", nil
}

func (p *prober) fetch(ctx context.Context, target string) (body string, status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return "", 0, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return string(content), resp.StatusCode, err
}

// unwrapURL drops the method and address that net/http puts before a cause:
// the service is named already.
func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%s %s: %w", op.Op, op.Addr, op.Err)
	}
	return err
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
