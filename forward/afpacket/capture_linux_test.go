package afpacket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// taken is what came out of a capture.
type taken struct {
	mu     sync.Mutex
	frames map[*Worker][]string
	times  []int64 // their time stamps
}

func (t *taken) all() (list []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, frames := range t.frames {
		list = append(list, frames...)
	}
	return list
}

// capture captures in a namespace while during runs, then stops, and returns
// what came, and what was counted.
func capture(t *testing.T, namespace string, o Options, names string, during func(c *Capture, got *taken)) (*taken, []Counts) {
	t.Helper()
	var c *Capture
	testenv.Inside(t, namespace, func() (err error) {
		for name := range strings.FieldsSeq(names) {
			i, err := Find(name)
			if err != nil {
				return err
			}
			i.Filter = o.filter()
			o.Interfaces = append(o.Interfaces, i)
		}
		c, err = Open(o)
		return err
	})
	got := &taken{frames: map[*Worker][]string{}}
	var all sync.WaitGroup
	for _, w := range c.Workers() {
		all.Go(func() {
			var f forward.Frame
			for {
				switch err := w.Next(&f); {
				case errors.Is(err, io.EOF), errors.Is(err, ErrGone):
					return
				case err != nil:
					t.Error(err)
					return
				}
				if f.Length != len(f.Data) {
					t.Errorf("frame of %d bytes, %d captured", f.Length, len(f.Data))
				}
				got.mu.Lock()
				got.frames[w] = append(got.frames[w], string(f.Data))
				got.times = append(got.times, f.Time)
				got.mu.Unlock()
			}
		})
	}
	during(c, got)
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	all.Wait()
	counts, err := c.Counts()
	if err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	return got, counts
}

func (o Options) filter() []bpf.RawInstruction {
	if len(o.Interfaces) > 0 {
		return o.Interfaces[0].Filter
	}
	return nil
}

// link is a pair of devices: east in one namespace, west in another.
type link struct{ east, west string }

func newLink(t testing.TB) link {
	l := link{testenv.Namespace(t), testenv.Namespace(t)}
	testenv.IP(t, "-n "+l.east+" link add eth0 type veth peer name eth0 netns "+l.west)
	for _, ns := range []string{l.east, l.west} {
		testenv.Inside(t, ns, func() error { return quiet() })
		testenv.IP(t, "-n "+ns+" link set eth0 up mtu 9000")
	}
	return l
}

// quiet keeps IPv6 from sending anything of its own accord.
func quiet() error {
	return exec.Command("sh", "-c", "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$f; done").Run()
}

// sender puts frames on a device.
func sender(t testing.TB, namespace, device string) func(frames ...[]byte) {
	t.Helper()
	var fd int
	testenv.Inside(t, namespace, func() error {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: i.Index})
	})
	t.Cleanup(func() { unix.Close(fd) })
	return func(frames ...[]byte) {
		for _, f := range frames {
			if _, err := unix.Write(fd, f); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// udp4 is an Ethernet frame with a UDP datagram behind the given tags.
func udp4(tags string, src, dst netip.AddrPort, payload string) []byte {
	b := []byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01" + tags + "\x08\x00")
	ip := make([]byte, 28)
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(28+len(payload)))
	copy(ip[12:], src.Addr().AsSlice())
	copy(ip[16:], dst.Addr().AsSlice())
	binary.BigEndian.PutUint16(ip[20:], src.Port())
	binary.BigEndian.PutUint16(ip[22:], dst.Port())
	binary.BigEndian.PutUint16(ip[24:], uint16(8+len(payload)))
	return append(append(b, ip...), payload...)
}

var (
	alice  = netip.MustParseAddrPort("10.0.0.1:1000")
	bob    = netip.MustParseAddrPort("10.0.0.2:2000")
	sensor = netip.MustParseAddrPort("10.0.0.9:4789")
)

// many are frames of several flows in both directions, tagged and not.
func many(n int) (frames [][]byte) {
	tags := []string{"", "\x81\x00\x00\x64", "\x88\xa8\x00\xc8\x81\x00\x00\x64", "\x91\x00\x0f\xff\x81\x00\xe0\x01"}
	for i := range n {
		from, to := netip.AddrPortFrom(alice.Addr(), alice.Port()+uint16(i/2%7)), bob
		if i%2 == 1 {
			from, to = to, from
		}
		frames = append(frames, udp4(tags[i%len(tags)], from, to, fmt.Sprintf("%d %s", i, strings.Repeat("x", i%1400))))
	}
	return frames
}

func text(frames [][]byte) (list []string) {
	for _, f := range frames {
		list = append(list, string(f))
	}
	return list
}

// What comes out is what went over the wire, tags of every type included, on
// either end and in order.
func TestFramesComeOutAsTheyWere(t *testing.T) {
	l, frames := newLink(t), many(5000)
	send := sender(t, l.west, "eth0")
	for _, ns := range []string{l.east, l.west} {
		got, counts := capture(t, ns, Options{}, "eth0", func(*Capture, *taken) { send(frames...) })
		if !slices.Equal(got.all(), text(frames)) {
			t.Errorf("%d frames came, or other ones than the %d sent", len(got.all()), len(frames))
		}
		if c := counts[0]; c.Packets != uint64(len(frames)) || c.Lost() != 0 {
			t.Errorf("%+v", c)
		}
	}
}

// Workers share the traffic, and each flow keeps its order and its worker.
func TestWorkersKeepFlowsTogether(t *testing.T) {
	l, frames := newLink(t), many(7000)
	send := sender(t, l.west, "eth0")
	got, _ := capture(t, l.east, Options{Workers: 3}, "eth0", func(*Capture, *taken) { send(frames...) })
	if a, b := slices.Sorted(slices.Values(got.all())), slices.Sorted(slices.Values(text(frames))); !slices.Equal(a, b) {
		t.Fatalf("%d frames came, or other ones than the %d sent", len(a), len(b))
	}
	owner := map[string]*Worker{}
	busy := 0
	for w, list := range got.frames {
		if len(list) > 0 {
			busy++
		}
		last := map[string]int{}
		for _, f := range list {
			body := f[strings.Index(f, "\x08\x00\x45"):]
			a, b := body[14:18]+body[22:24], body[18:22]+body[24:26]
			flow := f[12:14] + min(a, b) + max(a, b) // the kernel does not look behind every type of tag
			if o, ok := owner[flow]; ok && o != w {
				t.Fatal("one flow has two workers")
			}
			owner[flow] = w
			var n int
			if _, err := fmt.Sscanf(body[30:], "%d", &n); err != nil || n < last[flow] {
				t.Fatalf("frame %d after frame %d: %v", n, last[flow], err)
			}
			last[flow] = n
		}
	}
	if busy < 2 {
		t.Errorf("%d of 3 workers got frames", busy)
	}
}

// On lo everything passes twice, and comes out once.
func TestLoopbackIsNotDoubled(t *testing.T) {
	ns := testenv.Namespace(t)
	testenv.Inside(t, ns, quiet)
	got, _ := capture(t, ns, Options{}, "lo", func(*Capture, *taken) {
		testenv.Inside(t, ns, func() error {
			c, err := net.Dial("udp", "127.0.0.1:9")
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("once"))
			return err
		})
	})
	once := 0
	for _, f := range got.all() {
		if strings.HasSuffix(f, "once") && f[23] == 17 {
			once++
		}
	}
	if once != 1 {
		t.Errorf("the datagram came %d times", once)
	}
}

// The tunnel's own packets are left out from the first to the last, and after
// the sensor has moved as well.
func TestTheTunnelIsNotCaptured(t *testing.T) {
	l := newLink(t)
	moved := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.10"), 4789)
	send := sender(t, l.west, "eth0")
	own := func(to netip.AddrPort) [][]byte {
		return [][]byte{udp4("", alice, to, "own"), udp4("\x81\x00\x00\x01", alice, to, "own"), udp4("\x88\xa8\x00\x01\x81\x00\x00\x01", alice, to, "own")}
	}
	other := [][]byte{udp4("", alice, bob, "other"), udp4("", alice, netip.AddrPortFrom(sensor.Addr(), 53), "another"), udp4("", sensor, alice, "answer")}
	got, _ := capture(t, l.east, Options{Exclude: []Tunnel{{To: sensor}}}, "eth0", func(c *Capture, got *taken) {
		send(slices.Concat(own(sensor), other, own(moved))...)
		wait(t, func() bool { return len(got.all()) == len(other)+3 })
		if err := c.Exclude([]Tunnel{{To: sensor}, {To: moved}}); err != nil {
			t.Error(err)
		}
		send(slices.Concat(own(sensor), own(moved), other)...)
	})
	if want := text(slices.Concat(other, own(moved), other)); !slices.Equal(got.all(), want) {
		t.Errorf("came: %q", got.all())
	}
}

func wait(t *testing.T, until func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !until(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within 5 s")
		}
	}
}

// A full ring loses frames, counts them, and everything else comes out.
func TestDropsAreCounted(t *testing.T) {
	l := newLink(t)
	send := sender(t, l.west, "eth0")
	o := Options{Buffer: 1}
	var c *Capture
	testenv.Inside(t, l.east, func() error {
		i, err := Find("eth0")
		if err != nil {
			return err
		}
		o.Interfaces = []Interface{i}
		c, err = Open(o)
		return err
	})
	defer c.Close()
	const n = 4000
	for range n {
		send(udp4("", alice, bob, strings.Repeat("x", 1400)))
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	var f forward.Frame
	var came uint64
	for c.Workers()[0].Next(&f) == nil {
		came++
	}
	counts, err := c.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if counts[0].Packets != came || counts[0].Dropped == 0 || came+counts[0].Dropped != n {
		t.Errorf("%d came of %d: %+v", came, n, counts[0])
	}
}

// hear waits until the capture tells a piece of news.
func hear(t *testing.T, c *Capture, want string) {
	t.Helper()
	for limit := time.After(5 * time.Second); ; {
		select {
		case n := <-c.News():
			if n.Text == want {
				return
			} else if want != "has gone" { // before which it may go down
				t.Fatalf("%s %s, want %s", n.Interface, n.Text, want)
			}
		case <-limit:
			t.Fatalf("no news, want %s", want)
		}
	}
}

// The kernel says nothing of an interface that goes while it is down.
func TestAnInterfaceGoesWhileItIsDown(t *testing.T) {
	l := newLink(t)
	capture(t, l.east, Options{}, "eth0", func(c *Capture, _ *taken) {
		testenv.IP(t, "-n "+l.east+" link set eth0 down")
		hear(t, c, "is down")
		testenv.IP(t, "-n "+l.east+" link del eth0")
		hear(t, c, "has gone")
	})
}

// An interface that goes down and comes back is captured on; one that goes away
// is said to have gone.
func TestAnInterfaceComesAndGoes(t *testing.T) {
	l := newLink(t)
	send := sender(t, l.west, "eth0")
	got, _ := capture(t, l.east, Options{}, "eth0", func(c *Capture, got *taken) {
		listen := func(want string) { hear(t, c, want) }
		testenv.IP(t, "-n "+l.east+" link set eth0 down")
		listen("is down")
		testenv.IP(t, "-n "+l.east+" link set eth0 up")
		wait(t, func() bool {
			send(udp4("", alice, bob, "back"))
			return len(got.all()) > 0
		})
		listen("is up again")
		testenv.IP(t, "-n "+l.east+" link del eth0")
		listen("has gone")
	})
	if !strings.HasSuffix(got.all()[0], "back") {
		t.Errorf("%q", got.all())
	}
}

// What offloads merged and left open is put right: the segments of a stream carry
// its bytes once and in order, and every checksum holds.
func TestMergedPacketsAreCutAndChecksummed(t *testing.T) {
	l := newLink(t)
	testenv.IP(t, "-n "+l.west+" addr add 10.0.0.1/24 dev eth0")
	testenv.IP(t, "-n "+l.east+" addr add 10.0.0.2/24 dev eth0")
	stream := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	got, counts := capture(t, l.east, Options{}, "eth0", func(*Capture, *taken) {
		overTCP(t, l, "10.0.0.2:80", stream)
	})
	c := counts[0]
	if c.Merged == 0 || c.Checksums == 0 || c.Lost() != 0 {
		t.Errorf("nothing was merged, or nothing left open: %+v", c)
	}
	var r received
	for _, f := range got.all() {
		p := []byte(f)[14:]
		if f[12:14] != "\x08\x00" || p[9] != 6 {
			continue
		}
		if len(p) > 9000 {
			t.Errorf("a packet of %d bytes", len(p))
		}
		if s := onesSum(p[:20]); s != 0xffff {
			t.Errorf("IP header sums to %#x", s)
		}
		pseudo := slices.Concat(p[12:20], []byte{0, 6}, binary.BigEndian.AppendUint16(nil, uint16(len(p)-20)), p[20:])
		if s := onesSum(pseudo); s != 0xffff {
			t.Errorf("a segment of %d bytes sums to %#x", len(p)-20, s)
		}
		if p[15] == 1 { // from 10.0.0.1
			header := int(p[32]>>4) * 4
			r.segment(t, p[20:20+header], p[20+header:])
		}
	}
	if !bytes.Equal(r.stream, stream) {
		t.Errorf("the segments carry %d bytes, or others than the stream's %d", len(r.stream), len(stream))
	}
}

// received is what the segments of one direction of a connection carried.
type received struct {
	begin  uint32 // sequence number of the first byte
	stream []byte
}

// segment takes the next one, its TCP header and what follows it. A sender that is kept waiting
// repeats what it has sent: that is the stream's too, and the same.
func (r *received) segment(t *testing.T, tcp, data []byte) {
	t.Helper()
	const syn = 2
	seq := binary.BigEndian.Uint32(tcp[4:])
	if tcp[13]&syn != 0 {
		r.begin = seq + 1
		return
	}
	at := int(seq - r.begin)
	if len(data) == 0 {
		return
	}
	if at > len(r.stream) {
		t.Fatalf("a segment at %d, where %d is next", at, len(r.stream))
	}
	known := min(len(r.stream)-at, len(data))
	if !bytes.Equal(r.stream[at:at+known], data[:known]) {
		t.Errorf("a segment at %d has other bytes when it is repeated", at)
	}
	r.stream = append(r.stream, data[known:]...)
}

func onesSum(b []byte) uint32 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i]) << 8
		if i+1 < len(b) {
			s += uint32(b[i+1])
		}
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return s
}

// An interface without a link layer yields its IP packets, the tunnel's own left
// out there as well.
func TestAnInterfaceWithoutALinkLayer(t *testing.T) {
	ns := testenv.Namespace(t)
	testenv.Inside(t, ns, quiet)
	var tun int
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("SKIPPED: this kernel has no tun devices: %v", err)
	}
	testenv.Inside(t, ns, func() (err error) {
		if tun, err = unix.Open("/dev/net/tun", unix.O_RDWR, 0); err != nil {
			return err
		}
		request, err := unix.NewIfreq("tun0")
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return unix.IoctlIfreq(tun, unix.TUNSETIFF, request)
	})
	defer unix.Close(tun)
	testenv.IP(t, "-n "+ns+" link set tun0 up")
	packets := [][]byte{udp4("", alice, bob, "one")[14:], udp4("", alice, sensor, "own")[14:], udp4("", bob, alice, "two")[14:]}
	got, counts := capture(t, ns, Options{Exclude: []Tunnel{{To: sensor}}}, "tun0", func(*Capture, *taken) {
		for _, p := range packets {
			if _, err := unix.Write(tun, p); err != nil {
				t.Error(err)
			}
		}
	})
	if want := text([][]byte{packets[0], packets[2]}); !slices.Equal(got.all(), want) || counts[0].Packets != 2 {
		t.Errorf("%q, %+v", got.all(), counts)
	}
}

func TestReadingDoesNotAllocate(t *testing.T) {
	l := newLink(t)
	send := sender(t, l.west, "eth0")
	var c *Capture
	testenv.Inside(t, l.east, func() error {
		i, err := Find("eth0")
		if err != nil {
			return err
		}
		c, err = Open(Options{Interfaces: []Interface{i}})
		return err
	})
	defer c.Close()
	send(many(2100)...)
	var f forward.Frame
	if n := testing.AllocsPerRun(2000, func() {
		if err := c.Workers()[0].Next(&f); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%.2f allocations a frame", n)
	}
}
