package main

import (
	"bufio"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"
	"unicode/utf8"
)

// logSet is the folder of JSON logs. Lines are collected and written by flush.
type logSet struct {
	dir    string
	rotate time.Duration // Log::default_rotation_interval; 0: never
	due    time.Time     // of the next rotation
	files  map[string]*logFile
	line   []byte
	errors []error
}

// logFile is one log and its number of lines, in all its files.
type logFile struct {
	f      *os.File // nil between a rotation and the next line
	w      *bufio.Writer
	opened time.Time
	lines  uint64
}

// newLogSet writes into dir, "" being the working directory.
func newLogSet(dir string) *logSet {
	return &logSet{dir: dir, files: make(map[string]*logFile)}
}

// write appends the line to NAME.log, which it makes at the first one, and at the
// first one after a rotation. As with Zeek, what another process left under that name
// is gone then. An error is kept for close: the packets go on.
func (l *logSet) write(name string, line []byte) {
	lf := l.files[name]
	if lf == nil {
		lf = &logFile{}
		l.files[name] = lf
	}
	if lf.w == nil {
		f, err := os.OpenFile(l.path(name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			l.errors = append(l.errors, err)
		}
		lf.f, lf.w, lf.opened = f, bufio.NewWriterSize(f, 1<<16), time.Now()
	}
	lf.lines++
	lf.w.Write(line) // the writer remembers an error, Flush reports it
}

func (l *logSet) path(name string) string { return filepath.Join(l.dir, name+".log") }

// turn rotates where it is time: at the multiples of the interval since midnight UTC.
// A finished file is named after the second in which it was opened, and, as with Zeek,
// takes the place of one that has the name.
func (l *logSet) turn(now time.Time) {
	if l.rotate <= 0 || now.Before(l.due) {
		return
	}
	first := l.due.IsZero()
	l.due = now.Truncate(l.rotate).Add(l.rotate)
	if first {
		return
	}
	for name, lf := range l.files {
		if lf.w == nil {
			continue
		}
		finished := l.path(name + lf.opened.Format(".2006-01-02-15-04-05"))
		if err := errors.Join(lf.w.Flush(), lf.f.Close(), os.Rename(l.path(name), finished)); err != nil {
			l.errors = append(l.errors, err)
		}
		lf.f, lf.w = nil, nil
	}
}

// flush hands all lines to the kernel.
func (l *logSet) flush() error {
	var errs []error
	for _, lf := range l.files {
		if lf.w != nil {
			errs = append(errs, lf.w.Flush())
		}
	}
	return errors.Join(errs...)
}

// close flushes and closes all files and returns what went wrong since the start.
func (l *logSet) close() error {
	errs := append(l.errors, l.flush())
	for _, lf := range l.files {
		if lf.w != nil {
			errs = append(errs, lf.f.Close())
		}
	}
	return errors.Join(errs...)
}

// object starts a line with a time; it returns the writer of its fields. The
// line is valid until the next one is started.
func (l *logSet) object(t int64) *object {
	o := object{b: append(l.line[:0], `{"ts":`...)}
	o.b = appendTime(o.b, t)
	return &o
}

// done ends a line and keeps its memory for the next.
func (l *logSet) done(o *object) []byte {
	l.line = append(o.b, "}\n"...)
	return l.line
}

// conn is a conn.log line; the order of fields is Zeek's.
func (l *logSet) conn(f *flow, vniField string) []byte {
	o := l.object(f.first)
	o.flow(f, vniField)
	o.text("proto", protoName(f.key.proto))
	if f.service != "" {
		o.text("service", f.service)
	}
	if f.last > f.first {
		o.seconds("duration", f.last, f.first)
		o.number("orig_bytes", f.size(fromOrig))
		o.number("resp_bytes", f.size(fromResp))
	}
	o.text("conn_state", f.state())
	o.flag("local_orig", local(f.orig))
	o.flag("local_resp", local(f.resp))
	o.number("missed_bytes", f.missed())
	if len(f.history.text) > 0 {
		o.text("history", string(f.history.text))
	}
	o.number("orig_pkts", f.sides[fromOrig].packets)
	o.number("orig_ip_bytes", f.sides[fromOrig].ipBytes)
	o.number("resp_pkts", f.sides[fromResp].packets)
	o.number("resp_ip_bytes", f.sides[fromResp].ipBytes)
	o.number("ip_proto", uint64(f.key.proto))
	return l.done(o)
}

// weird is a weird.log line that belongs to no connection.
func (l *logSet) weird(t int64, name string) []byte {
	o := l.object(t)
	o.text("name", name)
	o.flag("notice", false)
	o.text("peer", "zeek")
	o.text("source", "IP")
	return l.done(o)
}

func protoName(proto uint8) string {
	switch proto {
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	case protoICMP, protoICMPv6:
		return "icmp"
	}
	return "unknown_transport"
}

// local is Zeek's Site::is_private_addr in short.
func local(a netip.Addr) bool {
	if a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return true
	}
	if !a.Is4() {
		return false
	}
	b := a.As4()
	switch {
	case b[0] == 0, b[0] >= 240, b[0] == 100 && b[1]&0xc0 == 64, b[0] == 198 && b[1]&0xfe == 18:
		return true
	case b[0] == 192 && b[1] == 0 && (b[2] == 0 || b[2] == 2), b[0] == 198 && b[1] == 51 && b[2] == 100:
		return true
	}
	return b[0] == 203 && b[1] == 0 && b[2] == 113
}

// object writes the fields of one JSON object in order.
type object struct{ b []byte }

// flow writes the fields that name a connection.
func (o *object) flow(f *flow, vniField string) {
	o.text("uid", f.uid)
	o.addr("id.orig_h", f.orig)
	o.number("id.orig_p", uint64(f.origPort))
	o.addr("id.resp_h", f.resp)
	o.number("id.resp_p", uint64(f.respPort))
	switch vniField {
	case "geneve_vni":
		o.number("id.ctx.geneve_vni", uint64(f.key.vnis.geneve))
	case "vxlan_vni":
		o.number("id.ctx.vxlan_vni", uint64(f.key.vnis.vxlan))
	case "geneve_vxlan_vni":
		o.number("id.ctx.geneve_vni", uint64(f.key.vnis.geneve))
		o.number("id.ctx.vxlan_vni", uint64(f.key.vnis.vxlan))
	}
}

func (o *object) key(name string) {
	o.b = append(o.b, ',', '"')
	o.b = append(o.b, name...)
	o.b = append(o.b, '"', ':')
}

func (o *object) text(name, value string) {
	o.key(name)
	o.b = appendText(o.b, value)
}

func (o *object) texts(name string, values []string) {
	o.key(name)
	o.b = append(o.b, '[')
	for i, v := range values {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = appendText(o.b, v)
	}
	o.b = append(o.b, ']')
}

func (o *object) number(name string, value uint64) {
	o.key(name)
	o.b = strconv.AppendUint(o.b, value, 10)
}

func (o *object) flag(name string, value bool) {
	o.key(name)
	o.b = strconv.AppendBool(o.b, value)
}

func (o *object) addr(name string, a netip.Addr) {
	o.key(name)
	o.b = append(o.b, '"')
	o.b = a.AppendTo(o.b)
	o.b = append(o.b, '"')
}

// seconds writes the difference of two times in ns as Zeek's double.
func (o *object) seconds(name string, to, from int64) {
	o.key(name)
	o.b = strconv.AppendFloat(o.b, float64(to)/1e9-float64(from)/1e9, 'f', -1, 64)
}

// when writes a time that the traffic tells.
func (o *object) when(name string, t time.Time) { o.seconds(name, t.Unix()*1e9, 0) }

// appendTime writes ns as seconds with up to six decimals, as Zeek does.
func appendTime(b []byte, t int64) []byte {
	b = strconv.AppendFloat(b, float64(t/1000)/1e6, 'f', 6, 64)
	for b[len(b)-1] == '0' && b[len(b)-2] != '.' {
		b = b[:len(b)-1]
	}
	return b
}

// appendText writes a JSON string; bytes that are not UTF-8 are written as
// Zeek does, \\xHH.
func appendText(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch c := s[i]; {
		case r == utf8.RuneError && n == 1:
			b = append(b, '\\', '\\', 'x', hex[c>>4], hex[c&15])
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, s[i:i+n]...)
		}
		i += n
	}
	return append(b, '"')
}
