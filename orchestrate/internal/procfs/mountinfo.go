package procfs

import (
	"slices"
	"strconv"
	"strings"
)

// Mount is a line of /proc/PID/mountinfo.
type Mount struct {
	Point              string // where it is mounted, seen from the process's root
	Type               string // of the file system, such as sysfs
	ReadOnly           bool   // this mount is
	SuperblockReadOnly bool   // the file system itself is, and with it all its mounts
}

// Mounts reads /proc/PID/mountinfo (show_mountinfo in fs/proc_namespace.c), the
// oldest mount first: ID, parent's ID, device, root, mount point, options,
// optional fields, "-", type, source, options of the superblock. A source may be
// missing altogether, for it may be an empty string.
func Mounts(text string) (list []Mount) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		dash := slices.Index(fields, "-")
		if dash < 6 || len(fields) < dash+3 {
			continue
		}
		list = append(list, Mount{Point: unescape(fields[4]), Type: unescape(fields[dash+1]),
			ReadOnly: isReadOnly(fields[5]), SuperblockReadOnly: isReadOnly(fields[len(fields)-1])})
	}
	return list
}

// isReadOnly looks at options: the first is "ro" or "rw".
func isReadOnly(options string) bool {
	first, _, _ := strings.Cut(options, ",")
	return first == "ro"
}

// unescape undoes what the kernel does to blanks, line feeds and backslashes
// (mangle_path in fs/seq_file.c): \ and three octal digits.
func unescape(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+4 <= len(text) {
			if n, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}
