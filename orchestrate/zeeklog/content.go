package zeeklog

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// process are logs about the process, the machine or the clock, and not about
// the traffic: a live process and one that reads a file never agree on them.
var process = map[string]string{
	"stats":          "memory, lag and events per wall-clock interval; a process that reads a file writes none",
	"capture_loss":   "percentages per wall-clock interval",
	"packet_filter":  "the filter of a live interface; written at its start",
	"reporter":       "messages of the process: its signals, missing databases, what it thinks of a trace file",
	"loaded_scripts": "which scripts were loaded",
	"telemetry":      "counters of the process",
	"prof":           "a profile of the process",
	"cluster":        "messages between processes",
	"broker":         "messages between processes",
	"config":         "settings of the process",
	"print":          "standard output of scripts",
}

// inventories are tables that Zeek logs once per entry and expires by its own
// clock: of them, what is in counts, and not how often.
var inventories = map[string]bool{
	"known_hosts": true, "known_services": true, "known_certs": true, "known_modbus": true,
	"known_devices": true, "known_routers": true, "known_domains": true, "software": true,
}

// processNotes begin the notices about the process: how much traffic the
// interface brought in an interval, whether the filter could be installed.
var processNotes = []string{"CaptureLoss::", "PacketFilter::", "Weird::Activity_Suppressed"}

// content returns what a line says of the traffic, sorted by field: without
// times, intervals, identifiers and the connection's context. ok is false for a
// line that says nothing of it.
func content(log string, r Record) (line string, ok bool) {
	if _, skip := process[log]; skip || !traffic(log, r) {
		return "", false
	}
	if log == "conn" {
		return join(r, connFields), true
	}
	fields := slices.DeleteFunc(slices.Sorted(maps.Keys(r)), func(f string) bool { return ignored(f) || r[f] == nil })
	return join(r, fields), true
}

func join(r Record, fields []string) string {
	var b strings.Builder
	for _, f := range fields {
		if text := fieldText(r, f); text != "" {
			fmt.Fprintf(&b, "%s=%q ", f, text)
		}
	}
	return strings.TrimSuffix(b.String(), " ")
}

// fieldText is a field's text; the services of a connection are a set that
// Zeek joins into one string.
func fieldText(r Record, field string) string {
	text := r.text(field)
	if field == "service" && strings.Contains(text, ",") {
		parts := strings.Split(text, ",")
		slices.Sort(parts)
		text = strings.Join(parts, ",")
	}
	return text
}

// traffic leaves single lines out that speak of the process. A known service
// without a name is entered when a timer of the process looks at the
// connection, not when the traffic shows it.
func traffic(log string, r Record) bool {
	switch log {
	case "notice":
		note := r.text("note")
		return !slices.ContainsFunc(processNotes, func(p string) bool { return strings.HasPrefix(note, p) })
	case "known_services":
		return strings.Trim(r.text("service"), ",") != ""
	}
	return true
}

// connFields are what two processes must agree on for every connection. The
// payload sizes are not among them: Zeek leaves them out where the first and
// the last packet have the same time.
var connFields = []string{
	"id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto", "service", "conn_state", "history",
	"orig_pkts", "resp_pkts", "orig_ip_bytes", "resp_ip_bytes", "missed_bytes",
}

// times are the fields of type time and interval that the logs of Zeek's own
// scripts take from the clock; JSON writes both as plain numbers. A replay has
// times of its own. Times that are in the packets (of NTP, certificates, SMB
// files, leases) are traffic and not here.
var times = []string{"ts", "duration", "rtt", "ts_delta", "up_since"}

// ignored tells fields whose value belongs to the process and not the traffic.
func ignored(field string) bool {
	switch {
	case slices.Contains(times, field):
		return true
	case strings.HasPrefix(field, "id.ctx."): // the VNI of the run
		return true
	case field == "uid" || field == "uids" || field == "fuid" || field == "fuids",
		strings.HasSuffix(field, "_uid"), strings.HasSuffix(field, "_uids"),
		strings.HasSuffix(field, "_fuid"), strings.HasSuffix(field, "_fuids"):
		return true
	case field == "tunnel_parents" || strings.HasPrefix(field, "tunnel."): // hex ids of outer connections
		return true
	case field == "peer" || field == "peer_descr" || field == "node": // names of the process
		return true
	}
	return false
}

// endpoints names the connection that a line belongs to, in conn.log's own
// direction; "" for a line that belongs to none.
func endpoints(r Record) string {
	if r["id.orig_h"] == nil {
		return ""
	}
	name := fmt.Sprintf("%s → %s", endpoint(r, "id.orig"), endpoint(r, "id.resp"))
	if proto := r.text("proto"); proto != "" {
		name = proto + " " + name
	}
	return name
}

func endpoint(r Record, side string) string {
	host := r.text(side + "_h")
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + r.text(side+"_p")
}

// line is one comparable line.
type line struct {
	text   string
	key    string // the connection
	record Record
}

// comparable returns a log's lines that speak of the traffic, sorted.
func (l Logs) comparable(log string) []line {
	var lines []line
	for _, r := range l[log] {
		if text, ok := content(log, r); ok {
			lines = append(lines, line{text: text, key: endpoints(r), record: r})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(a.text, b.text) })
	if inventories[log] {
		lines = slices.CompactFunc(lines, func(a, b line) bool { return a.text == b.text })
	}
	return lines
}
