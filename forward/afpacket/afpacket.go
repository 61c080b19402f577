// Package afpacket captures live: it takes the frames that pass a network device
// of this machine, in both directions, and yields them as a [forward.Source].
//
// The nouns, from smallest to largest:
//
//   - A frame is one packet as it was, or will be, on the wire: its VLAN tag is
//     back in place, its checksum complete, and where an offload merged several
//     packets, each is a frame of its own again.
//   - A block is a piece of memory that the kernel fills with frames.
//   - A ring is a packet socket on one interface and the blocks that it fills
//     (TPACKET_V3).
//   - A Worker is a source of frames: it reads one ring of each interface.
//   - A Capture is all workers together. Those of one interface share its
//     traffic by the symmetric hash of flows, so each sees whole connections.
//
// Frames are lent: they lie in the ring, which gets its block back when the next
// one is asked for. Only merged packets are copied, for their parts need headers
// of their own.
//
// # Why not gopacket/afpacket
//
// It reads the blocks' status words, which the kernel writes at the same time,
// without atomic operations, gives VLAN tags as data beside the frame, always
// with the type 0x8100, does not ask for the virtio-net header that tells how a
// merged packet was cut and which checksums are open, and attaches filters after
// the socket has begun to receive. It is no slower: BenchmarkRead compares.
//
// # What is never captured
//
// The tunnel's own packets ([Options.Exclude], [Options.Streams]), or each would
// beget another. On a loopback device the outgoing half, since everything comes in
// there again.
//
// # Several interfaces
//
// The frames of all interfaces of a Worker come out in the order of the kernel's time
// stamps, which are of one clock: the answer never before the question, whichever
// interfaces they pass. An interface that is silent does not delay the others: that
// its ring is empty can be seen. One whose frames are still in a block that the kernel
// has in hand holds newer ones of the others back until it is handed over, for 30 ms
// after their time stamps at most. What comes even later is passed on and counted
// ([Counts.Late]).
//
// # Filters
//
// They run in the kernel and are attached before the socket is bound, so nothing
// passes by. All sockets of a fanout group begin with a filter that takes nothing,
// lest they get frames twice while they join.
package afpacket

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/net/bpf"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Interface is a device to capture on. [Find] makes it.
type Interface struct {
	Name  string
	Index int
	// LinkType is that of its frames: Ethernet for all devices that look so, raw
	// IP for tunnels that have no link layer.
	LinkType forward.LinkType
	Loopback bool
	MTU      int
	Up       bool
	// Filter is a program for frames of LinkType as the kernel has them: VLAN
	// tags that it keeps beside a frame are no part of it. nil takes every frame.
	Filter []bpf.RawInstruction
}

// Tunnel is a receiver of tunnelled packets, whose way may lead over an
// interface that is captured.
type Tunnel struct {
	To netip.AddrPort // outer destination
	// From is the outer source, by which fragments are recognised that have no
	// ports; not valid if it is not known.
	From netip.Addr
}

// Options say what to capture.
type Options struct {
	Interfaces []Interface
	Workers    int // rings and sources per interface; 0 means 1
	// Buffer is the memory of the rings of one interface together, in bytes; 0
	// means [DefaultBuffer]. It holds what arrives while a sink is stalled.
	Buffer int
	// Exclude lists tunnels whose packets are not captured, nor the ICMP errors
	// that they cause.
	Exclude []Tunnel
	// Streams lists addresses and ports, connections with which are not captured:
	// by one of them the frames may leave this machine.
	Streams []netip.AddrPort
}

// Sizes and times of rings.
const (
	// DefaultBuffer is 64 MiB: at 10 Gbit/s 50 ms, at 100 Mbit/s 5 s.
	DefaultBuffer = 64 << 20
	// blockSize takes the longest merged packet that Linux makes unless it is
	// told otherwise, 64 KiB. Small blocks mean many of them: a block that was
	// handed over because its time was up is as good as full.
	blockSize = 128 << 10
	// retire is after what time a block is handed over that is not full: what a
	// frame of sparse traffic waits for at most.
	retire = 10 * time.Millisecond
	// mergeBound is for how long after its time stamp a frame may be held back in
	// favour of older ones of other interfaces: as long as it takes the kernel to hand
	// over a block, whose timer may be 10 ms late (at 100 Hz), and to be scheduled.
	mergeBound = 30 * time.Millisecond
)

// Counts are what has been seen on one interface.
type Counts struct {
	Interface string `json:"interface"`
	Packets   uint64 `json:"packets"` // taken from the ring; a merged packet counts as what it was cut into
	Bytes     uint64 `json:"bytes"`   // of them
	// Dropped found no room in the ring, as the kernel counts: a merged packet is one.
	// So are packets that it has no words for, as merged SCTP packets.
	Dropped uint64 `json:"dropped"`
	Merged  uint64 `json:"merged"` // packets that an offload had merged and that were cut
	// Whole are packets that an offload had merged and that come as they are: it is
	// not known how to cut them (encap.Splitter), or where.
	Whole uint64 `json:"merged_left_whole,omitempty"`
	// Checksums were left to the network card and are completed here.
	Checksums uint64 `json:"checksums_completed"`
	Cut       uint64 `json:"cut,omitempty"` // frames longer than a block of the ring
	// Late are frames that came out after a later one of another interface, for the
	// kernel handed them over more than the bound too late.
	Late      uint64 `json:"late,omitempty"`
	Abandoned uint64 `json:"abandoned,omitempty"` // in the ring when the capture was closed
}

// Lost is how many packets were captured and did not come out whole.
func (c Counts) Lost() uint64 { return c.Dropped + c.Abandoned + c.Cut }

// ErrGone says that an interface does not exist any more.
var ErrGone = errors.New("the interface has gone")

// News is something that happened to an interface while it was captured.
type News struct {
	Interface string
	Text      string // "is down", "is up again", "has gone"
}

// Find looks an interface up. The error unwraps to errors.ErrUnsupported where this
// system has no packet sockets.
func Find(name string) (Interface, error) { return find(name) }

// Open begins to capture, on interfaces of the calling thread's network namespace.
// Its error answers to os.ErrPermission without CAP_NET_RAW.
func Open(o Options) (*Capture, error) { return open(o) }

// unknownLinkError says that a device's link type cannot be captured.
type unknownLinkError struct {
	name     string
	hardware int
}

func (e *unknownLinkError) Error() string {
	return fmt.Sprintf("capture on %s: hardware type %d (linux/if_arp.h) carries nothing that Ethernet could carry", e.name, e.hardware)
}

var (
	_ forward.Source  = (*Worker)(nil)
	_ forward.Readier = (*Worker)(nil)
)
