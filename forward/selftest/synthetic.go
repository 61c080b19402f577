package selftest

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/zeekdemo/zeekdemo/forward"
)

// The shape of synthetic traffic.
const (
	flows      = 400
	templates  = 4096 // distinct frames before they repeat, with another number
	minFrame   = 60   // bytes of Ethernet frame without checksum
	maxFrame   = 1514
	etherLen   = 14
	numberLen  = 8 // bytes of the frame's number and its complement
	frameGap   = 100_000
	firstFrame = 1_700_000_000_000_000_000 // capture time of the first, ns
)

// Memory is a Source of frames that lie in memory. [NewMemory] and
// [NewSynthetic] make it. Next allocates nothing.
type Memory struct {
	frames  []forward.Frame
	numbers []int // offset of the number in each frame, 0 for none
	count   uint64
	next    uint64
}

var _ forward.Source = (*Memory)(nil)

// NewMemory returns a Source of count frames: frames, over and over, each pass
// with the next Segment and Loop.
func NewMemory(frames []forward.Frame, count uint64) *Memory {
	if len(frames) == 0 {
		count = 0
	}
	return &Memory{frames: frames, count: count}
}

// NewSynthetic returns a Source of count Ethernet frames of 60 to 1514 bytes,
// 10 000 a second by their capture times, of 400 flows in both directions: TCP,
// UDP and ICMP echo over IPv4 and IPv6, all checksums right. The frames are the
// same at every call, and no two of the first 2^32 are equal.
func NewSynthetic(count uint64) (*Memory, error) {
	random := rand.New(rand.NewPCG(1, 2))
	m := &Memory{count: count}
	for i := range templates {
		data, number, err := synthesise(random, i, random.IntN(flows))
		if err != nil {
			return nil, fmt.Errorf("make synthetic frame %d: %w", i, err)
		}
		m.frames = append(m.frames, forward.Frame{
			Data: data, Length: len(data), LinkType: forward.LinkEthernet, Time: firstFrame + int64(i)*frameGap,
		})
		m.numbers = append(m.numbers, number)
	}
	return m, nil
}

// Next implements [forward.Source].
func (m *Memory) Next(f *forward.Frame) error {
	if m.next == m.count {
		return io.EOF
	}
	n := uint64(len(m.frames))
	i, loop := m.next%n, int(m.next/n)
	*f = m.frames[i]
	if m.numbers != nil {
		// A number and its complement add nothing to a checksum.
		at := f.Data[m.numbers[i]:]
		binary.BigEndian.PutUint32(at, uint32(m.next))
		binary.BigEndian.PutUint32(at[4:], ^uint32(m.next))
	}
	f.Segment, f.Loop = f.Segment+loop, f.Loop+loop
	m.next++
	return nil
}

// Close implements [forward.Source]. There is nothing to release.
func (m *Memory) Close() error { return nil }

// synthesise makes a frame of one flow and returns where its number is.
func synthesise(random *rand.Rand, i, flow int) (data []byte, number int, err error) {
	stack := headers(i, flow, random.IntN(2) == 1)
	buf := gopacket.NewSerializeBuffer()
	// Without the Ethernet layer, which would fill it up to 60 bytes.
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{}, stack[1:]...); err != nil {
		return nil, 0, err
	}
	number = etherLen + len(buf.Bytes())
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	payload := make([]byte, max(frameSize(random)-number, minFrame-number, numberLen))
	for j := range payload {
		payload[j] = byte(random.Uint32())
	}
	binary.BigEndian.PutUint64(payload, 0xffffffff) // the number 0 and its complement
	if err := gopacket.SerializeLayers(buf, opts, append(stack, gopacket.Payload(payload))...); err != nil {
		return nil, 0, err
	}
	return append([]byte(nil), buf.Bytes()...), number, nil
}

// frameSize follows what links carry: many short ones, many full ones, the rest
// between.
func frameSize(random *rand.Rand) int {
	switch n := random.IntN(10); {
	case n < 4:
		return minFrame
	case n < 7:
		return maxFrame
	}
	return minFrame + random.IntN(maxFrame-minFrame+1)
}

// headers are those of a frame of a flow, in one of its directions. The flow's
// number decides its addresses, ports and protocols.
func headers(i, flow int, back bool) []gopacket.SerializableLayer {
	client, server := byte(flow%250+1), byte(flow/250+1)
	eth := &layers.Ethernet{
		SrcMAC: net.HardwareAddr{2, 0, 0, 0, 1, client}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 2, server},
		EthernetType: layers.EthernetTypeIPv4,
	}
	var network gopacket.NetworkLayer
	protocol := []layers.IPProtocol{layers.IPProtocolTCP, layers.IPProtocolUDP, layers.IPProtocolICMPv4}[flow/2%3]
	ip4 := &layers.IPv4{
		Version: 4, TTL: 64, Id: uint16(i), Protocol: protocol,
		SrcIP: net.IPv4(198, 18, 0, client), DstIP: net.IPv4(198, 19, 0, server),
	}
	network = ip4
	if flow%2 == 1 {
		if protocol == layers.IPProtocolICMPv4 {
			protocol = layers.IPProtocolICMPv6
		}
		eth.EthernetType = layers.EthernetTypeIPv6
		network = &layers.IPv6{
			Version: 6, HopLimit: 64, NextHeader: protocol,
			SrcIP: net.ParseIP(fmt.Sprintf("2001:db8::1:%d", client)), DstIP: net.ParseIP(fmt.Sprintf("2001:db8::2:%d", server)),
		}
	}
	if back {
		turn(eth, network)
	}
	return append([]gopacket.SerializableLayer{eth, network.(gopacket.SerializableLayer)},
		transport(i, flow, back, protocol, network)...)
}

func turn(eth *layers.Ethernet, network gopacket.NetworkLayer) {
	eth.SrcMAC, eth.DstMAC = eth.DstMAC, eth.SrcMAC
	switch ip := network.(type) {
	case *layers.IPv4:
		ip.SrcIP, ip.DstIP = ip.DstIP, ip.SrcIP
	case *layers.IPv6:
		ip.SrcIP, ip.DstIP = ip.DstIP, ip.SrcIP
	}
}

func transport(i, flow int, back bool, protocol layers.IPProtocol, network gopacket.NetworkLayer) []gopacket.SerializableLayer {
	src, dst := uint16(20000+flow), uint16(443)
	if back {
		src, dst = dst, src
	}
	switch protocol {
	case layers.IPProtocolTCP:
		tcp := &layers.TCP{SrcPort: layers.TCPPort(src), DstPort: layers.TCPPort(dst), ACK: true, Seq: uint32(i) * maxFrame, Window: 65535}
		_ = tcp.SetNetworkLayerForChecksum(network) // fails only for a layer that is not IP
		return []gopacket.SerializableLayer{tcp}
	case layers.IPProtocolUDP:
		udp := &layers.UDP{SrcPort: layers.UDPPort(src), DstPort: layers.UDPPort(dst)}
		_ = udp.SetNetworkLayerForChecksum(network)
		return []gopacket.SerializableLayer{udp}
	case layers.IPProtocolICMPv6:
		kind := layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)
		if back {
			kind = layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoReply, 0)
		}
		icmp := &layers.ICMPv6{TypeCode: kind}
		_ = icmp.SetNetworkLayerForChecksum(network)
		return []gopacket.SerializableLayer{icmp, &layers.ICMPv6Echo{Identifier: uint16(flow), SeqNumber: uint16(i)}}
	}
	kind := layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0)
	if back {
		kind = layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoReply, 0)
	}
	return []gopacket.SerializableLayer{&layers.ICMPv4{TypeCode: kind, Id: uint16(flow), Seq: uint16(i)}}
}
