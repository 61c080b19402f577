package orchestrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
)

// OneShots is what verifying needs of a container engine: containers of their
// own beside the stack, made from its service definitions, which serve one
// question and go. They are no part of the Compose project.
type OneShots interface {
	// CreateOneShot makes a container, its volume and, for a sensor that
	// listens, the network of its run, and pulls the image where it is missing
	// and may be pulled.
	CreateOneShot(ctx context.Context, p Project, o OneShot) (id string, err error)
	// StartOneShot starts it.
	StartOneShot(ctx context.Context, id string) (Container, error)
	// WaitOneShot waits until it has ended by itself.
	WaitOneShot(ctx context.Context, id string) (Ended, error)
	// StopOneShot asks it to end (SIGTERM), and kills it after the grace period.
	StopOneShot(ctx context.Context, id string, grace time.Duration) (Ended, error)
	// OneShotLogs returns its log folder as a tar archive; it may have ended.
	OneShotLogs(ctx context.Context, id string) (io.ReadCloser, error)
	// RemoveOneShots removes containers, volumes and networks, and returns how
	// many containers that were. It is no error if there is nothing.
	RemoveOneShots(ctx context.Context, r Removal) (int, error)
}

// Removal says what RemoveOneShots removes.
type Removal struct {
	ID   string                   // only this container; empty for all of
	Run  string                   // this run, with its network; empty for those of
	Gone func(client string) bool // clients of which it is true, see [ClientGone]
}

// The labels of everything that a OneShots makes.
const (
	VerifyLabel       = "org.zeekdemo.verify"        // the run
	VerifyClientLabel = "org.zeekdemo.verify.client" // the process it belongs to, see [Client]
)

// OneShot describes a container of its own.
type OneShot struct {
	Run     string // the run it belongs to, part of its name
	Name    string // what it is for, unique in the run, part of its name
	Service string // whose definition it is made from
	// Capture is a capture file of this machine that it reads instead of
	// listening; empty for a sensor that listens. It is copied in, and the
	// container has no network.
	Capture string
	// Publish gives the ports of one that listens a free port each on this
	// machine's loopback, where the engine publishes them.
	Publish bool
}

// ContainerName is what the engine calls it.
func (o OneShot) ContainerName() string { return "zeekdemo-verify-" + o.Run + "-" + o.Name }

// VerifyBridge is the name of the bridge of a run's network on the engine's
// machine. Runs have eight letters, devices at most 15.
func VerifyBridge(run string) string { return "br-zv-" + run }

// Ended says how a container ended.
type Ended struct {
	ExitCode  int
	OOMKilled bool
	Tail      []string // its last lines
}

// Err returns nil where Zeek ended well, else what it said.
func (e Ended) Err() error {
	last := ""
	for _, line := range e.Tail {
		if strings.TrimSpace(line) != "" {
			last = ": " + strings.TrimSpace(line)
		}
	}
	switch {
	case e.OOMKilled:
		return errors.New("it was killed: out of memory")
	case e.ExitCode == 137:
		return errors.New("it did not end in time and was killed")
	case e.ExitCode != 0:
		return fmt.Errorf("exit code %d%s", e.ExitCode, last)
	}
	return nil
}

// ReadsFile turns the command of a sensor into one that reads a capture: -r
// instead of -i, and -C, because the checksums of captures are often empty.
func ReadsFile(command []string, capture string) ([]string, error) {
	i := slices.Index(command, "-i")
	if i < 1 || i+1 >= len(command) {
		return nil, fmt.Errorf("read a capture: the sensor's command has no -i: %s", strings.Join(command[:min(len(command), 3)], " "))
	}
	return slices.Concat(command[:i], []string{"-C", "-r", capture}, command[i+2:]), nil
}

// Client names this process, so that what it leaves behind when it is killed
// can be told from what another one still needs: the machine, the process and,
// where that is known, when it started, since numbers of processes come again.
func Client() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	name := host + "/" + strconv.Itoa(os.Getpid())
	if p := lookAt(os.Getpid()); p.started != "" {
		name += "/" + p.started
	}
	return name
}

// ClientGone reports whether a client of this machine has ended. Of other
// machines' clients nothing is known.
func ClientGone(client string) bool {
	host, rest, _ := strings.Cut(client, "/")
	text, started, _ := strings.Cut(rest, "/")
	pid, err := strconv.Atoi(text)
	own, hostErr := os.Hostname()
	if err != nil || hostErr != nil || host != own {
		return false
	}
	p := lookAt(pid)
	return !p.exists || started != "" && p.started != "" && started != p.started
}

// seen is what is known of a process of this machine.
type seen struct {
	exists  bool
	started string // no two processes of a number have the same; empty: not known
}

// processFrom judges by a process's /proc/PID/stat. One of which nothing can be
// told is taken to exist.
func processFrom(stat string) seen {
	p, err := procfs.Stat(stat)
	if err != nil {
		return seen{exists: true}
	}
	return seen{exists: !p.Ended(), started: strconv.FormatUint(p.Started, 10)}
}

// ClientNotHere reports whether a client is not a living process of this
// machine: what it left can be removed by somebody who asks for that.
func ClientNotHere(client string) bool {
	host, _, _ := strings.Cut(client, "/")
	own, _, _ := strings.Cut(Client(), "/")
	return host != own || ClientGone(client)
}

// SocketState is what the kernel says of a sensor's UDP sockets.
type SocketState struct {
	Listening bool
	Queued    uint64 // bytes of kernel memory that wait to be read
	Drops     uint64 // datagrams dropped because a queue was full
}

// SensorSockets looks at the sockets on a UDP port in a container's network
// namespace: on the engine's own machine at the kernel's list, elsewhere with
// cat inside the container.
func SensorSockets(ctx context.Context, e Engine, c Container, port uint16) (SocketState, error) {
	if c.RunsHere() {
		list, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.PID), "net", "udp"))
		if s := socketState(string(list), port); err == nil && s.Listening {
			return s, nil
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
			s.Listening = true
			s.Queued, s.Drops = s.Queued+socket.Queued, s.Drops+socket.Drops
		}
	}
	return s
}

// AwaitSensor waits until a sensor that was started listens, and returns the
// way to it.
func AwaitSensor(ctx context.Context, e Engine, shots OneShots, service Service, c Container, limit time.Duration) (Sensor, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no socket listens on UDP port %d after %s", service.Port, limit))
	defer cancel()
	for {
		state, err := SensorSockets(ctx, e, c, service.Port)
		if err == nil && state.Listening {
			s := Sensor{Service: service, Container: c}
			s.Published, _ = service.published(c)
			for _, addr := range c.Addresses { // it has one network
				s.Direct = netip.AddrPortFrom(addr, service.Port)
			}
			return s, nil
		}
		if err != nil && ctx.Err() == nil { // the container may have ended
			ended, stopErr := shots.StopOneShot(ctx, c.ID, time.Second)
			if stopErr == nil && ended.Err() != nil {
				err = ended.Err()
			}
			return Sensor{}, fmt.Errorf("start sensor %s: %w", c.Name, err)
		}
		select {
		case <-ctx.Done():
			return Sensor{}, fmt.Errorf("start sensor %s: %w", c.Name, context.Cause(ctx))
		case <-time.After(pollInterval / 4):
		}
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
		case !state.Listening:
			return last, fmt.Errorf("sensor %s: its socket is gone", s.Container.Name)
		case state.Queued == 0:
			quiet++
		case state.Queued < last.Queued || last.Queued == 0:
			moved, quiet = time.Now(), 0
		case time.Since(moved) > drainStuck:
			return state, fmt.Errorf("sensor %s: reads nothing any more, %d bytes wait", s.Container.Name, state.Queued)
		}
		last = state
		select {
		case <-ctx.Done():
			return last, context.Cause(ctx)
		case <-time.After(drainPoll):
		}
	}
	return last, nil
}
