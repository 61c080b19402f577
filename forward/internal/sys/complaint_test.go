package sys

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

var (
	us4, them4, router4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("198.51.100.1")
	us6, them6, router6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8:ff::1")
)

// header4 is an IPv4 header with the fragment offset, in bytes.
func header4(src, dst netip.Addr, protocol byte, offset int) []byte {
	b := make([]byte, 20)
	b[0], b[9] = 0x45, protocol
	binary.BigEndian.PutUint16(b[6:], uint16(offset/8))
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	return b
}

func header6(src, dst netip.Addr, next byte) []byte {
	b := make([]byte, 40)
	b[0], b[6] = 0x60, next
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return b
}

// icmp is an ICMP error's header.
func icmp(kind, code byte, rest uint32) []byte {
	b := make([]byte, 8)
	b[0], b[1] = kind, code
	binary.BigEndian.PutUint32(b[4:], rest)
	return b
}

// udp is the begin of a UDP header from port 50000 to 4789.
var udp = []byte{0xc3, 0x50, 0x12, 0xb5, 0, 0, 0, 0}

func TestParseComplaint(t *testing.T) {
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	quote4 := Quote{Src: us4, Dst: them4, Protocol: 17, SrcPort: 50000, DstPort: 4789, Ports: true}
	quote6 := Quote{Src: us6, Dst: them6, Protocol: 17, SrcPort: 50000, DstPort: 4789, Ports: true}
	without := func(q Quote) Quote { q.SrcPort, q.DstPort, q.Ports = 0, 0, false; return q }
	fragment := func(offset uint16) []byte { return []byte{17, 0, byte(offset >> 8), byte(offset), 0, 0, 0, 1} }
	for _, test := range []struct {
		name   string
		packet []byte
		want   Complaint
		quote  Quote
		ok     bool
	}{
		{"port unreachable", join(header4(them4, us4, 1, 0), icmp(3, 3, 0), header4(us4, them4, 17, 0), udp), Complaint{Type: 3, Code: 3, From: them4}, quote4, true},
		{"fragmentation needed", join(header4(router4, us4, 1, 0), icmp(3, 4, 1400), header4(us4, them4, 17, 0), udp), Complaint{Type: 3, Code: 4, MTU: 1400, From: router4}, quote4, true},
		{"about a later fragment", join(header4(router4, us4, 1, 0), icmp(11, 1, 0), header4(us4, them4, 17, 1480), udp), Complaint{Type: 11, Code: 1, From: router4}, without(quote4), true},
		{"ports cut off", join(header4(router4, us4, 1, 0), icmp(3, 1, 0), header4(us4, them4, 17, 0)), Complaint{Type: 3, Code: 1, From: router4}, without(quote4), true},
		{"an answer to a ping", join(header4(them4, us4, 1, 0), icmp(0, 0, 0), header4(us4, them4, 17, 0), udp), Complaint{}, Quote{}, false},
		{"not ICMP", join(header4(them4, us4, 17, 0), icmp(3, 3, 0), header4(us4, them4, 17, 0), udp), Complaint{}, Quote{}, false},
		{"IPv6 port unreachable", join(header6(them6, us6, 58), icmp(1, 4, 0), header6(us6, them6, 17), udp), Complaint{Six: true, Type: 1, Code: 4, From: them6}, quote6, true},
		{"IPv6 too big", join(header6(router6, us6, 58), icmp(2, 0, 1400), header6(us6, them6, 17), udp), Complaint{Six: true, Type: 2, MTU: 1400, From: router6}, quote6, true},
		{"IPv6 about a first fragment", join(header6(router6, us6, 58), icmp(2, 0, 1300), header6(us6, them6, 44), fragment(1), udp), Complaint{Six: true, Type: 2, MTU: 1300, From: router6}, quote6, true},
		{"IPv6 about a later fragment", join(header6(router6, us6, 58), icmp(2, 0, 1300), header6(us6, them6, 44), fragment(1401), udp), Complaint{Six: true, Type: 2, MTU: 1300, From: router6}, without(quote6), true},
		{"IPv6 neighbour solicitation", join(header6(them6, us6, 58), icmp(135, 0, 0), header6(us6, them6, 17), udp), Complaint{}, Quote{}, false},
		{"empty", nil, Complaint{}, Quote{}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, q, ok := ParseComplaint(test.packet)
			if ok != test.ok || ok && (c != test.want || q != test.quote) {
				t.Errorf("%+v about %+v, %v; want %+v about %+v", c, q, ok, test.want, test.quote)
			}
			for n := range test.packet { // none of its beginnings is read past its end
				ParseComplaint(test.packet[:n])
			}
		})
	}
}

func FuzzParseComplaint(f *testing.F) {
	f.Add(append(append(header4(them4, us4, 1, 0), icmp(3, 3, 0)...), header4(us4, them4, 17, 0)...))
	f.Add(append(append(header6(them6, us6, 58), icmp(1, 4, 0)...), header6(us6, them6, 44)...))
	f.Fuzz(func(t *testing.T, packet []byte) {
		if c, _, ok := ParseComplaint(packet); ok && !c.From.IsValid() {
			t.Errorf("%+v comes from nobody", c)
		}
	})
}
