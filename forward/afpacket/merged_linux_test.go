package afpacket

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// tunnels are devices of the kernel's, in whose packets offloads merge what is inside.
// LOCAL and REMOTE stand for addresses outside.
var tunnels = map[string]string{
	"vxlan":                "type vxlan id 5 local LOCAL remote REMOTE dstport 4789 dev eth0",
	"vxlan, checksum":      "type vxlan id 5 local LOCAL remote REMOTE dstport 4789 udpcsum dev eth0",
	"vxlan, its own port":  "type vxlan id 5 local LOCAL remote REMOTE dstport 9999 dev eth0",
	"vxlan, Linux's port":  "type vxlan id 5 local LOCAL remote REMOTE dstport 8472 dev eth0",
	"geneve":               "type geneve id 5 remote REMOTE",
	"gre":                  "type gre local LOCAL remote REMOTE dev eth0",
	"gre, Ethernet":        "type gretap local LOCAL remote REMOTE key 7 dev eth0",
	"gre, checksum":        "type gre local LOCAL remote REMOTE csum dev eth0",
	"gre, sequence number": "type gre local LOCAL remote REMOTE seq dev eth0",
	"ip in ip":             "type ipip local LOCAL remote REMOTE dev eth0",
	"a VLAN":               "link eth0 type vlan id 100",
}

// newTunnel puts a tunnel over a link, with 10.1.0.1 at its west end and 10.1.0.2 at
// its east end.
func newTunnel(t *testing.T, how string) link {
	t.Helper()
	l := newLink(t)
	for _, end := range [][4]string{{l.west, "10.0.0.1", "10.0.0.2", "10.1.0.1"}, {l.east, "10.0.0.2", "10.0.0.1", "10.1.0.2"}} {
		testenv.IP(t, "-n "+end[0]+" addr add "+end[1]+"/24 dev eth0")
		line := "-n " + end[0] + " link add tun9 " + strings.NewReplacer("LOCAL", end[1], "REMOTE", end[2]).Replace(how)
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: this kernel has no such tunnel: ip %s: %s", line, out)
		}
		testenv.Inside(t, end[0], quiet)
		testenv.IP(t, "-n "+end[0]+" addr add "+end[3]+"/24 dev tun9")
		testenv.IP(t, "-n "+end[0]+" link set tun9 up")
	}
	return l
}

// inside decodes a tunnelled packet from 10.1.0.1 with gopacket, and checks every
// header on the way. It returns the header and the payload of the innermost transport.
func inside(t *testing.T, frame []byte, opaque bool) (header, payload []byte, ours bool) {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	if p.ErrorLayer() != nil {
		t.Errorf("%v: %x", p.ErrorLayer().Error(), frame[:min(len(frame), 120)])
		return nil, nil, false
	}
	var pseudo []byte
	for _, layer := range p.Layers() {
		body := layer.LayerPayload()
		whole := slices.Concat(layer.LayerContents(), body)
		sum := func(proto byte) uint32 {
			return onesSum(slices.Concat(pseudo, []byte{0, proto}, binary.BigEndian.AppendUint16(nil, uint16(len(whole))), whole))
		}
		switch l := layer.(type) {
		case *layers.IPv4:
			pseudo = slices.Concat(l.SrcIP.To4(), l.DstIP.To4())
			ours = l.SrcIP.String() == "10.1.0.1"
			if onesSum(l.Contents) != 0xffff || int(l.Length) != len(whole) || len(whole) > 9000 {
				t.Errorf("wrong IPv4 header %x before %d bytes", l.Contents, len(body))
			}
		case *layers.GRE:
			if l.ChecksumPresent && onesSum(whole) != 0xffff {
				t.Error("wrong GRE checksum")
			}
		case *layers.UDP:
			if int(l.Length) != len(whole) || l.Checksum != 0 && sum(17) != 0xffff {
				t.Errorf("wrong UDP header %x before %d bytes", l.Contents, len(body))
			}
			if header, payload = l.Contents, body; opaque && len(body) > 8 && !ours {
				return inside(t, body[8:], false)
			}
		case *layers.TCP:
			if header, payload = l.Contents, body; sum(6) != 0xffff {
				t.Error("wrong TCP checksum")
			}
		}
	}
	return header, payload, ours
}

// TCP over this machine's own tunnels, captured outside, comes out as the packets on
// the wire, each right from its outermost to its innermost header; and the segments
// carry the stream once and in order.
func TestStreamsInTunnelsAreCut(t *testing.T) {
	for name, how := range tunnels {
		t.Run(name, func(t *testing.T) {
			l := newTunnel(t, how)
			stream := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
			for _, ns := range []string{l.west, l.east} {
				got, counts := capture(t, ns, Options{}, "eth0", func(*Capture, *taken) { overTCP(t, l, "10.1.0.2:80", stream) })
				var r received
				for _, f := range got.all() {
					if header, payload, ours := inside(t, []byte(f), strings.Contains(name, "port")); ours {
						r.segment(t, header, payload)
					}
				}
				if c := counts[0]; c.Lost() != 0 || c.Whole != 0 || c.Packets != uint64(len(got.all())) || name != "gre, sequence number" && c.Merged == 0 {
					t.Errorf("%+v", c)
				}
				if !bytes.Equal(r.stream, stream) {
					t.Errorf("the segments carry %d bytes, or others than the stream's %d", len(r.stream), len(stream))
				}
			}
		})
	}
}

// overTCP sends a stream from the west end of a link to that address at the east end.
func overTCP(t *testing.T, l link, to string, stream []byte) {
	var listener net.Listener
	testenv.Inside(t, l.east, func() (err error) { listener, err = net.Listen("tcp4", to); return err })
	defer listener.Close()
	received := make(chan []byte, 1)
	go func() {
		c, err := listener.Accept()
		if err != nil {
			received <- nil
			return
		}
		all, _ := io.ReadAll(c)
		c.Close()
		received <- all
	}()
	testenv.Inside(t, l.west, func() error {
		c, err := net.Dial("tcp4", to)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(stream)
		return err
	})
	if !bytes.Equal(<-received, stream) {
		t.Error("the stream itself is broken")
	}
}

// Datagrams that a sender hands over as one (UDP_SEGMENT) come out one by one, plain
// and in a tunnel.
func TestMergedDatagramsAreCut(t *testing.T) {
	const size, count = 1000, 20
	payload := make([]byte, size*count-300)
	for i := range payload {
		payload[i] = byte(i) ^ byte(i>>8)
	}
	for name, how := range tunnels {
		t.Run(name, func(t *testing.T) {
			l := newTunnel(t, how)
			for _, ns := range []string{l.west, l.east} {
				got, counts := capture(t, ns, Options{}, "eth0", func(*Capture, *taken) {
					testenv.Inside(t, l.west, func() error { return sendSegmented("10.1.0.2:9", payload, size) })
				})
				var all []byte
				datagrams := 0
				for _, f := range got.all() {
					if _, part, ours := inside(t, []byte(f), strings.Contains(name, "port")); ours {
						all = append(all, part...)
						datagrams++
					}
				}
				if c := counts[0]; datagrams != count || !bytes.Equal(all, payload) || c.Lost() != 0 || c.Whole != 0 {
					t.Errorf("%d datagrams with %d bytes of %d: %+v", datagrams, len(all), len(payload), c)
				}
			}
		})
	}
}

// sendSegmented sends datagrams of a size by one call.
func sendSegmented(to string, payload []byte, size int) error {
	config := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		controlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) })
		if err == nil {
			err = controlErr
		}
		return err
	}}
	c, err := config.Dial("udp4", to)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write(payload)
	return err
}

// newTap makes a tap device, whose descriptor takes frames behind virtio-net headers,
// and gives the namespace that it is in.
func newTap(t *testing.T) (namespace string, tap int) {
	t.Helper()
	namespace = testenv.Namespace(t)
	testenv.Inside(t, namespace, quiet)
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("SKIPPED: this kernel has no tap devices: %v", err)
	}
	testenv.Inside(t, namespace, func() (err error) {
		if tap, err = unix.Open("/dev/net/tun", unix.O_RDWR, 0); err != nil {
			return err
		}
		request, err := unix.NewIfreq("tap0")
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		return unix.IoctlIfreq(tap, unix.TUNSETIFF, request)
	})
	t.Cleanup(func() { unix.Close(tap) })
	testenv.IP(t, "-n "+namespace+" link set tap0 up mtu 9000")
	return namespace, tap
}

// mergedHeader is a virtio-net header of a packet with an open checksum.
func mergedHeader(kind byte, size, start, offset int) []byte {
	h := make([]byte, 10)
	h[virtioFlags], h[virtioType] = virtioOpen, kind
	binary.NativeEndian.PutUint16(h[2:], uint16(start+20)) // the length of all headers
	binary.NativeEndian.PutUint16(h[virtioSize:], uint16(size))
	binary.NativeEndian.PutUint16(h[virtioStart:], uint16(start))
	binary.NativeEndian.PutUint16(h[virtioOffset:], uint16(offset))
	return h
}

// What virtual machines and other devices hand over as one, in tunnels that this kernel
// itself may not have, comes out as the packets on the wire.
func TestMergedPacketsOfATapAreCut(t *testing.T) {
	const mac = "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01"
	stream := bytes.Repeat([]byte("0123456789"), 500)
	tcp := make([]byte, 20, 20+len(stream))
	binary.BigEndian.PutUint32(tcp, 5000<<16|80)
	tcp[12], tcp[13] = 5<<4, 0x18
	inner := ip4(6, "10.1.0.1", "10.1.0.2", 0, append(tcp, stream...))
	frame := func(etherType string, parts ...[]byte) []byte {
		return slices.Concat([]byte(mac+etherType), slices.Concat(parts...))
	}
	over := func(proto byte, payload ...[]byte) []byte {
		return frame("\x08\x00", ip4(proto, "10.0.0.1", "10.0.0.2", 0, slices.Concat(payload...)))
	}
	bare := frame("\x08\x00", inner)
	geneve := slices.Concat([]byte{0x9c, 0x40, 6081 >> 8, 6081 & 255, 0, 0, 0, 0}, []byte{1, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 0}, bare)
	binary.BigEndian.PutUint16(geneve[4:], uint16(len(geneve)))
	namespace, tap := newTap(t)
	for name, f := range map[string][]byte{
		"no tunnel": bare, "a VLAN": frame("\x81\x00\x00\x64\x08\x00", inner), "two VLANs": frame("\x88\xa8\x00\x01\x81\x00\x00\x64\x08\x00", inner),
		"ip in ip": over(4, inner), "gre": over(47, []byte{0, 0, 8, 0}, inner), "gre, key": over(47, []byte{0x20, 0, 8, 0, 1, 2, 3, 4}, inner),
		"gre, checksum": over(47, []byte{0x80, 0, 8, 0, 0, 0, 0, 0}, inner), "gre, Ethernet": over(47, []byte{0, 0, 0x65, 0x58}, bare), "geneve": over(17, geneve),
	} {
		t.Run(name, func(t *testing.T) {
			start := len(f) - len(stream) - len(tcp)
			got, counts := capture(t, namespace, Options{}, "tap0", func(*Capture, *taken) {
				if _, err := unix.Write(tap, slices.Concat(mergedHeader(virtioTCP4, 1448, start, 16), f)); err != nil {
					t.Fatal(err)
				}
			})
			var segments []byte
			for _, f := range got.all() {
				if _, payload, ours := inside(t, []byte(f), false); ours {
					segments = append(segments, payload...)
				}
			}
			if c := counts[0]; !bytes.Equal(segments, stream) || c.Packets != 4 || c.Merged != 1 || c.Whole != 0 || c.Lost() != 0 {
				t.Errorf("%d bytes of %d: %+v", len(segments), len(stream), c)
			}
		})
	}
	numbered := over(47, []byte{0x10, 0, 8, 0, 0, 0, 0, 1}, inner)
	got, counts := capture(t, namespace, Options{}, "tap0", func(*Capture, *taken) {
		if _, err := unix.Write(tap, slices.Concat(mergedHeader(virtioTCP4, 1448, len(numbered)-len(stream)-len(tcp), 16), numbered)); err != nil {
			t.Fatal(err)
		}
	})
	if c := counts[0]; len(got.all()) != 1 || len(got.all()[0]) != len(numbered) || c.Whole != 1 || c.Merged != 0 {
		t.Errorf("in a tunnel that numbers its packets: %d frames, %+v", len(got.all()), c)
	}
}

// A merged packet that a virtio-net header has no words for is counted as dropped, and
// the room that was made for it in the ring is no frame: not even when the block held
// others before.
func TestWhatCannotBeDescribedIsCounted(t *testing.T) {
	ns, tap := newTap(t)
	plain := udp4("", alice, bob, strings.Repeat("x", 3000))
	const rounds = 200 // several times through the ring's eight blocks
	got, counts := capture(t, ns, Options{Buffer: 1}, "tap0", func(c *Capture, got *taken) {
		for i := range rounds {
			ufo := mergedHeader(3, 1400, 34, 6) // VIRTIO_NET_HDR_GSO_UDP: to be sent as IP fragments
			for _, packet := range [][]byte{slices.Concat(make([]byte, 10), plain), slices.Concat(ufo, plain)} {
				if _, err := unix.Write(tap, packet); err != nil {
					t.Fatal(err)
				}
			}
			wait(t, func() bool { return len(got.all()) >= i+1 })
		}
	})
	for _, f := range got.all() {
		if f != string(plain) {
			t.Fatalf("a frame that was not sent: %q", f)
		}
	}
	if c := counts[0]; len(got.all()) != rounds || c.Dropped != rounds || c.Packets != rounds || c.Abandoned != 0 {
		t.Errorf("%d frames came, %+v", len(got.all()), c)
	}
}
