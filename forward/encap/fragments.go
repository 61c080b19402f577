package encap

import "encoding/binary"

// fragments knows to which flow the fragments of a datagram belong. Only the first
// one has ports, or what a tunnel carries; it decides for those that follow it, so
// that they go where the whole packets of their flow go. Where a later one comes
// before the first, nobody can know yet: the datagram counts by its addresses then,
// the first one too, so that its fragments stay together at least.
//
// Datagrams that came long ago are forgotten. Nil remembers nothing: all fragments
// count by their addresses. What an ICMP error quotes is looked up, but not
// remembered.
type fragments struct {
	table   [maxDatagrams]datagram
	begun   uint32 // datagrams so far
	quoting bool   // what is looked at is a quote
}

// maxDatagrams bounds the fragmented datagrams that are remembered: so many began
// since, at the most.
const maxDatagrams = 1024

// datagram is what is known of one: its sender, receiver, protocol and
// identification, and the hash that its fragments have.
type datagram struct {
	key, hash uint64
	begun     uint32
	orphan    bool // a later fragment came first
}

// fragment4 is the hash of a fragment over IPv4.
func (s *fragments) fragment4(packet []byte, depth int) uint64 {
	src, dst, proto := binary.BigEndian.Uint32(packet[12:]), binary.BigEndian.Uint32(packet[16:]), uint64(packet[9])
	apart := mixFlow(uint64(src)<<16, uint64(dst)<<16, proto)
	if s == nil {
		return apart
	}
	key := mixPair(uint64(src)<<32|uint64(dst), proto<<16|uint64(binary.BigEndian.Uint16(packet[4:])))
	if binary.BigEndian.Uint16(packet[6:])&0x1fff != 0 {
		return s.later(key, apart)
	}
	return s.first(key, s.whole4(packet, depth))
}

// fragment6 is the same over IPv6, for a packet with a fragment header at an offset
// and its upper-layer protocol at another, 0 in all fragments but the first.
func (s *fragments) fragment6(packet []byte, header int, proto byte, at, depth int) uint64 {
	src := mixPair(binary.BigEndian.Uint64(packet[8:]), binary.BigEndian.Uint64(packet[16:]))
	dst := mixPair(binary.BigEndian.Uint64(packet[24:]), binary.BigEndian.Uint64(packet[32:]))
	apart := mixFlow(src, dst, uint64(packet[header]))
	if s == nil {
		return apart
	}
	key := mixPair(mixPair(src, dst), uint64(binary.BigEndian.Uint32(packet[header+4:])))
	if binary.BigEndian.Uint16(packet[header+2:])&0xfff8 != 0 {
		return s.later(key, apart)
	}
	return s.first(key, s.whole6(packet, proto, at, depth))
}

// find returns the datagram's place, and whether it is the datagram that is there. A
// new one takes it, without a hash yet; of a quote it takes none.
func (s *fragments) find(key uint64) (d *datagram, known bool) {
	d = &s.table[key%maxDatagrams]
	known = d.key == key && s.begun-d.begun < maxDatagrams && d.begun != 0
	if known || s.quoting {
		return d, known
	}
	s.begun++
	*d = datagram{key: key, begun: s.begun}
	return d, false
}

// first is the hash of a first fragment that has one by itself.
func (s *fragments) first(key, hash uint64) uint64 {
	switch d, known := s.find(key); {
	case known && d.orphan:
		return d.hash
	case !s.quoting:
		d.hash = hash
	}
	return hash
}

// later is the hash of another fragment than the first, which by its addresses alone
// has the one given.
func (s *fragments) later(key, apart uint64) uint64 {
	switch d, known := s.find(key); {
	case known:
		return d.hash
	case !s.quoting:
		d.hash, d.orphan = apart, true
	}
	return apart
}

// quoted is the hash of what an ICMP error quotes.
func (s *fragments) quoted(packet []byte, n network, depth int) (uint64, bool) {
	if s == nil {
		return s.flowHashAt(packet, n, depth)
	}
	outside := s.quoting
	s.quoting = true
	hash, ok := s.flowHashAt(packet, n, depth)
	s.quoting = outside
	return hash, ok
}
