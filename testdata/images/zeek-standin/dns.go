package main

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
)

// dnsMessage logs a response. Like Zeek's it is one line per answered query;
// unlike with Zeek, a query without an answer is not logged. It returns
// whether b is DNS at all.
func (f *flow) dnsMessage(s *sensor, t int64, b []byte) bool {
	m, ok := parseDNS(b)
	if !ok {
		return false
	}
	s.counts.dns++
	if !m.response {
		return true
	}
	o := s.logs.object(t)
	o.flow(f, s.script.vniField)
	o.text("proto", protoName(f.key.proto))
	o.number("trans_id", uint64(m.id))
	o.text("query", m.query)
	o.number("qclass", uint64(m.class))
	o.text("qclass_name", "C_INTERNET")
	o.number("qtype", uint64(m.qtype))
	o.text("qtype_name", dnsType(m.qtype))
	o.number("rcode", uint64(m.rcode))
	o.text("rcode_name", dnsRcode(m.rcode))
	o.flag("AA", m.flags&0x0400 != 0)
	o.flag("TC", m.flags&0x0200 != 0)
	o.flag("RD", m.flags&0x0100 != 0)
	o.flag("RA", m.flags&0x0080 != 0)
	o.number("Z", 0)
	if len(m.answers) > 0 {
		o.texts("answers", m.answers)
	}
	o.flag("rejected", m.rcode != 0 && len(m.answers) == 0)
	s.logs.write("dns", s.logs.done(o))
	return true
}

// dnsStream cuts a TCP stream into messages, RFC 1035 section 4.2.2.
func (f *flow) dnsStream(s *sensor, p *packet, dir int) {
	const longest = 2 + 0xffff
	buf := append(f.app.dns[dir], p.data...)
	for len(buf) >= 2 {
		end := 2 + int(binary.BigEndian.Uint16(buf))
		if len(buf) < end {
			break
		}
		f.dnsMessage(s, p.time, buf[2:end])
		buf = buf[end:]
	}
	f.app.dns[dir] = buf[:min(len(buf), longest)]
}

// dnsContent is the header, the question, and the answers in printable form.
type dnsContent struct {
	id, flags    uint16
	response     bool
	rcode        uint8
	query        string
	qtype, class uint16
	answers      []string
}

// parseDNS reads RFC 1035 section 4. Answers that are cut are left out.
func parseDNS(b []byte) (dnsContent, bool) {
	var m dnsContent
	if len(b) < 12 || binary.BigEndian.Uint16(b[4:]) != 1 {
		return m, false
	}
	m.id, m.flags = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	m.response, m.rcode = m.flags&0x8000 != 0, uint8(m.flags&0x000f)
	name, off := dnsName(b, 12)
	if off < 0 || len(b) < off+4 {
		return m, false
	}
	m.query, m.qtype, m.class = name, binary.BigEndian.Uint16(b[off:]), binary.BigEndian.Uint16(b[off+2:])
	if !m.response {
		return m, true
	}
	off += 4
	for range binary.BigEndian.Uint16(b[6:]) {
		var answer string
		if answer, off = dnsAnswer(b, off); off < 0 {
			break
		}
		m.answers = append(m.answers, answer)
	}
	return m, true
}

// dnsAnswer reads one resource record and returns the offset after it, or -1.
func dnsAnswer(b []byte, off int) (string, int) {
	_, off = dnsName(b, off)
	if off < 0 || len(b) < off+10 {
		return "", -1
	}
	typ, end := binary.BigEndian.Uint16(b[off:]), off+10+int(binary.BigEndian.Uint16(b[off+8:]))
	if len(b) < end {
		return "", -1
	}
	data := b[off+10 : end]
	switch {
	case typ == 1 && len(data) == 4, typ == 28 && len(data) == 16:
		addr, _ := netip.AddrFromSlice(data)
		return addr.String(), end
	case typ == 2, typ == 5, typ == 6, typ == 12:
		name, _ := dnsName(b, off+10)
		return name, end
	case typ == 15 && len(data) > 2:
		name, _ := dnsName(b, off+12)
		return name, end
	case typ == 16 && len(data) > 0:
		text := data[1:min(len(data), 1+int(data[0]))]
		return "TXT " + strconv.Itoa(len(text)) + " " + string(text), end
	}
	return dnsType(typ), end
}

// dnsName reads a name, following compression pointers, and returns the offset
// after it, or -1.
func dnsName(b []byte, off int) (string, int) {
	var name strings.Builder
	end := -1
	for range 128 { // more labels than a name can have: a loop
		if off >= len(b) {
			return "", -1
		}
		n := int(b[off])
		switch {
		case n == 0:
			if end < 0 {
				end = off + 1
			}
			return name.String(), end
		case n&0xc0 == 0xc0:
			if off+1 >= len(b) {
				return "", -1
			}
			if end < 0 {
				end = off + 2
			}
			off = int(binary.BigEndian.Uint16(b[off:]) & 0x3fff)
		case n > 63 || off+1+n > len(b):
			return "", -1
		default:
			if name.Len() > 0 {
				name.WriteByte('.')
			}
			name.WriteString(strings.ToLower(string(b[off+1 : off+1+n])))
			off += 1 + n
		}
	}
	return "", -1
}

func dnsType(t uint16) string {
	names := map[uint16]string{1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA",
		33: "SRV", 41: "EDNS", 43: "DS", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 64: "SVCB", 65: "HTTPS", 255: "*"}
	if name, ok := names[t]; ok {
		return name
	}
	return "query-" + strconv.Itoa(int(t))
}

func dnsRcode(code uint8) string {
	names := [...]string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"}
	if int(code) < len(names) {
		return names[code]
	}
	return "unknown-" + strconv.Itoa(int(code))
}
