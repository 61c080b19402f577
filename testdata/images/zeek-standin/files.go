package main

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// file is what one direction of a connection carries as a whole, such as the
// body of an HTTP message.
type file struct {
	fuid        string
	source      string
	mime        string
	dir         int
	first, last int64 // ns
	seen, total uint64
	head        []byte // its first bytes, for what looks into it
	sums        [3]hash.Hash
}

// headLimit bounds what is kept of a file: OCSP answers and the headers of
// programs are shorter.
const headLimit = 64 << 10

// newFile opens a file. Like Zeek's, its identifier is a hash of the connection,
// its first packet's time, the direction, and how many there were before.
func (f *flow) newFile(s *sensor, t int64, source string, dir int, mime string, total uint64) *file {
	f.files++
	handle := fmt.Sprintf("%s %d %s %d %s %d %d %d", source, f.first, f.orig, f.origPort, f.resp, f.respPort, dir, f.files)
	return &file{
		fuid: s.seeds.identifier('F', handle), source: source, mime: mime, dir: dir, first: t, last: t, total: total,
		sums: [3]hash.Hash{md5.New(), sha1.New(), sha256.New()},
	}
}

// add notes the next bytes.
func (x *file) add(t int64, data []byte) {
	x.last = t
	x.seen += uint64(len(data))
	x.head = append(x.head, data[:min(len(data), headLimit-len(x.head))]...)
	for _, sum := range x.sums {
		sum.Write(data)
	}
}

// fuid writes a list of one file; nothing for none.
func (o *object) fuid(name string, x *file) {
	if x != nil {
		o.texts(name, []string{x.fuid})
	}
}

// identify names the type by the content where that shows it.
func (x *file) identify() {
	switch {
	case strings.HasPrefix(string(x.head), "MZ"):
		x.mime = "application/x-dosexec"
	case x.mime == "":
		x.mime = "text/plain"
	}
}

// log writes the files.log line and what the analyzers of its type found.
func (x *file) log(s *sensor, f *flow) {
	x.identify()
	analyzers := []string{"MD5", "SHA1", "SHA256"}
	switch x.mime {
	case "application/x-dosexec":
		analyzers = append(analyzers, "PE")
		s.logPE(x)
	case "application/ocsp-response":
		analyzers = append(analyzers, "OCSP_REPLY")
		s.logOCSP(x)
	}
	o := s.logs.object(x.first)
	o.text("fuid", x.fuid)
	o.flow(f, s.script.vniField)
	o.text("source", x.source)
	o.number("depth", 0)
	o.texts("analyzers", s.seeds.set(analyzers...))
	o.text("mime_type", x.mime)
	o.seconds("duration", x.last, x.first)
	o.flag("local_orig", local(f.sender(x.dir)))
	o.flag("is_orig", x.dir == fromOrig)
	o.number("seen_bytes", x.seen)
	o.number("total_bytes", x.total)
	o.number("missing_bytes", 0)
	o.number("overflow_bytes", 0)
	o.flag("timedout", false)
	for i, name := range []string{"md5", "sha1", "sha256"} {
		o.text(name, hex.EncodeToString(x.sums[i].Sum(nil)))
	}
	s.logs.write("files", s.logs.done(o))
}
