package encap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// leftSum is a frame whose checksum was left to the network card.
type leftSum struct {
	name  string
	frame []byte
}

// with puts bytes into a copy of frame.
func with(frame []byte, at int, data ...byte) []byte {
	frame = slices.Clone(frame)
	copy(frame[at:], data)
	return frame
}

// pseudo4 and pseudo6 are what hosts leave: the sum of the pseudo-header.
func pseudo4(proto, length int) []byte {
	return be16(int(^checksum16([]byte{10, 0, 0, 1, 10, 0, 0, 200}, be16(proto), be16(length))))
}

func pseudo6(proto, length int) []byte {
	return be16(int(^checksum16(addr6(1), addr6(200), be16(proto), be16(length))))
}

// icmp is an echo request without its checksum.
func icmp(kind byte) []byte {
	return slices.Concat([]byte{kind, 0, 0, 0, 1, 2, 3, 4}, payloadBytes(41))
}

// unfinishedFrames are all kinds of what a host may leave.
func unfinishedFrames() []leftSum {
	udp4 := ether(1, 2, 0x0800, ip4(1, 200, 17, 0x4000, udp(5000, 6000, payloadBytes(31))))
	udp6 := ether(1, 2, 0x86dd, ip6(1, 200, 17, udp(5000, 6000, payloadBytes(31))))
	tcp4, tcp6 := tcp4Frame(101, 1), tcp6Frame(100, 1)
	return []leftSum{
		{"TCP, IPv4, pseudo-header", with(tcp4, 50, pseudo4(6, 121)...)},
		{"TCP, IPv4, pseudo-header without length", with(tcp4, 50, pseudo4(6, 0)...)},
		{"TCP, IPv4, nothing", with(tcp4, 50, 0, 0)},
		{"TCP, IPv4, nothing, IP header neither", with(with(tcp4, 50, 0, 0), 24, 0, 0)},
		{"IPv4 header alone", with(tcp4, 24, 0, 0)},
		{"TCP, IPv4, no payload", with(tcp4Frame(0, 1), 50, pseudo4(6, 20)...)},
		{"TCP, IPv4, VLAN", vlanTag(with(tcp4, 50, pseudo4(6, 121)...), 5)},
		{"TCP, IPv4, QinQ", vlanTag(ethertyped(vlanTag(with(tcp4, 50, pseudo4(6, 121)...), 5), 0x88a8), 6)},
		{"TCP, IPv6, pseudo-header", with(tcp6, 70, pseudo6(6, 120)...)},
		{"TCP, IPv6, nothing", with(tcp6, 70, 0, 0)},
		{"UDP, IPv4, pseudo-header", with(udp4, 40, pseudo4(17, 39)...)},
		{"UDP, IPv6, pseudo-header", with(udp6, 60, pseudo6(17, 39)...)},
		{"UDP, IPv6, nothing", udp6},
		{"ICMP", ether(1, 2, 0x0800, ip4(1, 200, 1, 0x4000, icmp(8)))},
		{"ICMPv6", ether(1, 2, 0x86dd, ip6(1, 200, 58, icmp(128)))},
		{"ICMPv6, pseudo-header", with(ether(1, 2, 0x86dd, ip6(1, 200, 58, icmp(128))), 56, pseudo6(58, 49)...)},
		{"padded", slices.Concat(with(tcp4Frame(1, 1), 50, pseudo4(6, 21)...), make([]byte, 5))},
		{"in VXLAN", nestings()["vxlan"](1, 2, with(tcp4, 50, pseudo4(6, 121)...))},
		{"in GENEVE, VLAN", nestings()["geneve"](1, 2, vlanTag(with(tcp4, 50, pseudo4(6, 121)...), 5))},
		{"in GRE", vlanTag(nestings()["gre"](1, 2, with(udp4, 40, pseudo4(17, 39)...)), 5)},
		{"in IP in IPv6", nestings()["ip in ipv6"](1, 2, with(tcp4, 24, 0, 0))},
	}
}

// encapsulated is what a frame becomes, one or several.
func encapsulated(t *testing.T, c Config, f forward.Frame) ([][]byte, forward.Outcome) {
	t.Helper()
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	var b forward.Batch
	was := slices.Clone(f.Data)
	out := e.Encapsulate(&b, &f)
	if !bytes.Equal(was, f.Data) {
		t.Error("the source's memory was written to")
	}
	var frames [][]byte
	for i := range b.Datagrams {
		frames = append(frames, b.Payload(i)[c.HeaderLen():])
	}
	return frames, out
}

func ethernet(frame []byte) forward.Frame {
	return forward.Frame{Data: frame, Length: len(frame), LinkType: forward.LinkEthernet}
}

// Checksums that were left are counted, and computed where that is asked for.
// Tshark, which shares nothing with this package, finds all of them right then, and
// wrong before.
func TestFixChecksums(t *testing.T) {
	var before, after []forward.Frame
	for _, u := range unfinishedFrames() {
		as, out := encapsulated(t, Config{VNI: 1}, ethernet(u.frame))
		if out.Flags != forward.ChecksumsOpen || len(as) != 1 || !bytes.Equal(as[0], u.frame) {
			t.Errorf("%s: outcome %+v, changed %v", u.name, out, !bytes.Equal(as[0], u.frame))
		}
		fixed, out := encapsulated(t, Config{VNI: 1, FixChecksums: true}, ethernet(u.frame))
		if out.Flags != forward.ChecksumsFixed || len(fixed) != 1 || len(fixed[0]) != len(u.frame) {
			t.Fatalf("%s: outcome %+v", u.name, out)
		}
		again, out := encapsulated(t, Config{VNI: 1, FixChecksums: true}, ethernet(fixed[0]))
		if out.Flags != 0 || !bytes.Equal(again[0], fixed[0]) {
			t.Errorf("%s: what was fixed is not finished: %+v", u.name, out)
		}
		before, after = append(before, ethernet(u.frame)), append(after, ethernet(fixed[0]))
	}
	if bad := badChecksums(t, before); len(bad) != len(before) {
		t.Errorf("tshark finds wrong checksums in %v of %d frames", bad, len(before))
	}
	if bad := badChecksums(t, after); len(bad) > 0 {
		t.Errorf("tshark finds wrong checksums in frames %v", bad)
	}
}

// badChecksums are the numbers of those frames in which tshark finds one.
func badChecksums(t *testing.T, frames []forward.Frame) []string {
	t.Helper()
	const check = ".check_checksum:TRUE"
	out := tshark(t, writeCapture(t, frames), "-o", "ip"+check, "-o", "tcp"+check, "-o", "udp"+check,
		"-Y", "ip.checksum.status == Bad or tcp.checksum.status == Bad or udp.checksum.status == Bad or icmp.checksum.status == Bad or icmpv6.checksum.status == Bad"+
			" or ipv6 and udp.checksum == 0", "-T", "fields", "-e", "frame.number")
	return strings.Fields(string(out))
}

// The same in other link types, and without Ethernet.
func TestFixChecksumsEverywhere(t *testing.T) {
	packet := unfinishedFrames()[0].frame[14:]
	for _, c := range []Config{{VNI: 1, FixChecksums: true}, {Kind: GENEVE, RawIP: true, FixChecksums: true}} {
		frames, out := encapsulated(t, c, forward.Frame{Data: packet, Length: len(packet), LinkType: forward.LinkRaw})
		if out.Flags != forward.Normalised|forward.ChecksumsFixed {
			t.Fatalf("outcome %+v", out)
		}
		sent := frames[0][len(frames[0])-len(packet):]
		if want := tcp4Frame(101, 1)[14:]; !bytes.Equal(sent, want) {
			t.Errorf("%x, want %x", sent, want)
		}
	}
}

// What is right, what was wrong on the wire, what has no checksum, and what is not
// there as a whole stays as it is, and is not counted.
func TestFinishedFramesStay(t *testing.T) {
	udp4 := ether(1, 2, 0x0800, ip4(1, 200, 17, 0x4000, udp(5000, 6000, payloadBytes(31))))
	open := unfinishedFrames()[0].frame
	for name, f := range map[string]forward.Frame{
		"right":                     ethernet(tcp4Frame(101, 1)),
		"right, IPv6":               ethernet(tcp6Frame(101, 1)),
		"wrong":                     ethernet(with(tcp4Frame(101, 1), 50, 0x12, 0x34)),
		"wrong, IPv6":               ethernet(with(tcp6Frame(101, 1), 70, 0x12, 0x34)),
		"wrong IP header":           ethernet(with(tcp4Frame(101, 1), 24, 0x12, 0x34)),
		"UDP over IPv4 without one": ethernet(udp4),
		"fragment":                  ethernet(ether(1, 2, 0x0800, ip4(1, 200, 6, 0x2000, tcp(1, 2, 3, 0x10, false, payloadBytes(40))))),
		"ARP":                       ethernet(ether(1, 2, 0x0806, make([]byte, 46))),
		"short":                     ethernet(open[:40]),
		"IP length beyond the end":  ethernet(open[:100]),
		"no next header":            ethernet(ether(1, 2, 0x86dd, slices.Concat([]byte{0x60, 0, 0, 0, 0, 0, 59, 64}, addr6(1), addr6(2), make([]byte, 60)))),
	} {
		frames, out := encapsulated(t, Config{VNI: 1, FixChecksums: true}, f)
		if out.Flags != 0 || len(frames) != 1 || !bytes.Equal(frames[0], f.Data) {
			t.Errorf("%s: outcome %+v", name, out)
		}
	}
	cut := forward.Frame{Data: open[:80], Length: len(open), LinkType: forward.LinkEthernet}
	if frames, out := encapsulated(t, Config{VNI: 1, FixChecksums: true}, cut); out.Flags != forward.CutBySnap || !bytes.Equal(frames[0], cut.Data) {
		t.Errorf("cut: outcome %+v", out)
	}
}

// Over random frames the quick look never overlooks what the proof would find.
func TestTheQuickLookOverlooksNothing(t *testing.T) {
	for _, u := range unfinishedFrames() {
		for bit := range 8 * len(u.frame) {
			frame := slices.Clone(u.frame)
			frame[bit/8] ^= 1 << (bit % 8)
			n := locateNetwork(frame)
			if n.lengths || n.etherType != etherTypeIPv4 && n.etherType != etherTypeIPv6 {
				continue
			}
			if want := examine(frame[n.offset:], len(frame)-n.offset); unfinishedIn(frame, len(frame)) != want {
				t.Fatalf("%s, bit %d: %b, want %b", u.name, bit, unfinishedIn(frame, len(frame)), want)
			}
		}
	}
}

// A packet whose IP header has no length was taken before the network card cut it:
// it gets its length and its checksums whatever its size, and is cut at the MTU.
func TestLengthsAreRepaired(t *testing.T) {
	udp4 := ether(1, 2, 0x0800, ip4(1, 200, 17, 0x4000, udp(5000, 6000, payloadBytes(900))))
	for _, tt := range []struct {
		name   string
		frame  []byte
		pieces int
	}{
		{"TCP, below the MTU", withLength0(tcp4Frame(200, 1)), 1},
		{"TCP, one byte of payload more than padding", withLength0(tcp4Frame(7, 1)), 1},
		{"TCP, as long as the MTU", withLength0(tcp4Frame(1460, 1)), 1},
		{"TCP, above it", withLength0(tcp4Frame(1461, 1)), 2},
		{"TCP, IPv6", withLength0(tcp6Frame(300, 1)), 1},
		{"TCP, IPv6, above the MTU", withLength0(tcp6Frame(2000, 1)), 2},
		{"TCP, VLAN", vlanTag(withLength0(tcp4Frame(2000, 1)), 7), 2},
		{"UDP", withLength0(udp4), 1},
		{"UDP without a length either", with(withLength0(udp4), 38, 0, 0), 1},
	} {
		frames, out := encapsulated(t, Config{VNI: 1}, ethernet(tt.frame))
		flags := forward.LengthRepaired
		if tt.pieces > 1 {
			flags |= forward.Resegmented
		}
		if out.Flags != flags || len(frames) != tt.pieces {
			t.Errorf("%s: outcome %+v, %d frames", tt.name, out, len(frames))
			continue
		}
		var list []forward.Frame
		for _, f := range frames {
			at := locateNetwork(f).offset
			if n := ipLength(f[at:]); n != len(f)-at || n > 1500 {
				t.Errorf("%s: IP length %d in a frame of %d bytes", tt.name, n, len(f))
			}
			list = append(list, ethernet(f))
		}
		if bad := badChecksums(t, list); len(bad) > 0 {
			t.Errorf("%s: tshark finds wrong checksums in frames %v", tt.name, bad)
		}
	}
}

// A length is not invented: where padding may be, where something else contradicts.
func TestLengthsThatMayBeTrueStay(t *testing.T) {
	udp4 := withLength0(ether(1, 2, 0x0800, ip4(1, 200, 17, 0x4000, udp(5000, 6000, payloadBytes(900)))))
	jumbo := ether(1, 2, 0x86dd, slices.Concat([]byte{0x60, 0, 0, 0, 0, 0, 0, 64}, addr6(1), addr6(2),
		[]byte{6, 0, 0xc2, 4}, be32(8+120), tcp(1, 2, 3, 0x10, false, payloadBytes(100))))
	for name, frame := range map[string][]byte{
		"as short as padding":      withLength0(tcp4Frame(6, 1)),
		"UDP says another length":  with(udp4, 38, 0, 50),
		"jumbo":                    jumbo,
		"no TCP header":            with(withLength0(tcp4Frame(100, 1)), 46, 0x10),
		"another protocol":         with(withLength0(tcp4Frame(100, 1)), 23, 99),
		"a fragment has no length": with(withLength0(tcp4Frame(100, 1)), 20, 0x20, 0),
	} {
		frames, out := encapsulated(t, Config{VNI: 1, FixChecksums: true}, ethernet(frame))
		if out.Flags&forward.LengthRepaired != 0 || !bytes.Equal(frames[0], frame) {
			t.Errorf("%s: outcome %+v", name, out)
		}
	}
}

// Of a cut packet only the length is known.
func TestLengthOfACutPacket(t *testing.T) {
	whole := withLength0(tcp4Frame(1000, 1))
	frames, out := encapsulated(t, Config{VNI: 1}, forward.Frame{Data: whole[:96], Length: len(whole), LinkType: forward.LinkEthernet})
	if out.Flags != forward.LengthRepaired|forward.CutBySnap || len(frames[0]) != 96 || binary.BigEndian.Uint16(frames[0][16:]) != 1040 || checksum16(frames[0][14:34]) != 0 {
		t.Errorf("outcome %+v, frame %x", out, frames[0])
	}
}

// Captures from the field: what tshark counts as without a length is repaired, and
// nothing of the payload is lost by that.
func TestFieldCapturesAreRepaired(t *testing.T) {
	for _, name := range []string{testenv.Shared(t, "field", "tso0.pcap"), kerberosTSO(t)} {
		var list []forward.Frame
		repaired := 0
		for _, f := range readCapture(t, name) {
			frames, out := encapsulated(t, Config{VNI: 1}, f)
			if out.Flags&forward.LengthRepaired != 0 {
				repaired++
				for _, frame := range frames {
					list = append(list, ethernet(frame))
				}
			}
		}
		count := strings.Fields(string(tshark(t, name, "-Y", "ip and frame[16:2] == 00:00", "-T", "fields", "-e", "tcp.len")))
		if repaired != len(count) || repaired == 0 {
			t.Errorf("%s: %d repaired, tshark counts %d", name, repaired, len(count))
		}
		if bad := badChecksums(t, list); len(bad) > 0 {
			t.Errorf("%s: tshark finds wrong checksums in %v", name, bad)
		}
		was, is := sumOf(t, count), sumOf(t, strings.Fields(string(tshark(t, writeCapture(t, list), "-T", "fields", "-e", "tcp.len"))))
		if was != is {
			t.Errorf("%s: tshark counts %d bytes of payload before, %d after", name, was, is)
		}
	}
}

func kerberosTSO(t *testing.T) string {
	t.Helper()
	for _, name := range captures(t) {
		if filepath.Base(name) == "kerberos_tso.pcapng" {
			return name
		}
	}
	t.Fatal("there is no kerberos_tso.pcapng")
	return ""
}

func sumOf(t *testing.T, numbers []string) (sum int) {
	t.Helper()
	for _, text := range numbers {
		var n int
		if _, err := fmt.Sscan(text, &n); err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// In real captures, what is counted as left by the host is wrong to tshark as well, and
// right when it is fixed.
func TestFieldCapturesAreFinished(t *testing.T) {
	for name, want := range map[string]int{"kerberos_tso.pcapng": 151, "snmpwalk-short.pcap": 200, "dns-edns-ecs.pcap": 21, "ipv6-http-atomic-frag.pcap": 4} {
		var before, after []forward.Frame
		for _, f := range readCapture(t, testenv.Shared(t, "pcaps", name)) {
			if _, out := encapsulated(t, Config{VNI: 1}, f); out.Flags&forward.ChecksumsOpen == 0 {
				continue
			}
			fixed, _ := encapsulated(t, Config{VNI: 1, FixChecksums: true}, f)
			before, after = append(before, f), append(after, ethernet(fixed[0]))
		}
		if bad := badChecksums(t, before); len(bad) != want || len(before) != want {
			t.Errorf("%s: %d frames are counted, tshark finds %d wrong, want %d", name, len(before), len(bad), want)
		}
		if bad := badChecksums(t, after); len(bad) > 0 {
			t.Errorf("%s: tshark finds %v wrong", name, bad)
		}
	}
}

// Whatever a frame looks like: the source's memory stays as it is, a frame keeps its
// length unless it is cut, and what is finished once is finished.
func FuzzUnfinished(f *testing.F) {
	for _, u := range unfinishedFrames() {
		f.Add(u.frame, uint16(0))
	}
	f.Add(withLength0(tcp4Frame(2000, 1)), uint16(0))
	f.Add(withLength0(tcp6Frame(200, 1)), uint16(9))
	f.Add(ether(1, 2, 0x0800, with(ip4(1, 2, 17, 0, make([]byte, 22)), 2, 0, 4, 0, 0, 0, 0, 64, 17, 0, 0)), uint16(84)) // shorter than its header
	e, err := New(Config{VNI: 1, FixChecksums: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		was := slices.Clone(data)
		frame := forward.Frame{Data: data, Length: len(data) + int(cut), LinkType: forward.LinkEthernet}
		var b forward.Batch
		out := e.Encapsulate(&b, &frame)
		if !bytes.Equal(was, data) {
			t.Fatal("the frame was changed")
		}
		if out.Refusal != 0 || out.Flags&forward.Resegmented != 0 {
			return
		}
		once := slices.Clone(b.Payload(0)[8:])
		if len(once) != len(data) || out.Flags&forward.ChecksumsOpen != 0 || out.Flags == 0 && !bytes.Equal(once, data) {
			t.Fatalf("outcome %+v: %x became %x", out, data, once)
		}
		var again forward.Batch
		more := e.Encapsulate(&again, &forward.Frame{Data: once, Length: frame.Length, LinkType: forward.LinkEthernet})
		if more.Flags&(forward.ChecksumsFixed|forward.LengthRepaired) != 0 {
			t.Fatalf("%x is not finished: %+v after %+v", once, more, out)
		}
	})
}
