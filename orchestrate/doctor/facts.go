package doctor

import (
	"net/netip"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/hosttune"
)

// Fact is an answer, or the reason why there is none.
type Fact[T any] struct {
	Value  T      `json:"value,omitzero"`
	Why    string `json:"unknown,omitempty"` // why it is not known; empty where it is
	Remedy string `json:"remedy,omitempty"`  // what makes it known
	Late   bool   `json:"late,omitempty"`    // it was asked for, and no answer came in time
}

// Known returns a fact.
func Known[T any](value T) Fact[T] { return Fact[T]{Value: value} }

// NotKnown returns the reason for the lack of one.
func NotKnown[T any](why string) Fact[T] { return Fact[T]{Why: why} }

// unknown is the line of a check that lacks the fact; its second value is
// whether it does.
func (f Fact[T]) unknown() (Line, bool) {
	return Line{State: Unknown, Fact: f.Why, Remedy: f.Remedy}, f.Why != ""
}

// Facts are all that was found out. Their zero value describes a machine
// without anything.
type Facts struct {
	// Here is whether the engine's machine is the one that this program runs
	// on, so that /proc tells of it.
	Here     bool                              `json:"engine_is_here"`
	Platform string                            `json:"platform"` // of this program, e.g. "linux/amd64"
	Engine   Fact[orchestrate.EngineInfo]      `json:"engine"`
	Machine  Fact[Machine]                     `json:"machine"`
	Stack    Fact[Stack]                       `json:"stack"`
	Images   Fact[[]Image]                     `json:"images"`
	Ports    Fact[[]Port]                      `json:"ports"`
	Memory   Fact[Memory]                      `json:"memory"`
	Disk     Fact[Disk]                        `json:"disk"`
	CPUs     Fact[int]                         `json:"cpus"` // online
	Clock    Fact[Clock]                       `json:"clock"`
	Networks Fact[[]Network]                   `json:"networks"`
	Routes   Fact[[]Route]                     `json:"routes"`
	Bridge   bool                              `json:"bridge_exists"` // a device with the name of the monitoring bridge
	Proxy    Fact[Proxy]                       `json:"userland_proxy"`
	Services Fact[[]orchestrate.ServiceStatus] `json:"services"` // empty without a stack
	Sensors  Fact[[]Sensor]                    `json:"sensors"`  // those that run
	Tuning   Fact[hosttune.Status]             `json:"tuning"`
	Filter   Fact[string]                      `json:"filter"` // the tool that compiles filters
}

// Machine is the engine's machine, as the engine describes it.
type Machine struct {
	Name         string    `json:"name"` // its host name
	System       string    `json:"system"`
	Kernel       string    `json:"kernel"`
	CPUs         int       `json:"cpus"`
	Memory       int64     `json:"memory_bytes"`
	Root         string    `json:"root"` // where the engine keeps images and volumes
	MemoryLimits bool      `json:"memory_limits"`
	Forwarding   bool      `json:"forwarding"` // of IPv4 packets between its devices
	Rootless     bool      `json:"rootless"`
	Pools        []Pool    `json:"pools"` // of addresses for networks; empty where it does not tell
	Time         time.Time `json:"time"`
}

// Pool is a range of addresses of which networks get subnets.
type Pool struct {
	Base netip.Prefix `json:"base"`
	Bits int          `json:"bits"` // of a subnet's mask
}

// Stack is the Compose file with its variables filled in.
type Stack struct {
	JSON   []byte   `json:"-"`      // which is YAML as well
	Images []string `json:"images"` // without repetition
	Ports  []Port   `json:"ports"`
	Memory int64    `json:"memory_limit_bytes"` // of all services together
	Bridge string   `json:"bridge"`             // the device of the monitoring network
}

// Port is a port that the stack publishes.
type Port struct {
	Service  string         `json:"service"`
	Address  netip.AddrPort `json:"address"`
	Protocol string         `json:"protocol"`        // tcp or udp
	Inside   uint16         `json:"inside"`          // the container's port
	Owner    string         `json:"owner,omitempty"` // who has it; empty if it is free
	Ours     bool           `json:"ours"`            // the stack's own container has it
}

// Image is an image of the stack.
type Image struct {
	Ref       string   `json:"ref"`
	Here      bool     `json:"here"`
	Platform  string   `json:"platform,omitempty"`  // of the one that is here
	Platforms []string `json:"platforms,omitempty"` // that the registry has
	Refusal   string   `json:"refusal,omitempty"`   // why the registry does not give it
	Late      bool     `json:"late,omitempty"`      // the registry did not answer in time
}

// Memory is the memory of the engine's machine, in bytes.
type Memory struct {
	Total     int64 `json:"total_bytes"`
	Available int64 `json:"available_bytes"` // without swapping; -1 if unknown
}

// Disk is the file system of the engine's images and volumes.
type Disk struct {
	Path  string `json:"path"`
	Free  int64  `json:"free_bytes"` // to all but root
	Used  int64  `json:"used_bytes"` // without what is kept for root
	Total int64  `json:"total_bytes"`
}

// Clock compares the engine's clock with this machine's.
type Clock struct {
	Ahead        time.Duration `json:"ahead_ns"`     // the engine's before ours; negative if it is behind
	Uncertain    time.Duration `json:"uncertain_ns"` // how much of this may be the way's
	Synchronised *bool         `json:"synchronised"` // whether a time server steers this machine's clock; nil if unknown
}

// Network is one of the engine's networks.
type Network struct {
	Name    string         `json:"name"`
	Project string         `json:"project,omitempty"` // Compose's
	Subnets []netip.Prefix `json:"subnets"`
	Device  string         `json:"device,omitempty"` // the bridge
}

// Route is a route of this machine's main table that is no default route.
type Route struct {
	To     netip.Prefix `json:"to"`
	Device string       `json:"device"`
}

// Proxy is the engine's userland proxy, which copies packets for published
// ports from one socket to another.
type Proxy struct {
	On       bool   `json:"on"`
	Evidence string `json:"evidence"` // how that is known
}

// Sensor is a running sensor.
type Sensor struct {
	Service string               `json:"service"`
	Reach   string               `json:"unreachable,omitempty"` // why its own address cannot be reached from here; empty if it can
	Sockets Fact[[]SensorSocket] `json:"sockets"`
}

// SensorSocket is one worker's socket.
type SensorSocket struct {
	Buffer int    `json:"buffer_bytes"` // of kernel memory; 0 if the kernel does not tell us
	Drops  uint64 `json:"drops"`        // datagrams, since it was opened
}
