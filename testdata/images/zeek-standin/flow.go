package main

import (
	"net/netip"
	"time"
)

// flowKey names a connection in both directions: the lower end point is first.
type flowKey struct {
	low, high         netip.Addr
	lowPort, highPort uint16
	vnis              vnis
	proto             uint8
	oneWay            bool
}

// keyOf is symmetric: a packet and its answer have the same key.
func keyOf(p *packet) flowKey {
	k := flowKey{vnis: p.vnis, proto: p.proto, oneWay: p.oneWay}
	order := p.src.Compare(p.dst)
	if order < 0 || order == 0 && p.srcPort <= p.dstPort || p.oneWay {
		k.low, k.high, k.lowPort, k.highPort = p.src, p.dst, p.srcPort, p.dstPort
	} else {
		k.low, k.high, k.lowPort, k.highPort = p.dst, p.src, p.dstPort, p.srcPort
	}
	return k
}

// side is one direction's end of a flow.
type side struct {
	packets uint64
	ipBytes uint64
	payload uint64 // UDP and ICMP; TCP takes it from its sequence numbers
	tcp     stream
}

// flow is one connection. orig started it, as far as can be told.
type flow struct {
	key                flowKey
	id                 int64
	uid                string
	orig, resp         netip.Addr
	origPort, respPort uint16
	first, last        int64 // ns
	due                int64 // when the table looks at it next
	ended              bool
	sides              [2]side // by direction
	history            history
	resetAt, closedAt  int64 // TCP: when it was reset, when both sides had closed; 0: not yet
	service            string
	app                app
	files              int // so far
}

// The two directions.
const (
	fromOrig = 0
	fromResp = 1
)

func newFlow(key flowKey, p *packet, id int64) *flow {
	f := &flow{
		key: key, id: id,
		orig: p.src, resp: p.dst, origPort: p.srcPort, respPort: p.dstPort,
		first: p.time,
	}
	if flipped(p) {
		f.orig, f.resp, f.origPort, f.respPort = p.dst, p.src, p.dstPort, p.srcPort
		f.history.record('^')
	}
	return f
}

// flipped tells whether a flow's first packet is from its responder: an
// answer to a SYN, or one in the middle that comes from a server's port.
func flipped(p *packet) bool {
	switch p.proto {
	case protoTCP:
		if p.flags&flagSYN != 0 {
			return p.flags&flagACK != 0
		}
		return serverPort(p.proto, p.srcPort) && !serverPort(p.proto, p.dstPort)
	case protoUDP:
		return serverPort(p.proto, p.srcPort) && !serverPort(p.proto, p.dstPort)
	}
	return false
}

// resolverAnswer tells whether p is a DNS response between two resolvers,
// whose ports do not show which of them asked.
func resolverAnswer(p *packet) bool {
	return p.srcPort == 53 && p.dstPort == 53 && len(p.data) > 2 && p.data[2]&0x80 != 0
}

// flip swaps the ends after the first packet was counted. Like Zeek it leaves
// that packet where it was counted.
func (f *flow) flip() {
	f.orig, f.resp, f.origPort, f.respPort = f.resp, f.orig, f.respPort, f.origPort
	f.history.record('^')
}

// serverPort is a short form of Zeek's likely_server_ports.
func serverPort(proto uint8, port uint16) bool {
	switch port {
	case 53, 88, 137, 161, 162, 389, 443, 5060, 5353, 5355:
		return true
	}
	if proto == protoUDP {
		switch port {
		case 67, 68, 123, 514, 750, 1434, 1812, 2123, 2152, 3544, 4011, 4789, 5072, 5351, 6081:
			return true
		}
		return false
	}
	switch port {
	case 20, 21, 22, 25, 80, 81, 110, 135, 139, 143, 445, 502, 587, 631, 993, 995, 1080, 1883, 2811,
		3128, 3306, 3389, 5222, 5432, 5900, 6379, 6666, 6667, 6668, 6669, 8000, 8080, 8888, 20000:
		return true
	}
	return port == 563 || port == 585 || port == 614 || port == 636 || port >= 989 && port <= 992
}

// direction tells which end sent p.
func (f *flow) direction(p *packet) int {
	if p.src == f.orig && p.srcPort == f.origPort {
		return fromOrig
	}
	return fromResp
}

// add counts p and follows the protocol.
func (f *flow) add(s *sensor, p *packet) {
	dir := f.direction(p)
	side := &f.sides[dir]
	side.packets++
	side.ipBytes += uint64(p.ipLen)
	f.last = p.time
	switch p.proto {
	case protoTCP:
		f.addTCP(s, p, dir)
	case protoUDP:
		side.payload += uint64(max(p.dataLen, 0))
		f.history.once(letterData, 'D', dir)
		f.udpData(s, p, dir)
		if dir == fromOrig && side.packets == 1 && resolverAnswer(p) {
			f.flip()
		}
	default:
		side.payload += uint64(max(p.dataLen, 0))
	}
}

// deadline is the time at which the flow ends if no packet comes, ns.
func (f *flow) deadline(l *limits) int64 {
	at := func(t int64, d time.Duration) int64 { return t + int64(d) }
	if f.key.proto != protoTCP {
		return at(f.last, l.otherIdle)
	}
	switch orig, resp := f.sides[fromOrig].tcp.state, f.sides[fromResp].tcp.state; {
	case f.resetAt != 0:
		return at(f.resetAt, l.tcpReset)
	case f.closedAt != 0:
		return at(f.closedAt, l.tcpClose)
	case orig == tcpSynSent && resp == tcpInactive:
		return at(f.first, l.tcpAttempt)
	}
	return at(f.last, l.tcpIdle)
}

// finish logs what its application protocol still holds.
func (f *flow) finish(s *sensor) {
	f.app.finish(s, f)
}

// sender is the end from which a direction comes.
func (f *flow) sender(dir int) netip.Addr {
	if dir == fromOrig {
		return f.orig
	}
	return f.resp
}

// size is the number of payload bytes that direction carried.
func (f *flow) size(dir int) uint64 {
	if f.key.proto == protoTCP {
		return f.sides[dir].tcp.size()
	}
	return f.sides[dir].payload
}

// missed is the number of bytes in gaps that the other end acknowledged.
func (f *flow) missed() uint64 {
	return f.sides[fromOrig].tcp.missed + f.sides[fromResp].tcp.missed
}

// state is Zeek's conn_state.
func (f *flow) state() string {
	switch f.key.proto {
	case protoTCP:
		return tcpConnState(&f.sides[fromOrig].tcp, &f.sides[fromResp].tcp)
	case protoUDP:
		return udpConnState(f.sides[fromOrig].packets > 0, f.sides[fromResp].packets > 0)
	}
	return "OTH"
}

func udpConnState(orig, resp bool) string {
	switch {
	case orig && resp:
		return "SF"
	case orig:
		return "S0"
	case resp:
		return "SHR"
	}
	return "OTH"
}

// The letters of a history that are written once per direction.
const (
	letterSYN = iota
	letterSYNACK
	letterACK
	letterData
	letterFIN
	letterRST
)

// history is Zeek's conn history: upper case from the originator.
type history struct {
	text []byte
	seen [2]uint8
}

// record appends the letter.
func (h *history) record(letter byte) { h.text = append(h.text, letter) }

// once appends the letter unless that direction has it.
func (h *history) once(bit int, letter byte, dir int) {
	if h.seen[dir]&(1<<bit) != 0 {
		return
	}
	h.seen[dir] |= 1 << bit
	h.scaled(letter, dir, 1)
}

// scaled appends the letter at the 1st, 10th, 100th, ... time.
func (h *history) scaled(letter byte, dir int, count uint64) {
	for count >= 10 && count%10 == 0 {
		count /= 10
	}
	if count != 1 {
		return
	}
	if dir == fromResp {
		letter |= 0x20
	}
	h.record(letter)
}
