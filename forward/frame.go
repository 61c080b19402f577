// Package forward moves frames into a monitor: it takes them from a [Source],
// encapsulates them, waits until each is due, and hands them in batches to a
// [Sink].
//
// The nouns, from smallest to largest:
//
//   - A Frame is one captured link-layer frame, lent by its Source.
//   - A Datagram is one encapsulated frame: the payload of one outer UDP
//     datagram (tunnel header and inner Ethernet frame) and its source port.
//     One frame becomes one datagram, or several where a TCP super-frame had
//     to be re-segmented, or none where it cannot pass.
//   - A Batch is a run of datagrams that lie one behind the other in one
//     buffer, so that a Sink can hand neighbours to the kernel as one piece.
//   - A Pipeline drives all of it and counts into Stats.
//
// Nothing here knows an operating system: capture files are in pcapfile,
// headers in encap, timing in pace, sockets in transmit. Those packages import
// this one; it imports none of them. The order of the capture is the order on
// the wire, always.
package forward

import "fmt"

// LinkType is a link-layer header type as pcap and pcapng files store it: the
// LINKTYPE_ values of https://www.tcpdump.org/linktypes.html.
type LinkType uint16

// The link types that package encap normalises to Ethernet.
const (
	LinkNull       LinkType = 0   // BSD loopback, address family in host byte order
	LinkEthernet   LinkType = 1   // IEEE 802.3 Ethernet
	LinkPPP        LinkType = 9   // PPP, with or without 0xff03
	LinkFDDI       LinkType = 10  // FDDI
	LinkPPPHDLC    LinkType = 50  // PPP in HDLC-like framing (RFC 1662)
	LinkRawBSD12   LinkType = 12  // raw IP as some systems' DLT_RAW
	LinkRawBSD14   LinkType = 14  // raw IP as OpenBSD's DLT_RAW
	LinkRaw        LinkType = 101 // raw IPv4 or IPv6
	LinkIEEE80211  LinkType = 105 // IEEE 802.11
	LinkLoop       LinkType = 108 // OpenBSD loopback, address family in network byte order
	LinkLinuxSLL   LinkType = 113 // Linux cooked capture v1
	LinkRadiotap   LinkType = 127 // radiotap header, then IEEE 802.11
	LinkIPv4       LinkType = 228 // raw IPv4
	LinkIPv6       LinkType = 229 // raw IPv6
	LinkNFLOG      LinkType = 239 // Linux netfilter log messages
	LinkLinuxSLL2  LinkType = 276 // Linux cooked capture v2
	LinkIEEE802154 LinkType = 195 // IEEE 802.15.4 with FCS
)

// Frame is one captured frame. Data belongs to the Source and is valid until
// the next call of Next or Close; whoever keeps it must copy it.
type Frame struct {
	Data     []byte   // the captured bytes, link-layer header first
	Length   int      // bytes the frame had on the wire; more than len(Data) if the capture cut it
	Time     int64    // capture time, nanoseconds since the Unix epoch
	LinkType LinkType // of this frame: one pcapng file may hold several

	// Retimed says that the capture has no time for the frame, or none that a
	// pcap file can hold (from 1970 to February 2106). Time is then that of the
	// frame before, 0 where there is none.
	Retimed bool

	// Segment counts the stretches of one uninterrupted recording: it grows by
	// one with every further file and with every further loop. Recorded gaps
	// are kept within a segment, and not waited for between two.
	Segment int
	// Loop counts the passes over the whole input, from 0.
	Loop int
}

// Source yields frames in the order of the capture.
type Source interface {
	// Next fills f. It returns io.EOF after the last frame. Any other error
	// names file, packet number and byte offset; every frame before the damage
	// has been returned by then.
	Next(f *Frame) error
	// Close releases what the source holds; lent data is invalid afterwards.
	Close() error
}

// Progress is implemented by a Source that knows how much of its input it has
// consumed. Total is 0 where the length is unknown (standard input). It may be
// called from another goroutine than Next.
type Progress interface {
	Progress() (done, total int64) // bytes of the input as stored
}

// Datagram is one encapsulated frame inside a Batch.
type Datagram struct {
	Off, Len int    // payload: Batch.Buf[Off : Off+Len], tunnel header first
	Port     uint16 // source port: a symmetric hash of the inner flow
	Time     int64  // capture time of the frame, nanoseconds since the Unix epoch
}

// Batch is a run of datagrams in sending order. Each payload starts where the
// one before ends, so consecutive datagrams are contiguous in Buf. A Batch that
// a Sink or a Gate is given may be a part of a longer one: its first datagram
// does not have to start at 0, nor its last to end at len(Buf).
type Batch struct {
	Buf       []byte
	Datagrams []Datagram
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() { b.Buf, b.Datagrams = b.Buf[:0], b.Datagrams[:0] }

// Payload returns the payload of datagram i.
func (b *Batch) Payload(i int) []byte {
	d := &b.Datagrams[i]
	return b.Buf[d.Off : d.Off+d.Len]
}

// Encapsulator turns frames into datagrams. It is package encap's job; the
// interface lets tests put something else there.
type Encapsulator interface {
	// Encapsulate appends the datagrams that f becomes to b and says what had
	// to be done to it. It appends nothing where the outcome is a refusal.
	Encapsulate(b *Batch, f *Frame) Outcome
}

// Outcome says what became of one frame: a set of flags, and a Refusal where
// it could not pass.
type Outcome struct {
	Refusal Refusal // RefusedNot if the frame passed
	Flags   OutcomeFlags
	Inner   int // inner Ethernet bytes appended, all datagrams together
}

// OutcomeFlags tell what was changed on a frame that passed.
type OutcomeFlags uint8

// What may have been done to a frame that passed.
const (
	Normalised     OutcomeFlags = 1 << iota // its link-layer header was replaced by an Ethernet one
	Resegmented                             // a TCP super-frame became several segments
	CutBySnap                               // the capture holds less of it than was on the wire
	Padded                                  // and zeros stand for what was missing
	LengthRepaired                          // its IP header had no length: the network card was to cut it
	ChecksumsOpen                           // the capturing host had left checksums to its network card
	ChecksumsFixed                          // likewise, and they were computed
)

// Refusal is the reason why a frame cannot pass. Every reason is counted and
// reported by its name; a frame is never cut to make it fit.
type Refusal uint8

// The reasons, in the order in which reports list them.
const (
	RefusedNot       Refusal = iota
	RefusedLinkType          // a link type that has no Ethernet form
	RefusedTooLong           // longer than a datagram or than the receiver takes, and not TCP
	RefusedMalformed         // too short or too broken to find its network packet
	SkippedNoPacket          // carries no network packet at all (802.11 beacons, PPP negotiation)
	NumRefusals
)

// String names the reason as reports and JSON documents print it.
func (r Refusal) String() string {
	switch r {
	case RefusedNot:
		return "passed"
	case RefusedLinkType:
		return "unsupported link type"
	case RefusedTooLong:
		return "too long"
	case RefusedMalformed:
		return "malformed"
	case SkippedNoPacket:
		return "no network packet"
	}
	return fmt.Sprintf("refusal %d", uint8(r))
}

// Sink is a way out: a packet socket, a pool of UDP sockets, a capture file.
type Sink interface {
	// Send takes the batch's datagrams in order and returns how many it took;
	// fewer than all only together with an error. What the kernel refuses for
	// a moment is retried inside, never lost, doubled or reordered.
	Send(b *Batch) (int, error)
	// Close flushes and releases.
	Close() error
}
