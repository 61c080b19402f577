package main

import (
	"crypto/tls"
	"encoding/binary"
)

// TLS record and handshake types, RFC 8446 sections 5.1 and 4.
const (
	recordHandshake   = 22
	recordApplication = 23
	clientHello       = 1
	serverHello       = 2
)

// tlsState is what the two hellos tell.
type tlsState struct {
	time        int64
	serverName  string
	version     uint16
	cipher      uint16
	answered    bool
	established bool
}

// tlsData reads the hellos from the first record of each direction; a hello
// that is split over segments is taken as far as it goes.
func (f *flow) tlsData(s *sensor, p *packet, dir int) {
	b := p.data
	if len(b) < 9 {
		return
	}
	if b[0] == recordApplication && f.app.tls != nil {
		f.app.tls.established = f.app.tls.established || f.app.tls.answered
		return
	}
	if b[0] != recordHandshake {
		return
	}
	switch body := b[9:]; {
	case dir == fromOrig && b[5] == clientHello && f.app.tls == nil:
		s.counts.tlsHellos++
		f.app.tls = &tlsState{time: p.time, serverName: serverName(body)}
	case dir == fromResp && b[5] == serverHello && f.app.tls != nil && !f.app.tls.answered:
		f.app.tls.serverHello(body)
	}
}

// extensions calls visit for every complete extension in b.
func extensions(b []byte, visit func(typ uint16, body []byte)) {
	if len(b) < 2 {
		return
	}
	for b = b[2:]; len(b) >= 4; {
		end := 4 + int(binary.BigEndian.Uint16(b[2:]))
		if end > len(b) {
			return
		}
		visit(binary.BigEndian.Uint16(b), b[4:end])
		b = b[end:]
	}
}

// skipVector returns what follows a vector whose length takes n bytes at off.
func skipVector(b []byte, off, n int) []byte {
	if len(b) < off+n {
		return nil
	}
	length := 0
	for _, v := range b[off : off+n] {
		length = length<<8 | int(v)
	}
	if len(b) < off+n+length {
		return nil
	}
	return b[off+n+length:]
}

// serverName finds the host name in a ClientHello's body, RFC 6066 section 3.
func serverName(b []byte) string {
	var name string
	b = skipVector(b, 34, 1) // version and random, then the session id
	b = skipVector(b, 0, 2)  // cipher suites
	b = skipVector(b, 0, 1)  // compression methods
	extensions(b, func(typ uint16, body []byte) {
		if typ == 0 && len(body) > 5 {
			name = string(body[5:min(len(body), 5+int(binary.BigEndian.Uint16(body[3:])))])
		}
	})
	return name
}

// serverHello reads the version and the cipher that were agreed on.
func (t *tlsState) serverHello(b []byte) {
	if len(b) < 2 {
		return
	}
	t.answered = true
	t.version = binary.BigEndian.Uint16(b)
	b = skipVector(b, 34, 1)
	if len(b) < 3 {
		return
	}
	t.cipher = binary.BigEndian.Uint16(b)
	extensions(b[3:], func(typ uint16, body []byte) {
		const supportedVersions = 43
		if typ == supportedVersions && len(body) == 2 {
			t.version = binary.BigEndian.Uint16(body)
		}
	})
}

// log writes the ssl.log line.
func (t *tlsState) log(s *sensor, f *flow) {
	o := s.logs.object(t.time)
	o.flow(f, s.script.vniField)
	if t.answered {
		o.text("version", tlsVersion(t.version))
		o.text("cipher", tls.CipherSuiteName(t.cipher))
	}
	if t.serverName != "" {
		o.text("server_name", t.serverName)
	}
	o.flag("resumed", false)
	o.flag("established", t.established)
	s.logs.write("ssl", s.logs.done(o))
}

func tlsVersion(v uint16) string {
	switch v {
	case 0x0300:
		return "SSLv3"
	case 0x0301:
		return "TLSv10"
	case 0x0302:
		return "TLSv11"
	case 0x0303:
		return "TLSv12"
	case 0x0304:
		return "TLSv13"
	}
	return "unknown"
}
