package drops

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// Packets die on the real kernel, each time at one hop, and the ledger names
// that hop, the right number and the cure.

// stage is a sensor's namespace with a process in it, and a reader of the way
// that leads there.
type stage struct {
	testenv.Container
	pid    int
	to     netip.AddrPort
	reader *Reader
	path   Path
}

func newStage(t *testing.T, mtu int) *stage {
	t.Helper()
	s := &stage{Container: testenv.NewContainer(t, mtu)}
	s.to = netip.AddrPortFrom(s.Addr, 4789)
	s.quiet(t)
	s.connected(t)
	s.pid = s.resident(t)
	s.path = Path{Bridge: s.Bridge, Sensors: []SensorAt{{Name: "zeek", ID: "one", PID: s.pid, Started: time.Now(), Address: s.Addr, Port: 4789}}}
	host, done := Local()
	t.Cleanup(func() { done() })
	s.reader = NewReader(Dir("/"), host, func(context.Context) (Path, error) {
		path := s.path
		path.Sensors = slices.Clone(path.Sensors)
		return path, nil
	})
	return s
}

// quiet keeps IPv6 from announcing itself, so that every packet is the test's.
func (s *stage) quiet(t *testing.T) {
	t.Helper()
	off := func(device string) error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/"+device+"/disable_ipv6", []byte("1"), 0o644)
	}
	s.Inside(t, func() error { return off("all") })
	if err := errors.Join(off(s.Bridge), off(s.Port)); err != nil {
		t.Fatal(err)
	}
}

// connected waits until packets arrive: a bridge takes a while to come up, and
// both ends have to know each other.
func (s *stage) connected(t *testing.T) {
	t.Helper()
	var c *net.UDPConn
	s.Inside(t, func() error { c = testenv.ListenUDP(t, "0.0.0.0:9", 0); return nil })
	defer c.Close()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		send(t, netip.AddrPortFrom(s.Addr, 9), 1, 10)
		if waiting(t, c) > 0 {
			return
		}
	}
	t.Fatal("nothing arrives in the namespace")
}

// resident starts a process in the namespace that does nothing. As in a
// container, its /sys shows the devices of the namespace.
func (s *stage) resident(t *testing.T) int {
	t.Helper()
	testenv.NeedTool(t, "unshare")
	cmd := exec.Command("unshare", "--mount", "sh", "-c", "mount -t sysfs sysfs /sys && echo mounted && exec sleep 600")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.Inside(t, cmd.Start)
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if _, err := fmt.Fscanln(stdout, new(string)); err != nil {
		t.Fatalf("show the namespace's devices: %v", err)
	}
	return cmd.Process.Pid
}

func (s *stage) look(t *testing.T) Picture {
	t.Helper()
	p, err := s.reader.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// listen opens the sensor's socket.
func (s *stage) listen(t *testing.T, buffer int) (c *net.UDPConn) {
	t.Helper()
	s.Inside(t, func() error { c = testenv.ListenUDP(t, "0.0.0.0:4789", buffer); return nil })
	return c
}

// send sends n datagrams of a size from one socket without a peer, so that
// nobody's refusal stops it.
func send(t *testing.T, to netip.AddrPort, n, size int) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := c.WriteToUDPAddrPort(make([]byte, size), to); err != nil {
			t.Fatal(err)
		}
	}
}

// waiting counts the datagrams that can be read from a socket.
func waiting(t *testing.T, c *net.UDPConn) (n uint64) {
	t.Helper()
	for buf := make([]byte, 1<<16); ; n++ {
		c.SetReadDeadline(time.Now().Add(60 * time.Millisecond))
		if _, err := c.Read(buf); errors.Is(err, os.ErrDeadlineExceeded) {
			return n
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// blamed fails unless exactly this hop lost exactly so many packets.
func blamed(t *testing.T, r Report, hop Hop, lost uint64, reason, cure string) {
	t.Helper()
	c := r.Culprit
	if lost == 0 || c == nil || c.Hop != hop || c.Lost != lost || r.Lost != lost || r.Verdict != VerdictLost {
		t.Fatalf("lost %d at %+v, want %d at %s\n%s", r.Lost, c, lost, hop, describe(r))
	}
	if !strings.Contains(c.Reason, reason) || !strings.Contains(c.Cure, cure) {
		t.Errorf("reason %q, cure %q; want %q, %q", c.Reason, c.Cure, reason, cure)
	}
}

// describe shows what is not zero.
func describe(r Report) string {
	var out strings.Builder
	fmt.Fprintln(&out, r.Verdict, r.Sentence)
	for _, h := range r.Hops {
		fmt.Fprintf(&out, "%s (%s): %s %v %v", h.Hop, h.Name, h.Verdict, h.Notes, h.Unknown)
		for _, d := range h.Counters {
			if d.Grown > 0 {
				fmt.Fprintf(&out, " %s=%d", d.Name, d.Grown)
			}
		}
		fmt.Fprintln(&out)
	}
	return out.String()
}

func tc(t *testing.T, line string) {
	t.Helper()
	testenv.NeedTool(t, "tc")
	if out, err := exec.Command("tc", strings.Fields(line)...).CombinedOutput(); err != nil {
		t.Fatalf("tc %s: %v: %s", line, err, out)
	}
}

func TestNothingIsLost(t *testing.T) {
	s := newStage(t, 9000)
	c := s.listen(t, 8<<20)
	before := s.look(t)
	send(t, s.to, 500, 1000)
	n := waiting(t, c)
	r := Compare(before, s.look(t))
	if r.Verdict != VerdictClean || r.Lost != 0 || r.Culprit != nil || n != 500 {
		t.Errorf("%d arrived\n%s", n, describe(r))
	}
	for _, hop := range []Hop{HopBridge, HopVeth, HopDevice, HopIP, HopUDP, HopSocket} {
		if h := r.hop(hop, sensorOf(hop)); h.In == nil || *h.In < 500 || *h.In > 510 { // and a few of ARP
			t.Errorf("%s: %v came\n%s", hop, h.In, describe(r))
		}
	}
}

func sensorOf(h Hop) string {
	if h == HopBridge || h == HopSoftnet {
		return ""
	}
	return "zeek"
}

func TestSlowReader(t *testing.T) {
	s := newStage(t, 1500)
	c := s.listen(t, 1)
	before := s.look(t)
	send(t, s.to, 200, 500)
	after := s.look(t)
	blamed(t, Compare(before, after), HopSocket, 200-waiting(t, c), "its receive buffer is small", "zeekdemo tune-host --restart-sensors")
	// What was lost before is no news in the next interval.
	if r := Compare(after, s.look(t)); r.Lost != 0 || r.LostBefore == 0 {
		t.Error(describe(r))
	}
}

func TestPortIsClosed(t *testing.T) {
	s := newStage(t, 1500)
	before := s.look(t)
	send(t, s.to, 37, 100)
	r := Compare(before, s.look(t))
	blamed(t, r, HopUDP, 37, "nobody listens", "docker restart zeekdemo-zeek-1")
	if h := r.hop(HopSocket, "zeek"); !slices.Contains(h.Notes, "nobody listens on UDP port 4789") {
		t.Error(h.Notes)
	}
}

// A device whose queue is short drops what its counters do not show.
func TestShortQueue(t *testing.T) {
	for _, tt := range []struct {
		hop    Hop
		device func(*stage) string
	}{
		{HopBridge, func(s *stage) string { return s.Bridge }},
		{HopVeth, func(s *stage) string { return s.Port }},
	} {
		t.Run(string(tt.hop), func(t *testing.T) {
			s := newStage(t, 1500)
			c := s.listen(t, 8<<20)
			dev := tt.device(s)
			tc(t, "qdisc add dev "+dev+" root tbf rate 8mbit burst 3000 limit 6000")
			before := s.look(t)
			send(t, s.to, 300, 1000)
			n := waiting(t, c)
			blamed(t, Compare(before, s.look(t)), tt.hop, 300-n, "tbf, has a limit", "tc qdisc del dev "+dev+" root")
		})
	}
}

// The other end takes no frames so long: both ends count each of them.
func TestDeviceRefuses(t *testing.T) {
	s := newStage(t, 9000)
	s.listen(t, 8<<20)
	testenv.IP(t, "-n "+s.Name+" link set eth0 mtu 1500")
	before := s.look(t)
	send(t, s.to, 25, 4000)
	blamed(t, Compare(before, s.look(t)), HopDevice, 25, "eth0, the sensor's end of its link, takes at most 1500 bytes, and "+s.Bridge+" passes on up to 9000", "docker restart zeekdemo-zeek-1")
}

// A processor whose queue is tiny drops what another one gives it. The kernel
// counts each death three times.
func TestTinyBacklog(t *testing.T) {
	s := newStage(t, 1500)
	c := s.listen(t, 8<<20)
	cpus := onlineCPUs(t)
	if len(cpus) < 2 {
		testenv.Missing(t, "needs two CPUs")
	}
	machine := nsenter.Local()
	if err := machine.Write(t.Context(), nsenter.Namespace{PID: s.pid}, fileRPS("eth0"), strconv.FormatInt(1<<cpus[1], 16)); err != nil {
		t.Fatal(err)
	}
	before := s.look(t)
	const n = 3000
	var got uint64
	var r Report
	withBacklog(t, 1, func() {
		onCPU(t, cpus[0], func() { send(t, s.to, n, 100) })
		got = waiting(t, c)
		r = Compare(before, s.look(t))
	})
	if r.Lost < n-got || r.Lost > n-got+3 { // and the odd question of ARP
		t.Errorf("%d lost, want %d", r.Lost, n-got)
	}
	blamed(t, r, HopSoftnet, r.Lost, "a processor's queue of received packets was full", "zeekdemo tune-host")
	if h := r.hop(HopSoftnet, ""); !strings.Contains(strings.Join(h.Notes, " "), fmt.Sprintf("CPU %d dropped", cpus[1])) || len(h.facts.RPS) != 2 {
		t.Errorf("%v, RPS %q", h.Notes, h.facts.RPS)
	}
}

// withBacklog makes every processor's queue shorter while fn runs. That is a
// setting of the whole machine.
func withBacklog(t *testing.T, packets int, fn func()) {
	t.Helper()
	was, err := os.ReadFile(fileBacklog)
	if err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := os.WriteFile(fileBacklog, was, 0o644); err != nil {
			t.Error(err)
		}
	}
	defer restore()
	if err := os.WriteFile(fileBacklog, []byte(strconv.Itoa(packets)), 0o644); err != nil {
		t.Fatal(err)
	}
	fn()
}

func onlineCPUs(t *testing.T) (list []int) {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	for cpu := range 1024 {
		if set.IsSet(cpu) {
			list = append(list, cpu)
		}
	}
	return list
}

// onCPU runs fn on one processor.
func onCPU(t *testing.T, cpu int, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread dies
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			t.Error(err)
		}
		fn()
	}()
	<-done
}

// Of some datagrams only the first fragment comes.
func TestFragmentsAreLost(t *testing.T) {
	s := newStage(t, 1500)
	s.listen(t, 1<<20)
	s.Inside(t, func() error { return os.WriteFile("/proc/sys/net/ipv4/ipfrag_time", []byte("1"), 0o644) })
	before := s.look(t)
	const n = 7
	for id := range n {
		s.frame(t, firstFragment(s.to.Addr(), uint16(id+1)))
	}
	var r Report
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if r = Compare(before, s.look(t)); r.Lost == n {
			break
		}
	}
	blamed(t, r, HopIP, n, "some of which did not come in time", "")
	if c := r.Culprit; c.Cure != "" || strings.Contains(c.Reason, "passed a UDP socket") {
		t.Errorf("%q, %q: they came by no relay", c.Reason, c.Cure)
	}
}

// Wrong checksums are found when the socket is read, and count as its drops.
func TestWrongChecksum(t *testing.T) {
	s := newStage(t, 1500)
	c := s.listen(t, 1<<20)
	before := s.look(t)
	for range 9 {
		s.frame(t, ipv4(s.to.Addr(), 0, 0, append(udpHeader(4789, 108, 0xbad), make([]byte, 100)...)))
	}
	if n := waiting(t, c); n != 0 {
		t.Fatalf("%d arrived", n)
	}
	blamed(t, Compare(before, s.look(t)), HopSocket, 9, "checksum", "ethtool")
}

func udpHeader(port, length, checksum uint16) []byte {
	return []byte{0x30, 0x39, byte(port >> 8), byte(port), byte(length >> 8), byte(length), byte(checksum >> 8), byte(checksum)}
}

// firstFragment is the beginning of a longer datagram for the sensor.
func firstFragment(to netip.Addr, id uint16) []byte {
	return ipv4(to, id, 0x2000, append(udpHeader(4789, 4000, 0), make([]byte, 1000)...))
}

// ipv4 is a packet of protocol UDP from 192.0.2.1.
func ipv4(to netip.Addr, id, flags uint16, payload []byte) []byte {
	h := make([]byte, 20)
	h[0], h[8], h[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(payload)))
	binary.BigEndian.PutUint16(h[4:], id)
	binary.BigEndian.PutUint16(h[6:], flags)
	copy(h[12:], []byte{192, 0, 2, 1})
	copy(h[16:], to.AsSlice())
	sum := uint32(0)
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum+sum>>16))
	return append(h, payload...)
}

// frame sends a packet over the host's end of the sensor's link, past the
// host's own IP.
func (s *stage) frame(t *testing.T, packet []byte) {
	t.Helper()
	port, err := net.InterfaceByName(s.Port)
	if err != nil {
		t.Fatal(err)
	}
	to := unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: port.Index, Halen: 6} // ETH_P_IP as it is sent
	s.Inside(t, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err == nil {
			copy(to.Addr[:], eth0.HardwareAddr)
		}
		return err
	})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, packet, 0, &to); err != nil {
		t.Fatal(err)
	}
}

// TestRelay is no test: it is what stands in for docker-proxy, a process of its
// own that copies datagrams.
func TestRelay(t *testing.T) {
	to := os.Getenv("DROPS_TEST_RELAY")
	if to == "" {
		t.Skip("runs in a process that another test starts")
	}
	in := testenv.ListenUDP(t, "127.0.0.1:0", 100_000)
	out, err := net.Dial("udp4", to)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("relay", in.LocalAddr())
	for buf := make([]byte, 1<<16); ; {
		n, err := in.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(buf[:n])
	}
}

// A proxy that is stopped empties its queue no more.
func TestProxyIsStopped(t *testing.T) {
	s := newStage(t, 9000)
	c := s.listen(t, 8<<20)
	cmd := exec.Command(os.Args[0], "-test.run", "^TestRelay$")
	cmd.Env = append(os.Environ(), "DROPS_TEST_RELAY="+s.to.String())
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	var at string
	if _, err := fmt.Fscanf(stdout, "relay %s\n", &at); err != nil {
		t.Fatal(err)
	}
	relay := netip.MustParseAddrPort(at)
	s.path.Sensors[0].Published = relay

	before := s.look(t)
	send(t, relay, 50, 1000)
	if n := waiting(t, c); n != 50 {
		t.Fatalf("%d of 50 came through", n)
	}
	r := Compare(before, s.look(t))
	if r.Lost != 0 || r.hop(HopProxy, "zeek").Verdict == VerdictUnknown {
		t.Fatal(describe(r))
	}
	if yes, known := r.relayed("zeek"); !yes || !known {
		t.Errorf("that they passed a relay: %t, known %t\n%s", yes, known, describe(r))
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	before = s.look(t)
	send(t, relay, 3000, 1000)
	r = Compare(before, s.look(t))
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	var came uint64
	for deadline := time.Now().Add(10 * time.Second); came+r.Lost < 3000 && time.Now().Before(deadline); {
		came += waiting(t, c)
	}
	blamed(t, r, HopProxy, 3000-came, "is stopped", fmt.Sprintf("kill -CONT %d", cmd.Process.Pid))
	if h := r.hop(HopProxy, "zeek"); len(h.Queues) != 1 || !h.Queues[0].Exact || h.Queues[0].Used == 0 || h.Queues[0].Used > 2*h.Queues[0].Size {
		t.Errorf("queues %+v", h.Queues)
	}
}

// A capture that nobody reads loses packets. A mirror's is on the way, somebody
// else's is not.
func TestCaptureIsFull(t *testing.T) {
	s := newStage(t, 1500)
	s.listen(t, 1<<20)
	port, err := net.InterfaceByName(s.Port)
	if err != nil {
		t.Fatal(err)
	}
	const everything = 0x0300 // ETH_P_ALL as it is sent
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: port.Index})); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		owner   string
		verdict Verdict
	}{{"tcpdump", VerdictClean}, {ownName, VerdictSuspect}} {
		clear(s.reader.owner)
		s.reader.host.Owner = func(uint64, netip.AddrPort) (int, string, error) { return 4711, tt.owner, nil }
		before := s.look(t)
		send(t, s.to, 80, 500)
		r := Compare(before, s.look(t))
		h := r.hop(HopSender, "")
		grown := uint64(0)
		for _, d := range h.Counters {
			if strings.HasPrefix(d.Name, "packet socket of "+tt.owner+" (PID 4711) drops") {
				grown += d.Grown
			}
		}
		if r.Verdict != tt.verdict || r.Lost != 0 || grown < 70 || grown > 82 {
			t.Errorf("%s: %d dropped\n%s", tt.owner, grown, describe(r))
		}
	}
}

// What dies elsewhere on the machine is named, but not blamed.
func TestOthersLosses(t *testing.T) {
	s := newStage(t, 1500)
	s.listen(t, 1<<20)
	closed := testenv.ListenUDP(t, "127.0.0.1:0", 0)
	to := closed.LocalAddr().(*net.UDPAddr).AddrPort()
	closed.Close()
	before := s.look(t)
	send(t, s.to, 10, 100)
	send(t, to, 11, 100)
	r := Compare(before, s.look(t))
	h := r.hop(HopHostUDP, "")
	if r.Verdict != VerdictSuspect || r.Lost != 0 || r.Culprit != nil || h.Lost == nil || *h.Lost < 11 || !strings.Contains(r.Sentence, h.Name) {
		t.Error(describe(r))
	}
	if reason, cure := r.Hint(h); !strings.Contains(reason, "nobody listens") || cure == "" {
		t.Errorf("%q, %q", reason, cure)
	}
}

// A sensor that was replaced counts anew, and what it lost since then counts.
func TestSensorRestarts(t *testing.T) {
	s := newStage(t, 1500)
	s.listen(t, 1)
	send(t, s.to, 100, 500)
	before := s.look(t)
	kill(t, s.pid)
	fresh := newStage(t, 1500)
	s.path = fresh.path
	s.path.Sensors[0].ID = "two"
	c := fresh.listen(t, 1)
	send(t, fresh.to, 70, 500)
	r := Compare(before, s.look(t))
	blamed(t, r, HopSocket, 70-waiting(t, c), "small", "tune-host")
	if h := r.hop(HopSocket, "zeek"); !strings.Contains(strings.Join(h.Notes, " "), "began anew") {
		t.Errorf("notes %q", h.Notes)
	}

	// And one that does not come back is not known, not clean.
	s.path.Sensors[0].PID, s.path.Sensors[0].Missing = 0, errors.New("the sensor's container is exited")
	kill(t, fresh.pid)
	r = Compare(before, s.look(t))
	if h := r.hop(HopSocket, "zeek"); r.Verdict != VerdictUnknown || h.Lost != nil || h.Unknown[0].Why != "the sensor's container is exited" {
		t.Error(describe(r))
	}
}

// kill ends a process and waits until it is dead.
func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if p, bad := procfs.Stat(string(text)); err != nil || bad == nil && p.Ended() {
			return
		}
	}
	t.Fatalf("process %d does not die", pid)
}

// A look costs next to nothing: at one in a second far less than a hundredth of
// a processor.
func BenchmarkRead(b *testing.B) {
	testenv.NeedRoot(b)
	host, done := Local()
	defer done()
	path := Path{Sensors: []SensorAt{{Name: "zeek", PID: os.Getpid(), Port: 4789}}}
	r := NewReader(Dir("/"), host, func(context.Context) (Path, error) { return path, nil })
	for b.Loop() {
		if _, err := r.Read(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
