package tcmirror

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// On an interface over which the tunnel itself goes nothing is mirrored twice:
// the sensor gets everything but its own tunnel.
func TestNoLoop(t *testing.T) {
	for name, test := range map[string]struct{ iface, sensor string }{
		"the uplink":             {"s0", "10.2.0.2:4789"},
		"the bridge":             {"br0", "10.2.0.2:4789"},
		"a port of the bridge":   {"s0 of br0", "10.2.0.2:4789"},
		"the uplink, fragmented": {"s0 of 1500", "10.2.0.2:4789"},
		"IPv6":                   {"s0", "[fd02::2]:4789"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, 1500, false)
			iface, how, _ := strings.Cut(test.iface, " of ")
			if iface == "br0" || how == "br0" {
				l.run(l.host, "ip", "addr", "del", "10.2.0.1/24", "dev", "s0")
				l.bridge()
			}
			if how == "1500" {
				l.run(l.host, "ip", "link", "set", "s0", "mtu", "1500")
			}
			both := l.spec()
			both.Oversize = true
			both.Interface, both.Sensor = iface, netip.MustParseAddrPort(test.sensor)
			both.Exclude = []netip.AddrPort{netip.MustParseAddrPort("10.2.0.3:4789")}
			// The tunnel of another mirror is none of its business either.
			other := l.spec()
			other.Sensor = both.Exclude[0]
			other.Exclude = []netip.AddrPort{both.Sensor}
			stop := l.capture(l.host, iface, "not (udp port 4789 or ip[6:2] & 0x1fff != 0)")
			l.mirror(both)
			l.mirror(other)
			for range 3 {
				l.run(l.host, "ping", "-c", "2", "-i", "0.01", "-W", "5", "-s", "1400", "10.2.0.2")
				l.run(l.host, "ping", "-c", "2", "-i", "0.01", "-W", "5", "-s", "1400", clientIP)
			}
			l.gotOnce(test.sensor, stop())
		})
	}
}

// bridge puts s0 into a bridge br0, which gets the address.
func (l *lab) bridge() {
	l.Helper()
	for _, line := range []string{"link add br0 type bridge", "link set s0 master br0", "link set br0 mtu 65535 up", "addr add 10.2.0.1/24 dev br0"} {
		l.run(l.host, append([]string{"ip"}, strings.Fields(line)...)...)
	}
}

// gotOnce checks that the receiver got each frame as often as it was seen, and
// no tunnel.
func (l *lab) gotOnce(at string, saw [][]byte) {
	l.Helper()
	// Pings and what they need; IPv6 and IGMP say things at any time.
	counts := func(f []byte) bool {
		return f[12] == 8 && (f[13] == 6 || f[13] == 0 && f[23] == 1)
	}
	saw = slices.DeleteFunc(saw, func(f []byte) bool { return !counts(f) })
	got := map[string]int{}
	for _, f := range saw {
		got[string(f)]++
	}
	for _, o := range l.received() {
		if o.at != at {
			continue
		}
		p := gopacket.NewPacket(o.frame, layers.LayerTypeEthernet, gopacket.NoCopy)
		if p.Layer(layers.LayerTypeUDP) != nil || p.Layer(layers.LayerTypeIPv6Fragment) != nil || p.Layer(layers.LayerTypeVXLAN) != nil {
			l.Fatalf("a tunnel in the tunnel: %v", p)
		}
		if got[string(o.frame)]--; counts(o.frame) && got[string(o.frame)] < 0 {
			l.Fatalf("not on the interface, or doubled: %v", p)
		}
	}
	if len(saw) < 12 {
		l.Errorf("only %d frames", len(saw))
	}
	for f, n := range got {
		if n > 0 {
			l.Errorf("%d times not mirrored: %x", n, f)
		}
	}
}

// On lo each packet is mirrored once, as capture programs show it.
func TestLoopback(t *testing.T) {
	l := newLab(t, 1500, false)
	s := l.spec()
	s.Interface = "lo"
	l.Inside(l.host, func() error {
		if err := Supports(s); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "too long for one datagram") {
			return fmt.Errorf("with 65536 bytes: %w", err)
		}
		return nil
	})
	l.oversize(s)
	l.run(l.host, "ip", "link", "set", "lo", "mtu", "16000")
	stop := l.capture(l.host, "lo", "icmp")
	if m := l.mirror(s); m.Direction != directionIn {
		t.Errorf("direction %s", m.Direction)
	}
	l.run(l.host, "ping", "-c", "5", "-i", "0.01", "-s", "9000", "127.0.0.1")
	l.eventually("ten packets", func() bool { return len(l.received()) >= 10 })
	saw, got := stop(), inner(l.received())
	if len(saw) != 10 || !equalFrames(saw, got) {
		t.Errorf("tcpdump saw %d, the sensor %d", len(saw), len(got))
	}
}

// oversize asks for what fits of lo's frames; the rest is counted.
func (l *lab) oversize(s Spec) {
	l.Helper()
	s.Oversize = true
	m := l.mirror(s)
	for _, size := range []string{"100", "65400", "65507"} {
		l.run(l.host, "ping", "-c", "1", "-s", size, "127.0.0.1")
	}
	l.Inside(l.host, func() (err error) { m, err = Get(m.Device); return err })
	if got := m.Stats; got.Received.Packets != 6 || got.Received.Dropped != 2 || got.Tunnel.Packets != 4 || len(l.received()) != 4 {
		l.Errorf("the sensor got %d, counted %+v", len(l.received()), got)
	}
	l.stop(m)
	l.mu.Lock()
	l.got = nil
	l.mu.Unlock()
}

func equalFrames(a, b [][]byte) bool {
	for i := range a {
		if i >= len(b) || !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

// Frames that offloads merged, and whose checksums a NIC was to compute, arrive
// as they are on the wire: cut to the link's size, with right checksums, no byte
// of a stream missing or doubled.
func TestOffloads(t *testing.T) {
	l := newLab(t, 1500, true)
	l.serve()
	stop := l.capture(l.host, "c0", "tcp port 80")
	s := l.spec()
	s.Expression = "tcp port 80"
	s.Filter = compile(t, s.Expression)
	l.mirror(s)
	l.talk(1500)
	merged := 0
	want := streams(t, stop(), func(f []byte) { merged = max(merged, len(f)) })
	if merged <= 1514 {
		t.Fatal("the interface merged nothing: this shows nothing")
	}
	var got map[string][]byte
	l.eventually("the streams are whole", func() bool {
		got = streams(t, inner(l.received()), func([]byte) {})
		return fmt.Sprint(got) == fmt.Sprint(want)
	})
	for _, o := range l.received() {
		if len(o.frame) > 1514 {
			t.Errorf("a frame of %d bytes", len(o.frame))
		}
		p := gopacket.NewPacket(o.frame, layers.LayerTypeEthernet, gopacket.Default)
		p.TransportLayer().(*layers.TCP).SetNetworkLayerForChecksum(p.NetworkLayer())
		if err, wrong := p.VerifyChecksums(); err != nil || len(wrong) > 0 {
			t.Fatalf("%v %v %v", p.NetworkLayer().NetworkFlow(), err, wrong)
		}
	}
}

// streams puts each direction's payload together, in the order of arrival.
func streams(t *testing.T, frames [][]byte, each func([]byte)) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, f := range frames {
		each(f)
		p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.NoCopy)
		if tcp, ok := p.TransportLayer().(*layers.TCP); ok {
			key := flowOf(f)
			all[key] = append(all[key], tcp.Payload...)
		}
	}
	return all
}

// With an expression exactly those frames are mirrored that tcpdump takes for it
// from a file, VLAN tags among their bytes or beside them.
func TestExpression(t *testing.T) {
	for _, expression := range []string{"vlan 5 and udp port 99", "tcp port 443 or icmp", "vlan 9", "not tcp and not (ether proto 0x88b5)"} {
		t.Run(expression, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, 1500, false)
			l.serve()
			marked := "ether proto 0x88b5 or (" + expression + ")" // and the marks
			stop := l.capture(l.host, "c0")
			s := l.spec()
			s.Expression, s.Filter = marked, compile(t, marked)
			m := l.mirror(s)
			if m.Expression != marked {
				t.Errorf("shows the filter %q", m.Expression)
			}
			l.marks(1)
			l.talk(1500)
			l.marks(2)
			// Tcpdump's programs for live frames know a tag beside a frame only,
			// those for files are right.
			saw := slices.DeleteFunc(stop(), func(f []byte) bool { return !runs(t, s.Filter, f, 0, 0) })
			if n := same(t, l.flows(saw), l.flows(inner(l.received()))); n == 0 {
				t.Error("nothing matched")
			}
		})
	}
}

// The mirror follows its sensor to another address, with its counters and its
// filter, and no packet is missing.
func TestFollow(t *testing.T) {
	l := newLab(t, 1500, false)
	s := l.spec()
	s.Expression, s.Filter = "ether proto 0x88b5", compile(t, "ether proto 0x88b5")
	m := l.mirror(s)
	const frames = 4000
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		l.number(frames)
	}()
	at := []netip.AddrPort{netip.MustParseAddrPort("10.2.0.3:4789"), sensorAt}
	for i := range 9 { // there and back again
		l.follow(m, at[i%2])
	}
	<-sent
	l.send(l.client, "eth0", markFrame(0, 9))
	seen := map[uint32]int{}
	l.eventually("every frame arrives", func() bool {
		clear(seen)
		for _, o := range l.received() {
			seen[binary.BigEndian.Uint32(o.frame[20:])]++
		}
		return len(seen) == frames && seen[0] > 1 // frame 0, and the last mark
	})
	l.Inside(l.host, func() error {
		now, err := Get(m.Device)
		if err == nil && (now.Sensor != at[0] || now.Stats.Received.Packets != frames+1) {
			err = fmt.Errorf("%+v", now)
		}
		if again, e := now.Follow(at[0], nil); again || e != nil {
			err = fmt.Errorf("follow to the same place: %t %w", again, e)
		}
		return err
	})
	all := l.received()
	if last := all[len(all)-1]; last.at != at[0].String() {
		t.Errorf("the last frame went to %s", last.at)
	}
}

// number sends so many frames that bear numbers, a hundred at a time.
func (l *lab) number(frames int) {
	l.Helper()
	for i := range frames / 100 {
		var batch [][]byte
		for j := range 100 {
			f := markFrame(0, 7)
			binary.BigEndian.PutUint32(f[20:], uint32(i*100+j))
			batch = append(batch, f)
		}
		l.send(l.client, "eth0", batch...)
	}
}

// follow points the mirror to where it did not point before.
func (l *lab) follow(m Mirror, to netip.AddrPort) {
	l.Helper()
	l.Inside(l.host, func() error {
		changed, err := m.Follow(to, nil)
		if err == nil && !changed {
			err = errors.New("nothing changed")
		}
		return err
	})
}

// When the sensor's network goes, copies do not leave by another way; when it is
// back they arrive again.
func TestNoLeak(t *testing.T) {
	l := newLab(t, 1500, false)
	l.run(l.host, "ip", "addr", "del", "10.2.0.1/24", "dev", "s0")
	l.bridge()
	l.run(l.host, "ip", "route", "add", "default", "via", clientIP)
	m := l.mirror(l.spec())
	l.marks(1)
	l.run(l.host, "ip", "link", "del", "br0")
	if route := l.run(l.host, "ip", "route", "get", sensorIP); !strings.Contains(route, "c0") {
		t.Fatalf("the default route does not lead elsewhere: %s", route)
	}
	stop := l.capture(l.client, "eth0", "udp")
	for range 5 {
		l.run(l.host, "ping", "-c", "1", clientIP)
	}
	if leaked := stop(); len(leaked) > 0 {
		t.Errorf("%d copies left by the default route", len(leaked))
	}
	l.bridge()
	l.Inside(l.host, func() error {
		if lost, err := Get(m.Device); err != nil || lost.Stats.Lost() == 0 {
			return fmt.Errorf("nothing is said to be lost: %+v %w", lost.Stats, err)
		}
		return nil
	})
	l.follow(m, sensorAt)
	before := len(l.received())
	l.run(l.host, "ping", "-c", "1", clientIP)
	l.eventually("the ping arrives", func() bool { return len(l.received()) >= before+2 })
}

// Another program's ingress queueing discipline takes the place that clsact
// needs.
func TestIngressTaken(t *testing.T) {
	l := newLab(t, 1500, false)
	for _, iface := range []string{"c0", "lo"} {
		l.run(l.host, "tc", "qdisc", "add", "dev", iface, "ingress")
	}
	l.run(l.host, "ip", "link", "set", "lo", "mtu", "9000")
	want := l.objects()
	l.Inside(l.host, func() error {
		_, err := Start(context.Background(), l.spec())
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "ingress queueing discipline") {
			return fmt.Errorf("%w", err)
		}
		return nil
	})
	s := l.spec()
	s.Interface = "lo" // where ingress is all that is needed
	m := l.mirror(s)
	l.run(l.host, "ping", "-c", "1", "127.0.0.1")
	l.eventually("the ping arrives", func() bool { return len(l.received()) == 2 })
	l.stop(m)
	if got := l.objects(); got != want {
		t.Errorf("got:\n%s\nbefore:\n%s", got, want)
	}
}

// The kernel says nothing of its own over a tunnel, and takes nothing from it.
func TestTunnelIsOneWay(t *testing.T) {
	l := newLab(t, 1500, false)
	for _, key := range []string{"net.ipv6.conf.all.forwarding=1", "net.ipv4.ip_forward=1"} {
		l.run(l.host, "sh", "-c", "echo 1 > /proc/sys/"+strings.ReplaceAll(strings.TrimSuffix(key, "=1"), ".", "/"))
	}
	s := l.spec()
	s.Expression, s.Filter = "ether proto 0x88b5", compile(t, "ether proto 0x88b5")
	m := l.mirror(s)
	l.Inside(l.host, func() error {
		err := sendFrames(m.Device, markFrame(0, 3)) // as a program that sends to every device
		if !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("sent by the tunnel: %v", err)
		}
		return nil
	})
	l.marks(1)
	if n := len(l.received()); n != 2 {
		t.Errorf("%d frames, of which two were mirrored", n)
	}
	var heard net.PacketConn
	l.Inside(l.host, func() (err error) {
		heard, err = net.ListenPacket("udp", hostIP+":5353")
		return err
	})
	defer heard.Close()
	l.into(m)
	l.run(l.host, "tc", "filter", "del", "dev", m.Device, "ingress") // without our filter it is heard
	l.run(l.host, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 0 > /proc/sys/net/ipv4/conf/"+m.Device+"/rp_filter")
	l.into(m)
	heard.SetReadDeadline(time.Now().Add(5 * time.Second))
	for n := 0; ; n++ {
		_, _, err := heard.ReadFrom(make([]byte, 100))
		if err == nil && n == 0 {
			heard.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			continue
		}
		if n != 1 {
			t.Errorf("heard %d times: %v", n, err)
		}
		break
	}
}

// into sends a datagram for the host into its mirror's tunnel, from outside.
func (l *lab) into(m Mirror) {
	l.Helper()
	_, port, _ := strings.Cut(l.run(l.host, "ip", "-d", "link", "show", m.Device), "dstport ")
	port, _, _ = strings.Cut(port, " ")
	ip := &layers.IPv4{Version: 4, TTL: 9, Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP("10.1.0.77"), DstIP: net.ParseIP(hostIP)}
	udp := &layers.UDP{SrcPort: 1, DstPort: 5353}
	udp.SetNetworkLayerForChecksum(ip)
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.VXLAN{ValidIDFlag: true, VNI: labVNI}, &layers.Ethernet{DstMAC: l.address(l.host, m.Device), SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, EthernetType: layers.EthernetTypeIPv4},
		ip, udp, gopacket.Payload("hello"))
	if err != nil {
		l.Fatal(err)
	}
	l.Inside(l.sensor, func() error {
		conn, err := net.Dial("udp", "10.2.0.1:"+port)
		if err == nil {
			_, err = conn.Write(b.Bytes())
			conn.Close()
		}
		return err
	})
}

// Without cls_bpf everything is mirrored by u32, if the tunnel goes another way.
func TestU32(t *testing.T) {
	l := newLab(t, 1500, false)
	l.serve()
	want := l.objects()
	stop := l.capture(l.host, "c0")
	var j *job
	l.Inside(l.host, func() (err error) {
		f, err := probe(l.spec())
		if err != nil {
			return err
		}
		f.classifier = classifierU32
		if j, err = newJob(l.spec(), f); err == nil {
			err = run(context.Background(), j.steps())
		}
		return err
	})
	l.marks(1)
	l.talk(1500)
	l.marks(2)
	all := l.received()
	if n := same(t, l.flows(stop()), l.flows(inner(all))); n < 200 {
		t.Errorf("only %d frames", n)
	}
	for _, o := range all {
		if o.from.Port() != onePort {
			t.Fatalf("from port %d", o.from.Port())
		}
	}
	l.Inside(l.host, stopAll)
	if got := l.objects(); got != want {
		t.Errorf("got:\n%s\nbefore:\n%s", got, want)
	}
	s := l.spec()
	s.Interface = "s0"
	l.Inside(l.host, func() error {
		f, err := probe(s)
		f.classifier = classifierU32
		if _, e := decide(s, f); !errors.Is(e, errors.ErrUnsupported) {
			return fmt.Errorf("the tunnel's own way by u32: %w %w", e, err)
		}
		return err
	})
}

// A frame that goes out with its tag beside it arrives with the tag among its
// bytes, and an expression finds it there.
func TestTagBesideOnTheWayOut(t *testing.T) {
	l := newLab(t, 1500, false)
	for _, line := range []string{"ip link add d0 type veth peer name d1 netns " + l.client, "ip link set d0 up", "tc qdisc add dev d0 clsact",
		"tc filter add dev d0 ingress protocol all u32 match u32 0 0 action mirred egress redirect dev c0"} {
		l.run(l.host, strings.Fields(line)...)
	}
	l.run(l.client, "ip", "link", "set", "d1", "up")
	stop := l.capture(l.host, "c0", "vlan")
	s := l.spec()
	s.Expression = "vlan 5 and udp dst port 99"
	s.Filter = compile(t, s.Expression)
	l.mirror(s)
	want := tagged(etherVLAN, 0x6005, udp4(netip.MustParseAddrPort("10.1.0.9:99"), 0, 30))
	l.send(l.client, "d1", tagged(etherVLAN, 6, udp4(netip.MustParseAddrPort("10.1.0.9:99"), 0, 30)), want)
	l.eventually("the frame arrives", func() bool { return len(l.received()) > 0 })
	if saw := stop(); len(saw) != 2 || !bytes.Equal(saw[1], want) {
		t.Errorf("tcpdump saw %x", saw)
	}
	if got := l.received(); len(got) != 1 || !bytes.Equal(got[0].frame, want) {
		t.Errorf("got %x, want %x", inner(got), want)
	}
}
