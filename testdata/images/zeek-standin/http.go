package main

import (
	"bytes"
	"strconv"
	"strings"
)

// httpState is an HTTP/1 connection: the heads being collected, by direction,
// and the requests that wait for their answer.
type httpState struct {
	head    [2][]byte
	body    [2]uint64 // bytes of a body still to come, by direction
	file    [2]*file  // the body that is being read, by direction
	pending []httpRequest
	depth   uint64
}

// httpRequest is one request and, once it came, its answer.
type httpRequest struct {
	time                           int64
	depth                          uint64
	method, host, uri, version, ua string
	requestLen, responseLen        uint64
	status                         uint64
	reason                         string
	requestFile, responseFile      *file
}

// longestHead bounds what is collected of a head that does not end.
const longestHead = 16 << 10

// httpData collects heads and skips bodies of known length; a body of unknown
// length is skipped up to the next segment that starts like a head.
func (f *flow) httpData(s *sensor, p *packet, dir int) {
	if f.app.http == nil {
		f.app.http = &httpState{}
	}
	h, data := f.app.http, p.data
	for len(data) > 0 {
		if skip := min(h.body[dir], uint64(len(data))); skip > 0 {
			h.bodyData(s, f, p.time, data[:skip], dir)
			data = data[skip:]
			continue
		}
		if len(h.head[dir]) == 0 && !startsHead(data, dir) {
			return
		}
		before := len(h.head[dir])
		h.head[dir] = append(h.head[dir], data...)
		end := bytes.Index(h.head[dir], []byte("\r\n\r\n"))
		if end < 0 {
			if len(h.head[dir]) > longestHead {
				h.head[dir] = nil
			}
			return
		}
		data = data[end+4-before:]
		h.message(s, f, p.time, h.head[dir][:end], dir)
		h.head[dir] = h.head[dir][:0]
	}
}

// bodyData is the next part of a body.
func (h *httpState) bodyData(s *sensor, f *flow, t int64, data []byte, dir int) {
	h.body[dir] -= uint64(len(data))
	x := h.file[dir]
	if x == nil {
		return
	}
	if x.seen == 0 {
		x.first = t
	}
	x.add(t, data)
	if h.body[dir] == 0 {
		x.log(s, f)
		h.file[dir] = nil
	}
}

// open makes the file of a body of that length.
func (h *httpState) open(s *sensor, f *flow, t int64, fields []byte, length uint64, dir int) *file {
	h.body[dir] = length
	h.file[dir] = nil
	if length > 0 {
		mime, _, _ := strings.Cut(headerField(fields, "content-type"), ";")
		h.file[dir] = f.newFile(s, t, "HTTP", dir, strings.TrimSpace(mime), length)
	}
	return h.file[dir]
}

// startsHead tells a request or status line from the middle of a body.
func startsHead(data []byte, dir int) bool {
	if dir == fromOrig {
		return httpMethod(data) != ""
	}
	return bytes.HasPrefix(data, []byte("HTTP/1."))
}

// httpMethod returns the method that the data starts with, or "".
func httpMethod(data []byte) string {
	for _, m := range [...]string{"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH", "PROPFIND"} {
		if len(data) > len(m) && data[len(m)] == ' ' && string(data[:len(m)]) == m {
			return m
		}
	}
	return ""
}

// message handles one complete head.
func (h *httpState) message(s *sensor, f *flow, t int64, head []byte, dir int) {
	first, fields, _ := bytes.Cut(head, []byte("\r\n"))
	length, _ := strconv.ParseUint(headerField(fields, "content-length"), 10, 64)
	if dir == fromOrig {
		h.depth++
		s.counts.httpRequests++
		method, rest, _ := bytes.Cut(first, []byte(" "))
		uri, version, _ := bytes.Cut(rest, []byte(" HTTP/"))
		h.pending = append(h.pending, httpRequest{
			requestFile: h.open(s, f, t, fields, length, dir),
			time:        t, depth: h.depth, method: string(method), uri: string(uri), version: string(version),
			host: headerField(fields, "host"), ua: headerField(fields, "user-agent"), requestLen: length,
		})
		return
	}
	_, rest, _ := bytes.Cut(first, []byte(" "))
	code, reason, _ := bytes.Cut(rest, []byte(" "))
	status, err := strconv.ParseUint(string(code), 10, 16)
	if err != nil || status < 200 || len(h.pending) == 0 {
		return // interim answers (1xx) are followed by the real one
	}
	s.counts.httpReplies++
	r := h.pending[0]
	h.pending = h.pending[1:]
	if r.method == "HEAD" || status == 304 || status == 204 {
		length = 0
	}
	r.responseFile = h.open(s, f, t, fields, length, dir)
	r.status, r.reason, r.responseLen = status, string(reason), length
	r.log(s, f)
}

// headerField returns the value of a header field by its lower-case name.
func headerField(fields []byte, name string) string {
	for line := range bytes.SplitSeq(fields, []byte("\r\n")) {
		key, value, ok := bytes.Cut(line, []byte(":"))
		if ok && bytes.EqualFold(key, []byte(name)) {
			return string(bytes.TrimSpace(value))
		}
	}
	return ""
}

// log writes the http.log line.
func (r *httpRequest) log(s *sensor, f *flow) {
	o := s.logs.object(r.time)
	o.flow(f, s.script.vniField)
	o.number("trans_depth", r.depth)
	o.text("method", r.method)
	if r.host != "" {
		o.text("host", r.host)
	}
	o.text("uri", r.uri)
	o.text("version", r.version)
	if r.ua != "" {
		o.text("user_agent", r.ua)
	}
	o.number("request_body_len", r.requestLen)
	o.number("response_body_len", r.responseLen)
	if r.status != 0 {
		o.number("status_code", r.status)
		o.text("status_msg", r.reason)
	}
	o.texts("tags", nil)
	o.fuid("orig_fuids", r.requestFile)
	o.fuid("resp_fuids", r.responseFile)
	s.logs.write("http", s.logs.done(o))
}
