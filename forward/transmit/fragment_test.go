package transmit

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// TestFragments puts the fragments of datagrams of many lengths together again
// and checks each header with an independent decoder.
func TestFragments(t *testing.T) {
	for _, test := range []struct {
		name           string
		headerLen, mtu int
	}{
		{"IPv4 Ethernet", ipv4HeaderLen, 1500}, {"IPv4 narrow", ipv4HeaderLen, 576}, {"IPv4 jumbo", ipv4HeaderLen, 9001},
		{"IPv6 Ethernet", ipv6HeaderLen, 1500}, {"IPv6 narrow", ipv6HeaderLen, 1280}, {"IPv6 jumbo", ipv6HeaderLen, 9001},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFragmenter(test.headerLen, test.mtu)
			for _, n := range []int{f.piece - 8, f.piece - 7, f.piece, 2*f.piece - 8, 2*f.piece - 7, 20000, 65507} {
				f.id++
				checkFragments(t, &f, test.mtu, n)
			}
		})
	}
}

func checkFragments(t *testing.T, f *fragmenter, mtu, n int) {
	t.Helper()
	whole := make([]byte, etherHeaderLen+f.headerLen+udpHeaderLen)
	whole[etherHeaderLen] = 0x45
	if f.headerLen == ipv6HeaderLen {
		whole[etherHeaderLen], whole[etherHeaderLen+6] = 0x60, protocolUDP
	}
	binary.BigEndian.PutUint16(whole[etherHeaderLen+f.headerLen+4:], uint16(udpHeaderLen+n))
	payload := make([]byte, n)
	for i := range payload {
		payload[i] = byte(i * 7 >> 3)
	}
	var got []byte
	count := 0
	for off := 0; off < udpHeaderLen+n; off += f.piece {
		var dst [headerSpace]byte
		length, from, to := f.put(dst[:], whole, off, n)
		packet := append(dst[etherHeaderLen:length:length], payload[from:to]...)
		if len(packet) > mtu {
			t.Errorf("payload %d: fragment %d has %d bytes", n, count, len(packet))
		}
		id, at, more, body := decodeFragment(t, packet, f.headerLen)
		if id != f.id || at != len(got) || more == (off+f.piece >= udpHeaderLen+n) {
			t.Errorf("payload %d: fragment %d: id %d, offset %d, more %v", n, count, id, at, more)
		}
		got = append(got, body...)
		count++
	}
	if !bytes.Equal(got, append(whole[len(whole)-udpHeaderLen:], payload...)) {
		t.Errorf("payload %d: reassembled to other bytes", n)
	}
	if count != f.pieces(n) {
		t.Errorf("payload %d: %d fragments, announced %d", n, count, f.pieces(n))
	}
}

// headerSpace is room for the longest headers of a fragment.
const headerSpace = 128

// decodeFragment takes an IP fragment apart with gopacket, and fails the test
// if it is not one.
func decodeFragment(t *testing.T, packet []byte, headerLen int) (id uint32, offset int, more bool, body []byte) {
	t.Helper()
	if headerLen == ipv4HeaderLen {
		var ip layers.IPv4
		if err := ip.DecodeFromBytes(packet, gopacket.NilDecodeFeedback); err != nil {
			t.Fatal(err)
		}
		header := bytes.Clone(packet[:ipv4HeaderLen])
		if headerChecksum(header) != 0 {
			t.Errorf("header checksum %#x is wrong", ip.Checksum)
		}
		if int(ip.Length) != len(packet) || ip.Flags&layers.IPv4DontFragment != 0 {
			t.Errorf("length %d of %d, flags %v", ip.Length, len(packet), ip.Flags)
		}
		return uint32(ip.Id), int(ip.FragOffset) * 8, ip.Flags&layers.IPv4MoreFragments != 0, ip.Payload
	}
	decoded := gopacket.NewPacket(packet, layers.LayerTypeIPv6, gopacket.Default)
	ip, _ := decoded.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	fragment, _ := decoded.Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment)
	if ip == nil || fragment == nil || fragment.NextHeader != layers.IPProtocolUDP {
		t.Fatalf("not a fragment: %v", decoded)
	}
	if int(ip.Length) != len(packet)-ipv6HeaderLen {
		t.Errorf("length %d of %d", ip.Length, len(packet)-ipv6HeaderLen)
	}
	return fragment.Identification, int(fragment.FragmentOffset) * 8, fragment.MoreFragments, fragment.Payload
}
