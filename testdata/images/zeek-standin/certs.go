package main

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

// certs collects what a direction says where certificates may be.
type certs struct {
	data [2][]byte
	last [2]int64 // ns, of the last bytes
}

// certsLimit bounds what is collected of one direction.
const certsLimit = 64 << 10

// certsData collects, until the connection ends.
func (f *flow) certsData(p *packet, dir int) {
	if f.app.certs == nil {
		f.app.certs = &certs{}
	}
	c := f.app.certs
	c.last[dir] = p.time
	c.data[dir] = append(c.data[dir], p.data[:min(len(p.data), certsLimit-len(c.data[dir]))]...)
}

// signedData is id-signedData, which PKINIT's messages hold (RFC 4556): its
// certificate is optional, and Zeek tries to parse one in any case.
var signedData = []byte("\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02")

// log writes an x509.log line for every certificate that no process before this
// connection saw, and a weird that names the file where there should be one.
func (c *certs) log(s *sensor, f *flow, source string) {
	for dir := range c.data {
		found := findCerts(c.data[dir])
		for _, raw := range found {
			s.certificate(f, c.last[dir], dir, source, raw)
		}
		if len(found) == 0 && source == "KRB" && bytes.Contains(c.data[dir], signedData) {
			s.unparsed(f, c.last[dir], dir, source)
		}
	}
}

// findCerts returns what begins like a certificate of version 3: two sequences
// and [0] INTEGER 2 (RFC 5280 section 4.1).
func findCerts(data []byte) (list [][]byte) {
	const sequence = "\x30\x82"
	for len(data) > 13 {
		end := 4 + int(binary.BigEndian.Uint16(data[2:]))
		if string(data[:2]) != sequence || string(data[4:6]) != sequence || string(data[8:13]) != "\xa0\x03\x02\x01\x02" || end > len(data) {
			data = data[1:]
			continue
		}
		list, data = append(list, data[:end]), data[end:]
	}
	return list
}

// unparsed says that a certificate could not be read, once, as Zeek's default
// of reporting a weird does.
func (s *sensor) unparsed(f *flow, t int64, dir int, source string) {
	const name = "x509_cert_parse_error"
	if s.once[name] {
		return
	}
	s.once[name] = true
	s.counts.weirds++
	fuid := f.newFile(s, t, source, dir, "application/x-x509-user-cert", 0).fuid
	o := s.logs.object(t)
	o.text("name", name)
	o.text("addl", fuid)
	o.flag("notice", false)
	o.text("peer", "zeek")
	s.logs.write("weird", s.logs.done(o))
}

func (s *sensor) certificate(f *flow, t int64, dir int, source string, raw []byte) {
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		s.unparsed(f, t, dir, source)
		return
	}
	sum := sha256.Sum256(raw)
	fingerprint := hex.EncodeToString(sum[:])
	if source == "SSL" && dir == fromResp && bytes.Equal(cert.RawIssuer, cert.RawSubject) {
		s.selfSigned(f, t, f.newFile(s, t, source, dir, "", 0).fuid, cert)
	}
	if s.once[fingerprint] {
		return
	}
	s.once[fingerprint] = true
	s.logCertificate(t, fingerprint, cert, dir)
}

func (s *sensor) logCertificate(t int64, fingerprint string, cert *x509.Certificate, dir int) {
	o := s.logs.object(t)
	o.text("fingerprint", fingerprint)
	o.number("certificate.version", uint64(cert.Version))
	o.text("certificate.serial", serial(cert.SerialNumber))
	o.text("certificate.subject", cert.Subject.String())
	o.text("certificate.issuer", cert.Issuer.String())
	o.when("certificate.not_valid_before", cert.NotBefore)
	o.when("certificate.not_valid_after", cert.NotAfter)
	o.text("certificate.sig_alg", cert.SignatureAlgorithm.String())
	if key, ok := cert.PublicKey.(*rsa.PublicKey); ok {
		o.text("certificate.key_type", "rsa")
		o.number("certificate.key_length", uint64(key.N.BitLen()))
		o.text("certificate.exponent", strconv.Itoa(key.E))
	}
	if len(cert.DNSNames) > 0 {
		o.texts("san.dns", cert.DNSNames)
	}
	o.flag("basic_constraints.ca", cert.IsCA)
	o.flag("host_cert", dir == fromResp)
	o.flag("client_cert", dir == fromOrig)
	s.logs.write("x509", s.logs.done(o))
}

// selfSigned is the notice of policy/protocols/ssl/validate-certs.
func (s *sensor) selfSigned(f *flow, t int64, fuid string, cert *x509.Certificate) {
	o := s.logs.object(t)
	o.flow(f, s.script.vniField)
	o.text("fuid", fuid)
	o.text("proto", "tcp")
	o.text("note", "SSL::Invalid_Server_Cert")
	o.text("msg", "SSL certificate validation failed with (self signed certificate) in file "+fuid)
	o.text("sub", cert.Subject.String())
	o.addr("src", f.orig)
	o.addr("dst", f.resp)
	o.number("p", uint64(f.respPort))
	o.texts("actions", s.seeds.set("Notice::ACTION_LOG"))
	o.texts("email_dest", nil)
	o.seconds("suppress_for", 3600e9, 0)
	s.logs.write("notice", s.logs.done(o))
}
