package main

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// limits are the silences after which a flow is logged, and the delays by
// which an ended one is kept open for stragglers.
type limits struct {
	tcpIdle    time.Duration
	otherIdle  time.Duration // UDP, ICMP and everything else
	tcpAttempt time.Duration // tcp_attempt_delay: a SYN without an answer
	tcpClose   time.Duration // tcp_close_delay: both sides sent FIN
	tcpReset   time.Duration // tcp_reset_delay
}

// captureLimits are Zeek's defaults, in the capture's own time.
func captureLimits() limits {
	return limits{
		tcpIdle:    5 * time.Minute,
		otherIdle:  time.Minute,
		tcpAttempt: 5 * time.Second,
		tcpClose:   5 * time.Second,
		tcpReset:   100 * time.Millisecond,
	}
}

// liveLimits are shorter than Zeek's, see the package comment. A positive
// idle replaces them.
func liveLimits(idle time.Duration) limits {
	l := captureLimits()
	// Six seconds, not five: a capture of the tests pauses for 5.0008 s, and a
	// pause that is a timeout to within a millisecond falls on either side.
	l.tcpIdle, l.otherIdle = 10*time.Second, 6*time.Second
	if idle > 0 {
		l.tcpIdle, l.otherIdle = idle, idle
	}
	return l
}

// counters are what /metrics and stats.log tell of the packet source.
type counters struct {
	packets, bytes      uint64
	dropped             uint64 // of packets: those that were no tunnel's
	tcp, udp, icmp      uint64 // connections ever seen
	activeTCP           int
	activeUDP           int
	activeICMP          int
	lastPacket, lastLag int64 // ns
	established, dns    uint64
	httpRequests        uint64
	httpReplies         uint64
	tlsHellos           uint64
	weirds              uint64
	removed             uint64
}

// sensor is the connection table with its logs. Its methods are called from
// one goroutine, except counts.
type sensor struct {
	mu     sync.Mutex // held while packets are handled and while counts reads
	limits limits
	script script
	logs   *logSet
	dec    decoder
	flows  map[flowKey]*flow
	due    dueHeap
	seeds  seeds
	opened int64           // flows so far
	once   map[string]bool // what is logged once: certificates and weirds
	names  *resolver
	now    int64 // ns since the epoch: of the last packet, or of the clock when live
	counts counters
	node   *member // of a cluster; nil: by itself
}

func newSensor(script script, logs *logSet, seeds seeds, names *resolver) *sensor {
	return &sensor{
		seeds:  seeds,
		once:   make(map[string]bool),
		names:  names,
		limits: captureLimits(),
		script: script,
		logs:   logs,
		flows:  make(map[flowKey]*flow),
	}
}

// frame handles one captured frame; wireLen is its length as sent.
func (s *sensor) frame(t int64, v vnis, link int, frame []byte, wireLen int) {
	s.counts.packets++
	s.counts.bytes += uint64(len(frame))
	s.counts.lastPacket = t
	s.advance(t)
	s.dec.pkt.time, s.dec.pkt.vnis = t, s.script.keyed(v)
	p := s.dec.decode(link, frame, wireLen)
	if p == nil {
		if s.dec.weird != "" {
			s.weird(t, s.dec.weird)
		}
		return
	}
	s.packet(p)
}

// drop handles a datagram of so many bytes that is no tunnel's: Zeek's packet source
// counts it among the received and the dropped, and names it.
func (s *sensor) drop(t int64, bytes int, weird string) {
	s.counts.packets++
	s.counts.bytes += uint64(bytes)
	s.counts.dropped++
	s.weird(t, weird)
}

// packet adds p to its flow, or starts one.
func (s *sensor) packet(p *packet) {
	key := keyOf(p)
	f := s.flows[key]
	if f != nil && f.reusedBy(p) {
		s.end(f)
		f = nil
	}
	if f == nil {
		f = s.start(key, p)
		if f == nil {
			return
		}
	}
	f.add(s, p)
	s.schedule(f)
}

// start opens a flow with p as its first packet.
func (s *sensor) start(key flowKey, p *packet) *flow {
	s.opened++
	f := newFlow(key, p, s.opened)
	f.uid = s.seeds.identifier('C', fmt.Sprint(s.opened, f.first, f.orig, f.origPort, f.resp, f.respPort))
	s.flows[key] = f
	switch p.proto {
	case protoTCP:
		s.counts.tcp++
		s.counts.activeTCP++
	case protoUDP:
		s.counts.udp++
		s.counts.activeUDP++
	case protoICMP, protoICMPv6:
		s.counts.icmp++
		s.counts.activeICMP++
	}
	return f
}

// end writes a flow's lines and forgets it.
func (s *sensor) end(f *flow) {
	f.finish(s)
	s.logs.write("conn", s.logs.conn(f, s.script.vniField))
	delete(s.flows, f.key)
	f.ended = true
	s.counts.removed++
	switch f.key.proto {
	case protoTCP:
		s.counts.activeTCP--
	case protoUDP:
		s.counts.activeUDP--
	case protoICMP, protoICMPv6:
		s.counts.activeICMP--
	}
}

// schedule makes sure that the flow is looked at no later than its deadline.
func (s *sensor) schedule(f *flow) {
	deadline := f.deadline(&s.limits)
	if f.due == 0 || deadline < f.due {
		f.due = deadline
		s.due.push(dueFlow{deadline, f})
	}
}

// advance moves the clock and ends what is overdue.
func (s *sensor) advance(t int64) {
	s.now = max(s.now, t)
	for len(s.due) > 0 && s.due[0].at <= s.now {
		d := s.due.pop()
		if d.f.ended || d.at != d.f.due {
			continue // ended already, or looked at earlier
		}
		if deadline := d.f.deadline(&s.limits); deadline > s.now {
			d.f.due = deadline
			s.due.push(dueFlow{deadline, d.f})
			continue
		}
		s.end(d.f)
	}
}

// tick ends what is overdue and flushes the logs.
func (s *sensor) tick(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(now.UnixNano())
	if err := s.logs.flush(); err != nil {
		s.logs.errors = append(s.logs.errors[:0], err) // one is enough to tell
	}
	s.logs.turn(now)
}

// finish ends all flows, oldest first, and closes the logs.
func (s *sensor) finish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := make([]*flow, 0, len(s.flows))
	for _, f := range s.flows {
		rest = append(rest, f)
	}
	slices.SortFunc(rest, func(a, b *flow) int { return int(a.id - b.id) })
	for _, f := range rest {
		s.end(f)
	}
	return s.logs.close()
}

// weird logs what a frame had wrong.
func (s *sensor) weird(t int64, name string) {
	s.counts.weirds++
	s.logs.write("weird", s.logs.weird(t, name))
}

// dueFlow is a flow and the time to look at it.
type dueFlow struct {
	at int64
	f  *flow
}

// dueHeap is a binary heap of flows by time, earliest first. A flow may be in
// it more than once; only the entry with its current due time counts.
type dueHeap []dueFlow

func (h *dueHeap) push(d dueFlow) {
	*h = append(*h, d)
	q, i := *h, len(*h)-1
	for i > 0 && q[i].at < q[(i-1)/2].at {
		q[i], q[(i-1)/2] = q[(i-1)/2], q[i]
		i = (i - 1) / 2
	}
}

func (h *dueHeap) pop() dueFlow {
	q := *h
	top, last := q[0], len(q)-1
	q[0], q[last] = q[last], dueFlow{}
	q = q[:last]
	*h = q
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2; child++ {
			if child < len(q) && q[child].at < q[least].at {
				least = child
			}
		}
		if least == i {
			return top
		}
		q[i], q[least] = q[least], q[i]
		i = least
	}
}
