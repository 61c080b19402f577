package sys

// Message is one entry of a sendmmsg(2) call: what is sent is Header followed
// by Payload.
type Message struct {
	Header  []byte // may be empty
	Payload []byte // may be empty
	// Segment, if not 0, says that the message is to be split into datagrams
	// of this many bytes of payload, the last of which may be shorter. A UDP
	// socket is told by a control message (UDP_SEGMENT, see udp(7)); for a
	// packet socket it stands in the header (see [PutVirtioChecksum]).
	Segment int
}

// Len returns the number of bytes that the message carries.
func (m *Message) Len() int { return len(m.Header) + len(m.Payload) }
