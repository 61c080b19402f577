package transmit

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// What nftables would do to a journey's packets is found out by doing it: the
// rules of the chains that see outgoing packets are gone through with what is
// known of the packets. What is not known (a source port, connection tracking, a
// set's elements) makes a rule match perhaps: then both is considered, that it
// does and that it does not.

// nftExpression is one expression of a rule, as the kernel tells it
// (linux/netfilter/nf_tables.h): its kind and its attributes.
type nftExpression struct {
	kind       string
	attributes map[uint16][]byte
}

// nftChain is a chain; one without a hook is only jumped to.
type nftChain struct {
	kind  string // of a base chain: filter, nat, route
	hook  uint32
	base  bool
	rules [][]nftExpression
}

// nftTable holds the chains of one table by name.
type nftTable map[string]*nftChain

// The hooks that see outgoing packets (linux/netfilter.h).
const (
	hookOutput      = 3 // NF_INET_LOCAL_OUT
	hookPostRouting = 4 // NF_INET_POST_ROUTING
)

// certainty is whether something holds.
type certainty int

const (
	no certainty = iota
	perhaps
	yes
)

// nftRun is one walk through a table.
type nftRun struct {
	journey
	table    nftTable
	uid      uint32
	marked   bool // a rule may have set the mark
	acts     bool // an address would be translated, perhaps
	nat      bool // the chain in turn is of type nat
	depth    int
	register map[uint32][]byte // what is known; nil or missing: not known
}

// maxDepth bounds jumps: the kernel allows 16.
const maxDepth = 32

// translates reports whether a table's chains of type nat would translate the
// journey's addresses, perhaps, and whether others may set marks.
// Marked says that others may have done so before.
func (t nftTable) translates(j journey, uid uint32, marked bool) (acts, marks bool) {
	run := &nftRun{journey: j, table: t, uid: uid, marked: marked}
	for _, hook := range []uint32{hookOutput, hookPostRouting} {
		for _, name := range t.names() {
			if c := t[name]; c.base && c.hook == hook {
				run.nat = c.kind == "nat"
				run.walk(c)
			}
		}
		if hook == hookOutput {
			marks = run.marked
		}
	}
	return run.acts, marks
}

func (t nftTable) names() []string {
	names := make([]string, 0, len(t))
	for name := range t {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// walk goes through a chain and reports whether it surely ends the walk of the
// whole table: a verdict that is final.
func (r *nftRun) walk(c *nftChain) (final bool) {
	if r.depth++; r.depth > maxDepth {
		r.acts = true
		return true
	}
	defer func() { r.depth-- }()
	for _, rule := range c.rules {
		switch r.rule(rule) {
		case endsTable:
			return true
		case endsChain:
			return false
		}
	}
	return false
}

// ending is what a rule surely ends.
type ending int

const (
	endsNothing ending = iota
	endsChain
	endsTable
)

// rule goes through one rule.
func (r *nftRun) rule(expressions []nftExpression) ending {
	r.register = make(map[uint32][]byte)
	holds := yes
	for _, e := range expressions {
		switch e.kind {
		case "immediate":
			if verdict, chain, ok := e.verdict(); ok {
				return r.verdict(verdict, chain, holds)
			}
			r.register[e.number(1)] = nil
		case "nat", "masq", "redir", "tproxy":
			r.acts = r.acts || r.nat || e.kind == "tproxy"
			return when(holds, endsTable)
		case "target":
			if end, done := r.target(e.text(1), holds); done {
				return end
			}
		default:
			holds = min(holds, r.expression(e))
		}
		if holds == no {
			return endsNothing
		}
	}
	return endsNothing
}

// when is an ending that is sure only if the rule surely matches.
func when(holds certainty, end ending) ending {
	if holds == yes {
		return end
	}
	return endsNothing
}

// Verdict codes (linux/netfilter/nf_tables.h); final ones are not negative.
const (
	nftContinue = -1
	nftBreak    = -2
	nftJump     = -3
	nftGoto     = -4
	nftReturn   = -5
)

func (r *nftRun) verdict(code int32, chain string, holds certainty) ending {
	switch code {
	case nftContinue, nftBreak:
		return endsNothing
	case nftReturn:
		return when(holds, endsChain)
	case nftJump, nftGoto:
		to := r.table[chain]
		if to == nil {
			r.acts = r.acts || r.nat
			return endsNothing
		}
		final := r.walk(to)
		switch {
		case final:
			return when(holds, endsTable)
		case code == nftGoto:
			return when(holds, endsChain)
		}
		return endsNothing
	}
	return when(holds, endsTable)
}

// target goes through a target of iptables' in a rule. It reports what that ends,
// and whether the rule ends with it.
func (r *nftRun) target(name string, holds certainty) (ending, bool) {
	switch name {
	case "LOG", "NFLOG", "TRACE", "AUDIT", "DSCP", "TOS", "TTL", "HL", "CHECKSUM", "CLASSIFY":
		return endsNothing, false
	case "MARK", "CONNMARK":
		r.marked = true
		return endsNothing, false
	case "REJECT", "DROP":
		return when(holds, endsTable), true
	}
	r.acts = r.acts || r.nat
	return when(holds, endsTable), true
}

// expression carries out an expression and reports whether the rule goes on.
func (r *nftRun) expression(e nftExpression) certainty {
	switch e.kind {
	case "counter", "log", "last", "notrack":
		return yes
	case "meta":
		return r.meta(e)
	case "payload":
		if _, set := e.attributes[5]; set {
			return yes
		}
		r.register[e.number(1)] = r.payload(e.number(2), e.number(3), e.number(4))
		return yes
	case "fib":
		r.register[e.number(1)] = nil
		if e.number(2) == fibAddressType && e.number(3)&fibDestination != 0 {
			r.register[e.number(1)] = binary.NativeEndian.AppendUint32(nil, routeTypeUnicast)
		}
		return yes
	case "bitwise":
		r.register[e.number(2)] = r.bitwise(e)
		return yes
	case "cmp":
		return r.compare(e)
	case "range":
		return r.within(e)
	case "match":
		return r.match(e.text(1), e.number(2), e.attributes[3])
	}
	for _, destination := range []uint16{1, 2, 3} { // whatever it is, no register holds what it held
		r.register[e.number(destination)] = nil
	}
	if verdict, ok := e.attributes[3]; e.kind == "lookup" && ok && len(verdict) == 4 && e.number(3) == 0 { // a map of verdicts
		r.acts, r.marked = r.acts || r.nat, true
	}
	return perhaps
}

// Numbers of linux/netfilter/nf_tables.h and linux/rtnetlink.h.
const (
	fibAddressType   = 3
	fibDestination   = 2
	routeTypeUnicast = 1
	metaMark         = 3
	metaInput        = 4
	metaOutput       = 5
	metaInputName    = 6
	metaOutputName   = 7
	metaUID          = 10
	metaFamily       = 15
	metaProtocol     = 16
	baseNetwork      = 1
	baseTransport    = 2
	familyIPv4       = 2  // NFPROTO_IPV4
	familyIPv6       = 10 // NFPROTO_IPV6
	nameLen          = 16
)

// meta loads what is known beside the packet's bytes.
func (r *nftRun) meta(e nftExpression) certainty {
	if _, set := e.attributes[3]; set {
		r.marked = r.marked || e.number(2) == metaMark
		return yes
	}
	var value []byte
	switch e.number(2) {
	case metaMark:
		if !r.marked {
			value = make([]byte, 4)
		}
	case metaInput:
		value = make([]byte, 4) // none
	case metaInputName:
		value = make([]byte, nameLen)
	case metaOutput:
		value = binary.NativeEndian.AppendUint32(nil, uint32(r.index))
	case metaOutputName:
		value = append([]byte(r.device), make([]byte, nameLen)...)[:nameLen]
	case metaUID:
		value = binary.NativeEndian.AppendUint32(nil, r.uid)
	case metaFamily:
		value = []byte{familyIPv4}
		if r.dst.Is6() {
			value[0] = familyIPv6
		}
	case metaProtocol:
		value = []byte{protocolUDP}
	}
	r.register[e.number(1)] = value
	return yes
}

// payload loads bytes of a packet, as far as they are the same in all.
func (r *nftRun) payload(base, offset, length uint32) []byte {
	var header []byte
	known := func(at int, b []byte) {
		if int(offset) >= at && int(offset+length) <= at+len(b) {
			header = b[int(offset)-at:][:length]
		}
	}
	switch {
	case base == baseTransport:
		known(2, binary.BigEndian.AppendUint16(nil, r.port))
	case base == baseNetwork && r.dst.Is4():
		known(9, []byte{protocolUDP})
		known(12, append(r.src.AsSlice(), r.dst.AsSlice()...))
	case base == baseNetwork:
		known(6, []byte{protocolUDP})
		known(8, append(r.src.AsSlice(), r.dst.AsSlice()...))
	}
	return header
}

// bitwise masks a register. Shifts and the like are not followed.
func (r *nftRun) bitwise(e nftExpression) []byte {
	value, mask, xor := r.register[e.number(1)], e.data(4), e.data(5)
	if value == nil || e.number(6) != 0 || len(mask) == 0 || len(mask) > len(value) || len(xor) != len(mask) {
		return nil
	}
	out := make([]byte, len(mask))
	for i := range out {
		out[i] = value[i]&mask[i] ^ xor[i]
	}
	return out
}

// compare carries out a comparison. What it compares with may be shorter: the
// begin of a device's name.
func (r *nftRun) compare(e nftExpression) certainty {
	value, with := r.register[e.number(1)], e.data(3)
	if value == nil || len(with) == 0 || len(with) > len(value) {
		return perhaps
	}
	order := bytes.Compare(value[:len(with)], with)
	return sure([]bool{order == 0, order != 0, order < 0, order <= 0, order > 0, order >= 0}, e.number(2))
}

// within carries out a comparison with a range.
func (r *nftRun) within(e nftExpression) certainty {
	value, from, to := r.register[e.number(1)], e.data(3), e.data(4)
	if value == nil || len(from) != len(to) || len(from) == 0 || len(from) > len(value) {
		return perhaps
	}
	value = value[:len(from)]
	in := bytes.Compare(value, from) >= 0 && bytes.Compare(value, to) <= 0
	return sure([]bool{in, !in}, e.number(2))
}

// sure picks the result of an operator.
func sure(results []bool, operator uint32) certainty {
	switch {
	case int(operator) >= len(results):
		return perhaps
	case results[operator]:
		return yes
	}
	return no
}

// match carries out a match of iptables' in a rule.
func (r *nftRun) match(name string, revision uint32, info []byte) certainty {
	if name == "mark" && r.marked {
		return perhaps
	}
	return matchOf(r.journey, name, uint8(revision), info)
}

// matchOf carries out a match of iptables' on packets that nothing has marked
// yet (linux/netfilter/xt_*.h).
func matchOf(j journey, name string, revision uint8, info []byte) certainty {
	switch name {
	case "comment":
		return yes
	case "tcp", "sctp", "icmp", "icmp6":
		return no
	case "udp":
		return udpPorts(j.port, info)
	case "addrtype":
		return addressType(revision, info)
	case "mark":
		return noMark(revision, info)
	}
	return perhaps
}

// udpPorts carries out a match of UDP's ports (struct xt_udp): source ports from
// and to, destination ports from and to, inversions.
func udpPorts(port uint16, info []byte) certainty {
	const invSourcePort, invDestPort = 1, 2
	if len(info) < 9 {
		return perhaps
	}
	at := func(i int) uint16 { return binary.NativeEndian.Uint16(info[2*i:]) }
	if (at(2) <= port && port <= at(3)) == (info[8]&invDestPort != 0) {
		return no
	}
	if at(0) == 0 && at(1) == 0xffff && info[8]&invSourcePort == 0 {
		return yes
	}
	return perhaps
}

// noMark carries out a match of a packet's mark, which is 0 (struct
// xt_mark_mtinfo1): mark, mask, inversion.
func noMark(revision uint8, info []byte) certainty {
	if revision != 1 || len(info) < 9 {
		return perhaps
	}
	if (binary.NativeEndian.Uint32(info) == 0) == (info[8] != 0) {
		return no
	}
	return yes
}

// addressType carries out a match of the kind of destination address: this
// journey's is a host's that is not this machine. Source types, destination
// types, flags or inversions.
func addressType(revision uint8, info []byte) certainty {
	if len(info) < 8 || revision == 0 && len(info) < 12 {
		return perhaps
	}
	source, dest := binary.NativeEndian.Uint16(info), binary.NativeEndian.Uint16(info[2:])
	inverted := binary.NativeEndian.Uint32(info[4:])&2 != 0
	if revision == 0 { // struct xt_addrtype_info
		inverted = binary.NativeEndian.Uint32(info[8:]) != 0
	}
	if dest != 0 && (dest&(1<<routeTypeUnicast) != 0) == inverted {
		return no
	}
	if source != 0 {
		return perhaps
	}
	return yes
}

// attribute is one of netlink's: a kind and its bytes.
type attribute struct {
	kind uint16
	data []byte
}

// parseAttributes reads a sequence of netlink attributes (linux/netlink.h). What
// is behind a broken one is left out.
func parseAttributes(b []byte) []attribute {
	const header, kindMask = 4, 0x3fff
	var list []attribute
	for len(b) >= header {
		size := int(binary.NativeEndian.Uint16(b))
		if size < header || size > len(b) {
			break
		}
		list = append(list, attribute{binary.NativeEndian.Uint16(b[2:]) & kindMask, b[header:size]})
		b = b[min(len(b), (size+3)&^3):]
	}
	return list
}

// attributeMap is parseAttributes by kind.
func attributeMap(b []byte) map[uint16][]byte {
	m := make(map[uint16][]byte)
	for _, a := range parseAttributes(b) {
		m[a.kind] = a.data
	}
	return m
}

// parseRule reads the list of a rule's expressions.
func parseRule(b []byte) []nftExpression {
	var rule []nftExpression
	for _, element := range parseAttributes(b) {
		parts := attributeMap(element.data)
		rule = append(rule, nftExpression{kind: cString(parts[1]), attributes: attributeMap(parts[2])})
	}
	return rule
}

// number reads an attribute of 32 bits, 0 if it is not there.
func (e nftExpression) number(kind uint16) uint32 { return bigEndian32(e.attributes[kind]) }

// text reads an attribute that is a string.
func (e nftExpression) text(kind uint16) string { return cString(e.attributes[kind]) }

// data reads an attribute that wraps a value.
func (e nftExpression) data(kind uint16) []byte { return attributeMap(e.attributes[kind])[1] }

// verdict reads an immediate that is a verdict.
func (e nftExpression) verdict() (code int32, chain string, ok bool) {
	wrapped, ok := attributeMap(e.attributes[2])[2]
	if !ok {
		return 0, "", false
	}
	parts := attributeMap(wrapped)
	return int32(bigEndian32(parts[1])), cString(parts[2]), true
}

func bigEndian32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// cString cuts at the first zero byte.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
