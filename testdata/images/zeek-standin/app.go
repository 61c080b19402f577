package main

import "bytes"

// app is what a flow's application protocol needs between packets. It is
// empty until the payload shows which protocol it is.
type app struct {
	http  *httpState
	tls   *tlsState
	ftp   *ftpState
	certs *certs
	dns   [2][]byte // DNS over TCP: the message that is not complete, by direction
}

// tcpPayload hands in-order payload to the protocol it belongs to.
func (f *flow) tcpPayload(s *sensor, p *packet, dir int) {
	if f.service == "" {
		f.service = recognise(p, f.respPort, dir)
		if f.service == "ssh" {
			s.names.lookup(f.orig, f.resp)
		}
	}
	switch f.service {
	case "http":
		f.httpData(s, p, dir)
	case "ssl":
		f.tlsData(s, p, dir)
		f.certsData(p, dir)
	case "krb_tcp":
		f.certsData(p, dir)
	case "ftp":
		f.ftpData(s, p, dir)
	case "dns":
		f.dnsStream(s, p, dir)
	}
}

// recognise names the protocol of a stream's first payload as Zeek's
// signatures would, or "" where it cannot.
func recognise(p *packet, respPort uint16, dir int) string {
	switch {
	case bytes.HasPrefix(p.data, []byte("SSH-")):
		return "ssh"
	case dir == fromOrig && httpMethod(p.data) != "":
		return "http"
	case dir == fromOrig && len(p.data) > 5 && p.data[0] == recordHandshake && p.data[1] == 3 && p.data[5] == clientHello:
		return "ssl"
	case respPort == 53 && dir == fromOrig:
		return "dns"
	case respPort == 88 && dir == fromOrig:
		return "krb_tcp"
	case respPort == 21 && dir == fromResp && bytes.HasPrefix(p.data, []byte("220")):
		return "ftp"
	}
	return ""
}

// udpData looks for DNS, and into Kerberos for certificates.
func (f *flow) udpData(s *sensor, p *packet, dir int) {
	if f.respPort == 88 {
		f.service = "krb"
		f.certsData(p, dir)
	}
	if f.respPort != 53 && f.respPort != 5353 {
		return
	}
	if f.dnsMessage(s, p.time, p.data) {
		f.service = "dns"
	}
}

// finish logs the transactions that had no answer.
func (a *app) finish(s *sensor, f *flow) {
	if a.http != nil {
		for dir, x := range a.http.file {
			if x != nil {
				x.log(s, f)
				a.http.file[dir] = nil
			}
		}
		for _, r := range a.http.pending {
			r.log(s, f)
		}
		a.http = nil
	}
	if a.tls != nil {
		a.tls.log(s, f)
		a.tls = nil
	}
	if a.ftp != nil {
		a.ftp.finish(s, f)
		a.ftp = nil
	}
	if a.certs != nil {
		a.certs.log(s, f, certSource(f.service))
		a.certs = nil
	}
}

// certSource is what Zeek calls the source of a connection's files.
func certSource(service string) string {
	if service == "ssl" {
		return "SSL"
	}
	return "KRB"
}
