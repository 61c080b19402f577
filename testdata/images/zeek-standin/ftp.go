package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// pendingLimit is FTP::max_pending_commands.
const pendingLimit = 20

// ftpState is an FTP control connection: the commands that wait for an answer,
// and the data connections that they announced.
type ftpState struct {
	line     [2][]byte // what is not complete, by direction
	user     string
	reply    string // the last one
	pending  []ftpCommand
	tooMany  bool
	expected string // ADDR,PORT of the data connection announced last
}

type ftpCommand struct {
	time      int64
	name, arg string
}

// ftpLogged are the commands that Zeek logs.
var ftpLogged = " APPE DELE RETR STOR STOU ACCT PORT PASV EPRT EPSV "

// ftpData cuts the stream into lines, RFC 959 section 4.
func (f *flow) ftpData(s *sensor, p *packet, dir int) {
	if f.app.ftp == nil {
		f.app.ftp = &ftpState{user: "<unknown>"}
	}
	h := f.app.ftp
	buf := append(h.line[dir], p.data...)
	for {
		line, rest, ok := bytes.Cut(buf, []byte("\r\n"))
		if !ok {
			h.line[dir] = buf[:min(len(buf), longestHead)]
			return
		}
		if buf = rest; dir == fromOrig {
			h.command(s, f, p.time, string(line))
		} else {
			h.answer(s, f, string(line))
		}
	}
}

// command notes a command; of those beyond the limit Zeek forgets the oldest.
func (h *ftpState) command(s *sensor, f *flow, t int64, line string) {
	name, arg, _ := strings.Cut(line, " ")
	name = strings.ToUpper(name)
	if name == "USER" {
		h.user = arg
	}
	if address := portArgument(arg); name == "PORT" && address != "" {
		h.expected = address
	}
	if len(h.pending) < pendingLimit {
		h.pending = append(h.pending, ftpCommand{t, name, arg})
		return
	}
	if !h.tooMany {
		h.tooMany = true
		h.weird(s, f, t)
	}
}

// portArgument turns h1,h2,h3,h4,p1,p2 into ADDR,PORT; "" where it is none.
func portArgument(arg string) string {
	var n [6]uint8
	if _, err := fmt.Sscanf(arg, "%d,%d,%d,%d,%d,%d", &n[0], &n[1], &n[2], &n[3], &n[4], &n[5]); err != nil {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d.%d,%d", n[0], n[1], n[2], n[3], int(n[4])<<8|int(n[5]))
}

// answer ends the oldest command; a line of a longer answer ends none.
func (h *ftpState) answer(s *sensor, f *flow, line string) {
	if len(line) < 4 || line[3] != ' ' || strings.Trim(line[:3], "0123456789") != "" {
		return
	}
	h.reply = line
	if len(h.pending) > 0 {
		h.log(s, f, h.pending[0], "")
		h.pending = h.pending[1:]
	}
}

// finish logs what had no answer, in the order of a hash table. The data
// connection that was announced last is remembered with the first of them.
func (h *ftpState) finish(s *sensor, f *flow) {
	lines := map[string]ftpCommand{}
	var keys []string
	for i, c := range h.pending {
		key := strconv.Itoa(i)
		lines[key], keys = c, append(keys, key)
	}
	expected := h.expected
	for _, key := range s.seeds.set(keys...) {
		h.log(s, f, lines[key], expected)
		expected = ""
	}
}

func (h *ftpState) log(s *sensor, f *flow, c ftpCommand, data string) {
	if !strings.Contains(ftpLogged, " "+c.name+" ") {
		return
	}
	o := s.logs.object(c.time)
	o.flow(f, s.script.vniField)
	o.text("user", h.user)
	o.text("command", c.name)
	o.text("arg", c.arg)
	if code, err := strconv.ParseUint(h.reply[:min(3, len(h.reply))], 10, 16); err == nil {
		o.number("reply_code", code)
		o.text("reply_msg", strings.TrimSpace(h.reply[3:]))
	}
	if address, port, ok := strings.Cut(data, ","); ok {
		n, _ := strconv.ParseUint(port, 10, 16) // made from a number
		o.flag("data_channel.passive", false)
		o.addr("data_channel.orig_h", f.resp)
		o.text("data_channel.resp_h", address)
		o.number("data_channel.resp_p", n)
	}
	s.logs.write("ftp", s.logs.done(o))
}

func (h *ftpState) weird(s *sensor, f *flow, t int64) {
	s.counts.weirds++
	o := s.logs.object(t)
	o.flow(f, s.script.vniField)
	o.text("name", "FTP_too_many_pending_commands")
	o.text("addl", strconv.Itoa(pendingLimit))
	o.flag("notice", false)
	o.text("peer", "zeek")
	o.text("source", "FTP")
	s.logs.write("weird", s.logs.done(o))
}
