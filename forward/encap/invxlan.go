package encap

import (
	"encoding/binary"
	"net/netip"

	"github.com/zeekdemo/zeekdemo/forward"
)

// sessionLen is the length of what Config.InVXLAN puts between the GENEVE header
// and the frame: the headers of IPv4, UDP and VXLAN.
const sessionLen = ipv4Len + udpLen + baseHeaderLen

// appendSession appends them, without what differs from datagram to datagram.
func (c Config) appendSession(b []byte) []byte {
	b = append(b, make([]byte, ipv4Len+udpLen)...)
	b = append(b, 0x08, 0, 0, 0)
	return binary.BigEndian.AppendUint32(b, c.VNI<<8)
}

// session writes the IPv4 and UDP headers within GENEVE.
type session struct {
	outer   *Outer
	at      int // of the IPv4 header in a datagram
	scratch [OuterLen4]byte
}

// newSession prepares the headers. Their addresses are of documentation (RFC 5737):
// the interface that is mirrored, and the endpoint that is the mirror's target.
func newSession(at int) (*session, error) {
	outer, err := NewOuter(OuterConfig{Kind: VXLAN,
		Src: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Dst: netip.AddrFrom4([4]byte{192, 0, 2, 2})})
	return &session{outer: outer, at: at}, err
}

// complete writes the headers of b's datagrams from the given one on. Both tunnels
// have one source port, for both hash the same flow.
func (s *session) complete(b *forward.Batch, from int) {
	for i := from; i < len(b.Datagrams); i++ {
		packet := b.Payload(i)[s.at:]
		s.outer.Put(s.scratch[:], packet[ipv4Len+udpLen:], b.Datagrams[i].Port)
		copy(packet, s.scratch[etherLen:])
	}
}
