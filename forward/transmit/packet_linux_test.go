package transmit

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

// wire takes the frames that a packet socket would, and does what kernel and
// receiver do: it splits super-packets and reassembles fragments.
type wire struct {
	tb     testing.TB
	ipLen  int
	got    []sent
	id     uint32 // of the datagram whose fragments are coming
	pieces []byte
}

func (w *wire) take(_ int, m *sys.Message) {
	frame := append(bytes.Clone(m.Header), m.Payload...)
	virtio, ip := frame[:sys.VirtioLen], frame[sys.VirtioLen+etherHeaderLen:]
	if id, off, more, body, ok := w.fragment(ip); ok {
		w.reassemble(id, off, more, body)
		return
	}
	udp := ip[w.ipLen:]
	if n := int(binary.BigEndian.Uint16(udp[4:])); n != len(udp) {
		w.tb.Fatalf("UDP length is %d of %d", n, len(udp))
	}
	segment := 0
	if virtio[1] == 5 { // VIRTIO_NET_HDR_GSO_UDP_L4
		segment = int(binary.NativeEndian.Uint16(virtio[4:]))
	}
	if segment != m.Segment {
		w.tb.Fatalf("virtio-net header says segments of %d, message of %d", segment, m.Segment)
	}
	port := int(binary.BigEndian.Uint16(udp))
	w.got = append(w.got, split(port, &sys.Message{Payload: udp[udpHeaderLen:], Segment: segment})...)
}

// fragment tells whether an IP packet is a fragment, and of what.
func (w *wire) fragment(ip []byte) (id uint32, off int, more bool, body []byte, ok bool) {
	if w.ipLen == ipv4HeaderLen {
		flags := binary.BigEndian.Uint16(ip[6:])
		id, off, more = uint32(binary.BigEndian.Uint16(ip[4:])), int(flags&0x1fff)*8, flags&0x2000 != 0
		return id, off, more, ip[ipv4HeaderLen:], off > 0 || more
	}
	if ip[6] != fragmentHeader6 {
		return 0, 0, false, nil, false
	}
	flags := binary.BigEndian.Uint16(ip[42:])
	return binary.BigEndian.Uint32(ip[44:]), int(flags &^ 7), flags&1 != 0, ip[48:], true
}

func (w *wire) reassemble(id uint32, off int, more bool, body []byte) {
	if off == 0 {
		w.id, w.pieces = id, nil
	}
	if id != w.id || off != len(w.pieces) {
		w.tb.Fatalf("fragment of %d at %d follows %d bytes of %d", id, off, len(w.pieces), w.id)
	}
	w.pieces = append(w.pieces, body...)
	if !more {
		w.got = append(w.got, sent{int(binary.BigEndian.Uint16(w.pieces)), w.pieces[udpHeaderLen:]})
		w.pieces = nil
	}
}

// newFakePacket returns a packet transmission with an MTU of 1500 over a fake
// kernel.
func newFakePacket(tb testing.TB, o Options, script []answer) (*packetSocket, *wire) {
	tb.Helper()
	o, err := o.withDefaults()
	if err != nil {
		tb.Fatal(err)
	}
	src := netip.MustParseAddr("192.0.2.1")
	if o.Destination.Addr().Is6() {
		src = netip.MustParseAddr("2001:db8::1")
	}
	p, err := newPacketPath(context.Background(), o, way{device: "none", mtu: 1500, src: src, segments: true})
	if err != nil {
		tb.Fatal(err)
	}
	w := &wire{tb: tb, ipLen: ipHeaderLen(o.Destination.Addr())}
	fake := &fakeKernel{script: script, take: w.take}
	fake.install(&p.writer, p)
	return p, w
}

// FuzzPacketWriter is FuzzWriter for the packet transmission, whose messages
// have headers and may be fragments.
func FuzzPacketWriter(f *testing.F) {
	f.Add([]byte{0x61, 0x21, 0x3f, 0xe3}, []byte{0, 3, 1, 5, 2, 7, 0, 9, 1, 10}, false)
	f.Add([]byte{0xff, 0x1f, 0xe0}, []byte{3, 0, 0, 6, 1, 3}, true)
	f.Fuzz(func(t *testing.T, sizes, script []byte, six bool) {
		sizes, script = sizes[:min(len(sizes), 64)], script[:min(len(script), 256)]
		lengths := append(parseLengths(sizes), 1600, 30000)
		b := makeBatch(1, lengths...)
		o := Options{Destination: netip.MustParseAddrPort("192.0.2.2:4789")}
		if six {
			o.Destination = netip.MustParseAddrPort("[2001:db8::2]:4789")
		}
		p, wire := newFakePacket(t, o, parseScript(script))
		var expected []sent
		for i := range b.Datagrams {
			expected = append(expected, sent{int(b.Datagrams[i].Port), b.Payload(i)})
		}
		if err := sendAll(&p.writer, b, func(n int) error { return diff(wire.got, expected[:n]) }); err != nil {
			t.Fatal(err)
		}
	})
}

// TestPacketChecksumPolicy looks at what stands in the UDP checksum field and
// in the virtio-net header of one short datagram.
func TestPacketChecksumPolicy(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.2:0"), netip.MustParseAddrPort("[2001:db8::2]:0")
	for _, test := range []struct {
		name    string
		o       Options
		partial bool // kernel or device completes it; else it is 0
	}{
		{"VXLAN over IPv4", Options{Destination: v4}, false},
		{"VXLAN over IPv4, forced", Options{Destination: v4, ForceChecksum: true}, true},
		{"VXLAN over IPv6", Options{Destination: v6}, true},
		{"GENEVE over IPv4", Options{Destination: v4, Kind: encap.GENEVE}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, _ := newFakePacket(t, test.o, nil)
			if _, err := p.plan(&p.writer, makeBatch(1, 100), 0); err != nil {
				t.Fatal(err)
			}
			h := p.messages[0].Header
			checksum := binary.BigEndian.Uint16(h[len(h)-2:])
			if (h[0] == 1) != test.partial || (checksum != 0) != test.partial {
				t.Errorf("virtio flags %d, checksum %#x", h[0], checksum)
			}
		})
	}
}

func TestPacketSendDoesNotAllocate(t *testing.T) {
	p, _ := newFakePacket(t, Options{Destination: netip.MustParseAddrPort("192.0.2.2:0")}, nil)
	p.path.(*fakeKernel).take = func(int, *sys.Message) {}
	b := makeBatch(5, 100, 100, 100, 100, 200, 200, 60, 2000)
	if allocs := testing.AllocsPerRun(100, func() { p.Send(b) }); allocs != 0 {
		t.Errorf("%v allocations per batch", allocs)
	}
}

func BenchmarkPacketPlan(b *testing.B) {
	p, _ := newFakePacket(b, Options{Destination: netip.MustParseAddrPort("192.0.2.2:0")}, nil)
	p.path.(*fakeKernel).take = func(int, *sys.Message) {}
	lengths := make([]int, 256)
	for i := range lengths {
		lengths[i] = 350
		if i%3 == 0 {
			lengths[i] = 90
		}
	}
	batch := makeBatch(1, lengths...)
	for b.Loop() {
		p.Send(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(lengths)), "ns/datagram")
}
