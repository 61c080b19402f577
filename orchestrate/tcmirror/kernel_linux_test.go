package tcmirror

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// lab is a host between a client, whose traffic on the interface c0 is mirrored,
// and a sensor behind s0. All three are namespaces of their own.
type lab struct {
	testing.TB
	host, client, sensor string
	mu                   sync.Mutex
	got                  []outer
}

// outer is what the receiver got.
type outer struct {
	at    string // the receiver
	from  netip.AddrPort
	vni   uint32
	frame []byte
}

const (
	hostIP, clientIP   = "10.1.0.1", "10.1.0.2"
	hostIP6, clientIP6 = "fd01::1", "fd01::2"
	sensorIP           = "10.2.0.2"
	labVNI             = 0xabcdef
)

var sensorAt = netip.MustParseAddrPort(sensorIP + ":4789")

// newLab makes one. Offloads are off unless asked for: then tcpdump sees what
// is on the wire.
func newLab(t testing.TB, mtu int, offloads bool) *lab {
	t.Helper()
	testenv.NeedTool(t, "ethtool")
	l := &lab{TB: t, host: testenv.Namespace(t), client: testenv.Namespace(t), sensor: testenv.Namespace(t)}
	for _, line := range []string{
		"-n HOST link add c0 mtu MTU type veth peer name eth0 mtu MTU netns CLIENT",
		"-n HOST link add s0 mtu 65535 type veth peer name eth0 mtu 65535 netns SENSOR",
		"-n HOST addr add 10.1.0.1/24 dev c0", "-n CLIENT addr add 10.1.0.2/24 dev eth0",
		"-n HOST addr add fd01::1/64 dev c0 nodad", "-n CLIENT addr add fd01::2/64 dev eth0 nodad",
		"-n HOST addr add 10.2.0.1/24 dev s0", "-n SENSOR addr add 10.2.0.2/24 dev eth0", "-n SENSOR addr add 10.2.0.3/24 dev eth0",
		"-n HOST addr add fd02::1/64 dev s0 nodad", "-n SENSOR addr add fd02::2/64 dev eth0 nodad", "-n SENSOR link set lo up",
		"-n HOST link set c0 up", "-n CLIENT link set eth0 up", "-n HOST link set s0 up", "-n SENSOR link set eth0 up",
	} {
		testenv.IP(t, strings.NewReplacer("HOST", l.host, "CLIENT", l.client, "SENSOR", l.sensor, "MTU", fmt.Sprint(mtu)).Replace(line))
	}
	if !offloads {
		for _, at := range [][2]string{{l.host, "c0"}, {l.client, "eth0"}} {
			l.run(at[0], "ethtool", "-K", at[1], "tx", "off", "tso", "off", "gso", "off", "gro", "off")
		}
	}
	// A frame waits for the receiving end of a veth in the queue of the sending
	// CPU: without this, frames of a program that moves change places.
	for _, at := range [][2]string{{l.host, "c0"}, {l.client, "eth0"}, {l.host, "s0"}, {l.sensor, "eth0"}} {
		l.run(at[0], "sh", "-c", "echo 1 > /sys/class/net/"+at[1]+"/queues/rx-0/rps_cpus")
	}
	for _, at := range []string{sensorAt.String(), "10.2.0.3:4789", "10.2.0.2:6081", "[fd02::2]:4789"} {
		l.Inside(l.sensor, func() error { return l.listen(at) })
	}
	return l
}

func (l *lab) listen(at string) error {
	conn, err := net.ListenPacket("udp", at)
	if err != nil {
		return err
	}
	l.Cleanup(func() { conn.Close() })
	testenv.SetReadBuffer(l, conn.(*net.UDPConn), 64<<20)
	go l.receive(at, conn)
	return nil
}

func (l *lab) Inside(ns string, fn func() error) { l.Helper(); testenv.Inside(l, ns, fn) }

// run runs a program in a namespace and returns what it printed.
func (l *lab) run(ns string, args ...string) string {
	l.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("ip", append([]string{"netns", "exec", ns}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		l.Fatalf("%v: %v: %s%s", args, err, out, &stderr)
	}
	return string(out)
}

func (l *lab) receive(at string, conn net.PacketConn) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(b)
		if err != nil {
			return
		}
		if n < 8 {
			continue
		}
		l.mu.Lock()
		l.got = append(l.got, outer{at, from.(*net.UDPAddr).AddrPort(), binary.BigEndian.Uint32(b[4:]) >> 8, bytes.Clone(b[8:n])})
		l.mu.Unlock()
	}
}

func (l *lab) received() []outer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.got)
}

func (l *lab) spec() Spec {
	return Spec{Interface: "c0", Encap: VXLAN, VNI: labVNI, Sensor: sensorAt}
}

// mirror starts one on the host, and stops it after the test.
func (l *lab) mirror(s Spec) (m Mirror) {
	l.Helper()
	l.Inside(l.host, func() (err error) { m, err = Start(context.Background(), s); return err })
	l.Cleanup(func() { l.stop(m) })
	return m
}

func (l *lab) stop(m Mirror) { l.Helper(); l.Inside(l.host, m.Stop) }

// awaitSaid reads what a program says until one of its lines answers to the
// expression, and returns what the groups of that are.
func awaitSaid(tb testing.TB, said *bufio.Scanner, expression string) []string {
	tb.Helper()
	for want := regexp.MustCompile(expression); said.Scan(); {
		if m := want.FindStringSubmatch(said.Text()); m != nil {
			return m[1:]
		}
	}
	tb.Fatalf("tcpdump ended, or %v: no line says %q", said.Err(), expression)
	return nil
}

// written waits until tcpdump has written all that came to it, for it leaves the rest
// when it is interrupted. It is asked until it says the same a few times in a row;
// between its answers it goes on. (How many it has received it says too, on a
// loopback device twice as many.)
func (l *lab) written(tcpdump *exec.Cmd, said *bufio.Scanner) {
	l.Helper()
	last, same := "", 0
	l.eventually("tcpdump has written everything", func() bool {
		tcpdump.Process.Signal(syscall.SIGUSR1)
		n := awaitSaid(l, said, `(\d+) packets? captured`)[0]
		if same++; n != last {
			last, same = n, 0
		}
		return same == 4
	})
}

// capture runs tcpdump until the returned function is called, which gives the
// frames.
func (l *lab) capture(ns, iface string, expression ...string) func() [][]byte {
	l.Helper()
	testenv.NeedTool(l, "tcpdump")
	file := l.TempDir() + "/capture.pcap"
	cmd := exec.Command("ip", append([]string{"netns", "exec", ns, "tcpdump", "-i", iface, "-U", "--immediate-mode", "-B", "65536", "-s", "0", "-w", file}, expression...)...)
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		l.Fatal(err)
	}
	said := bufio.NewScanner(stderr)
	awaitSaid(l, said, "listening")
	return func() (frames [][]byte) {
		l.written(cmd, said)
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		f, err := os.Open(file)
		if err != nil {
			l.Fatal(err)
		}
		defer f.Close()
		r, err := pcapgo.NewReader(f)
		for err == nil {
			var data []byte
			if data, _, err = r.ReadPacketData(); err == nil {
				frames = append(frames, bytes.Clone(data))
			}
		}
		if err != io.EOF {
			l.Fatal(err)
		}
		return frames
	}
}

// send puts frames on an interface as they are.
func (l *lab) send(ns, iface string, frames ...[]byte) {
	l.Helper()
	l.Inside(ns, func() error { return sendFrames(iface, frames...) })
}

func sendFrames(iface string, frames ...[]byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	link, err := net.InterfaceByName(iface)
	for _, f := range frames {
		if err == nil {
			err = unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL << 8, Ifindex: link.Index})
		}
	}
	return err
}

// experimental is an EtherType for marks; kind 1 begins and 2 ends what counts.
const experimental = 0x88b5

func markFrame(direction, kind byte) []byte {
	f := make([]byte, 60)
	f[0], f[6], f[12], f[13], f[14], f[15] = 0x02, 0x02, experimental>>8, experimental&0xff, direction, kind
	return f
}

// marks sends a mark in both directions and waits until the receiver has them.
func (l *lab) marks(kind byte) {
	l.Helper()
	l.send(l.client, "eth0", markFrame(0, kind))
	l.send(l.host, "c0", markFrame(1, kind))
	l.eventually("the marks arrive", func() bool {
		n := 0
		for _, o := range l.received() {
			if bytes.Equal(o.frame, markFrame(0, kind)) || bytes.Equal(o.frame, markFrame(1, kind)) {
				n++
			}
		}
		return n >= 2
	})
}

func (l *lab) eventually(what string, done func() bool) {
	l.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.Fatalf("waited in vain: %s", what)
		}
	}
}

// flows are the frames between the marks by flow and direction, in order.
func (l *lab) flows(frames [][]byte) map[string][][]byte {
	l.Helper()
	host := l.address(l.host, "c0")
	flows := map[string][][]byte{}
	counting := [2]bool{}
	for _, f := range frames {
		direction := byte(0)
		if bytes.Equal(f[6:12], host) {
			direction = 1
		}
		if binary.BigEndian.Uint16(f[12:]) == experimental {
			counting[f[14]] = f[15] == 1
			continue
		}
		if counting[direction] {
			key := flowOf(f)
			flows[key] = append(flows[key], f)
		}
	}
	return flows
}

func (l *lab) address(ns, iface string) (mac net.HardwareAddr) {
	l.Inside(ns, func() error {
		link, err := net.InterfaceByName(iface)
		if err == nil {
			mac = link.HardwareAddr
		}
		return err
	})
	return mac
}

// flowOf names the flow and the direction.
func flowOf(frame []byte) string {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	key := ""
	for _, layer := range p.Layers() {
		switch v := layer.(type) {
		case *layers.Ethernet:
			key += fmt.Sprint(v.LinkFlow(), v.EthernetType)
		case *layers.Dot1Q:
			key += fmt.Sprint(" vlan ", v.VLANIdentifier)
		case gopacket.NetworkLayer:
			key += " " + v.NetworkFlow().String()
		case gopacket.TransportLayer:
			key += " " + v.TransportFlow().String()
		}
	}
	return key
}

// same compares flow by flow, frame by frame.
func same(t testing.TB, want, got map[string][][]byte) (frames int) {
	t.Helper()
	for key, w := range want {
		g := got[key]
		frames += len(w)
		if slices.EqualFunc(w, g, bytes.Equal) {
			continue
		}
		t.Errorf("%s: %d frames on the interface, %d mirrored", key, len(w), len(g))
		for i := range min(len(w), len(g)) {
			if !bytes.Equal(w[i], g[i]) {
				t.Errorf("first difference at %d:\n%x\n%x", i, w[i][:min(80, len(w[i]))], g[i][:min(80, len(g[i]))])
				break
			}
		}
	}
	for key := range got {
		if want[key] == nil {
			t.Errorf("%s: %d frames that were never on the interface", key, len(got[key]))
		}
	}
	return frames
}

func inner(all []outer) (frames [][]byte) {
	for _, o := range all {
		frames = append(frames, o.frame)
	}
	return frames
}

// serve answers HTTP, TLS and DNS on the host.
func (l *lab) serve() {
	l.Helper()
	page := bytes.Repeat([]byte("all work and no play\n"), 20_000)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(page) })
	l.Inside(l.host, func() error {
		for _, listen := range []string{hostIP + ":80", "[" + hostIP6 + "]:80", hostIP + ":443"} {
			listener, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			server := httptest.NewUnstartedServer(handler)
			server.Listener.Close()
			server.Listener = listener
			if strings.HasSuffix(listen, ":443") {
				server.StartTLS()
			} else {
				server.Start()
			}
			l.Cleanup(server.Close)
		}
		conn, err := net.ListenPacket("udp", hostIP+":53")
		if err != nil {
			return err
		}
		l.Cleanup(func() { conn.Close() })
		go answer(conn)
		return nil
	})
}

// answer sends each question back as its answer.
func answer(conn net.PacketConn) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(b)
		if err != nil {
			return
		}
		if n > 2 {
			b[2] |= 0x80
		}
		conn.WriteTo(b[:n], from)
	}
}

// talk is what a client does all day: HTTP, TLS, DNS, ping, over IPv4 and IPv6,
// datagrams of the link's full size, and frames with VLAN tags.
func (l *lab) talk(mtu int) {
	l.Helper()
	l.Inside(l.client, func() error {
		for _, url := range []string{"http://" + hostIP, "http://[" + hostIP6 + "]", "https://" + hostIP} {
			// The dial happens in this thread's namespace.
			transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
			dialed, err := net.DialTimeout("tcp", strings.TrimPrefix(strings.TrimPrefix(url, "http://"), "https://")+map[bool]string{true: ":443", false: ":80"}[strings.HasPrefix(url, "https")], 5*time.Second)
			if err != nil {
				return err
			}
			transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return dialed, nil }
			response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get(url)
			if err != nil {
				return err
			}
			n, err := io.Copy(io.Discard, response.Body)
			response.Body.Close()
			if err != nil || n != 420_000 {
				return fmt.Errorf("%s: %d bytes, %v", url, n, err)
			}
		}
		question, err := (&dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{{
			Name: dnsmessage.MustNewName("zeek.org."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}).Pack()
		for _, datagram := range [][]byte{question, make([]byte, mtu-28), make([]byte, mtu+1000)} {
			if err == nil {
				err = exchange(hostIP+":53", datagram)
			}
		}
		return err
	})
	l.run(l.client, "ping", "-c", "2", "-i", "0.05", "-W", "5", hostIP)
	l.run(l.client, "ping", "-c", "2", "-i", "0.05", "-W", "5", hostIP6)
	from, to := l.address(l.client, "eth0"), l.address(l.host, "c0")
	for _, at := range [][2]string{{l.client, "eth0"}, {l.host, "c0"}} {
		f := udp4(netip.MustParseAddrPort("10.1.0.9:99"), 0, 30)
		copy(f, to)
		copy(f[6:], from)
		l.send(at[0], at[1], tagged(etherVLAN, 0x6005, f), tagged(etherVLAN, 5, tagged(etherVLAN, 6, f)), tagged(etherQinQ, 9, f))
		from, to = to, from
	}
}

func exchange(to string, datagram []byte) error {
	conn, err := net.Dial("udp", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write(datagram); err != nil {
		return err
	}
	n, err := conn.Read(make([]byte, 1<<16))
	if err == nil && n != len(datagram) {
		err = errors.New("the answer has another length")
	}
	return err
}

// What the sensor gets is what tcpdump saw on the interface, frame for frame,
// with its tags, none missing, none doubled, none added; and both directions of
// a flow from one source port.
func TestFrameForFrame(t *testing.T) {
	for name, test := range map[string]struct {
		mtu, path     int
		encap, sensor string
		set           func(*lab)
	}{
		"vxlan":             {1500, 65535, VXLAN, "10.2.0.2:4789", nil},
		"geneve":            {1500, 65535, GENEVE, "10.2.0.2:6081", nil},
		"jumbo":             {9000, 65535, VXLAN, "10.2.0.2:4789", nil},
		"sensor over IPv6":  {1500, 65535, VXLAN, "[fd02::2]:4789", nil},
		"a path too narrow": {1500, 1500, VXLAN, "10.2.0.2:4789", nil},
		"published port taken": {1500, 65535, VXLAN, "10.2.0.2:4789", func(l *lab) {
			l.Inside(l.host, func() error { testenv.ListenUDP(l, "127.0.0.1:4789", 0); return nil })
		}},
		"beside others": {1500, 65535, VXLAN, "10.2.0.2:4789", (*lab).others},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, test.mtu, false)
			l.run(l.host, "ip", "link", "set", "s0", "mtu", fmt.Sprint(test.path))
			if test.set != nil {
				test.set(l)
			}
			l.serve()
			s := l.spec()
			s.Encap, s.Sensor = test.encap, netip.MustParseAddrPort(test.sensor)
			if l.supports(s) {
				l.frameForFrame(s, test.mtu, test.path == 1500)
			}
		})
	}
}

// frameForFrame mirrors a conversation; the mirror has a note where it is told
// to.
func (l *lab) frameForFrame(s Spec, mtu int, noted bool) {
	l.Helper()
	stop := l.capture(l.host, "c0")
	m := l.mirror(s)
	if (len(m.Notes) > 0) != noted {
		l.Errorf("notes %q", m.Notes)
	}
	l.marks(1)
	l.talk(mtu)
	l.marks(2)
	saw, all := l.flows(stop()), l.received()
	frames := same(l, saw, l.flows(inner(all)))
	if frames < 200 || len(saw) < 20 {
		l.Errorf("only %d frames in %d flows", frames, len(saw))
	}
	checkOuter(l, all)
	l.eventually("the counters agree with what arrived", func() bool { // somebody may still say something
		before := len(l.received())
		l.Inside(l.host, func() (err error) { m, err = Get(m.Device); return err })
		n := m.Stats.Received.Packets + m.Stats.Sent.Packets
		return n == uint64(before) && m.Stats.Tunnel.Packets == n && m.Stats.Lost() == 0
	})
	if route := l.run(l.host, "ip", "route", "get", clientIP); strings.Contains(route, "mtu") {
		l.Errorf("the mirror lowered the path MTU of what it mirrors: %s", route)
	}
}

// supports reports whether this kernel has the module; any other obstacle fails
// the test.
func (l *lab) supports(s Spec) (ok bool) {
	l.Helper()
	l.Inside(l.host, func() error {
		err := Supports(s)
		ok = err == nil
		if errors.Is(err, errors.ErrUnsupported) && strings.Contains(err.Error(), "no module "+s.Encap) {
			return nil
		}
		return err
	})
	return ok
}

// others puts clsact and filters of somebody else on the interface.
func (l *lab) others() {
	l.Helper()
	l.run(l.host, "tc", "qdisc", "add", "dev", "c0", "clsact")
	for _, hook := range []string{"ingress", "egress"} {
		l.run(l.host, "tc", "filter", "add", "dev", "c0", hook, "pref", "7", "protocol", "all", "u32", "match", "u32", "0", "0", "action", "mirred", "egress", "mirror", "dev", "lo", "continue")
		l.run(l.host, "tc", "filter", "add", "dev", "c0", hook, "pref", "300", "protocol", "ip", "bpf", "bytecode", "1,6 0 0 4294967295", "action", "mirred", "egress", "mirror", "dev", "lo")
	}
}

// checkOuter checks VNIs and source ports.
func checkOuter(t testing.TB, all []outer) {
	t.Helper()
	ports := map[string]uint16{}
	seen := map[uint16]bool{}
	for _, o := range all {
		if o.vni != labVNI {
			t.Fatalf("VNI %#x", o.vni)
		}
		p := gopacket.NewPacket(o.frame, layers.LayerTypeEthernet, gopacket.NoCopy)
		if p.NetworkLayer() == nil || p.TransportLayer() == nil {
			continue
		}
		n, tr := p.NetworkLayer().NetworkFlow(), p.TransportLayer().TransportFlow()
		if ip, ok := p.NetworkLayer().(*layers.IPv4); ok && (ip.FragOffset != 0 || ip.Flags&layers.IPv4MoreFragments != 0) {
			continue // without ports
		}
		key := fmt.Sprint(n.FastHash(), tr.FastHash()) // symmetric
		if was, ok := ports[key]; ok && was != o.from.Port() {
			t.Errorf("%v %v from port %d and %d", n, tr, was, o.from.Port())
		}
		ports[key] = o.from.Port()
		seen[o.from.Port()] = true
	}
	if len(seen) < 3 {
		t.Errorf("%d flows from %d source ports", len(ports), len(seen))
	}
}
