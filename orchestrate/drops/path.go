package drops

import (
	"context"
	"net/netip"
	"time"
)

// A Hop is a station on the way of a packet where packets can die. Hops are
// shared by all sensors, or there is one for each.
type Hop string

// The hops, in the order in which a packet travels.
const (
	HopSender    Hop = "sender"       // UDP sockets of the host that send
	HopConntrack Hop = "conntrack"    // the host's connection tracking
	HopLoopback  Hop = "loopback"     // lo of the host
	HopHostUDP   Hop = "host udp"     // IP and UDP of the host, on the way to docker-proxy
	HopProxy     Hop = "docker-proxy" // its socket for a sensor's published port
	HopBridge    Hop = "bridge"       // the monitoring network's device
	HopVeth      Hop = "veth"         // the host's end of a sensor's link
	HopSoftnet   Hop = "softnet"      // the processors' queues of received packets, of the whole machine
	HopDevice    Hop = "device"       // the sensor's end of its link
	HopIP        Hop = "ip"           // of the sensor's namespace: headers, fragments
	HopUDP       Hop = "udp"          // of the sensor's namespace, beside its sockets
	HopSocket    Hop = "socket"       // the sensor's receive queues
	HopZeek      Hop = "zeek"         // what Zeek says of itself
	HopLogs      Hop = "logs"         // what its logs say was missed
	HopCollector Hop = "collector"    // of log lines
	HopLoki      Hop = "loki"         // the store of log lines
)

// order is where a hop stands in a picture and in a report.
var order = map[Hop]int{HopSender: 0, HopConntrack: 1, HopLoopback: 2, HopHostUDP: 3, HopProxy: 4, HopBridge: 5, HopVeth: 6, HopSoftnet: 7, HopDevice: 8, HopIP: 9, HopUDP: 10,
	HopSocket: 11, HopZeek: 12, HopLogs: 13, HopCollector: 14, HopLoki: 15}

// Path is what is known of the way before counters are read: who is where.
type Path struct {
	Sensors []SensorAt
	// Bridge is the monitoring network's device on the engine's machine; empty
	// if there is none.
	Bridge string
	// Services are asked for their numbers.
	Services Services
}

// SensorAt is a sensor and where it is found.
type SensorAt struct {
	Name    string     // "zeek"
	ID      string     // of its container; another one counts anew
	PID     int        // of a process in its network namespace, on the engine's machine; 0 if not known
	Started time.Time  // when the container was started
	Address netip.Addr // its own on the monitoring network; not valid if it has none
	Port    uint16     // on which it listens
	// Published is where the engine publishes the port on its machine; not valid
	// if it does not.
	Published netip.AddrPort
	Paused    bool // its processes are frozen
	// Missing says why there is no such sensor now, or why it is not known.
	Missing error
}

// File is the content of a file of the kernel, or why it is not to be had.
type File struct {
	Text string
	Err  error
}

// Files reads the kernel's files on the engine's machine.
type Files interface {
	// Read returns one File for each path, as under /proc and /sys. A path with
	// a pattern of path.Match stands for the files that match, each with its own
	// path; those that cannot be read are left out. PID is a process in whose
	// network namespace /proc/net and /sys/class/net are meant; 0 stands for the
	// machine's own.
	Read(ctx context.Context, pid int, paths ...string) map[string]File
}

// Host is what else the ledger asks of the engine's machine, where this process
// runs on it. Each of its functions may be nil: then its answer is not known.
type Host struct {
	// Sockets lists the sockets that listen at an address of a process's
	// namespace (0: the machine's own), with their buffers.
	Sockets func(pid int, at netip.AddrPort) ([]QueueState, error)
	// Queues returns the queueing disciplines of the machine's devices by the
	// device's name.
	Queues func() (map[string]Queueing, error)
	// Captures lists the machine's packet sockets.
	Captures func() ([]Capture, error)
	// Owner finds the process that holds a socket, by the socket's inode and
	// the address at which it listens.
	Owner func(inode uint64, at netip.AddrPort) (pid int, name string, err error)
}

// QueueState is a socket's receive queue. Memory is in bytes as the kernel
// accounts it.
type QueueState struct {
	ID     uint64 // the same as long as the socket lives
	Local  netip.AddrPort
	Queued int
	Buffer int  // what may be queued
	Exact  bool // Buffer is known, not assumed
	Drops  uint64
}

// Capture is a packet socket, such as that of a mirror or of tcpdump.
type Capture struct {
	ID    uint64 // the same as long as the socket lives
	Inode uint64
	Drops uint64 // of packets that found no room in its buffer or ring; 32 bits wide
}

// Queueing is a device's root queueing discipline.
type Queueing struct {
	Kind    string // "noqueue", "tbf", ...
	Packets uint64
	Drops   uint64 // 32 bits wide
	Backlog uint64 // packets that wait
}

// Value is one number of a hop at one time.
type Value struct {
	Name string
	Role Role
	N    uint64
	// Again is N once more, read after everything else of the same picture.
	// What grew between one picture's Again and the next one's N has surely been
	// seen by every counter that is read only once in each.
	Again uint64
	bits  int    // width in the kernel: 32 where it wraps there
	cells []cell // the processors' shares, each 32 bits wide, of which N is the sum
}

// cell is a processor's share of a number.
type cell struct {
	cpu int
	n   uint32
}

// Role says what it means if a number grows.
type Role string

// The roles.
const (
	RoleIn    Role = "in"    // packets (or log lines) that came to the hop
	RoleLost  Role = "lost"  // some of them died here
	RoleVain  Role = "vain"  // came and died here: in and lost
	RoleHeld  Role = "held"  // was refused for now, and will be offered again
	RolePart  Role = "part"  // of those that are counted as lost elsewhere in the hop: it tells the reason
	RoleSign  Role = "sign"  // worth knowing, no loss
	RoleShare Role = "share" // of those that are counted as come: what one of several workers had
)

// Queue is how full a hop's queue is.
type Queue struct {
	Used  int64  `json:"used"`
	Size  int64  `json:"size"` // 0 if not known
	Unit  string `json:"unit"` // bytes, packets, connections or requests
	Exact bool   `json:"exact"`
}

// Unknown is something that could not be read, and why.
type Unknown struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// State is a hop at one time.
type State struct {
	Hop    Hop
	Sensor string // whose hop it is; empty for a shared one
	Name   string // for people, e.g. "docker-proxy 127.0.0.1:4789"
	// Identity changes when what is counted here began anew, e.g. with another
	// container.
	Identity string
	// Wide means that other traffic of the machine is counted too: what dies
	// here may be ours or not.
	Wide    bool
	Lines   bool // log lines are counted, not packets
	Values  []Value
	Queues  []Queue
	Unknown []Unknown
	Notes   []string
	Facts   Facts
}

// Facts are what the usual reason of a loss depends on.
type Facts struct {
	Process   string   // that holds the socket, e.g. "docker-proxy (PID 4711)"
	PID       int      // its number
	Stopped   bool     // it has been stopped, by a signal or the freezer
	Listens   bool     // a socket is there
	Backlog   int      // net.core.netdev_max_backlog, packets
	RPS       []string // devices by which packets come, with their rps_cpus
	Device    string   // the device's name
	MTU       int      // of the device, bytes; 0 if not known
	Queueing  string   // its queueing discipline
	At        string   // where packets are received, ADDRESS:PORT
	LagSecond float64  // Zeek's packet lag
	// CaptureLoss is that of [Missed].
	CaptureLoss *float64
	Since       time.Time // when counting began; zero if with the machine
}

// Picture is all hops at one time.
type Picture struct {
	At     time.Time
	Took   time.Duration // for the kernel's counters
	States []State

	first  *Picture // of the same reader
	origin bool     // all counters are zero
}

// value returns a number of the state by name.
func (s *State) value(name string) *Value {
	for i := range s.Values {
		if s.Values[i].Name == name {
			return &s.Values[i]
		}
	}
	return nil
}

func (s *State) unknown(what string, err error) {
	s.Unknown = append(s.Unknown, Unknown{what, reasonOf(err)})
}

// reasonOf says it without the path's detail where the cause is a common one.
func reasonOf(err error) string {
	switch {
	case err == nil:
		return "not there"
	case isNotExist(err):
		return "this kernel does not have it"
	case isPermission(err):
		return "not permitted; root is"
	}
	return err.Error()
}
