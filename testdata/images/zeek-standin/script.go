package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// script holds what the stand-in takes from Zeek script text.
type script struct {
	metricsPort   int           // Telemetry::metrics_port; 0: not served
	metricsAddr   string        // Telemetry::metrics_address
	recvBuffer    int           // PacketSource::UDP::udp_recv_buffer_size, bytes
	datagramLimit int           // PacketSource::UDP::recvmmsg_buffer_size, bytes; longer datagrams are cut
	logDir        string        // Log::default_logdir; "": the working directory
	statsInterval time.Duration // Stats::report_interval
	rotate        time.Duration // Log::default_rotation_interval; 0: never
	columns       string        // the file for the types of the logs' fields; "": none is asked for
	vniField      string        // "vxlan_vni", "geneve_vni" or "geneve_vxlan_vni" where a script made VNIs part of the connection key
}

// keyed are those of a packet's VNIs that are part of the connection key.
func (s script) keyed(v vnis) vnis {
	switch s.vniField {
	case "geneve_vni":
		v.vxlan = noVNI
	case "vxlan_vni":
		v.geneve = noVNI
	case "geneve_vxlan_vni":
	default:
		return noTunnel()
	}
	return v
}

// defaultScript has the values that Zeek 9 starts with.
func defaultScript() script {
	return script{
		metricsAddr:   "0.0.0.0",
		recvBuffer:    16 << 20,
		datagramLimit: 9248,
		statsInterval: 5 * time.Minute,
	}
}

// loadScript applies the script files of opts in order, then its -e text.
// Names that are no files ("local", a package of Zeek's own) are skipped.
func loadScript(opts options, stderr io.Writer) (script, error) {
	s := defaultScript()
	texts := make([]string, 0, len(opts.scripts)+len(opts.exec))
	for _, name := range opts.scripts {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		texts = append(texts, string(text))
	}
	for _, text := range append(texts, opts.exec) {
		if err := s.apply(text, stderr); err != nil {
			return s, err
		}
	}
	return s, nil
}

// apply reads the redef and @load lines of text. What it does not know it
// names on stderr, because Zeek would have acted on it or refused it.
func (s *script) apply(text string, stderr io.Writer) error {
	text = withoutComments(text)
	s.columns = cmp.Or(s.columns, columnsFile(text))
	for _, m := range regexp.MustCompile(`@load\s+(\S+)`).FindAllStringSubmatch(text, -1) {
		if field, ok := strings.CutPrefix(strings.TrimSuffix(m[1], ".zeek"), "policy/frameworks/conn_key/packet_source/udp/"); ok {
			s.vniField = field
		}
	}
	for _, m := range regexp.MustCompile(`redef\s+([\w:]+)\s*\+?=\s*([^;]+);`).FindAllStringSubmatch(text, -1) {
		if err := s.redef(m[1], strings.TrimSpace(m[2]), stderr); err != nil {
			return fmt.Errorf("redef %s: %w", m[1], err)
		}
	}
	return nil
}

// withoutComments cuts every line at the first # outside of quotes.
func withoutComments(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		quoted := false
		cut := strings.IndexFunc(line, func(r rune) bool {
			quoted = quoted != (r == '"')
			return r == '#' && !quoted
		})
		if cut >= 0 {
			line = line[:cut] + "\n"
		}
		out.WriteString(line)
	}
	return out.String()
}

// redef sets the one option.
func (s *script) redef(name, value string, stderr io.Writer) error {
	var err error
	switch name {
	case "Telemetry::metrics_port":
		s.metricsPort, err = strconv.Atoi(strings.TrimSuffix(value, "/tcp"))
	case "Telemetry::metrics_address":
		s.metricsAddr, err = strconv.Unquote(value)
	case "PacketSource::UDP::udp_recv_buffer_size":
		s.recvBuffer, err = parseCount(value)
	case "PacketSource::UDP::recvmmsg_buffer_size":
		s.datagramLimit, err = parseCount(value)
	case "Log::default_logdir":
		s.logDir, err = strconv.Unquote(value)
	case "Stats::report_interval":
		s.statsInterval, err = parseInterval(value)
	case "Log::default_rotation_interval":
		s.rotate, err = parseInterval(value)
	case "LogAscii::use_json":
		if value != "T" {
			err = fmt.Errorf("the stand-in writes JSON only")
		}
	default:
		if !harmless(name) {
			fmt.Fprintf(stderr, "zeek-standin: ignored: redef %s\n", name)
		}
	}
	return err
}

// harmless says whether an option changes nothing that the stand-in does.
func harmless(name string) bool {
	switch name {
	case "ignore_checksums", "dns_max_queries", "CaptureLoss::watch_interval":
		return true
	}
	return false
}

// parseCount evaluates a product of whole numbers, such as 32 * 1024 * 1024.
func parseCount(text string) (int, error) {
	product := 1
	for factor := range strings.SplitSeq(text, "*") {
		n, err := strconv.Atoi(strings.TrimSpace(factor))
		if err != nil {
			return 0, err
		}
		product *= n
	}
	return product, nil
}

// parseInterval reads Zeek's interval constants: a number and sec, min, hr or day.
func parseInterval(text string) (time.Duration, error) {
	m := regexp.MustCompile(`^([\d.]+)\s*(usec|msec|sec|min|hr|day)s?$`).FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("not an interval: %q", text)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	unit := map[string]time.Duration{
		"usec": time.Microsecond, "msec": time.Millisecond, "sec": time.Second,
		"min": time.Minute, "hr": time.Hour, "day": 24 * time.Hour,
	}[m[2]]
	return time.Duration(n * float64(unit)), err
}
