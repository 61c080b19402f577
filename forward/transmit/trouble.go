package transmit

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

// TroubleKind names what went wrong on the way. The names are stable.
type TroubleKind string

// Kinds of trouble that contradict that everything arrived: somebody says that a
// datagram did not.
const (
	PortUnreachable    TroubleKind = "port-unreachable"    // nobody listens at the destination; a firewall's REJECT says the same
	HostUnreachable    TroubleKind = "host-unreachable"    // a router, or this machine, finds no such host
	NetworkUnreachable TroubleKind = "network-unreachable" // a router knows no way
	Prohibited         TroubleKind = "prohibited"          // a firewall on the way said no
	TimeExceeded       TroubleKind = "time-exceeded"       // a routing loop, or fragments that got lost
	TooBig             TroubleKind = "too-big"             // a router dropped a datagram that was longer than its next link takes
	NeighbourSilent    TroubleKind = "neighbour-silent"    // the host that frames go to does not answer any more
	OwnQueue           TroubleKind = "own-queue"           // the queueing discipline of this machine's device dropped some
)

// SharedQueue says that the queueing discipline of this machine's device dropped
// packets meanwhile, which may have been ours or others'.
const SharedQueue TroubleKind = "shared-queue"

// Kinds of trouble that this machine met while it sent and that were overcome:
// the datagram concerned was offered again until it was taken.
const (
	Filtered TroubleKind = "filtered"  // a packet filter of this machine refused
	NoRoute  TroubleKind = "no-route"  // there was no route or no address
	LinkDown TroubleKind = "link-down" // the device was down, or had no carrier
	WayLost  TroubleKind = "way-lost"  // a device had gone, or a neighbour was not known
)

// Trouble is one kind of trouble that one host told of.
type Trouble struct {
	Kind TroubleKind `json:"kind"`
	// Count is how often. It is no count of datagrams: hosts and routers limit
	// how many answers they send, and packet transmissions to the same
	// destination hear each other's.
	Count uint64     `json:"count"`
	From  netip.Addr `json:"from,omitzero"` // who said so; invalid if this machine
	// Device is whose queue dropped Count packets: of OwnQueue at least.
	Device string `json:"device,omitempty"`
}

// Lost reports whether the trouble says that something did not arrive.
func (t Trouble) Lost() bool { return t.Kind != SharedQueue && !t.Overcome() }

// Overcome reports whether the trouble was met and overcome: what it concerned left in
// the end.
func (t Trouble) Overcome() bool {
	switch t.Kind {
	case Filtered, NoRoute, LinkDown, WayLost:
		return true
	}
	return false
}

// meaning is what a kind means, in words.
func (k TroubleKind) meaning() string {
	switch k {
	case PortUnreachable:
		return "nobody listens at the port, or a firewall rejects the datagrams"
	case HostUnreachable:
		return "the host was not reached"
	case NetworkUnreachable:
		return "there is no way to the network"
	case Prohibited:
		return "a firewall on the way rejects the datagrams"
	case TimeExceeded:
		return "datagrams ran in circles, or fragments of them were lost"
	case TooBig:
		return "datagrams were too long for a link of the way"
	case NeighbourSilent:
		return "the neighbour does not answer"
	case Filtered:
		return "a packet filter of this machine refused for a while"
	case NoRoute:
		return "there was no route for a while"
	case LinkDown:
		return "the device was down for a while"
	case WayLost:
		return "the way was lost for a while"
	}
	return string(k)
}

// String says it in words, as "datagrams were too long for a link of the way
// (said 3 times by 192.0.2.1)".
func (t Trouble) String() string {
	switch t.Kind {
	case OwnQueue:
		return fmt.Sprintf("the queue of %s dropped at least %d packets", t.Device, t.Count)
	case SharedQueue:
		return fmt.Sprintf("the queue of %s dropped %d packets meanwhile, ours or others'", t.Device, t.Count)
	}
	times := fmt.Sprintf("%d times", t.Count)
	if t.Count == 1 {
		times = "once"
	}
	if !t.Lost() {
		return t.Kind.meaning() + " (met " + times + ")"
	}
	if t.From.IsValid() {
		times += " by " + t.From.String()
	}
	return t.Kind.meaning() + " (said " + times + ")"
}

// Lost lists the troubles that contradict that everything arrived. Where it is
// empty nothing is known to be lost, which is not the same as known to have
// arrived.
func (s Stats) Lost() []Trouble {
	var list []Trouble
	for _, t := range s.Troubles {
		if t.Lost() {
			list = append(list, t)
		}
	}
	return list
}

func addTrouble(list []Trouble, t Trouble) []Trouble {
	for i := range list {
		if list[i].Kind == t.Kind && list[i].From == t.From && list[i].Device == t.Device {
			list[i].Count += t.Count
			return list
		}
	}
	return append(list, t)
}

// maxTroubles bounds the list: an attacker may send complaints from many
// addresses. What is beyond counts without an address.
const maxTroubles = 32

// troubles is the list that grows while a transmission is open. One goroutine
// writes, any may read.
type troubles struct {
	mu   sync.Mutex
	list []Trouble
}

// note counts one.
func (t *troubles) note(kind TroubleKind, from netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := Trouble{Kind: kind, Count: 1, From: from}
	known := slices.ContainsFunc(t.list, func(o Trouble) bool { return o.Kind == kind && o.From == from })
	if !known && len(t.list) >= maxTroubles {
		one.From = netip.Addr{}
	}
	t.list = addTrouble(t.list, one)
}

// queue adds what a queue of this machine's did.
func (t *troubles) queue(found Trouble) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = addTrouble(t.list, found)
}

// snapshot copies the list.
func (t *troubles) snapshot() []Trouble {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.list)
}

// lost reports whether something is known to be lost.
func (t *troubles) lost() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.list, Trouble.Lost)
}

// count returns how often a kind was noted.
func (t *troubles) count(kind TroubleKind) (n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.list {
		if t.list[i].Kind == kind {
			n += t.list[i].Count
		}
	}
	return n
}

// kindOf translates a complaint (RFC 792; RFC 1812 section 5.2.7.1; RFC 4443).
// What is none of these, as a parameter problem, says at least that the host was
// not reached.
func kindOf(c sys.Complaint) TroubleKind {
	if c.Six {
		return kindOf6(c)
	}
	switch {
	case c.Type == 11:
		return TimeExceeded
	case c.Type != 3:
		return HostUnreachable
	}
	switch c.Code {
	case 2, 3: // protocol, port
		return PortUnreachable
	case 4:
		return TooBig
	case 0, 6, 11:
		return NetworkUnreachable
	case 9, 10, 13:
		return Prohibited
	}
	return HostUnreachable
}

func kindOf6(c sys.Complaint) TroubleKind {
	switch {
	case c.Type == 2:
		return TooBig
	case c.Type == 3:
		return TimeExceeded
	case c.Type == 4 && c.Code == 1: // unknown next header: no UDP there
		return PortUnreachable
	case c.Type != 1:
		return HostUnreachable
	}
	switch c.Code {
	case 4:
		return PortUnreachable
	case 0:
		return NetworkUnreachable
	case 1, 5, 6:
		return Prohibited
	}
	return HostUnreachable
}
