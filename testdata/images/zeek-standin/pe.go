package main

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
)

// logPE writes a pe.log line from a program's headers, as far as they are whole:
// the DOS header points to the COFF header, which the optional header and the
// table of sections follow ("PE Format", Microsoft).
func (s *sensor) logPE(x *file) {
	b := x.head
	if len(b) < 64 {
		return
	}
	at := int(binary.LittleEndian.Uint32(b[60:]))
	if at < 0 || at+24+96 > len(b) || !bytes.HasPrefix(b[at:], []byte("PE\x00\x00")) {
		return
	}
	var coff pe.FileHeader
	if _, err := binary.Decode(b[at+4:], binary.LittleEndian, &coff); err != nil {
		return
	}
	optional := b[at+24:]
	o := s.logs.object(x.first)
	o.text("id", x.fuid)
	o.text("machine", machine(coff.Machine))
	o.seconds("compile_ts", int64(coff.TimeDateStamp)*1e9, 0)
	o.text("subsystem", subsystem(binary.LittleEndian.Uint16(optional[68:])))
	o.flag("is_exe", coff.Characteristics&pe.IMAGE_FILE_EXECUTABLE_IMAGE != 0)
	o.flag("is_64bit", coff.Machine == pe.IMAGE_FILE_MACHINE_AMD64)
	o.flag("uses_dep", binary.LittleEndian.Uint16(optional[70:])&pe.IMAGE_DLLCHARACTERISTICS_NX_COMPAT != 0)
	o.texts("section_names", sections(optional, coff))
	s.logs.write("pe", s.logs.done(o))
}

// sections are in the order of their table.
func sections(optional []byte, coff pe.FileHeader) []string {
	var names []string
	const size = 40
	for i := range int(coff.NumberOfSections) {
		from := int(coff.SizeOfOptionalHeader) + i*size
		if from+size > len(optional) {
			break
		}
		names = append(names, string(bytes.TrimRight(optional[from:from+8], "\x00")))
	}
	return names
}

func machine(m uint16) string {
	switch m {
	case pe.IMAGE_FILE_MACHINE_I386:
		return "I386"
	case pe.IMAGE_FILE_MACHINE_AMD64:
		return "AMD64"
	}
	return "UNKNOWN"
}

func subsystem(n uint16) string {
	switch n {
	case pe.IMAGE_SUBSYSTEM_WINDOWS_GUI:
		return "WINDOWS_GUI"
	case pe.IMAGE_SUBSYSTEM_WINDOWS_CUI:
		return "WINDOWS_CUI"
	}
	return "UNKNOWN"
}
