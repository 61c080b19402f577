package transmit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/safchain/ethtool"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// The tests of this file send through the real kernel, between network
// namespaces of their own:
//
//	"tx": bridge br0 (10.9.0.1/24, fd09::1/64), its port0 is veth to
//	"mid": bridge br1 with the ports in0 and out0; out0 is veth to
//	"rx": eth0 (10.9.0.2/24, fd09::2/64), where a receiver listens.
//
// The sender sees a container behind veth and a bridge; the one in the middle
// has a device whose offloads can be turned off, so that what arrives at rx are
// the packets that a cable would have carried.

// network is such a set of namespaces.
type network struct{ tx, mid, rx string }

var (
	dst4 = netip.MustParseAddrPort("10.9.0.2:4789")
	dst6 = netip.MustParseAddrPort("[fd09::2]:4789")
)

// newNetwork makes the namespaces, with devices of the given MTU.
func newNetwork(t *testing.T, mtu int) network {
	t.Helper()
	n := network{tx: testenv.Namespace(t), mid: testenv.Namespace(t), rx: testenv.Namespace(t)}
	validAtOnce(t, n.tx, n.mid, n.rx)
	for _, line := range []string{
		"-n TX link add br0 type bridge", "-n MID link add br1 type bridge",
		"-n TX link add port0 type veth peer name in0 netns MID",
		"-n MID link add out0 type veth peer name eth0 netns RX",
		"-n TX link set port0 master br0", "-n MID link set in0 master br1", "-n MID link set out0 master br1",
		"-n RX link set eth0 up mtu MTU", "-n MID link set out0 up mtu MTU", "-n MID link set in0 up mtu MTU",
		"-n MID link set br1 up mtu MTU", "-n TX link set port0 up mtu MTU", "-n TX link set br0 up mtu MTU",
		"-n TX addr add 10.9.0.1/24 dev br0", "-n RX addr add 10.9.0.2/24 dev eth0",
		"-n TX addr add fd09::1/64 dev br0 nodad", "-n RX addr add fd09::2/64 dev eth0 nodad",
	} {
		testenv.IP(t, strings.NewReplacer("TX", n.tx, "MID", n.mid, "RX", n.rx, "MTU", strconv.Itoa(mtu)).Replace(line))
	}
	return n
}

// listen opens a receiving socket in a namespace.
func listen(t *testing.T, namespace string, at netip.AddrPort) int {
	t.Helper()
	var fd int
	testenv.Inside(t, namespace, func() (err error) {
		if fd, err = sys.OpenUDP(at); err != nil {
			return err
		}
		if _, err := sys.SetReceiveBuffer(fd, 64<<20); err != nil {
			return err
		}
		return sys.SetReceiveTimeout(fd, 300*time.Millisecond)
	})
	t.Cleanup(func() { sys.Close(fd) })
	return fd
}

// receive returns what has arrived, or arrives before the timeout of listen.
func receive(t *testing.T, fd int) []sent {
	t.Helper()
	var got []sent
	r := sys.NewReceiver(64, 1<<16)
	for {
		n, err := r.Receive(fd)
		if errors.Is(err, syscall.EAGAIN) {
			return got
		}
		if err != nil && !errors.Is(err, syscall.EINTR) {
			t.Fatal(err)
		}
		for i := range n {
			data, from, _ := r.Datagram(i)
			got = append(got, sent{int(from.Port()), bytes.Clone(data)})
		}
	}
}

// traffic is a batch like a capture's: runs of flows, equal sizes with shorter
// tails, single ones, and some that need fragments at an MTU of 1500.
func traffic(seed uint64) *forward.Batch {
	rng := rand.New(rand.NewPCG(seed, seed))
	var lengths []int
	for len(lengths) < 600 {
		n := 40 + rng.IntN(1400)
		for range 1 + rng.IntN(12) {
			lengths = append(lengths, n)
		}
		lengths = append(lengths, 20+rng.IntN(n))
		if rng.IntN(10) == 0 {
			lengths = append(lengths, 1473+rng.IntN(8000))
		}
	}
	lengths = append(lengths, 65507, 1472, 1473, 8)
	return makeBatch(seed, lengths...)
}

// send opens a transmission in the namespace, sends the batches and returns
// its description and counts.
func send(t *testing.T, namespace string, o Options, batches ...*forward.Batch) (d Description, s Stats) {
	t.Helper()
	testenv.Inside(t, namespace, func() error {
		return Pinned(CPUAuto, func() error {
			tr, err := Open(context.Background(), o)
			if err != nil {
				return err
			}
			defer tr.Close()
			for _, b := range batches {
				if n, err := tr.Send(b); err != nil || n != len(b.Datagrams) {
					return fmt.Errorf("sent %d of %d: %w", n, len(b.Datagrams), err)
				}
			}
			d, s = tr.Describe(), tr.Stats()
			return nil
		})
	})
	return d, s
}

// TestKernelDelivers sends a mixed batch by every transmission, and compares
// what the receiver got: every byte, in order, once, from the right port.
func TestKernelDelivers(t *testing.T) {
	net := newNetwork(t, 1500)
	for _, mode := range []Mode{Packet, UDP} {
		for _, noGSO := range []bool{false, true} {
			for _, dst := range []netip.AddrPort{dst4, dst6} {
				for _, kind := range []encap.Kind{encap.VXLAN, encap.GENEVE} {
					o := Options{Destination: dst, Mode: mode, NoGSO: noGSO, Kind: kind}
					t.Run(fmt.Sprintf("%s,gso=%v,%v,%v", mode, !noGSO, dst.Addr(), kind), func(t *testing.T) {
						checkDelivery(t, net, o)
					})
				}
			}
		}
	}
}

func checkDelivery(t *testing.T, net network, o Options) {
	fd := listen(t, net.rx, o.Destination)
	b := traffic(7)
	d, s := send(t, net.tx, o, b)
	got := receive(t, fd)
	var expected []sent
	for i := range b.Datagrams {
		expected = append(expected, sent{int(b.Datagrams[i].Port), b.Payload(i)})
	}
	if o.Mode == UDP {
		expected = mapPorts(t, got, expected)
	}
	if err := diff(got, expected); err != nil {
		t.Errorf("%v: %v", d, err)
	}
	if o.Mode == Packet && (d.Device != "port0" || d.Bridge != "br0") {
		t.Errorf("frames were put on %q of bridge %q", d.Device, d.Bridge)
	}
	if d.GSO == o.NoGSO || (s.SuperPackets > 0) == o.NoGSO || len(s.Fallbacks) > 0 {
		t.Errorf("segmentation offload: %v; %+v", d, s)
	}
	if s.Datagrams != uint64(len(b.Datagrams)) || len(s.Troubles) > 0 || s.Fragmented != longer(b, o.Destination, 1500) {
		t.Errorf("counts: %+v", s)
	}
}

// longer counts the datagrams of b that an IP packet of so many bytes does not
// hold.
func longer(b *forward.Batch, to netip.AddrPort, mtu int) (n uint64) {
	for i := range b.Datagrams {
		if b.Datagrams[i].Len+udpHeaderLen+ipHeaderLen(to.Addr()) > mtu {
			n++
		}
	}
	return n
}

// mapPorts replaces the flows' ports by the sockets' own, which must be one and
// the same for all of a flow.
func mapPorts(t *testing.T, got, expected []sent) []sent {
	t.Helper()
	ports := make(map[int]int)
	out := make([]sent, len(expected))
	for i, e := range expected {
		if i < len(got) {
			if _, ok := ports[e.port]; !ok {
				ports[e.port] = got[i].port
			}
		}
		out[i] = sent{ports[e.port], e.payload}
	}
	for flow, port := range ports {
		if port < DefaultPortMin {
			t.Errorf("flow %d left by port %d", flow, port)
		}
	}
	return out
}

// TestWireIsValid lets tshark judge what a cable would carry: checksums,
// lengths, reassembly, and the tunnel inside.
func TestWireIsValid(t *testing.T) {
	tshark, tcpdump := testenv.NeedTool(t, "tshark"), testenv.NeedTool(t, "tcpdump")
	net := newNetwork(t, 1500)
	testenv.Inside(t, net.mid, func() error {
		return turnOff("out0", "tx-udp-segmentation", "tx-checksum-ip-generic", "tx-generic-segmentation", "tx-scatter-gather")
	})
	b := tunnelled(t)
	for _, dst := range []netip.AddrPort{dst4, dst6} {
		for _, mode := range []Mode{Packet, UDP} {
			for _, noGSO := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s,gso=%v,%v", mode, !noGSO, dst.Addr()), func(t *testing.T) {
					file := filepath.Join(t.TempDir(), "wire.pcap")
					fd := listen(t, net.rx, dst)
					stop := capture(t, net.rx, tcpdump, file)
					send(t, net.tx, Options{Destination: dst, Mode: mode, NoGSO: noGSO}, b)
					if got := receive(t, fd); len(got) != len(b.Datagrams) {
						t.Errorf("received %d of %d", len(got), len(b.Datagrams))
					}
					stop()
					checkWire(t, tshark, file, len(b.Datagrams))
				})
			}
		}
	}
}

// turnOff turns features of a device in this thread's namespace off.
func turnOff(device string, features ...string) error {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer tool.Close()
	change := make(map[string]bool)
	for _, f := range features {
		change[f] = false
	}
	return tool.Change(device, change)
}

// tunnelled is a batch of real VXLAN payloads of many sizes.
func tunnelled(t *testing.T) *forward.Batch {
	t.Helper()
	e, err := encap.New(encap.Config{VNI: 4242})
	if err != nil {
		t.Fatal(err)
	}
	b := new(forward.Batch)
	for i, n := range []int{100, 100, 100, 61, 1000, 1000, 1000, 1000, 77, 1464, 1465, 5000, 60, 60} {
		frame := make([]byte, n)
		copy(frame, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5}) // local experimental EtherType
		frame[n-1] = byte(i)
		out := e.Encapsulate(b, &forward.Frame{Data: frame, Length: n, LinkType: forward.LinkEthernet})
		if out.Refusal != forward.RefusedNot {
			t.Fatalf("encapsulate: %v", out.Refusal)
		}
	}
	return b
}

// capture starts tcpdump in a namespace, and returns what stops it once all is
// in the file.
func capture(t *testing.T, namespace, tcpdump, file string) (stop func()) {
	t.Helper()
	cmd := exec.Command("ip", "netns", "exec", namespace, tcpdump, "-i", "eth0", "-U", "--immediate-mode", "-Z", "root", "-w", file, "udp or ip6 proto 44 or ip[6:2] & 0x3fff != 0")
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var said []byte
	buf := make([]byte, 512)
	for !bytes.Contains(said, []byte("listening on")) {
		n, err := stderr.Read(buf)
		if said = append(said, buf[:n]...); err != nil {
			t.Fatalf("tcpdump: %v: %s", err, said)
		}
	}
	return func() {
		cmd.Process.Signal(syscall.SIGINT)
		for err == nil {
			_, err = stderr.Read(buf)
		}
		cmd.Wait()
	}
}

// checkWire counts, with tshark, the datagrams in file and what is wrong with
// them.
func checkWire(t *testing.T, tshark, file string, datagrams int) {
	t.Helper()
	count := func(filter string) int {
		out, err := exec.Command(tshark, "-r", file, "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-Y", filter, "-T", "fields", "-e", "frame.number").Output()
		if err != nil {
			t.Fatalf("tshark: %v", err)
		}
		return bytes.Count(out, []byte("\n"))
	}
	if n := count("vxlan.vni == 4242 && eth.type == 0x88b5"); n != datagrams {
		t.Errorf("%d datagrams on the wire, want %d", n, datagrams)
	}
	bad := "udp.checksum.status == \"Bad\" || ip.checksum.status == \"Bad\" || _ws.malformed || udp.length.bad || ip.fragment.error || ipv6.fragment.error || frame.len > 1514"
	if n := count(bad); n != 0 {
		t.Errorf("%d frames are invalid", n)
	}
}

// TestClosedPortLosesNothing sends to a port where nobody listens: the answers
// come back as errors of later sends, none of which may cost a datagram.
func TestClosedPortLosesNothing(t *testing.T) {
	net := newNetwork(t, 1500)
	var before, after uint64
	testenv.Inside(t, net.tx, func() (err error) { before, err = noPorts(); return err })
	b := makeBatch(3, 100, 100, 100, 100, 50, 60, 70, 80, 90, 100, 110, 120)
	_, s := send(t, net.tx, Options{Destination: netip.MustParseAddrPort("127.0.0.1:4789"), Mode: UDP, NoGSO: true}, b, b, b)
	testenv.Inside(t, net.tx, func() (err error) { after, err = noPorts(); return err })
	if n := after - before; n != s.Datagrams || n != uint64(3*len(b.Datagrams)) {
		t.Errorf("%d datagrams arrived, %d were counted, want %d", n, s.Datagrams, 3*len(b.Datagrams))
	}
	if s.Refused == 0 {
		t.Errorf("nothing refused: %+v", s)
	}
}

// noPorts reads how many datagrams found no socket in this thread's namespace.
func noPorts() (uint64, error) {
	text, err := os.ReadFile("/proc/thread-self/net/snmp")
	if err != nil {
		return 0, err
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if fields[0] != "Udp:" {
			continue
		}
		for i, name := range names {
			if name == "NoPorts" {
				return strconv.ParseUint(fields[i], 10, 64)
			}
		}
		names = fields
	}
	return 0, fmt.Errorf("no Udp NoPorts in %w", fs.ErrNotExist)
}

// TestDeviceStopsSegmenting turns segmentation off, under an open transmission
// and before another is opened. The kernel says of each super-packet then that
// the queue is full.
func TestDeviceStopsSegmenting(t *testing.T) {
	net := newNetwork(t, 1500)
	fd := listen(t, net.rx, dst4)
	b := traffic(5)
	testenv.Inside(t, net.tx, func() error {
		tr, err := Open(context.Background(), Options{Destination: dst4, Mode: Packet})
		if err != nil {
			return err
		}
		defer tr.Close()
		if err := turnOff("port0", "tx-udp-segmentation"); err != nil {
			return err
		}
		_, err = tr.Send(b)
		if s := tr.Stats(); len(s.Fallbacks) != 1 || tr.Describe().GSO {
			t.Errorf("%v: %+v", tr.Describe(), s)
		}
		return err
	})
	d, _ := send(t, net.tx, Options{Destination: dst4, Mode: Packet}, b)
	if d.GSO || !strings.Contains(d.String(), "port0 does not have it") {
		t.Errorf("opened without offload: %v", d)
	}
	var expected []sent
	for range 2 {
		for i := range b.Datagrams {
			expected = append(expected, sent{int(b.Datagrams[i].Port), b.Payload(i)})
		}
	}
	if err := diff(receive(t, fd), expected); err != nil {
		t.Error(err)
	}
}

// TestDeviceFails takes the device, or what is at its other end, away for good
// under an open transmission.
func TestDeviceFails(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(n network) string // for ip
		reason string
	}{
		{"removed", func(n network) string { return "-n " + n.tx + " link del port0" }, "device port0 is gone"},
		{"no carrier", func(n network) string { return "-n " + n.mid + " link set in0 down" }, "is down"},
	} {
		t.Run(test.name, func(t *testing.T) {
			net := newNetwork(t, 1500)
			testenv.Inside(t, net.tx, func() error {
				tr, err := Open(context.Background(), Options{Destination: dst4, Mode: Packet})
				if err != nil {
					return err
				}
				defer tr.Close()
				tr.(*packetSocket).limit = 2 * gonePatience
				testenv.IP(t, test.change(net))
				n, err := tr.Send(makeBatch(1, 100, 200))
				if n != 0 || err == nil || !strings.Contains(err.Error(), test.reason) {
					t.Errorf("sent %d: %v", n, err)
				}
				return nil
			})
		})
	}
}

// TestWhyNotPacket lists the surroundings in which the packet transmission is
// not possible, and what is said about it.
func TestWhyNotPacket(t *testing.T) {
	net := newNetwork(t, 1500)
	testenv.IP(t, "-n "+net.tx+" tuntap add tun0 mode tun")
	for _, line := range []string{"link set tun0 up", "addr add 10.8.0.1/24 dev tun0", "route add prohibit 192.0.2.2", "route add blackhole 192.0.2.3"} {
		testenv.IP(t, "-n "+net.tx+" "+line)
	}
	for _, test := range []struct {
		name, dst, reason string
	}{
		{"loopback", "127.0.0.1:4789", "127.0.0.1 is an address of this machine"},
		{"own address", "10.9.0.1:4789", "10.9.0.1 is an address of this machine"},
		{"own IPv6 address", "[fd09::1]:4789", "fd09::1 is an address of this machine"},
		{"tun", "10.8.0.2:4789", "device tun0 is not an Ethernet device"},
		{"nobody there", "10.9.0.77:4789", "neighbour 10.9.0.77 on br0 does not answer"},
		{"no route", "192.0.2.1:4789", "look up route to 192.0.2.1"},
		{"no route: prohibited", "192.0.2.2:4789", "its route is of type prohibit"},
		{"no route: black hole", "192.0.2.3:4789", "its route is of type blackhole"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := Options{Destination: netip.MustParseAddrPort(test.dst), Mode: Packet}
			testenv.Inside(t, net.tx, func() error {
				tr, err := Open(context.Background(), o)
				if err == nil {
					tr.Close()
				}
				if err == nil || !strings.Contains(err.Error(), test.reason) {
					t.Errorf("mode packet: %v", err)
				}
				o.Mode = Auto
				tr, err = Open(context.Background(), o)
				if strings.HasPrefix(test.name, "no route") { // nor by udp
					if err == nil || strings.Contains(test.name, ":") && (!strings.Contains(err.Error(), test.reason) || errors.Is(err, os.ErrPermission)) {
						t.Errorf("auto: %v", err)
					}
					return nil
				}
				if err != nil {
					return err
				}
				defer tr.Close()
				if d := tr.Describe(); d.Mode != UDP || !strings.Contains(d.String(), test.reason) {
					t.Errorf("auto: %v", d)
				}
				return nil
			})
		})
	}
}

// TestUnprivileged runs this test's other half as nobody.
func TestUnprivileged(t *testing.T) {
	if os.Getenv("ZEEKDEMO_TEST_NOBODY") != "" {
		_, err := Open(context.Background(), Options{Destination: dst4, Mode: Packet})
		if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_RAW") {
			t.Errorf("mode packet: %v", err)
		}
		tr, err := Open(context.Background(), Options{Destination: dst4})
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Close()
		if n, err := tr.Send(traffic(1)); err != nil {
			t.Errorf("sent %d: %v", n, err)
		}
		if d := tr.Describe(); d.Mode != UDP || !strings.Contains(d.String(), "CAP_NET_RAW") {
			t.Errorf("auto: %v", d)
		}
		return
	}
	net := newNetwork(t, 1500)
	program := copySelf(t)
	fd := listen(t, net.rx, dst4)
	testenv.Inside(t, net.tx, func() error { // the child inherits the thread's namespace
		cmd := exec.Command(program, "-test.run=^TestUnprivileged$", "-test.v")
		cmd.Env = append(os.Environ(), "ZEEKDEMO_TEST_NOBODY=1")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("as nobody: %w: %s", err, out)
		}
		return nil
	})
	if got, want := len(receive(t, fd)), len(traffic(1).Datagrams); got != want {
		t.Errorf("received %d of %d", got, want)
	}
}

// copySelf copies the test's program to where everybody may run it.
func copySelf(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "transmit")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, err := os.ReadFile("/proc/self/exe")
	path := filepath.Join(dir, "transmit.test")
	if err := errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(path, program, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestKernelSendDoesNotAllocate sends into the kernel, where nobody listens.
func TestKernelSendDoesNotAllocate(t *testing.T) {
	net := newNetwork(t, 1500)
	listen(t, net.rx, dst4)
	for _, mode := range []Mode{Packet, UDP} {
		testenv.Inside(t, net.tx, func() error {
			tr, err := Open(context.Background(), Options{Destination: dst4, Mode: mode})
			if err != nil {
				return err
			}
			defer tr.Close()
			b := makeBatch(1, 100, 100, 100, 300, 300, 300, 200, 2000)
			if allocs := testing.AllocsPerRun(50, func() { _, err = tr.Send(b) }); allocs != 0 || err != nil {
				t.Errorf("%s: %v allocations per batch: %v", mode, allocs, err)
			}
			return nil
		})
	}
}
