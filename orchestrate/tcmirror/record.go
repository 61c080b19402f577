package tcmirror

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// recordHead begins the alias of every tunnel. Its number rises when the
// meaning of a field changes.
const recordHead = "zeekdemo mirror 1"

// maxAlias is the kernel's IFALIASZ without the zero at the end.
const maxAlias = 255

// record is what a tunnel's alias says.
type record struct {
	iface      string
	index      int // of the interface, which tells it from a later one of its name
	direction  string
	encap      string
	sensor     netip.AddrPort
	vni        uint32
	service    string
	clsact     clsact
	owner      orchestrate.Client // the process that started the mirror
	detached   bool
	started    time.Time
	expression string // as much of it as there is room for
}

// String is the alias: words KEY=VALUE; the expression, which has blanks, is
// the last.
func (r record) String() string {
	detached := 0
	if r.detached {
		detached = 1
	}
	pid, start, space := r.owner.Numbers() // the device's boot is the kernel's
	text := fmt.Sprintf("%s if=%s index=%d dir=%s encap=%s to=%s vni=%d service=%s clsact=%s owner=%d/%d/%d detached=%d start=%d filter=",
		recordHead, r.iface, r.index, r.direction, r.encap, r.sensor, r.vni, r.service, r.clsact,
		pid, start, space, detached, r.started.Unix())
	expression := strings.Join(strings.Fields(r.expression), " ")
	if room := maxAlias - len(text); len(expression) > room {
		expression = expression[:max(room-len("…"), 0)]
		for !utf8.ValidString(expression) {
			expression = expression[:len(expression)-1]
		}
		expression += "…"
	}
	return text + expression
}

// parseRecord reads an alias; ok is false if it is not one of ours.
func parseRecord(alias string) (r record, ok bool) {
	text, ok := strings.CutPrefix(alias, recordHead+" ")
	if !ok {
		return r, false
	}
	text, r.expression, ok = strings.Cut(text, "filter=")
	if !ok {
		return r, false
	}
	for _, word := range strings.Fields(text) {
		key, value, _ := strings.Cut(word, "=")
		if err := r.set(key, value); err != nil {
			return r, false
		}
	}
	return r, r.iface != "" && r.index > 0
}

func (r *record) set(key, value string) (err error) {
	var n uint64
	switch key {
	case "index", "vni", "detached", "start":
		if n, err = strconv.ParseUint(value, 10, 40); err != nil {
			return err
		}
	}
	switch key {
	case "if":
		r.iface = value
	case "index":
		r.index = int(n)
	case "dir":
		r.direction = value
	case "encap":
		r.encap = value
	case "to":
		r.sensor, err = netip.ParseAddrPort(value)
	case "vni":
		r.vni = uint32(n)
	case "service":
		r.service = value
	case "clsact":
		r.clsact = clsact(value)
	case "owner":
		r.owner, err = parseOwner(value)
	case "detached":
		r.detached = n != 0
	case "start":
		r.started = time.Unix(int64(n), 0)
	}
	return err
}

func parseOwner(text string) (orchestrate.Client, error) {
	var pid int
	var start, space uint64
	_, err := fmt.Sscanf(text, "%d/%d/%d", &pid, &start, &space)
	return orchestrate.ClientHere(pid, start, space), err
}

// The cookie of a filter's action is the tunnel's name and one more byte that
// says whose clsact is: so filters are recognised even where somebody else
// removed the tunnel.
const (
	cookieOurs   = '+'
	cookieTheirs = '-'
)

func cookie(device string, c clsact) []byte {
	if c == clsactOurs {
		return append([]byte(device), cookieOurs)
	}
	return append([]byte(device), cookieTheirs)
}

// parseCookie returns the tunnel's name; ok is false if it is not ours.
func parseCookie(b []byte) (device string, c clsact, ok bool) {
	if len(b) < len(DevicePrefix)+2 || !strings.HasPrefix(string(b), DevicePrefix) {
		return "", "", false
	}
	c = clsactTheirs
	if b[len(b)-1] == cookieOurs {
		c = clsactOurs
	}
	return string(b[:len(b)-1]), c, true
}
