package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// metricsServer answers /metrics.
type metricsServer struct{ server *http.Server }

// serveMetrics listens where the script says; without a port it does nothing.
// A verbatim file takes the place of the sensor's own numbers.
func serveMetrics(script script, verbatim string, s *sensor) (metricsServer, error) {
	if script.metricsPort == 0 {
		return metricsServer{}, nil
	}
	addr := net.JoinHostPort(script.metricsAddr, strconv.Itoa(script.metricsPort))
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return metricsServer{}, fmt.Errorf("serve metrics: %w", err)
	}
	started := time.Now()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		if verbatim != "" {
			http.ServeFile(w, r, verbatim)
			return
		}
		writeMetrics(w, s, started)
	})
	if s.node != nil && s.node.kind == nodeManager {
		mux.HandleFunc("GET /services.json", s.node.services)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go server.Serve(l)
	return metricsServer{server}, nil
}

func (m metricsServer) stop() {
	if m.server != nil {
		m.server.Close()
	}
}

// snapshot is what the sensor tells the metrics and stats.log.
type snapshot struct {
	counters
	lines map[string]uint64 // log lines by log name
	flows int
}

func (s *sensor) snapshot() snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap := snapshot{counters: s.counts, lines: make(map[string]uint64), flows: len(s.flows)}
	for name, f := range s.logs.files {
		snap.lines[name] = f.lines
	}
	return snap
}

// writeMetrics writes Zeek's metrics as far as the stand-in has the numbers.
func writeMetrics(w io.Writer, s *sensor, started time.Time) {
	m := &exposition{w: bufio.NewWriter(w)}
	defer m.w.Flush()
	snap := s.snapshot()
	if s.node != nil {
		m.node = s.node.name
		m.cluster(s.node)
	} else {
		m.logs(snap.lines)
		m.events(snap)
	}
	m.network(snap)
	if s.node == nil || s.node.source {
		m.source(snap)
	}
	m.process(started)
}

// exposition writes Prometheus' text format, version 0.0.4.
type exposition struct {
	w    *bufio.Writer
	node string // a label of every value; "": none
}

func (m *exposition) family(name, typ, help string) {
	fmt.Fprintf(m.w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, typ)
}

func (m *exposition) value(name, labels string, v float64) {
	if m.node != "" {
		labels = fmt.Sprintf("{node=%q", m.node) + strings.TrimSuffix(","+strings.TrimPrefix(labels, "{"), ",")
		labels = strings.TrimSuffix(labels, "}") + "}"
	}
	fmt.Fprintf(m.w, "%s%s %s\n", name, labels, strconv.FormatFloat(v, 'f', -1, 64))
}

func (m *exposition) single(name, typ, help string, v float64) {
	m.family(name, typ, help)
	m.value(name, "", v)
}

// logs writes the log stream and log writer families.
func (m *exposition) logs(lines map[string]uint64) {
	names := slices.Sorted(maps.Keys(lines))
	m.family("zeek_log_stream_writes_total", "counter", "Total number of log writes for the given stream.")
	for _, name := range names {
		module := logModule(name)
		m.value("zeek_log_stream_writes_total", fmt.Sprintf(`{module=%q,stream="%s::LOG"}`, module, module), float64(lines[name]))
	}
	m.family("zeek_log_writer_writes_total", "counter",
		"Total number of log writes passed to a concrete log writer not vetoed by stream or filter policies.")
	for _, name := range names {
		module := logModule(name)
		m.value("zeek_log_writer_writes_total",
			fmt.Sprintf(`{filter_name="default",module=%q,path=%q,stream="%s::LOG",writer="Log::WRITER_ASCII"}`, module, name, module),
			float64(lines[name]))
	}
	m.family("zeek_log_writer_discarded_writes_total", "counter", "Total number of log writes discarded due to size limitations.")
	for _, name := range names {
		module := logModule(name)
		m.value("zeek_log_writer_discarded_writes_total",
			fmt.Sprintf(`{filter_name="default",module=%q,path=%q,stream="%s::LOG",writer="Log::WRITER_ASCII"}`, module, name, module), 0)
	}
}

// logModule is the Zeek module that writes a log: DNS for dns, Conn for conn.
func logModule(name string) string {
	switch name {
	case "dns", "http", "ssl":
		return strings.ToUpper(name)
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

// network writes the packet source's and the session table's families.
func (m *exposition) network(s snapshot) {
	m.single("zeek_net_received_bytes_total", "counter", "Total number of bytes received", float64(s.bytes))
	m.single("zeek_net_received_packets_total", "counter", "Total number of packets received", float64(s.packets))
	m.single("zeek_net_timestamp_seconds", "gauge", "The current network time.", float64(s.lastPacket)/1e9)
	m.family("zeek_total_sessions_total", "counter", "Total number of sessions")
	m.protocols("zeek_total_sessions_total", float64(s.tcp), float64(s.udp), float64(s.icmp))
	m.family("zeek_active_sessions", "gauge", "Active Zeek Sessions")
	m.protocols("zeek_active_sessions", float64(s.activeTCP), float64(s.activeUDP), float64(s.activeICMP))
}

// source writes the families that only a process with a packet source has.
func (m *exposition) source(s snapshot) {
	m.single("zeek_net_dropped_packets_total", "counter", "Total number of packets dropped", float64(s.dropped)) // as with Zeek: not those that its socket dropped
	m.single("zeek_net_link_packets_total", "counter", "Total number of packets on the packet source link before filtering", float64(s.packets))
	m.single("zeek_net_packet_lag_seconds", "gauge", "Difference of network time and wallclock time in seconds.", float64(s.lastLag)/1e9)
}

func (m *exposition) protocols(name string, tcp, udp, icmp float64) {
	m.value(name, `{protocol="icmp"}`, icmp)
	m.value(name, `{protocol="udp"}`, udp)
	m.value(name, `{protocol="tcp"}`, tcp)
}

// events writes how often those event handlers would have been called that
// the stand-in has a count for.
func (m *exposition) events(s snapshot) {
	m.family("zeek_event_handler_invocations_total", "counter", "Number of times the given event handler was called")
	for _, e := range []struct {
		name  string
		count uint64
	}{
		{"zeek_init", 1},
		{"new_connection", s.tcp + s.udp + s.icmp},
		{"connection_established", s.established},
		{"connection_state_remove", s.removed},
		{"dns_message", s.dns},
		{"http_request", s.httpRequests},
		{"http_reply", s.httpReplies},
		{"ssl_client_hello", s.tlsHellos},
		{"net_weird", s.weirds},
	} {
		m.value("zeek_event_handler_invocations_total", fmt.Sprintf("{name=%q}", e.name), float64(e.count))
	}
}

// process writes the process families.
func (m *exposition) process(started time.Time) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err == nil {
		m.single("process_cpu_user_seconds_total", "counter", "Total user CPU time spent", float64(usage.Utime.Nano())/1e9)
		m.single("process_cpu_system_seconds_total", "counter", "Total system CPU time spent", float64(usage.Stime.Nano())/1e9)
	}
	resident, virtual := memory()
	m.single("process_resident_memory_bytes", "gauge", "Resident memory size", float64(resident))
	m.single("process_virtual_memory_bytes", "gauge", "Virtual memory size", float64(virtual))
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		m.single("process_open_fds", "gauge", "Number of open file descriptors", float64(len(fds)))
	}
	m.single("process_start_time_seconds", "gauge", "Process start time", float64(started.UnixNano())/1e9)
	m.family("zeek_version_info", "gauge", "The Zeek version")
	m.value("zeek_version_info", fmt.Sprintf(
		`{beta="true",commit="0",debug="false",major="9",minor="0",patch="0",version_number="90000",version_string=%q}`, version), 1)
}

// memory reads the process's resident and virtual size in bytes, proc(5) statm.
func memory() (resident, virtual uint64) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, 0
	}
	fmt.Sscan(string(text), &virtual, &resident)
	page := uint64(os.Getpagesize())
	return resident * page, virtual * page
}
