// Package encap turns captured frames into the payloads of VXLAN (RFC 7348)
// and GENEVE (RFC 8926) datagrams, and writes the outer headers around them.
// It knows no operating system and allocates nothing per frame.
//
// On the way of a frame through [Encapsulator.Encapsulate]:
//
//   - Normalisation: what is not Ethernet gets an Ethernet header (see
//     [Supported]), because a monitor's tunnel endpoint has one fixed link type.
//   - Padding: what the capture cut is filled up with zeros, where asked for.
//   - Re-segmentation: a TCP super-frame that offloading (GRO, TSO) left in the
//     capture is cut into packets of the MTU. Nothing else is ever cut.
//   - The tunnel header, and a source port that is a symmetric hash of the inner
//     flow, so that a monitor's workers see both directions of a connection.
package encap

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/zeekdemo/zeekdemo/forward"
)

// baseHeaderLen is the length of both tunnel headers without options.
const baseHeaderLen = 8

// Encapsulator encapsulates frames as its Config says. It implements
// [forward.Encapsulator] and is not safe for concurrent use.
type Encapsulator struct {
	config   Config
	header   []byte     // tunnel header and options, of the current loop
	vniAt    int        // offset of the VNI in header
	session  *session   // of Config.InVXLAN; nil without
	loop     int        // the Frame.Loop whose VNI is in header
	maxInner int        // longest inner frame that MaxDatagram lets through
	asIs     int        // Ethernet frames up to this length need no second look
	repaired unfinished // unless these are found in them
	portMin  uint16
	portSpan uint64 // number of source ports

	fragments fragments

	inner    inner  // the frame at hand in its Ethernet form
	scratch  []byte // the same where it must lie in one piece
	template []byte // headers of the super-frame at hand
}

// New checks c, applies its defaults and prepares the headers.
func New(c Config) (*Encapsulator, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("configure %v encapsulation: %w", c.Kind, err)
	}
	c.Options = slices.Clone(c.Options)
	e := &Encapsulator{
		config:   c,
		header:   c.appendHeader(nil),
		maxInner: c.MaxDatagram - c.HeaderLen(),
		portMin:  c.PortMin,
		portSpan: uint64(c.PortMax) - uint64(c.PortMin) + 1,
	}
	e.vniAt = baseHeaderLen - 4
	if c.InVXLAN {
		var err error
		if e.session, err = newSession(len(e.header) - sessionLen); err != nil {
			return nil, err
		}
		e.vniAt = len(e.header) - 4
	}
	e.asIs = e.maxInner
	if c.ResegmentAll {
		e.asIs = min(e.asIs, c.MTU+etherLen)
	}
	if c.RawIP {
		e.asIs = 0
	}
	e.repaired = noLength
	if c.FixChecksums {
		e.repaired |= noHeaderSum | noTransportSum | noSumInside
	}
	return e, nil
}

// Config returns the configuration with its defaults applied.
func (e *Encapsulator) Config() Config { return e.config }

// appendHeader appends the tunnel header of the first loop.
func (c Config) appendHeader(b []byte) []byte {
	if c.Kind == VXLAN {
		b = append(b, 0x08, 0, 0, 0) // the I flag: the VNI is valid
		return binary.BigEndian.AppendUint32(b, c.VNI<<8)
	}
	var critical byte
	for _, o := range c.Options {
		if o.Critical() {
			critical = 0x40
		}
	}
	inside, vni := uint16(etherTypeTEB), c.VNI
	if c.InVXLAN {
		inside, vni = etherTypeIPv4, 0 // the VNI is the session's
	}
	b = append(b, byte(c.optionsLen()/4), critical)
	b = binary.BigEndian.AppendUint16(b, inside)
	b = binary.BigEndian.AppendUint32(b, vni<<8)
	for _, o := range c.Options {
		b = o.appendTo(b)
	}
	if c.InVXLAN {
		b = c.appendSession(b)
	}
	return b
}

// LoopVNI is the virtual network identifier of frames with this Frame.Loop.
func (c Config) LoopVNI(loop int) uint32 {
	if !c.VNIPerLoop {
		return c.VNI
	}
	return uint32((uint64(c.VNI)-1+uint64(loop))%MaxVNI) + 1
}

// setLoop writes the loop's VNI into the header.
func (e *Encapsulator) setLoop(loop int) {
	e.loop = loop
	binary.BigEndian.PutUint32(e.header[e.vniAt:], e.config.LoopVNI(loop)<<8)
}

// Encapsulate appends the datagrams that f becomes to b. It appends nothing
// where the outcome is a refusal.
func (e *Encapsulator) Encapsulate(b *forward.Batch, f *forward.Frame) forward.Outcome {
	if e.session == nil {
		return e.encapsulate(b, f)
	}
	from := len(b.Datagrams)
	out := e.encapsulate(b, f)
	e.session.complete(b, from)
	return out
}

// encapsulate does so, but for the headers of a session.
func (e *Encapsulator) encapsulate(b *forward.Batch, f *forward.Frame) forward.Outcome {
	if f.Loop != e.loop {
		e.setLoop(f.Loop)
	}
	n := len(f.Data)
	if f.LinkType == forward.LinkEthernet && n >= f.Length && n <= e.asIs && n > 0 {
		if left := unfinishedIn(f.Data, n); left&e.repaired == 0 {
			e.append(b, f.Data, nil, 0, f.Time, e.port(e.fragments.flowHash(f.Data)))
			return forward.Outcome{Inner: n, Flags: left.told()}
		}
	}
	return e.encapsulateOther(b, f)
}

// append appends one datagram: tunnel header, head, body and zeros.
func (e *Encapsulator) append(b *forward.Batch, head, body []byte, zeros int, time int64, port uint16) {
	off := len(b.Buf)
	n := len(e.header) + len(head) + len(body) + zeros
	b.Buf = slices.Grow(b.Buf, n)[:off+n]
	d := b.Buf[off:]
	d = d[copy(d, e.header):]
	d = d[copy(d, head):]
	d = d[copy(d, body):]
	clear(d)
	b.Datagrams = append(b.Datagrams, forward.Datagram{Off: off, Len: n, Port: port, Time: time})
}

// port maps a flow hash to a source port.
func (e *Encapsulator) port(hash uint64) uint16 {
	return e.portMin + uint16((hash>>32)*e.portSpan>>32)
}

// encapsulateOther handles whatever needs more than a copy.
func (e *Encapsulator) encapsulateOther(b *forward.Batch, f *forward.Frame) forward.Outcome {
	var out forward.Outcome
	if out.Refusal = e.normalise(f); out.Refusal != forward.RefusedNot {
		return out
	}
	if f.LinkType != forward.LinkEthernet {
		out.Flags |= forward.Normalised
	}
	bytes, datagrams := len(b.Buf), len(b.Datagrams)
	for more := true; more; more = e.inner.next() {
		if r := e.put(b, f.Time, &out); r != forward.RefusedNot {
			b.Buf, b.Datagrams = b.Buf[:bytes], b.Datagrams[:datagrams]
			return forward.Outcome{Refusal: r}
		}
	}
	if e.inner.moreLength > len(e.inner.more) {
		out.Flags |= forward.CutBySnap // within an A-MSDU
	}
	return out
}

// normalise puts the Ethernet form of f into e.inner.
func (e *Encapsulator) normalise(f *forward.Frame) forward.Refusal {
	length := max(f.Length, len(f.Data))
	e.inner = inner{}
	if f.LinkType == forward.LinkEthernet {
		if len(f.Data) == 0 {
			return forward.RefusedMalformed
		}
		e.inner.body, e.inner.length = f.Data, length
		return forward.RefusedNot
	}
	normalise := normaliserOf(f.LinkType)
	if normalise == nil {
		return forward.RefusedLinkType
	}
	return normalise(&e.inner, f.Data, length)
}

// maxRecorded bounds the recorded lengths that are believed when padding: twice
// the largest super-frame of Linux (GSO_MAX_SIZE, include/linux/netdevice.h).
const maxRecorded = 1 << 20

// put appends the datagrams that e.inner becomes, and adds to out.
func (e *Encapsulator) put(b *forward.Batch, time int64, out *forward.Outcome) forward.Refusal {
	if e.config.RawIP && !e.stripToIP() {
		return forward.SkippedNoPacket
	}
	in := &e.inner
	captured, zeros := in.headLen+len(in.body), 0
	if in.length > captured {
		out.Flags |= forward.CutBySnap
		if e.config.PadCut && in.length <= maxRecorded {
			out.Flags |= forward.Padded
			zeros = in.length - captured
		}
	}
	cutByCard := in.isCutByCard(e.config.RawIP)
	if n := captured + zeros; n > e.maxInner || cutByCard || e.config.ResegmentAll && n > e.asIs {
		if e.resegment(b, time, zeros, out) {
			out.Flags |= forward.Resegmented
			if cutByCard {
				out.Flags |= forward.LengthRepaired
			}
			return forward.RefusedNot
		}
		zeros = max(0, min(zeros, e.maxInner-captured))
	}
	if captured > e.maxInner {
		return forward.RefusedTooLong
	}
	e.append(b, in.head[:in.headLen], in.body, zeros, time, 0)
	d := &b.Datagrams[len(b.Datagrams)-1]
	frame := b.Buf[d.Off+len(e.header):][:captured+zeros]
	d.Port = e.port(e.hash(frame[:captured]))
	out.Flags |= e.finish(frame, max(in.length, captured+zeros))
	out.Inner += captured + zeros
	return forward.RefusedNot
}

// hash is the flow hash of an inner frame.
func (e *Encapsulator) hash(frame []byte) uint64 {
	if e.config.RawIP {
		h, _ := e.fragments.flowHashIP(frame)
		return h
	}
	return e.fragments.flowHash(frame)
}

// whole returns the Ethernet form in one piece.
func (e *Encapsulator) whole() []byte {
	if e.inner.headLen == 0 {
		return e.inner.body
	}
	e.scratch = append(append(e.scratch[:0], e.inner.head[:e.inner.headLen]...), e.inner.body...)
	return e.scratch
}

// stripToIP reduces e.inner to the IP packet in it, and writes the header's
// protocol type. It fails where there is none.
func (e *Encapsulator) stripToIP() bool {
	frame := e.whole()
	at := locateNetwork(frame)
	packet := frame[at.offset:]
	if _, ok := (*fragments)(nil).flowHashIP(packet); !ok || at.etherType != etherTypeIPv4 && at.etherType != etherTypeIPv6 {
		return false
	}
	in := &e.inner
	in.headLen, in.body, in.length = 0, packet, in.length-at.offset
	if n := ipLength(packet); n > 0 && n < in.length { // leave Ethernet's padding behind
		in.length = n
		in.body = packet[:min(n, len(packet))]
	}
	binary.BigEndian.PutUint16(e.header[2:], at.etherType)
	return true
}

// ipLength is the length that an IP header gives its packet, 0 if it gives none
// (a super-frame that is longer than the field can say, or that the network
// card was to fill in). The fixed header is there.
func ipLength(packet []byte) int {
	if packet[0]>>4 == 4 {
		return int(binary.BigEndian.Uint16(packet[2:]))
	}
	if n := int(binary.BigEndian.Uint16(packet[4:])); n > 0 {
		return ipv6Len + n
	}
	return 0
}
