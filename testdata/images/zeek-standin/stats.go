package main

import "time"

// stats writes stats.log, one line per interval with what happened in it.
type stats struct {
	sensor   *sensor
	interval time.Duration
	next     time.Time
	before   snapshot
}

func newStats(s *sensor, interval time.Duration) *stats {
	return &stats{sensor: s, interval: interval, next: time.Now().Add(interval)}
}

// tick reports when the interval is over.
func (st *stats) tick(now time.Time) {
	if now.Before(st.next) {
		return
	}
	st.next = now.Add(st.interval)
	st.report(now)
}

// report writes one line.
func (st *stats) report(now time.Time) {
	snap, before := st.sensor.snapshot(), st.before
	st.before = snap
	resident, _ := memory()
	s := st.sensor
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.logs.object(now.UnixNano())
	o.text("peer", s.logs.peer)
	o.number("mem", resident>>20)
	o.number("pkts_proc", snap.packets-before.packets)
	o.number("bytes_recv", snap.bytes-before.bytes)
	o.number("pkts_dropped", snap.dropped-before.dropped)
	o.number("pkts_link", snap.packets-before.packets)
	o.key("pkt_lag")
	o.b = append(o.b, "0.0"...)
	o.number("active_tcp_conns", uint64(snap.activeTCP))
	o.number("active_udp_conns", uint64(snap.activeUDP))
	o.number("active_icmp_conns", uint64(snap.activeICMP))
	o.number("tcp_conns", snap.tcp-before.tcp)
	o.number("udp_conns", snap.udp-before.udp)
	o.number("icmp_conns", snap.icmp-before.icmp)
	s.logs.write("stats", s.logs.done(o))
}
