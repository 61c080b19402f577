// Package orchestrate knows what "up", "down", "status" and "sensor" mean for
// the embedded stack. It decides; an [Engine] does. The package imports no
// Docker library, so everything here is tested with a fake engine.
//
// The nouns:
//
//   - A Project is one Compose file with the environment that completes it.
//   - A Service is what the Compose file calls one; here each has exactly one
//     container.
//   - A Sensor is a service that runs Zeek on one encapsulation's port. Zeek's
//     UDP source takes one encapsulation per process, so VXLAN and GENEVE are
//     two sensors.
//   - A Companion is a container beside the stack that a client speaks to: a
//     sidecar sends to a sensor from beside it, a helper reaches the engine's
//     machine. A OneShot is one that answers a question of `verify`.
//   - A Client is the process that such containers were made for.
//
// The stack is declarative: what `up` is told is the whole configuration, and
// flags of an earlier `up` are not remembered.
package orchestrate

import (
	"context"
	"io"
	"net/netip"
	"time"
)

// ProjectName is the Compose project that everything of the stack belongs to:
// `docker compose -p zeekdemo ps` shows the same containers.
const ProjectName = "zeekdemo"

// MonitoringNetwork is the Compose network on which packets reach the sensors.
const MonitoringNetwork = "monitoring"

// Engine is what the stack needs of a container engine.
type Engine interface {
	// Info reaches the engine and describes it. It is the first call of every
	// command, so its errors say how to get an engine running.
	Info(ctx context.Context) (EngineInfo, error)
	// Up creates or changes containers, networks and volumes until they are as
	// the project says, and returns when all containers were started. What is
	// right already is left alone.
	Up(ctx context.Context, p Project, progress Progress) error
	// Down removes every container and network of the named project, and its
	// volumes where asked. It is no error if there is nothing.
	Down(ctx context.Context, project string, volumes bool, progress Progress) error
	// Containers lists the containers of the named project, stopped ones too;
	// of every project if the name is empty.
	Containers(ctx context.Context, project string) ([]Container, error)
	// Logs writes what the project's services print.
	Logs(ctx context.Context, req LogRequest) error
	// Exec runs a command in a running container until it ends or ctx does,
	// and returns its exit code. The command's standard input is empty; it ends
	// when ctx does, or this process.
	Exec(ctx context.Context, containerID string, cmd []string, stdout, stderr io.Writer) (int, error)
}

// EngineInfo describes the engine behind the current Docker context.
type EngineInfo struct {
	Version    string `json:"version"`
	APIVersion string `json:"api_version"`
	OS         string `json:"os"`   // of the kernel that runs the containers, e.g. "linux"
	Arch       string `json:"arch"` // e.g. "x86_64"
	Address    string `json:"address"`
	// Remote is true if the engine is reached over a network: its published
	// loopback ports are then not this machine's.
	Remote bool `json:"remote"`
}

// Project is a Compose file and what completes it.
type Project struct {
	Name    string
	Compose []byte            // a Compose file, configuration inline
	Env     map[string]string // the only environment it is interpolated with
	Pull    PullPolicy
}

// PullPolicy says when images are pulled.
type PullPolicy string

// The policies of `up --pull`.
const (
	PullMissing PullPolicy = "missing"
	PullAlways  PullPolicy = "always"
	PullNever   PullPolicy = "never"
)

// Container is the state of one container.
type Container struct {
	ID        string
	Name      string
	Project   string
	Service   string
	Image     string
	State     string // created, running, restarting, exited, ...
	Health    string // healthy, unhealthy, starting; empty without a health check
	ExitCode  int
	OOMKilled bool
	PID       int // of its first process, in the engine's PID namespace
	StartedAt time.Time
	Addresses map[string]netip.Addr // by Compose network name, e.g. "monitoring"
	Command   []string              `json:"-"` // that it runs
	Env       []string              `json:"-"` // NAME=VALUE, as it was made with; may hold passwords
	Ports     []PublishedPort
}

// Running reports whether the container's process runs.
func (c Container) Running() bool { return c.State == "running" }

// PublishedPort is a container's port as the engine publishes it.
type PublishedPort struct {
	HostIP        netip.Addr
	HostPort      uint16
	ContainerPort uint16
	Protocol      string // tcp or udp
}

// LogRequest names what Logs writes.
type LogRequest struct {
	Project string
	Service string // empty for all
	Follow  bool
	Tail    string // a number of lines or "all"
	// Line is called for each line, without its newline; never concurrently.
	Line func(service, line string)
}

// EventState is how far a step has come.
type EventState int

// The states of an Event.
const (
	Working EventState = iota
	Done
	Warning
	Failed
)

// Event is one step of progress. Events of one ID follow each other; Total is
// 0 where the step's size is unknown.
type Event struct {
	ID      string // the object, e.g. "Container zeekdemo-zeek-1"
	Parent  string // the object it belongs to, e.g. an image for its layers
	Text    string // what happens to it, e.g. "Pulling"
	Detail  string
	State   EventState
	Current int64 // bytes
	Total   int64 // bytes
}

// Progress receives events, possibly from several goroutines at once. It may
// be nil.
type Progress func(Event)

func (p Progress) send(e Event) {
	if p != nil {
		p(e)
	}
}
