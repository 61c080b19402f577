package zeeklog

import (
	"slices"
	"strings"
)

// perWorker tells why a difference between a cluster and one process that had the
// same frames is none of the path: each worker analyses its own connections, and
// what Zeek knows across connections is collected by other processes, at their own
// times. Connections, protocol logs and files are not among it.
//
// It returns "" for what must be equal. Source: scripts of Zeek 9.0, as named.
func perWorker(d keyed, w alone) string {
	if why := wholeLogs[d.Log]; why != "" {
		return why
	}
	switch {
	case inventories[d.Log]: // policy/protocols/conn/known-hosts.zeek and its like, base/frameworks/software
		return "a list that workers fill through the proxies, each at its own time"
	case d.Log == "notice" && sums(d): // base/frameworks/sumstats/cluster.zeek
		return "the manager adds up what each worker counted, and its intervals are its own"
	case d.Want == "" && w.said[d.Log+" "+d.Got]: // base/files/x509/main.zeek, base/frameworks/notice/main.zeek
		return "each worker suppresses by itself what it has logged before"
	case d.Log == "ssl" && only(d, "validation_status"): // policy/protocols/ssl/validate-certs.zeek
		return "an intermediate certificate that one worker saw reaches the others later"
	case w.parts[d.key] && (d.Log == "files" || d.Log == "http" && only(d, "resp_fuids", "resp_mime_types", "resp_filenames")): // base/protocols/http/files.zeek
		return "a file that came in parts by several connections is put together by each worker for itself"
	case d.Log == "files" && onAnnounced(d), d.Log == "ftp" && only(d, "fuid", "mime_type", "file_size"), d.Log == "irc" && only(d, "fuid", "dcc_mime_type"):
		return announcedElsewhere
	case d.Log == "conn":
		return ofConnection(d)
	}
	return ""
}

// alone is what one process wrote that had all connections.
type alone struct {
	said  map[string]bool // lines of logs in which things are suppressed, after the log's name
	parts map[string]bool // keys of connections that brought parts of files
}

// wholeLogs are those of which no line needs to agree.
var wholeLogs = map[string]string{
	// base/frameworks/notice/weird.zeek and the core's Weird::sampling_threshold
	"weird": "each worker counts by itself how often it has seen a weird, and leaves out what it saw often",
	// base/protocols/dhcp/main.zeek
	"dhcp":   "the manager puts a conversation together from what workers tell it",
	"tunnel": severalSee,
}

const (
	announcedElsewhere = "a data connection was announced on another worker, which told the others too late"
	severalSee         = "a tunnel's packets go to the workers of the flows in it, so several workers see the tunnel"
)

// ofConnection is perWorker of a line of conn.log.
func ofConnection(d keyed) string {
	switch {
	case d.Cause == TimedOut && strings.HasPrefix(d.Connection, "icmp "): // the core's ICMPAnalyzer
		return "ICMP errors go to the worker of the flow that they are about, and Zeek takes those of two hosts for one connection"
	case d.Cause == TimedOut && carries(d):
		return severalSee
	case only(d, "service") && announced(d): // base/protocols/ftp/main.zeek, irc/dcc-send.zeek
		return announcedElsewhere
	}
	return ""
}

// sums tells notices of scripts that count over connections.
func sums(d keyed) bool {
	return slices.ContainsFunc([]string{"Scan::", "SSH::Password_Guessing", "FTP::Bruteforcing", "HTTP::SQL_Injection_", "Traceroute::", "SMTP::Blocklist_", "Weird::"},
		func(prefix string) bool { return strings.HasPrefix(d.kind, prefix) })
}

// carries tells a connection that is a tunnel: by what Zeek says that it is, which is
// nothing where it does not open it, or by the port of one.
func carries(d keyed) bool {
	if strings.HasPrefix(d.Connection, "unknown_transport ") {
		return true
	}
	for _, port := range []string{"2152", "3544", "4789", "5072", "6081"} { // GTP-U, Teredo, VXLAN, AYIYA, GENEVE
		if strings.HasPrefix(d.Connection, "udp ") && strings.HasSuffix(d.Connection, ":"+port) {
			return true
		}
	}
	for _, tunnel := range []string{"vxlan", "geneve", "teredo", "ayiya", "gtpv1"} {
		if strings.Contains(d.Got+d.Want, `service="`+tunnel) {
			return true
		}
	}
	return false
}

// only tells whether two lines differ in these fields and no other.
func only(d keyed, fields ...string) bool {
	return len(d.Fields) > 0 && !slices.ContainsFunc(d.Fields, func(f FieldChange) bool { return !slices.Contains(fields, f.Field) })
}

// onAnnounced tells a file of such a connection.
func onAnnounced(d keyed) bool {
	return strings.Contains(d.Got+d.Want, `source="FTP_DATA"`) || strings.Contains(d.Got+d.Want, `source="IRC_DATA"`)
}

// announced tells a service that Zeek knows from another connection only.
func announced(d keyed) bool {
	for _, f := range d.Fields {
		for _, s := range []string{"ftp-data", "irc-dcc-data", "gridftp-data"} {
			if f.Got == "" && f.Want == s {
				return true
			}
		}
	}
	return false
}

// workersReason returns what tells why a difference follows from dividing the
// connections among workers; nil where there is but one.
func (r Rules) workersReason(offline Logs) func(keyed) string {
	if r.Workers < 2 {
		return nil
	}
	v, w := r.view(offline), alone{said: map[string]bool{}, parts: map[string]bool{}}
	for _, log := range []string{"notice", "x509", "ocsp"} {
		for _, l := range v.comparable(log, offline[log]) {
			w.said[log+" "+l.text] = true
		}
	}
	for _, r := range offline["http"] {
		if r.number("status_code") == 206 {
			w.parts[connKey(r)] = true
		}
	}
	return func(d keyed) string { return perWorker(d, w) }
}
