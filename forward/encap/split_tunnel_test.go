package encap

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/zeekdemo/zeekdemo/forward"
)

// superTunnel is a frame that was merged within a tunnel.
type superTunnel struct {
	frame  []byte
	merge  Merge
	opaque int // bytes of a header over UDP that decoders do not know
}

// superTunnels lists frames that the kernel merges within tunnels, and with what it
// says about them: where the open checksum is, and where there is none.
func superTunnels() map[string]superTunnel {
	list := map[string]superTunnel{}
	carry := nestings()
	withChecksum := func(a, b byte, frame []byte) []byte { // over UDP, still the pseudo-header's sum
		out := carry["vxlan"](a, b, frame)
		copy(out[40:], []byte{0x12, 0x34})
		return out
	}
	vxlan6 := func(a, b byte, frame []byte) []byte {
		out := ether(b, a, 0x86dd, ip6(a, b, 17, udp(50000, 4789, slices.Concat([]byte{8, 0, 0, 0, 0, 0, 7, 0}, frame))))
		copy(out[60:], []byte{0x12, 0x34})
		return out
	}
	own := func(a, b byte, frame []byte) []byte { // VXLAN on a port of its own
		return ether(b, a, 0x0800, ip4(a, b, 17, 0x4000, udp(50000, 1234, slices.Concat([]byte{8, 0, 0, 0, 0, 0, 7, 0}, frame))))
	}
	twice := func(a, b byte, frame []byte) []byte { return vxlan6(a, b, carry["gre, checksum"](a, b, frame)) }
	for name, around := range map[string]func(a, b byte, frame []byte) []byte{
		"vxlan": carry["vxlan"], "vxlan, checksum": withChecksum, "vxlan, IPv6": vxlan6, "vxlan, own port": own,
		"geneve": carry["geneve"], "geneve, options": carry["geneve, options"], "gre": carry["gre"], "gre, Ethernet": carry["gre, Ethernet"],
		"gre, checksum": carry["gre, checksum"], "ip in ip": carry["ip in ip"], "gre in udp": carry["gre in udp"],
		"vxlan, tagged": func(a, b byte, frame []byte) []byte { return vlanTag(carry["vxlan"](a, b, frame), 7) },
		"two tunnels":   twice,
	} {
		for _, udp := range []bool{false, true} {
			inner := merged(false, false, udp, 10_000)
			binary.BigEndian.PutUint16(inner[24:], checksum16(inner[14:34]))
			frame := around(1, 2, inner)
			start := len(frame) - len(inner) + 34
			c := superTunnel{frame, Merge{Size: 1400, UDP: udp, Start: start}, 0}
			switch name {
			case "vxlan, own port":
				c.opaque = 8
			case "gre in udp":
				c.opaque = 4
			}
			list[fmt.Sprintf("%s, UDP %v", name, udp)] = c
			if c.opaque != 8 && !udp {
				c.merge.Start = -1
				list[name+", nothing open"] = c
			}
		}
	}
	inner := merged(true, true, false, 10_000)
	frame := carry["vxlan"](1, 2, inner)
	list["IPv6 and a tag inside"] = superTunnel{frame, Merge{Size: 1400, Tunnel: true, Start: len(frame) - len(inner) + 58}, 0}
	return list
}

// checkLayers checks all headers of segment i with gopacket, from the one that
// data begins with, and returns the TCP sequence number and the payload.
func checkLayers(t *testing.T, data []byte, first gopacket.Decoder, i, opaque int) (seq uint32, payload []byte) {
	t.Helper()
	p := gopacket.NewPacket(data, first, gopacket.NoCopy)
	if p.ErrorLayer() != nil {
		t.Fatalf("segment %d: %v", i, p.ErrorLayer().Error())
	}
	var pseudo []byte
	for _, layer := range p.Layers() {
		head, body := layer.LayerContents(), layer.LayerPayload()
		whole := slices.Concat(head, body)
		switch l := layer.(type) {
		case *layers.IPv4:
			pseudo = slices.Concat(l.SrcIP.To4(), l.DstIP.To4())
			if checksum16(head) != 0 || int(l.Length) != len(whole) || l.Id != uint16(0xfffe+i) || !bytes.HasSuffix(data, body) {
				t.Fatalf("segment %d: wrong IPv4 header %x before %d bytes", i, head, len(body))
			}
		case *layers.IPv6:
			pseudo = slices.Concat(l.SrcIP, l.DstIP)
			if int(l.Length) != len(body) {
				t.Fatalf("segment %d: wrong IPv6 header %x before %d bytes", i, head, len(body))
			}
		case *layers.GRE:
			if l.ChecksumPresent && checksum16(whole) != 0 {
				t.Fatalf("segment %d: wrong GRE checksum", i)
			}
		case *layers.UDP:
			if int(l.Length) != len(whole) || l.Checksum != 0 && checksum16(pseudo, be16(17), be16(len(whole)), whole) != 0 {
				t.Fatalf("segment %d: wrong UDP header %x before %d bytes", i, head, len(body))
			}
			payload = body
			if opaque == 8 {
				return checkLayers(t, body[8:], layers.LayerTypeEthernet, i, 0)
			} else if opaque > 0 {
				return checkLayers(t, body, layers.LayerTypeGRE, i, 0)
			}
		case *layers.TCP:
			if checksum16(pseudo, be16(6), be16(len(whole)), whole) != 0 {
				t.Fatalf("segment %d: wrong TCP checksum", i)
			}
			seq, payload = l.Seq, body
		}
	}
	return seq, payload
}

// What was merged within a tunnel becomes whole tunnelled packets, each right from
// the outermost to the innermost header.
func TestSplitWithinTunnels(t *testing.T) {
	var x Splitter
	for name, c := range superTunnels() {
		t.Run(name, func(t *testing.T) {
			before := bytes.Clone(c.frame)
			if got := x.Split(c.frame, c.merge, false); got != IsSplit {
				t.Fatalf("it is not split: %d", got)
			}
			var payload []byte
			for i := 0; ; i++ {
				segment, ok := x.Next()
				if !ok {
					break
				}
				seq, part := checkLayers(t, segment, layers.LayerTypeEthernet, i, c.opaque)
				if !c.merge.UDP && seq != uint32(0xffffff00+len(payload)) {
					t.Fatalf("segment %d: sequence number %#x", i, seq)
				}
				if len(part) != min(1400, 10_000-len(payload)) {
					t.Fatalf("segment %d carries %d bytes", i, len(part))
				}
				payload = append(payload, part...)
			}
			if !bytes.HasSuffix(c.frame, payload) || len(payload) != 10_000 || !bytes.Equal(before, c.frame) {
				t.Errorf("%d bytes of payload, or the frame was changed", len(payload))
			}
		})
	}
}

// A checksum that is open within a tunnel is completed there, and one that a tunnel
// has is right as well; one that it does not have stays away.
func TestOpenChecksumsWithinTunnels(t *testing.T) {
	for name, c := range superTunnels() {
		frame := bytes.Clone(c.frame)
		if c.opaque > 0 || strings.Contains(name, "gre, checksum") || strings.Contains(name, "two tunnels") {
			continue
		}
		if !FillChecksum(frame, false) {
			t.Errorf("%s: it is not completed", name)
		}
		checkLayers(t, frame, layers.LayerTypeEthernet, 0, c.opaque)
	}
}

// TestTsharkReadsSegmentsWithinTunnels: tshark finds no fault in any of them.
func TestTsharkReadsSegmentsWithinTunnels(t *testing.T) {
	var x Splitter
	var frames []forward.Frame
	var names []string
	for name, c := range superTunnels() {
		if c.opaque == 8 {
			continue
		}
		x.Split(c.frame, c.merge, false)
		for segment, ok := x.Next(); ok; segment, ok = x.Next() {
			frames = append(frames, forward.Frame{Data: bytes.Clone(segment), LinkType: forward.LinkEthernet})
			names = append(names, name)
		}
	}
	out := tshark(t, writeCapture(t, frames), "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE",
		"-T", "fields", "-e", "ip.checksum.status", "-e", "udp.checksum.status", "-e", "tcp.checksum.status", "-e", "gre.checksum.status",
		"-e", "_ws.malformed", "-e", "tcp.len", "-e", "data.len")
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	if len(lines) != len(frames) {
		t.Fatalf("tshark reads %d packets of %d", len(lines), len(frames))
	}
	for i, line := range lines {
		f := strings.Split(line, "\t")
		for _, status := range strings.FieldsFunc(strings.Join(f[:4], ","), func(r rune) bool { return r == ',' }) {
			if status != "1" && status != "3" { // good, not present
				t.Errorf("%s, packet %d: checksum status %q", names[i], i, line)
			}
		}
		if f[4] != "" || f[5]+f[6] == "" {
			t.Errorf("%s, packet %d: malformed, or without its payload: %q\n%s", names[i], i, line, hex.Dump(frames[i].Data))
		}
	}
	if len(frames) < 100 {
		t.Errorf("only %d packets", len(frames))
	}
}

// An open checksum of SCTP is completed, both ways, as tshark confirms; what is not
// SCTP is left alone where the field would be SCTP's.
func TestOpenChecksumsOfSCTP(t *testing.T) {
	chunk := slices.Concat([]byte{0, 3, 0, 36}, be32(1), be32(0), be32(0), payloadBytes(20)) // DATA
	sctp := slices.Concat(be16(5000), be16(80), be32(7), be32(0x01020304), chunk)
	var frames []forward.Frame
	for _, frame := range [][]byte{ether(1, 2, 0x0800, ip4(1, 2, 132, 0, sctp)), ether(1, 2, 0x86dd, ip6(1, 2, 132, sctp))} {
		partial, filled := append(bytes.Clone(frame), 0, 0), bytes.Clone(frame) // one of them padded
		if !PartialChecksum(partial, len(frame)-len(sctp), 8) || !FillChecksum(filled, false) || !bytes.Equal(partial[:len(frame)], filled) {
			t.Errorf("completed as %x and %x", partial, filled)
		}
		frames = append(frames, forward.Frame{Data: filled, LinkType: forward.LinkEthernet})
	}
	out := tshark(t, writeCapture(t, frames), "-o", "sctp.checksum:CRC 32c", "-T", "fields", "-e", "sctp.checksum.status", "-e", "sctp.data_tsn_raw")
	if string(out) != "1\t1\n1\t1\n" {
		t.Errorf("tshark reads %q, want good checksums", out)
	}
	udp4 := merged(false, false, true, 100)
	if before := bytes.Clone(udp4); PartialChecksum(udp4, 34, 8) || !bytes.Equal(before, udp4) {
		t.Error("a UDP datagram got SCTP's checksum")
	}
}
