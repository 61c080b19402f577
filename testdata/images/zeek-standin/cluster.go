package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// backendScript makes Zeek's nodes talk by ZeroMQ. It comes first on the command
// line.
const backendScript = "frameworks/cluster/backend/zeromq"

// lastBreath is the time that a node takes for ending, after it was told to and
// before its connections end. All of a cluster told at once therefore lose lines, as
// with Zeek: the logger is gone by then.
const lastBreath = 300 * time.Millisecond

// member is this process as a node of a cluster. It runs scripts and analyses as a
// process by itself does, but only loggers write logs: the others send their lines to
// them. Analysis is of one process: no member knows what another one saw.
type member struct {
	layoutNode
	layout        []layoutNode
	telemetryAddr string // ZEEK_TELEMETRY_LISTEN_ADDRESS
	source        bool   // it reads packets
}

// joinCluster finds the node that CLUSTER_NODE names in the layout of the working
// directory; nil is a process by itself.
func joinCluster(o options, getenv func(string) string) (*member, error) {
	name := getenv("CLUSTER_NODE")
	if name == "" {
		return nil, nil
	}
	if len(o.scripts) == 0 || o.scripts[0] != backendScript {
		return nil, fmt.Errorf("node %s: %s has to be the first script", name, backendScript)
	}
	text, err := os.ReadFile(layoutFile)
	if err != nil {
		return nil, fmt.Errorf("can't find %s: %w", layoutFile, err)
	}
	nodes, err := parseLayout(string(text))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", layoutFile, err)
	}
	i := slices.IndexFunc(nodes, func(n layoutNode) bool { return n.name == name })
	if i < 0 {
		return nil, fmt.Errorf("node %s is not in %s", name, layoutFile)
	}
	return &member{
		layoutNode: nodes[i], layout: nodes,
		telemetryAddr: getenv("ZEEK_TELEMETRY_LISTEN_ADDRESS"), source: o.iface != "",
	}, nil
}

// script is what a process starts with, before its own scripts: metrics are served
// where the layout says, and a logger rotates.
func (m *member) script() script {
	s := defaultScript()
	if m != nil {
		s.metricsPort, s.metricsAddr = int(m.metricsPort), cmp.Or(m.telemetryAddr, m.ip.String())
		if m.kind == nodeLogger { // base/frameworks/cluster/nodes/logger.zeek; archive-log is zeekctl's
			s.rotate, s.postprocessor = time.Hour, "archive-log"
		}
	}
	return s
}

// run is the node's life until ctx ends.
func (m *member) run(ctx context.Context, iface string, script script, faults faults, s *sensor, stderr io.Writer) error {
	s.node, s.logs.peer = m, m.name
	closeBroker, err := m.broker()
	if err != nil {
		return err
	}
	defer closeBroker()
	metrics, err := serveMetrics(script, faults.metricsFile, s)
	if err != nil {
		return err
	}
	defer metrics.stop()
	if m.kind == nodeLogger {
		return m.logger(ctx, script, s)
	}
	s.logs.push = newPush(m.loggers(), stderr)
	m.hello(s)
	if m.source {
		err = listen(ctx, iface, script, faults, s, stderr)
	} else {
		idle(ctx, script, s)
	}
	time.Sleep(lastBreath)
	return errors.Join(err, s.finish())
}

// logger writes what the others send. Told to end it writes what has arrived and
// leaves at once.
func (m *member) logger(ctx context.Context, script script, s *sensor) error {
	p, err := listenLogs(net.JoinHostPort(m.ip.String(), strconv.Itoa(int(m.port))), s)
	if err != nil {
		return err
	}
	m.hello(s)
	idle(ctx, script, s)
	p.close()
	return s.finish()
}

// idle is the life of a node without packets.
func idle(ctx context.Context, script script, s *sensor) {
	st := newStats(s, script.statsInterval)
	st.report(time.Now())
	for ticks := time.NewTicker(tick); ; {
		select {
		case <-ctx.Done():
			ticks.Stop()
			st.report(time.Now())
			return
		case now := <-ticks.C:
			st.tick(now)
			s.tick(now)
		}
	}
}

// broker opens the two ports by which all nodes would talk. Nobody has anything to
// say here, but a second cluster in the namespace finds them taken.
func (m *member) broker() (closeAll func(), err error) {
	var open []net.Listener
	closeAll = func() {
		for _, l := range open {
			l.Close()
		}
	}
	if m.kind != nodeManager {
		return closeAll, nil
	}
	for _, port := range []string{"5555", "5556"} { // XPUB, XSUB
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("ZeroMQ: Failed to bind: %w", err)
		}
		open = append(open, l)
	}
	return closeAll, nil
}

// loggers are the addresses to which lines are sent.
func (m *member) loggers() (addresses []string) {
	for _, n := range m.layout {
		if n.kind == nodeLogger {
			addresses = append(addresses, net.JoinHostPort(n.ip.String(), strconv.Itoa(int(n.port))))
		}
	}
	return addresses
}

// hello logs that every other node was met.
func (m *member) hello(s *sensor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	host, _ := os.Hostname() // it is part of a name that nobody reads
	for _, n := range m.layout {
		if n.name == m.name {
			continue
		}
		id := fmt.Sprintf("zeromq_%s_%s_%s", n.name, host, s.seeds.identifier('N', n.name))
		o := s.logs.object(time.Now().UnixNano())
		o.text("node", m.name)
		o.text("message", fmt.Sprintf("got hello from %s (%s)", n.name, id))
		s.logs.write("cluster", s.logs.done(o))
	}
}

// services is the manager's /services.json, Prometheus' HTTP service discovery: all
// nodes, in the order of a hash table. Where one address is given for listening, all
// of them are said to be there.
func (m *member) services(w http.ResponseWriter, _ *http.Request) {
	targets := make([]string, 0, len(m.layout))
	for _, n := range m.layout {
		targets = append(targets, net.JoinHostPort(cmp.Or(m.telemetryAddr, n.ip.String()), strconv.Itoa(int(n.metricsPort))))
	}
	slices.Reverse(targets)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode([]map[string]any{{"targets": targets, "labels": map[string]string{}}})
}

// cluster writes the families that the nodes of a cluster have.
func (m *exposition) cluster(n *member) {
	for _, name := range []string{
		"zeek_cluster_zeromq_xpub_drops_total", "zeek_cluster_zeromq_onloop_drops_total", "zeek_cluster_zeromq_msg_errors_total",
	} {
		m.single(name, "counter", "Number of events that ZeroMQ dropped.", 0)
	}
	m.family("zeek_cluster_onloop_queue_blocks_total", "counter", "Number of times that the queue was full.")
	m.value("zeek_cluster_onloop_queue_blocks_total", `{tag="ZeroMQ"}`, 0)
	m.single("zeek_cluster_core_outgoing_events_total", "counter", "Number of outgoing events.", float64(len(n.layout)-1))
	m.single("zeek_cluster_core_incoming_events_total", "counter", "Number of incoming events.", float64(len(n.layout)-1))
	if n.kind != nodeManager {
		return
	}
	for _, end := range []string{"frontend", "backend"} {
		for _, what := range []string{"messages_received", "bytes_received", "messages_sent", "bytes_sent"} {
			m.single("zeek_cluster_zeromq_proxy_"+end+"_"+what+"_total", "counter",
				strings.ReplaceAll("Number of "+what+" at the "+end+".", "_", " "), float64(len(n.layout)))
		}
	}
}
