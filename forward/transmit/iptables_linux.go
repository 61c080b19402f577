package transmit

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

// entryLayout is where the parts of an entry stand (struct ipt_entry, ip6t_entry).
type entryLayout struct {
	addr              int // bytes of an address
	protocol          int // 16 bits; 0: any
	flags, inversions int // a byte each
	target, next      int // offsets of 16 bits
	matches           int // where matches begin
	gotoFlag          byte
	invProtocol       byte // inversion of the protocol
}

var (
	entry4 = entryLayout{addr: 4, protocol: 80, flags: 82, inversions: 83, target: 88, next: 90, matches: 112, gotoFlag: 2, invProtocol: 0x40}
	entry6 = entryLayout{addr: 16, protocol: 128, flags: 131, inversions: 132, target: 140, next: 142, matches: 168, gotoFlag: 4, invProtocol: 0x40}
)

// Inversions of struct ipt_ip; bits of ip6t_ip6 are the same.
const (
	invInput  = 0x01
	invOutput = 0x02
	invSource = 0x08
	invDest   = 0x10
)

// extensionHeader begins each match and target: size (16 bits), name, revision.
const (
	extensionHeader   = 32
	extensionName     = 2
	extensionRevision = 31
)

var errTable = errors.New("it is not what this program knows")

// legacyWalk goes through a table as a packet does.
type legacyWalk struct {
	journey
	table  sys.IPTable
	layout entryLayout
	marked bool
	acts   bool
	steps  int
}

// maxSteps bounds a walk. The kernel takes no loops, but each jump goes through
// its chain again.
const maxSteps = 1 << 20

// legacyTranslates reports whether a table of type nat would translate the
// journey's addresses, perhaps.
func legacyTranslates(t sys.IPTable, j journey) (bool, error) {
	w := &legacyWalk{journey: j, table: t, layout: entry4}
	if t.Six {
		w.layout = entry6
	}
	for _, hook := range []int{hookOutput, hookPostRouting} {
		if t.Valid&(1<<hook) == 0 {
			continue
		}
		if _, err := w.walk(int(t.Hooks[hook])); err != nil {
			return false, err
		}
	}
	return w.acts, nil
}

// walk goes through a chain and reports whether it surely ends the walk.
func (w *legacyWalk) walk(at int) (final bool, err error) {
	for {
		if w.steps++; w.steps > maxSteps {
			return false, errTable
		}
		e, err := w.entry(at)
		if err != nil {
			return false, err
		}
		end, err := w.rule(e, at)
		if err != nil || end != endsNothing {
			return end == endsTable, err
		}
		at += len(e)
	}
}

// entry returns the entry that begins at an offset.
func (w *legacyWalk) entry(at int) ([]byte, error) {
	l := w.layout
	if at < 0 || at+l.matches > len(w.table.Entries) {
		return nil, errTable
	}
	e := w.table.Entries[at:]
	target, next := int(binary.NativeEndian.Uint16(e[l.target:])), int(binary.NativeEndian.Uint16(e[l.next:]))
	if target < l.matches || next < target+extensionHeader || next > len(e) {
		return nil, errTable
	}
	return e[:next], nil
}

// rule goes through one entry.
func (w *legacyWalk) rule(e []byte, at int) (ending, error) {
	holds := w.holds(e)
	if holds == no {
		return endsNothing, nil
	}
	target := e[binary.NativeEndian.Uint16(e[w.layout.target:]):]
	switch name := cString(target[extensionName:extensionRevision]); name {
	case "":
		if len(target) < extensionHeader+4 {
			return endsNothing, errTable
		}
		verdict := int(int32(binary.NativeEndian.Uint32(target[extensionHeader:])))
		return w.verdict(e, at, verdict, holds)
	case "ERROR": // begins the next chain: the end of this one is never passed
		return endsTable, nil
	case "MARK", "CONNMARK":
		w.marked = true
		return endsNothing, nil
	case "LOG", "NFLOG":
		return endsNothing, nil
	}
	w.acts = true
	return when(holds, endsTable), nil
}

const legacyReturn = -5 // XT_RETURN

func (w *legacyWalk) verdict(e []byte, at, verdict int, holds certainty) (ending, error) {
	switch {
	case verdict == legacyReturn:
		return when(holds, endsChain), nil
	case verdict < 0:
		return when(holds, endsTable), nil
	case verdict == at+len(e): // goes on behind itself
		return endsNothing, nil
	}
	final, err := w.walk(verdict)
	switch {
	case err != nil:
		return endsNothing, err
	case final:
		return when(holds, endsTable), nil
	case e[w.layout.flags]&w.layout.gotoFlag != 0:
		return when(holds, endsChain), nil
	}
	return endsNothing, nil
}

// holds reports whether the journey's packets match an entry.
func (w *legacyWalk) holds(e []byte) certainty {
	l := w.layout
	inverted := e[l.inversions]
	if !inNetwork(e, 0, l.addr, w.src, inverted&invSource != 0) || !inNetwork(e, 1, l.addr, w.dst, inverted&invDest != 0) {
		return no
	}
	names := 4 * l.addr // input, output, and their masks
	if !isDevice(e[names:], "", inverted&invInput != 0) || !isDevice(e[names+nameLen:], w.device, inverted&invOutput != 0) {
		return no
	}
	if p := binary.NativeEndian.Uint16(e[l.protocol:]); p != 0 && (p == protocolUDP) == (inverted&l.invProtocol != 0) {
		return no
	}
	return w.matches(e)
}

// inNetwork compares an address with the entry's network number which: source 0,
// destination 1. Masks stand behind both.
func inNetwork(e []byte, which, size int, addr netip.Addr, inverted bool) bool {
	network, mask := e[which*size:][:size], e[(2+which)*size:][:size]
	in := true
	for i, b := range addr.AsSlice() {
		in = in && (b^network[i])&mask[i] == 0
	}
	return in != inverted
}

// isDevice compares a device with the entry's, whose mask is so long as its name,
// or shorter for all that begin so.
func isDevice(e []byte, device string, inverted bool) bool {
	name, mask := e[:nameLen], e[2*nameLen:][:nameLen]
	have := append([]byte(device), make([]byte, nameLen)...)
	is := true
	for i := range nameLen {
		is = is && (have[i]^name[i])&mask[i] == 0
	}
	return is != inverted
}

// matches goes through an entry's matches.
func (w *legacyWalk) matches(e []byte) certainty {
	holds := yes
	list := e[w.layout.matches:binary.NativeEndian.Uint16(e[w.layout.target:])]
	for len(list) >= extensionHeader {
		size := int(binary.NativeEndian.Uint16(list))
		if size < extensionHeader || size > len(list) {
			return perhaps
		}
		name := cString(list[extensionName:extensionRevision])
		one := matchOf(w.journey, name, list[extensionRevision], list[extensionHeader:size])
		if name == "mark" && w.marked {
			one = perhaps
		}
		holds = min(holds, one)
		list = list[size:]
	}
	return holds
}
