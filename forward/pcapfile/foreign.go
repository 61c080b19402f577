package pcapfile

import (
	"bytes"
	"encoding/binary"
)

// foreignLen is how many bytes are looked at to tell what is no capture.
const foreignLen = 1024

// looksLike names what is no capture, if its first bytes give it away. The more there
// are, the better it knows.
func looksLike(head []byte) string {
	const convert = ": convert it with editcap -F pcapng"
	known := []struct{ magic, name string }{
		{magicXZ, "xz-compressed data"},
		{magicBzip2, "bzip2-compressed data"},
		{magicLZ4, "lz4-compressed data"},
		{magicZstd, "zstd-compressed data"},
		{magicGzip, "gzip-compressed data"},
		{"\x1f\x9d", "data of the compress program: decompress it first"},
		{"LZIP", "lzip-compressed data: decompress it first"},
		{"\x5d\x00\x00", "lzma-compressed data: decompress it first"},
		{"PK\x03\x04", "a ZIP archive: unpack it first"},
		{"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"},
		{"Rar!\x1a\x07", "a RAR archive: unpack it first"},
		{"\x7fELF", "an ELF program"},
		{"MZ", "a Windows program"},
		{"%PDF", "a PDF document"},
		{"\x89PNG", "a PNG image"},
		{"SQLite format 3", "an SQLite database"},
		{"snoop\x00\x00\x00", "a snoop capture" + convert},
		{"GMBU", "a Network Monitor capture" + convert},
		{"RTSS", "a Network Monitor capture" + convert},
		{"TRSNIFF", "a Sniffer capture" + convert},
		{"XCP\x00", "a NetXRay capture" + convert},
		{"iptrace ", "an iptrace capture" + convert},
		{"\x7fver", "an EtherPeek capture" + convert},
		{"btsnoop\x00", "a Bluetooth capture, which holds no network packets"},
	}
	for _, k := range known {
		if bytes.HasPrefix(head, []byte(k.magic)) {
			return k.name
		}
	}
	switch {
	case len(head) >= 262 && string(head[257:262]) == "ustar":
		return "a tar archive: unpack it first"
	case isERF(head):
		return "an ERF capture" + convert
	}
	return looksLikeText(head)
}

// looksLikeText names kinds of text.
func looksLikeText(head []byte) string {
	if !isText(head) {
		return ""
	}
	start := bytes.ToLower(bytes.TrimLeft(head, " \t\r\n"))
	switch {
	case bytes.HasPrefix(start, []byte("<!doctype html")), bytes.HasPrefix(start, []byte("<html")):
		return "an HTML page: was it downloaded from the right address?"
	case bytes.HasPrefix(start, []byte("version https://git-lfs")):
		return "a pointer of Git LFS: git lfs pull fetches the file"
	case bytes.HasPrefix(start, []byte("<")):
		return "XML"
	case bytes.HasPrefix(start, []byte("{")), bytes.HasPrefix(start, []byte("[")):
		return "JSON"
	}
	return "text"
}

// isText reports whether head is printable ASCII.
func isText(head []byte) bool {
	for _, c := range head {
		if (c < ' ' || c > '~') && c != '\n' && c != '\r' && c != '\t' {
			return false
		}
	}
	return len(head) > 0
}

// isERF reports whether two records of Endace's format follow each other: they have no
// magic number, but types, lengths and times that fit (see package encap).
func isERF(head []byte) bool {
	const headerLen, day = 16, 24 * 60 * 60
	if len(head) < headerLen || !plausibleERF(head) {
		return false
	}
	second := int(binary.BigEndian.Uint16(head[10:]))
	if len(head) < second+headerLen {
		return false
	}
	next := head[second:]
	apart := int64(binary.LittleEndian.Uint32(next[4:])) - int64(binary.LittleEndian.Uint32(head[4:]))
	return plausibleERF(next) && apart >= -day && apart <= day
}

func plausibleERF(record []byte) bool {
	kind, length := record[8]&0x7f, binary.BigEndian.Uint16(record[10:])
	return kind >= 1 && kind <= 48 && length >= 16 && binary.LittleEndian.Uint32(record[4:]) != 0
}
