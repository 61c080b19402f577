package encap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// sumState says what a checksum is in a capture, and with that what it has to become.
type sumState byte

const (
	sumRight   sumState = iota // as it is on the wire; over what is unfinished: as Linux computes it
	sumHeld                    // right for the bytes that the capture shows
	sumLeft                    // the pseudo-header's
	sumBare                    // the pseudo-header's without the length
	sumNothing                 // 0, where that is unfinished
	sumNone                    // 0, where that says that there is none
	sumDamaged                 // wrong on the wire
	sumStates
)

func (s sumState) String() string {
	return [...]string{"right", "right for the capture", "left", "left without length", "left at 0", "none", "damaged"}[s]
}

// level is an IP packet: one that carries the next by a tunnel, or the innermost.
type level struct {
	v6        bool
	carries   string // how it carries the next, or what the innermost is
	sum       sumState
	noIPv4Sum bool // its header checksum was left
}

func (l level) String() string {
	return fmt.Sprintf("%s (%v) over IPv%d (header left: %v)", l.carries, l.sum, map[bool]int{false: 4, true: 6}[l.v6], l.noIPv4Sum)
}

var (
	tunnelKinds = []string{"vxlan", "geneve", "gre", "gre, checksum", "gre, Ethernet", "ip"}
	innerKinds  = []string{"tcp", "udp", "icmp"}
)

// tunnelledFrame builds a frame of these levels with gopacket: as it is on the wire,
// and as a host captures it that left to its card what the levels say.
func tunnelledFrame(t testing.TB, levels []level, payload []byte) (wire, captured []byte) {
	t.Helper()
	list := []gopacket.SerializableLayer{etherLayer(levels[0])}
	for i, l := range levels {
		list = append(list, l.layers(i, levels)...)
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, append(list, gopacket.Payload(payload))...); err != nil {
		t.Fatal(err)
	}
	wire = slices.Clone(buf.Bytes())
	captured = slices.Clone(wire)
	for _, s := range sumsOf(t, wire, levels) { // each covers those before
		onWire, left := s.right(wire), s.right(wire)
		switch s.state {
		case sumHeld:
			left = s.right(captured)
		case sumLeft, sumBare:
			left = s.pseudo(s.state == sumLeft)
		case sumNothing:
			left = 0
		case sumNone:
			onWire, left = 0, 0
		case sumDamaged:
			for left += 0x1111; slices.Contains([]uint16{0, onWire, s.right(captured), s.pseudo(true), s.pseudo(false)}, left); left++ {
			}
			onWire = left
		}
		s.put(wire, onWire)
		s.put(captured, left)
	}
	return wire, captured
}

func etherLayer(l level) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: l.etherType()}
}

func (l level) etherType() layers.EthernetType {
	if l.v6 {
		return layers.EthernetTypeIPv6
	}
	return layers.EthernetTypeIPv4
}

// layers are those of level i, as far as the next.
func (l level) layers(i int, levels []level) (list []gopacket.SerializableLayer) {
	proto := map[string]layers.IPProtocol{"vxlan": layers.IPProtocolUDP, "geneve": layers.IPProtocolUDP, "gre": layers.IPProtocolGRE,
		"gre, checksum": layers.IPProtocolGRE, "gre, Ethernet": layers.IPProtocolGRE, "ip": layers.IPProtocolIPv4,
		"tcp": layers.IPProtocolTCP, "udp": layers.IPProtocolUDP, "icmp": layers.IPProtocolICMPv4}[l.carries]
	var next level
	if i+1 < len(levels) {
		next = levels[i+1]
	}
	switch {
	case l.carries == "ip" && next.v6:
		proto = layers.IPProtocolIPv6
	case l.carries == "icmp" && l.v6:
		proto = layers.IPProtocolICMPv6
	}
	var ip gopacket.NetworkLayer
	if l.v6 {
		v6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: net.ParseIP(fmt.Sprintf("fd00::%d:1", i)), DstIP: net.ParseIP(fmt.Sprintf("fd00::%d:2", i))}
		ip, list = v6, append(list, v6)
	} else {
		v4 := &layers.IPv4{Version: 4, TTL: 64, Id: 7, Protocol: proto, SrcIP: net.IPv4(10, byte(i), 0, 1), DstIP: net.IPv4(10, byte(i), 0, 2)}
		ip, list = v4, append(list, v4)
	}
	overUDP := func(port layers.UDPPort) *layers.UDP {
		udp := &layers.UDP{SrcPort: 50000, DstPort: port}
		_ = udp.SetNetworkLayerForChecksum(ip)
		return udp
	}
	switch l.carries {
	case "vxlan":
		return append(list, overUDP(4789), &layers.VXLAN{ValidIDFlag: true, VNI: 7}, etherLayer(next))
	case "geneve":
		return append(list, overUDP(6081), &layers.Geneve{Protocol: layers.EthernetTypeTransparentEthernetBridging, VNI: 7}, etherLayer(next))
	case "gre":
		return append(list, &layers.GRE{Protocol: next.etherType()})
	case "gre, checksum":
		return append(list, &layers.GRE{ChecksumPresent: true, KeyPresent: true, Key: 9, Protocol: next.etherType()})
	case "gre, Ethernet":
		return append(list, &layers.GRE{KeyPresent: true, Key: 9, Protocol: layers.EthernetTypeTransparentEthernetBridging}, etherLayer(next))
	case "udp":
		return append(list, overUDP(6000))
	case "tcp":
		tcp := &layers.TCP{SrcPort: 50000, DstPort: 6000, Seq: 7, ACK: true, Window: 500}
		_ = tcp.SetNetworkLayerForChecksum(ip)
		return append(list, tcp)
	case "icmp":
		if l.v6 {
			icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}
			_ = icmp.SetNetworkLayerForChecksum(ip)
			return append(list, icmp, &layers.ICMPv6Echo{Identifier: 7})
		}
		return append(list, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: 7})
	}
	return list // IP in IP
}

// sumAt is where a checksum is in a frame, and what it covers.
type sumAt struct {
	state     sumState
	field     int
	from, to  int
	addresses []byte // of the pseudo-header, nil if there is none
	proto     int
}

// sumsOf finds all checksums with gopacket, the innermost first.
func sumsOf(t testing.TB, frame []byte, levels []level) (sums []sumAt) {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	if p.ErrorLayer() != nil {
		t.Fatalf("gopacket does not read %v: %v", levels, p.ErrorLayer().Error())
	}
	at, i := 0, -1
	var addresses []byte
	for _, layer := range p.Layers() {
		s := sumAt{from: at, to: at + len(layer.LayerContents()) + len(layer.LayerPayload()), addresses: addresses}
		field := -1
		switch l := layer.(type) {
		case *layers.IPv4:
			i++
			addresses, field, s.addresses, s.to = slices.Concat(l.SrcIP.To4(), l.DstIP.To4()), 10, nil, at+20
			if levels[i].noIPv4Sum {
				s.state = sumNothing
			}
		case *layers.IPv6:
			i++
			addresses = slices.Concat(l.SrcIP, l.DstIP)
		case *layers.GRE:
			if s.state, s.addresses = levels[i].sum, nil; l.ChecksumPresent {
				field = 4
			}
		case *layers.UDP:
			s.state, s.proto, field = levels[i].sum, 17, 6
		case *layers.TCP:
			s.state, s.proto, field = levels[i].sum, 6, 16
		case *layers.ICMPv4:
			s.state, field, s.addresses = levels[i].sum, 2, nil
		case *layers.ICMPv6:
			s.state, s.proto, field = levels[i].sum, 58, 2
		}
		if field >= 0 {
			s.field = at + field
			s.state = s.possible(levels[i])
			sums = append(sums, s)
		}
		at += len(layer.LayerContents())
	}
	if i+1 != len(levels) {
		t.Fatalf("gopacket sees %d IP packets of %v", i+1, levels)
	}
	slices.Reverse(sums)
	return sums
}

// possible is the state, or the nearest that such a checksum can have.
func (s sumAt) possible(l level) sumState {
	mayBeNone := s.proto == 17 && (!l.v6 || l.carries != "udp")
	switch {
	case s.state == sumNothing && mayBeNone:
		return sumNone
	case s.state == sumNone && !mayBeNone, s.addresses == nil && (s.state == sumLeft || s.state == sumBare):
		return sumNothing
	}
	return s.state
}

func (s sumAt) put(frame []byte, sum uint16) { binary.BigEndian.PutUint16(frame[s.field:], sum) }

// right is what the checksum of the frame's bytes is.
func (s sumAt) right(frame []byte) uint16 {
	frame = slices.Clone(frame)
	s.put(frame, 0)
	if s.addresses == nil {
		return checksum16(frame[s.from:s.to])
	}
	sum := checksum16(s.addresses, be16(s.proto), be16(s.to-s.from), frame[s.from:s.to])
	if sum == 0 && s.proto != 58 {
		return 0xffff
	}
	return sum
}

func (s sumAt) pseudo(length bool) uint16 {
	if length {
		return ^checksum16(s.addresses, be16(s.proto), be16(s.to-s.from))
	}
	return ^checksum16(s.addresses, be16(s.proto))
}

// checkTunnelled: what was captured becomes what was on the wire if that is asked for,
// and is counted if not. What is on the wire stays, and so does what was cut.
func checkTunnelled(t *testing.T, levels []level, payload []byte) {
	t.Helper()
	wire, captured := tunnelledFrame(t, levels, payload)
	changed := !bytes.Equal(wire, captured)
	var open, fixed forward.OutcomeFlags
	if changed {
		open, fixed = forward.ChecksumsOpen, forward.ChecksumsFixed
	}
	for _, run := range []struct {
		what        string
		fix         bool
		frame, want []byte
		flags       forward.OutcomeFlags
	}{
		{"counted", false, captured, captured, open},
		{"computed", true, captured, wire, fixed},
		{"as on the wire", true, wire, wire, 0},
	} {
		frames, out := encapsulated(t, Config{VNI: 1, FixChecksums: run.fix}, ethernet(run.frame))
		if out.Flags != run.flags || len(frames) != 1 || !bytes.Equal(frames[0], run.want) {
			t.Errorf("%v: %s: outcome %+v\n%x became\n%x, want\n%x", levels, run.what, out, run.frame, frames, run.want)
		}
	}
	for cut := 1; cut < 40 && len(captured) > leastFrame; cut += 13 { // else it is padding that is cut
		part := forward.Frame{Data: captured[:len(captured)-cut], Length: len(captured), LinkType: forward.LinkEthernet}
		frames, out := encapsulated(t, Config{VNI: 1, FixChecksums: true}, part)
		if out.Flags != forward.CutBySnap || !bytes.Equal(frames[0], part.Data) {
			t.Errorf("%v, cut: outcome %+v", levels, out)
		}
	}
}

// Whatever the tunnel, and whatever a host has left inside and outside.
func TestChecksumsWithinTunnels(t *testing.T) {
	for _, kind := range tunnelKinds {
		for _, innermost := range innerKinds {
			for six := range 4 {
				for outside := range sumStates {
					for within := range sumStates {
						checkTunnelled(t, []level{
							{six&1 != 0, kind, outside, outside == sumLeft},
							{six&2 != 0, innermost, within, within == sumBare},
						}, payloadBytes(33))
					}
				}
			}
		}
	}
}

// Tunnels within each other are finished as deep as flows are looked for.
func TestChecksumsWithinTunnelsWithinTunnels(t *testing.T) {
	for depth := range maxNested + 1 {
		levels := make([]level, depth+1)
		for i := range levels {
			levels[i] = level{i&1 != 0, tunnelKinds[i%len(tunnelKinds)], sumHeld, i == 1}
		}
		levels[depth].carries, levels[depth].sum = "tcp", sumLeft
		checkTunnelled(t, levels, payloadBytes(20))
	}
	deep := make([]level, maxNested+2)
	for i := range deep {
		deep[i] = level{carries: "ip"}
	}
	deep[maxNested+1] = level{carries: "udp", sum: sumLeft}
	_, captured := tunnelledFrame(t, deep, payloadBytes(20))
	if frames, out := encapsulated(t, Config{VNI: 1, FixChecksums: true}, ethernet(captured)); out.Flags != 0 || !bytes.Equal(frames[0], captured) {
		t.Errorf("%d tunnels: outcome %+v", maxNested+1, out)
	}
}

// Every tunnel that flows are looked for in: what is inside becomes what it is without
// the tunnel, and the tunnel's headers stay.
func TestChecksumsWithinEveryTunnel(t *testing.T) {
	open, right := with(tcp4Frame(101, 1), 50, pseudo4(6, 121)...), tcp4Frame(101, 1)
	around := nestings()
	for name, nest := range around {
		if strings.HasPrefix(name, "teredo") {
			continue // of IPv6 alone, below
		}
		for twice, nest := range []func(byte, byte, []byte) []byte{nest, func(a, b byte, frame []byte) []byte { return around["geneve"](a, b, nest(a, b, frame)) }} {
			checkBecomes(t, fmt.Sprintf("%s, in GENEVE %d times", name, twice), nest(1, 2, open), nest(1, 2, right))
		}
	}
	teredo := func(frame []byte) []byte { return ether(1, 2, 0x0800, ip4(1, 2, 17, 0, udp(40000, 3544, frame[14:]))) }
	tcp6 := tcp6Frame(100, 1)
	checkBecomes(t, "teredo", teredo(with(tcp6, 70, pseudo6(6, 120)...)), teredo(tcp6))
	mpls := func(frame []byte) []byte { return slices.Concat(frame[:12], be16(0x8847), be32(0x1140), frame[14:]) }
	pppoe := func(frame []byte) []byte {
		return slices.Concat(frame[:12], be16(0x8864), []byte{0x11, 0, 0, 1}, be16(len(frame)-12), be16(0x21), frame[14:])
	}
	for name, nest := range map[string]func([]byte) []byte{"MPLS": mpls, "PPPoE": pppoe, "PPPoE, padded": func(frame []byte) []byte { return append(pppoe(frame), 1, 2, 3) }} {
		checkBecomes(t, name, nest(open), nest(right))
		checkBecomes(t, name+", VXLAN", nest(around["vxlan"](1, 2, open)), nest(around["vxlan"](1, 2, right)))
		checkBecomes(t, name+" in VXLAN", around["vxlan"](1, 2, nest(open)), around["vxlan"](1, 2, nest(right)))
	}
}

func checkBecomes(t *testing.T, name string, open, right []byte) {
	t.Helper()
	frames, out := encapsulated(t, Config{VNI: 1, FixChecksums: true}, ethernet(open))
	if out.Flags != forward.ChecksumsFixed || !bytes.Equal(frames[0], right) {
		t.Errorf("%s: outcome %+v: %x became\n%x, want\n%x", name, out, open, frames[0], right)
	}
}

// What is no whole packet within a whole one is left alone: so is what only looks
// like a tunnel's.
func TestFinishedTunnelsStay(t *testing.T) {
	open := with(tcp4Frame(101, 1), 50, pseudo4(6, 121)...)
	vxlan := nestings()["vxlan"](1, 2, open)
	fragment := ether(1, 2, 0x0800, ip4(1, 200, 6, 0x2000, tcp(1, 2, 3, 0x10, false, payloadBytes(40))))
	quote := ether(1, 2, 0x0800, ip4(1, 2, 1, 0, withICMPSum(slices.Concat([]byte{3, 4, 0, 0, 0, 0, 5, 0}, open[14:]))))
	for name, frame := range map[string][]byte{
		"outer fragment, the first":      with(vxlan, 20, 0x20, 0),
		"outer fragment, the last":       with(vxlan, 20, 0, 9),
		"inner fragment":                 nestings()["vxlan"](1, 2, fragment),
		"inner length beyond the end":    nestings()["vxlan"](1, 2, with(open, 16, 9, 9)),
		"inner without a length":         nestings()["vxlan"](1, 2, with(open, 16, 0, 0)),
		"inner without a header":         nestings()["vxlan"](1, 2, open[:30]),
		"inner ARP":                      nestings()["vxlan"](1, 2, ether(1, 2, 0x0806, make([]byte, 46))),
		"a datagram ends elsewhere":      with(vxlan, 38, 0, 100),
		"another port":                   with(vxlan, 36, 0, 53),
		"VXLAN without a VNI":            with(vxlan, 42, 0),
		"GENEVE of another version":      with(nestings()["geneve"](1, 2, open), 42, 0x40),
		"GRE with routing":               with(nestings()["gre"](1, 2, open), 34, 0x40),
		"GRE, checksum wrong":            nestings()["gre, checksum"](1, 2, tcp4Frame(9, 1)),
		"GTP-U's own":                    with(nestings()["gtp-u"](1, 2, open), 43, 1),
		"quoted by an ICMP error":        quote,
		"quoted, behind tags":            vlanTag(vlanTag(quote, 5), 6),
		"tunnel without a sum over IPv6": ether(1, 2, 0x86dd, ip6(1, 2, 17, udp(50000, 4789, slices.Concat([]byte{8, 0, 0, 0, 0, 0, 7, 0}, tcp4Frame(9, 1))))),
	} {
		frames, out := encapsulated(t, Config{VNI: 1, FixChecksums: true}, ethernet(frame))
		if out.Flags != 0 || !bytes.Equal(frames[0], frame) {
			t.Errorf("%s: outcome %+v", name, out)
		}
	}
}

// A tunnel without a checksum stays so even if 0 happens to be the sum.
func TestNoChecksumStaysNone(t *testing.T) {
	nest := func(port int, frame []byte) []byte {
		return ether(1, 2, 0x0800, ip4(1, 2, 17, 0, udp(port, 4789, slices.Concat([]byte{8, 0, 0, 0, 0, 0, 7, 0}, frame))))
	}
	open, right := with(tcp4Frame(101, 1), 50, pseudo4(6, 121)...), tcp4Frame(101, 1)
	datagram := nest(0, open)[34:]
	port := int(checksum16([]byte{10, 0, 0, 1, 10, 0, 0, 2}, be16(17), be16(len(datagram)), datagram)) // brings the sum to 0xffff
	checkBecomes(t, "no checksum", nest(port, open), nest(port, right))
}

// withICMPSum is a message with its checksum.
func withICMPSum(message []byte) []byte { return with(message, 2, be16(int(checksum16(message)))...) }

// A tunnel's packet without a length gets one, and what is inside is finished as well.
func TestLengthsAreRepairedAroundTunnels(t *testing.T) {
	open, right := with(tcp4Frame(101, 1), 50, pseudo4(6, 121)...), tcp4Frame(101, 1)
	vxlan := with(withLength0(nestings()["vxlan"](1, 2, open)), 38, 0, 0)
	frames, out := encapsulated(t, Config{VNI: 1}, ethernet(vxlan))
	if out.Flags != forward.LengthRepaired|forward.ChecksumsOpen || !bytes.HasSuffix(frames[0], open) {
		t.Errorf("outcome %+v, frame %x", out, frames)
	}
	frames, out = encapsulated(t, Config{VNI: 1, FixChecksums: true}, ethernet(vxlan))
	if out.Flags != forward.LengthRepaired|forward.ChecksumsFixed || !bytes.HasSuffix(frames[0], right) {
		t.Errorf("outcome %+v, frame %x", out, frames)
	}
	if bad := tsharkRejects(t, []forward.Frame{ethernet(frames[0])}); len(bad) > 0 {
		t.Errorf("tshark finds wrong checksums in %x", frames[0])
	}
}

// tsharkRejects are the numbers of those frames in which tshark, which shares nothing
// with this package, finds a wrong checksum anywhere.
func tsharkRejects(t *testing.T, frames []forward.Frame) []string {
	t.Helper()
	const bad = ".checksum.status == Bad"
	var options, filter []string
	for _, name := range []string{"ip", "tcp", "udp", "icmp", "icmpv6", "gre"} {
		filter = append(filter, name+bad)
	}
	for _, name := range []string{"ip.check_checksum", "tcp.check_checksum", "udp.check_checksum", "udp.ignore_ipv6_zero_checksum"} {
		options = append(options, "-o", name+":TRUE")
	}
	return strings.Fields(string(tshark(t, writeCapture(t, frames), append(options, "-Y", strings.Join(filter, " or "), "-T", "fields", "-e", "frame.number")...)))
}

// To tshark every one of these is wrong before, and right at every depth after.
func TestTsharkReadsWhatWasFinishedWithinTunnels(t *testing.T) {
	var before, after []forward.Frame
	for _, kind := range tunnelKinds {
		for _, innermost := range innerKinds {
			for six := range 4 {
				for outside := range sumDamaged {
					levels := []level{{six&1 != 0, kind, outside, false}, {six&2 != 0, innermost, sumLeft, false}}
					_, captured := tunnelledFrame(t, levels, payloadBytes(48))
					frames, _ := encapsulated(t, Config{VNI: 1, FixChecksums: true}, ethernet(captured))
					before, after = append(before, ethernet(captured)), append(after, ethernet(frames[0]))
				}
			}
		}
	}
	if bad := tsharkRejects(t, before); len(bad) != len(before) {
		t.Errorf("tshark finds wrong checksums in %d of %d frames", len(bad), len(before))
	}
	if bad := tsharkRejects(t, after); len(bad) > 0 {
		t.Errorf("tshark finds wrong checksums in frames %v", bad)
	}
}

// Real captures, sent into a tunnel as they are and captured there: as many frames are
// counted as without the tunnel, and tshark finds all of them right when fixed.
func TestFieldCapturesAreFinishedWithinTunnels(t *testing.T) {
	for name, want := range map[string]int{"kerberos_tso.pcapng": 151, "snmpwalk-short.pcap": 200} {
		frames := readCapture(t, testenv.Shared(t, "pcaps", name))
		for _, kind := range []Kind{VXLAN, GENEVE} {
			for _, v6 := range []bool{false, true} {
				var before, after []forward.Frame
				for _, f := range tunnelledCapture(t, frames, kind, v6) {
					if _, out := encapsulated(t, Config{VNI: 1}, f); out.Flags&forward.ChecksumsOpen == 0 {
						continue
					}
					fixed, _ := encapsulated(t, Config{VNI: 1, FixChecksums: true}, f)
					before, after = append(before, f), append(after, ethernet(fixed[0]))
				}
				if bad := tsharkRejects(t, before); len(bad) != want || len(before) != want {
					t.Errorf("%s, %v, IPv6 %v: %d frames are counted, tshark finds %d wrong, want %d", name, kind, v6, len(before), len(bad), want)
				}
				if bad := tsharkRejects(t, after); len(bad) > 0 {
					t.Errorf("%s, %v, IPv6 %v: tshark finds %v wrong", name, kind, v6, bad)
				}
			}
		}
	}
}

// tunnelledCapture is what a capture of a tunnel shows that the frames go through.
func tunnelledCapture(t *testing.T, frames []forward.Frame, kind Kind, v6 bool) (list []forward.Frame) {
	t.Helper()
	e, err := New(Config{Kind: kind, VNI: 1})
	if err != nil {
		t.Fatal(err)
	}
	var b forward.Batch
	for i := range frames {
		e.Encapsulate(&b, &frames[i])
	}
	for _, f := range outerFrames(t, &b, outerConfig(kind, v6)) {
		list = append(list, ethernet(f.Data))
	}
	return list
}

// Any tunnels, and anything left anywhere: what is finished is what was on the wire.
func FuzzChecksumsWithinTunnels(f *testing.F) {
	f.Add([]byte{0, 2, 0, 0, 0, 2}, []byte("payload"))
	f.Add([]byte{1, 3, 1, 1, 1, 9, 0, 3, 1, 1, 1, 2}, []byte("payload"))
	f.Add([]byte{1, 1, 0, 0, 0, 1, 1, 5, 1, 1, 2, 2}, []byte{})
	f.Fuzz(func(t *testing.T, shape, payload []byte) {
		if len(shape) < 3 || len(shape) > 3*(maxNested+1) || len(payload) > 1000 {
			return
		}
		var levels []level
		for ; len(shape) >= 3; shape = shape[3:] {
			levels = append(levels, level{shape[0]&1 != 0, tunnelKinds[int(shape[1])%len(tunnelKinds)], sumState(shape[2] & 0x7f % byte(sumStates)), shape[2]&0x80 != 0})
			if len(shape) < 6 {
				levels[len(levels)-1].carries = innerKinds[int(shape[1])%len(innerKinds)]
			}
		}
		checkTunnelled(t, levels, payload)
	})
}
