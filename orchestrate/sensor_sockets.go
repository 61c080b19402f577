package orchestrate

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
)

// SocketState is what the kernel says of a sensor's UDP sockets.
type SocketState struct {
	Listening int    // how many listen
	Queued    uint64 // bytes of kernel memory that wait to be read
	Drops     uint64 // datagrams dropped because a queue was full
}

// All reports whether so many workers listen, of which a sensor has at least one.
func (s SocketState) All(workers int) bool { return s.Listening >= max(1, workers) }

// SensorSockets looks at the sockets on a UDP port in a container's network
// namespace: on the engine's own machine at the kernel's list, elsewhere with
// cat inside the container.
func SensorSockets(ctx context.Context, e Engine, c Container, port uint16) (SocketState, error) {
	if c.RunsHere() {
		list, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.PID), "net", "udp"))
		if err == nil {
			return socketState(string(list), port), nil
		}
	}
	var out, errs strings.Builder
	code, err := e.Exec(ctx, c.ID, []string{"cat", "/proc/net/udp"}, &out, &errs)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s", code, strings.TrimSpace(errs.String()))
	}
	if err != nil {
		return SocketState{}, fmt.Errorf("look at the sockets of %s: %w", c.Name, err)
	}
	return socketState(out.String(), port), nil
}

// socketState adds up the sockets that listen on a port, from the text of
// /proc/net/udp.
func socketState(table string, port uint16) (s SocketState) {
	for _, socket := range procfs.UDP(table, port) {
		if socket.Listens() {
			s.Listening++
			s.Queued, s.Drops = s.Queued+socket.Queued, s.Drops+socket.Drops
		}
	}
	return s
}

// AwaitSensor waits until a sensor that was started listens, and returns the
// way to it.
func AwaitSensor(ctx context.Context, e Engine, shots OneShots, service Service, c Container, limit time.Duration) (Sensor, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s after %s", missing(0, workersOf(c), service.Port), limit))
	defer cancel()
	for {
		state, err := SensorSockets(ctx, e, c, service.Port)
		switch {
		case err == nil && state.All(workersOf(c)):
			return listening(service, c), nil
		case err != nil && ctx.Err() == nil:
			return Sensor{}, fmt.Errorf("start sensor %s: %w", c.Name, whyEnded(ctx, shots, c, err))
		}
		if err := pause(ctx, pollInterval/4); err != nil {
			return Sensor{}, fmt.Errorf("start sensor %s: %w", c.Name, err)
		}
	}
}

// missing says that not every worker of a sensor listens.
func missing(listening, workers int, port uint16) string {
	if workers == 1 {
		return fmt.Sprintf("no socket listens on UDP port %d", port)
	}
	return fmt.Sprintf("%d of %d workers listen on UDP port %d", listening, workers, port)
}

// listening is a sensor in a container that has one network.
func listening(service Service, c Container) Sensor {
	s := Sensor{Service: service, Container: c, Mode: modeOf(c.Command), Workers: workersOf(c)}
	s.Published, _ = service.publishedBy(c)
	for _, addr := range c.Addresses {
		s.Direct = netip.AddrPortFrom(addr, service.Port)
	}
	return s
}

// whyEnded says of a container that cannot be looked into how it ended, if it
// has; else err.
func whyEnded(ctx context.Context, shots OneShots, c Container, err error) error {
	ended, stopErr := shots.StopOneShot(ctx, c.ID, time.Second)
	if stopErr == nil && ended.Err() != nil {
		return ended.Err()
	}
	return err
}

// pause waits, but no longer than the context lasts.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// Draining.
const (
	drainPoll  = 50 * time.Millisecond
	drainQuiet = 6               // looks at an empty queue: what was read may still be in work
	drainStuck = 2 * time.Minute // without the queue getting shorter
)

// Drain waits until the sensor has read everything that waits at its sockets:
// a Zeek that is told to stop leaves the rest unread.
func Drain(ctx context.Context, e Engine, s Sensor) (SocketState, error) {
	var last SocketState
	moved := time.Now()
	for quiet := 0; quiet < drainQuiet; {
		state, err := SensorSockets(ctx, e, s.Container, s.Service.Port)
		switch {
		case err != nil:
			return last, err
		case state.Listening == 0:
			return last, fmt.Errorf("sensor %s: its socket is gone", s.Container.Name)
		case state.Queued == 0:
			quiet++
		case state.Queued < last.Queued || last.Queued == 0:
			moved, quiet = time.Now(), 0
		case time.Since(moved) > drainStuck:
			return state, fmt.Errorf("sensor %s: reads nothing any more, %d bytes wait", s.Container.Name, state.Queued)
		}
		last = state
		if err := pause(ctx, drainPoll); err != nil {
			return last, err
		}
	}
	return last, nil
}
