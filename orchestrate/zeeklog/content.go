package zeeklog

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
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

// view is how the logs of one process are looked at.
type view struct {
	columns, known Columns
	names          names
}

// content returns what a line says of the traffic, sorted by field: with names
// for identifiers, without times, intervals and the connection's context. ok is
// false for a line that says nothing of it.
func (v view) content(log string, r Record) (line string, ok bool) {
	if _, skip := process[log]; skip || !traffic(log, r) {
		return "", false
	}
	var b strings.Builder
	for _, f := range fields(log, r) {
		if text := v.text(log, r, f); text != "" {
			fmt.Fprintf(&b, "%s=%q ", f, text)
		}
	}
	return strings.TrimSuffix(b.String(), " "), true
}

// fields are those of any of the records that say something of the traffic.
func fields(log string, records ...Record) []string {
	if log == "conn" {
		return connFields
	}
	all := map[string]bool{}
	for _, r := range records {
		for f := range r {
			all[f] = true
		}
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(all)), func(f string) bool {
		return ignored(f) || f == "uid" && !slices.ContainsFunc(records, func(r Record) bool { return r["id.orig_h"] == nil })
	})
}

// text is a field's text as it is compared; "" for what is measured. The services
// of a connection are a set that Zeek joins into one string.
func (v view) text(log string, r Record, field string) string {
	value := r[field]
	switch v.columns.shape(v.known, log, field, value) {
	case measured:
		return ""
	case ordered, unsorted:
		list, ok := value.([]any)
		if !ok {
			break
		}
		return v.list(log, field, list)
	}
	text := valueText(value)
	if _, ok := value.(string); ok {
		text = v.quoting(log, r, text)
	}
	if field == "service" && strings.Contains(text, ",") {
		parts := strings.Split(text, ",")
		slices.Sort(parts)
		text = strings.Join(parts, ",")
	}
	return text
}

// quotedTime is a time in text: Zeek names a file that it extracts by when it was
// last seen. quotedInterval is how its script duration_to_mins_secs writes one.
var (
	quotedTime     = regexp.MustCompile(`\b\d{9,10}\.\d+\b`)
	quotedInterval = regexp.MustCompile(`\b\d+m\d+s\b`)
)

// quoting returns a text with names for identifiers, and without measured times:
// those near the line's own in a text that also quotes an identifier, and the
// intervals that notices tell.
func (v view) quoting(log string, r Record, text string) string {
	if log == "notice" {
		text = quotedInterval.ReplaceAllString(text, "?m?s")
	}
	named := v.names.rename(log, text)
	if named == text {
		return text
	}
	text = quotedTime.ReplaceAllStringFunc(text, func(number string) string {
		at, err := strconv.ParseFloat(number, 64)
		if err != nil || math.Abs(at-r.seconds("ts")) > PathJitter.Seconds() {
			return number
		}
		return "?"
	})
	return v.names.rename(log, text)
}

// list is the text of a set or vector, the first in sorted order.
func (v view) list(log, field string, list []any) string {
	var parts []string
	for _, element := range list {
		parts = append(parts, v.names.rename(log, valueText(element)))
	}
	if v.columns.shape(v.known, log, field, list) == unsorted {
		slices.Sort(parts)
	}
	return strings.Join(parts, ",")
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
	"orig_pkts", "resp_pkts", "orig_ip_bytes", "resp_ip_bytes", "missed_bytes", "tunnel_parents",
}

// ignored tells fields whose value belongs to the process and not the traffic.
func ignored(field string) bool {
	switch {
	case strings.HasPrefix(field, "id.ctx."): // the VNI of the run
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

// comparable returns a log's lines that speak of the traffic, sorted, those that
// say the same by their time.
func (v view) comparable(log string, records []Record) []line {
	var lines []line
	for _, r := range records {
		if text, ok := v.content(log, r); ok {
			lines = append(lines, line{text: text, key: endpoints(r), record: r})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.text, b.text), cmp.Compare(a.record.seconds("ts"), b.record.seconds("ts")))
	})
	if inventories[log] {
		lines = slices.CompactFunc(lines, func(a, b line) bool { return a.text == b.text })
	}
	return lines
}
