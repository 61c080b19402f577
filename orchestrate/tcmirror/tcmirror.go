// Package tcmirror mirrors an interface's traffic to a sensor inside the kernel:
// no packet crosses user space, and no process needs to run.
//
// The nouns, from smallest to largest:
//
//   - A program is the classic BPF that decides which frames are mirrored: never
//     those that are on their way to a sensor already (that would be a loop), and
//     of the others those that a filter expression matches.
//   - A filter is one of the kernel's traffic-control classifiers on one direction
//     of the interface: a program, and the action "mirred egress mirror". It ends
//     with "continue", so that whatever other filters are there see every packet
//     as before.
//   - A tunnel is a vxlan or geneve device that does nothing but send: every frame
//     that it is given goes to the sensor, under one VNI, from a UDP source port
//     that is the same for both directions of a flow.
//   - A mirror is a tunnel and the filters that feed it.
//
// The state is in the kernel's objects alone: the tunnel's name begins with
// [DevicePrefix], its alias (`ip link show`) tells the interface, the sensor, the
// VNI, the owner, and whether the clsact queueing discipline on the interface is
// ours; filters carry the tunnel's name. The alias is written before anything is
// changed on the interface, and the tunnel is the last to be removed. So whoever
// comes after a crash recognises what was left, and Stop takes back exactly that.
// A reboot leaves nothing.
//
// A sensor on a network of this machine is bound to that network's device: when it
// is gone, so is the way, and copies of the traffic do not leave by the default
// route. (That holds for vxlan; a geneve device cannot be bound.)
//
// A frame waits for the receiving end of a veth pair in the queue of the CPU that
// sends it. So the frames of one flow stay in order on their way into a container
// as long as one CPU handles the flow, as with a network card's own queues, or
// receive packet steering is on where they arrive.
//
// Every function works in the network namespace of the calling thread, and needs
// CAP_NET_ADMIN there.
package tcmirror

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/net/bpf"
)

// DevicePrefix begins the name of every tunnel device.
const DevicePrefix = "zeekmon-"

// The encapsulations.
const (
	VXLAN  = "vxlan"
	GENEVE = "geneve"
)

// ErrRunning says that the interface is mirrored to that sensor already.
var ErrRunning = errors.New("it is mirrored there already")

// ErrGone says that a mirror was stopped by somebody else.
var ErrGone = errors.New("the mirror is gone")

// Spec is what to mirror, and where to.
type Spec struct {
	Interface string
	Encap     string         // [VXLAN] or [GENEVE]
	VNI       uint32         // 24 bits
	Sensor    netip.AddrPort // where the sensor listens
	Service   string         // the stack's name of the sensor; empty if it is none of the stack's
	// Exclude are further receivers of tunnels (the other sensors, the published
	// ports): what goes to them is not mirrored. Sensor always is among them.
	Exclude []netip.AddrPort
	// Filter is a pcap-filter expression compiled for Ethernet frames of a file (not
	// of a live device, where VLAN tags are elsewhere); empty takes all.
	Filter     []bpf.RawInstruction
	Expression string // as it was typed, to be shown
	Detached   bool   // no process watches it
	// Oversize is to mirror also where frames may be too long for a datagram (as
	// on lo, with its MTU of 65536): those are counted as dropped. Without it that
	// is an error.
	Oversize bool
}

// Counters count one direction, since the mirror started.
type Counters struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`   // without the tunnel's headers
	Dropped uint64 `json:"dropped"` // the action could not pass them to the tunnel
}

// Stats are what a mirror has done.
type Stats struct {
	// Received and Sent are from the interface's point of view. Frames that NIC
	// offloads merged count as what they are segmented into.
	Received Counters `json:"received"`
	Sent     Counters `json:"sent"`
	// Tunnel counts what left the tunnel; its bytes are those of the frames
	// and may count some of the headers, by the kernel's version.
	Tunnel Counters `json:"tunnel"`
	Errors uint64   `json:"errors"` // of the tunnel: no route to the sensor and the like
}

// Lost is the number of packets that were to be mirrored and are known not to
// have left this machine.
func (s Stats) Lost() uint64 {
	return s.Received.Dropped + s.Sent.Dropped + s.Tunnel.Dropped + s.Errors
}

// Mirror is one that exists, as the kernel's objects tell it.
type Mirror struct {
	Device     string         `json:"device"`
	Interface  string         `json:"interface"`
	Direction  string         `json:"direction"` // "both", or "in" on lo
	Encap      string         `json:"encapsulation"`
	VNI        uint32         `json:"vni"`
	Sensor     netip.AddrPort `json:"sensor"`
	Service    string         `json:"service,omitempty"`
	Expression string         `json:"filter,omitempty"`
	Detached   bool           `json:"detached"`
	Process    int            `json:"process,omitempty"` // that started it
	Alive      bool           `json:"alive"`             // that process runs; or none needs to, and the interface is there
	Complete   bool           `json:"complete"`          // every object is there
	Started    time.Time      `json:"started"`
	Stats      Stats          `json:"stats"`
	Notes      []string       `json:"notes,omitempty"` // what is different from what one would expect

	clsact clsact
	index  int // of the interface
	record record
}

// clsact says whose the queueing discipline on the interface is.
type clsact string

const (
	clsactOurs   clsact = "ours"   // we are about to add it, or have
	clsactTheirs clsact = "theirs" // it was there
)

// Supports says why the kernel cannot mirror so: an error that unwraps to
// errors.ErrUnsupported names what is missing (a module, or a place on the
// interface that another program took), one that unwraps to os.ErrPermission
// says which privilege is. It leaves nothing behind.
func Supports(spec Spec) error { return supports(spec) }

// Start mirrors an interface. What an earlier process left that died is removed
// first. Where the interface is mirrored to that sensor already it returns that
// mirror and [ErrRunning]. On other errors nothing is left.
func Start(ctx context.Context, spec Spec) (Mirror, error) { return start(ctx, spec) }

// List returns all mirrors in this network namespace, by interface. It needs no
// privilege.
func List() ([]Mirror, error) { return list() }

// Get returns a mirror as it is now, by its device; [ErrGone] if it is not there
// any more.
func Get(device string) (Mirror, error) {
	mirrors, err := List()
	if err != nil {
		return Mirror{}, err
	}
	for _, m := range mirrors {
		if m.Device == device {
			return m, nil
		}
	}
	return Mirror{}, fmt.Errorf("find device %s: %w", device, ErrGone)
}

// Stop removes a mirror, whole or what is there of it: its filters, the clsact
// queueing discipline if that was ours and nobody else uses it, the tunnel.
// What is gone already is no error.
func (m Mirror) Stop() error { return stop(m) }

// Pause ends the mirroring before Stop, with everything still in place: the
// counters then are the last ones. There is no way back but Stop.
func (m Mirror) Pause() error { return pause(m) }

// Follow points a mirror to where its sensor is now, another address or the same
// on another bridge, without losing a packet; exclude replaces [Spec.Exclude].
// It reports whether anything had to be changed, and may be called at any time.
func (m Mirror) Follow(sensor netip.AddrPort, exclude []netip.AddrPort) (changed bool, err error) {
	return follow(m, sensor, exclude)
}
