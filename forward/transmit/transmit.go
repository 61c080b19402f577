// Package transmit is the way out: it takes batches of datagrams and hands
// them to the kernel, as fast as it is allowed to, in exactly their order.
//
// The nouns, from smallest to largest:
//
//   - A datagram is one [forward.Datagram]: a payload and a source port.
//   - A message is what one entry of sendmmsg(2) carries: a datagram, a
//     fragment of one, or a super-packet: consecutive datagrams of one source
//     port and one size (the last may be shorter), which the kernel splits
//     (UDP generic segmentation offload, GSO).
//   - A run is what one sendmmsg call carries: messages of one socket.
//   - A transmission is one of the two ways to do it, a [Mode].
//
// The transmissions:
//
// [Packet] writes the outer Ethernet, IP and UDP headers itself and puts the
// frames on a packet socket on the device that leads to the destination. It
// skips routing, netfilter, conntrack, queueing discipline and, where that
// device is a bridge, the bridge: the frames go to the port behind which the
// destination lives, which for a container is the host end of its veth pair.
// It is Linux's alone, needs CAP_NET_RAW and an Ethernet-like device, hence it
// cannot reach the machine's own addresses. [Auto] takes it only where it can be
// seen (with CAP_NET_ADMIN) that nothing it skips would have changed a packet.
//
// [UDP] needs no privilege and works everywhere. A UDP socket has one source
// port, so it keeps a pool of them; a datagram leaves by the socket that its
// port selects, and all of a flow by the same.
//
// What both promise: every datagram that Send counts has been accepted by the
// kernel once, in order, unchanged. A full queue is waited for; a refusal of a
// fast path turns that path off, once, and the datagrams concerned go out one
// by one. What was retried and turned off is in [Stats].
//
// The way is followed. When route, device, bridge port, neighbour or addresses
// change, what comes next goes the new way; while a link is down, a route is
// missing or a neighbour that had been known does not answer, sending pauses,
// for ten seconds at most, then it is an error.
//
// No link is a black hole. What is longer than the path's known MTU leaves in IP
// fragments, which are counted. Over IPv4 the Don't Fragment bit is clear, so
// that a router cuts what was not known to be too long; over IPv6 a router drops
// it and says so. Behind a router the path is measured before the first datagram
// and every half minute, by an ICMP echo request that may not be fragmented.
//
// What is said about datagrams is heard: ICMP errors, and that a neighbour does
// not answer. It is in [Stats] as [Trouble], also when it comes after the last
// datagram ([Transmitter.Settle]). That nothing was said does not mean that
// everything arrived: a host drops what its socket has no room for without a word,
// and limits how many errors it sends (six, then one a second, on Linux: see
// icmp_ratelimit of ip-sysctl).
package transmit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
)

// Mode names a transmission.
type Mode string

// The modes. The zero value counts as Auto.
const (
	Auto   Mode = "auto"   // Packet if possible and known to arrive, else UDP
	Packet Mode = "packet" // packet socket; fails where that is not possible
	UDP    Mode = "udp"    // pool of UDP sockets
)

// ParseMode reads the value of a command-line flag.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case "":
		return Auto, nil
	case Auto, Packet, UDP:
		return m, nil
	}
	return "", fmt.Errorf("unknown transmission %q (want auto, packet or udp)", s)
}

// The range of source ports that RFC 7348 section 5 recommends: the dynamic
// ports.
const (
	DefaultPortMin = encap.DefaultPortMin
	DefaultPortMax = encap.DefaultPortMax
)

// DefaultSockets is the size of the pool of UDP sockets unless Options say
// otherwise. It bounds how evenly a receiver's SO_REUSEPORT workers share the
// load: of 256 ports eight workers have 32 each, give or take 5; of 64 it was 8,
// give or take 3, and the fullest worker had twice its share. It was measured not to
// bound the speed.
const DefaultSockets = 256

// defaultSendBuffer is asked for each socket's send buffer, in bytes. It is
// memory that may be in flight, not memory that is taken.
const defaultSendBuffer = 32 << 20

// Options say where datagrams go and how.
type Options struct {
	// Destination is the receiver's unicast address and UDP port. Port 0
	// stands for Kind.Port().
	Destination netip.AddrPort
	// Mode is the transmission; "" counts as Auto.
	Mode Mode
	// Kind is the tunnel protocol inside, which decides whether outer UDP
	// checksums may be zero (see encap.Kind).
	Kind encap.Kind
	// ForceChecksum fills UDP checksums even where Kind allows zero.
	ForceChecksum bool
	// NoGSO hands over every datagram alone. Super-packets are the default
	// where the kernel and the device take them.
	NoGSO bool
	// PortMin and PortMax bound the source ports of the UDP pool, both
	// included; both 0 mean DefaultPortMin and DefaultPortMax. Packet uses
	// each datagram's own port.
	PortMin, PortMax uint16
	// Sockets is the number of UDP sockets; 0 means DefaultSockets. The
	// range of ports bounds it.
	Sockets int
	// Outer changes the outer headers and the way; its zero value leaves both to
	// the system.
	Outer Outer
}

// Outer is what may be asked of the outer IP header, and of the way.
type Outer struct {
	TTL  uint8 // TTL or hop limit; 0 for the system's own, 64 by Packet
	DSCP uint8 // differentiated services codepoint (RFC 2474), 0 to encap.MaxDSCP
	// DontFragment sets that bit in IPv4 datagrams that the path takes whole, as far
	// as it is known. Longer ones still leave in fragments.
	DontFragment bool
	// Source is the source address, one of this machine's; the zero value leaves it to the
	// routing.
	Source netip.Addr
	// Device is where datagrams leave whatever the routing says of others; "" leaves
	// it to the routing.
	Device string
}

// Transmitter is an open transmission. Send, Settle, Close and Describe belong to
// one goroutine, which should be a [Pinned] one; Stats may be read by any.
type Transmitter interface {
	forward.Sink
	// Settle waits, after the last datagram, for what may still be said about
	// those that were sent, and returns the counts. It waits until something is
	// known to be lost (more would say no more), until nothing can be expected
	// any more (20 ms if the destination is this machine, 100 ms if it is a
	// neighbour, 300 ms otherwise; a second more for a neighbour that does not
	// say that it is there; 3.3 s after the first datagram for a host behind a
	// router that has not answered an echo request), or until ctx ends.
	Settle(ctx context.Context) Stats
	// Describe says what was opened.
	Describe() Description
	// Stats returns what happened so far.
	Stats() Stats
}

// Description says which transmission is open and, in case it is not the best
// one, why.
type Description struct {
	Mode        Mode           `json:"mode"` // Packet or UDP
	Destination netip.AddrPort `json:"destination"`
	Source      netip.Addr     `json:"source"`            // outer source address
	Device      string         `json:"device,omitempty"`  // Packet: the device the frames are put on
	Bridge      string         `json:"bridge,omitempty"`  // Packet: the bridge that Device is a port of, if it was skipped
	MTU         int            `json:"mtu"`               // of the path as far as it is known now; longer outer IP packets are fragmented
	Sockets     int            `json:"sockets"`           // number of source ports in UDP mode, else 1
	GSO         bool           `json:"gso"`               // super-packets are in use
	Reasons     []string       `json:"reasons,omitempty"` // why not the better transmission, why no GSO
	// Warnings say what may be wrong with the transmission that was asked for.
	Warnings []string `json:"warnings,omitempty"`
}

// String describes the transmission in one line, for reports.
func (d Description) String() string {
	s := string(d.Mode)
	switch {
	case d.Bridge != "":
		s += fmt.Sprintf(" on %s (port of bridge %s)", d.Device, d.Bridge)
	case d.Device != "":
		s += " on " + d.Device
	default:
		s += fmt.Sprintf(", %d sockets", d.Sockets)
	}
	if d.GSO {
		s += ", segmentation offload"
	}
	for _, r := range slices.Concat(d.Reasons, d.Warnings) {
		s += "; " + r
	}
	return s
}

// Stats counts since Open.
type Stats struct {
	Syscalls     uint64 `json:"syscalls"`      // sendmmsg calls, or writes where that does not exist
	Datagrams    uint64 `json:"datagrams"`     // taken by the kernel
	Bytes        uint64 `json:"bytes"`         // their payload
	SuperPackets uint64 `json:"super_packets"` // messages that carried several datagrams
	Segments     uint64 `json:"segments"`      // datagrams that went inside super-packets
	Fragmented   uint64 `json:"fragmented"`    // datagrams that left in IP fragments, being longer than the path's known MTU
	Retries      uint64 `json:"retries"`       // messages offered again
	Waits        uint64 `json:"waits"`         // pauses because a queue was full
	// Refused counts ICMP "port unreachable" answers that came back for
	// earlier datagrams: evidence that nobody listens at the destination. It
	// is no count of datagrams, see [Trouble].
	Refused uint64 `json:"refused"`
	// Troubles lists what was said about datagrams on their way, Refused among
	// it, and what kept datagrams from leaving for a while.
	Troubles []Trouble `json:"troubles,omitempty"`
	// Fallbacks lists the fast paths that were turned off on the way.
	Fallbacks []Fallback `json:"fallbacks,omitempty"`
}

// Add returns what two transmissions counted together. Each fallback is listed
// once.
func (s Stats) Add(o Stats) Stats {
	s.Syscalls += o.Syscalls
	s.Datagrams += o.Datagrams
	s.Bytes += o.Bytes
	s.SuperPackets += o.SuperPackets
	s.Segments += o.Segments
	s.Fragmented += o.Fragmented
	s.Retries += o.Retries
	s.Waits += o.Waits
	s.Refused += o.Refused
	s.Troubles = slices.Clone(s.Troubles)
	for _, t := range o.Troubles {
		s.Troubles = addTrouble(s.Troubles, t)
	}
	s.Fallbacks = slices.Clone(s.Fallbacks)
	for _, f := range o.Fallbacks {
		if !slices.Contains(s.Fallbacks, f) {
			s.Fallbacks = append(s.Fallbacks, f)
		}
	}
	return s
}

// Fallback is a fast path that the kernel refused.
type Fallback struct {
	Path  string `json:"path"`  // what was turned off, as "segmentation offload"
	Cause string `json:"cause"` // the kernel's errno, as text
}

// TooLongError says that a datagram cannot be sent because it is longer than
// UDP, or the way, allows. Send returns it with the number of datagrams before
// that one; the caller may go on behind it.
type TooLongError struct {
	Length int // payload of the datagram, bytes
	Limit  int // the most that passes, bytes; 0 if not known
}

// Error implements error.
func (e *TooLongError) Error() string {
	if e.Limit == 0 {
		return fmt.Sprintf("send datagram of %d bytes: too long for the way", e.Length)
	}
	return fmt.Sprintf("send datagram of %d bytes: at most %d pass", e.Length, e.Limit)
}

// Sizes of headers and packets, in bytes.
const (
	ipv4HeaderLen = 20 // without options
	ipv6HeaderLen = 40
	udpHeaderLen  = 8
	maxIPPacket   = 65535 // what IPv4's total length and IPv6's payload length hold
)

func ipHeaderLen(a netip.Addr) int {
	if a.Is4() {
		return ipv4HeaderLen
	}
	return ipv6HeaderLen
}

// The batch at which both transmissions are fastest on Linux: long enough for
// few calls and long super-packets, short enough for a second-level cache.
const (
	batchDatagrams = 256
	batchBytes     = 256 << 10
)

// MaxPayload returns the longest payload of a UDP datagram to addr, in bytes:
// 65535 less the UDP header, and less the IPv4 header, which counts into
// IPv4's total length but not into IPv6's payload length.
func MaxPayload(addr netip.Addr) int {
	if addr.Unmap().Is4() {
		return maxIPPacket - ipv4HeaderLen - udpHeaderLen
	}
	return maxIPPacket - udpHeaderLen
}

// Open opens the transmission that o asks for. Its errors say what is missing;
// those for lack of a privilege answer to os.ErrPermission, those for a
// transmission that this system does not have to errors.ErrUnsupported. ctx
// bounds opening (the neighbour may have to be asked for its address) and, for
// as long as the Transmitter lives, its waiting for full queues.
func Open(ctx context.Context, o Options) (Transmitter, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if o.Mode == UDP {
		return openUDP(ctx, o, nil)
	}
	t, err := openPacket(ctx, o)
	if err == nil {
		return t, nil
	}
	if o.Mode == Packet || ctx.Err() != nil {
		return nil, fmt.Errorf("open transmission packet to %v: %w", o.Destination, err)
	}
	reason := "packet not possible: " + err.Error()
	if obstacle := (*obstacleError)(nil); errors.As(err, &obstacle) {
		reason = "packet not taken: " + err.Error()
	}
	return openUDP(ctx, o, []string{reason})
}

// withDefaults fills in what was left out and checks the rest.
func (o Options) withDefaults() (Options, error) {
	mode, err := ParseMode(string(o.Mode))
	if err != nil {
		return o, err
	}
	o.Mode = mode
	if o.Destination.Port() == 0 {
		o.Destination = netip.AddrPortFrom(o.Destination.Addr(), o.Kind.Port())
	}
	o.Destination = netip.AddrPortFrom(o.Destination.Addr().Unmap(), o.Destination.Port())
	o.Outer.Source = o.Outer.Source.Unmap()
	if o.PortMin == 0 && o.PortMax == 0 {
		o.PortMin, o.PortMax = DefaultPortMin, DefaultPortMax
	}
	if o.Sockets == 0 {
		o.Sockets = DefaultSockets
	}
	o.Sockets = min(o.Sockets, int(o.PortMax)-int(o.PortMin)+1)
	return o, o.validate()
}

func (o Options) validate() error {
	addr := o.Destination.Addr()
	switch {
	case !addr.IsValid():
		return errors.New("open transmission: no destination address")
	case addr.IsUnspecified() || addr.IsMulticast():
		return fmt.Errorf("open transmission to %v: not a unicast address", addr)
	case o.PortMin == 0 || o.PortMin > o.PortMax:
		return fmt.Errorf("open transmission: source ports %d to %d are no range", o.PortMin, o.PortMax)
	case o.Outer.DSCP > encap.MaxDSCP:
		return fmt.Errorf("open transmission: DSCP %d is not within 0 to %d", o.Outer.DSCP, encap.MaxDSCP)
	case o.Outer.Source.IsValid() && o.Outer.Source.Is4() != addr.Is4():
		return fmt.Errorf("open transmission to %v: the source %v is of another family", addr, o.Outer.Source)
	case o.Sockets < 0:
		return fmt.Errorf("open transmission: %d sockets", o.Sockets)
	}
	return nil
}
