package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// A lab is three machines: a client and a server with services, and a monitor.
// The client's eth0 leads to the server, its mon0 to the monitor.
type lab struct {
	t                       *testing.T
	client, server, monitor string
}

const (
	labServer4, labServer6 = "10.77.0.2", "fd77::2"
	labMonitor             = "10.79.0.2"
)

func newLab(t *testing.T) lab {
	for _, tool := range []string{"tcpdump", "ping", "ethtool"} {
		testenv.NeedTool(t, tool)
	}
	l := lab{t, testenv.Namespace(t), testenv.Namespace(t), testenv.Namespace(t)}
	for line := range strings.Lines(strings.NewReplacer("CLIENT", l.client, "SERVER", l.server, "MONITOR", l.monitor).Replace(`
-n CLIENT link add eth0 mtu 9000 type veth peer name eth0 mtu 9000 netns SERVER
-n CLIENT link add mon0 mtu 9200 type veth peer name eth0 mtu 9200 netns MONITOR
-n CLIENT addr add 10.77.0.1/24 dev eth0
-n SERVER addr add 10.77.0.2/24 dev eth0
-n CLIENT addr add fd77::1/64 dev eth0 nodad
-n SERVER addr add fd77::2/64 dev eth0 nodad
-n CLIENT addr add 10.79.0.1/24 dev mon0
-n MONITOR addr add 10.79.0.2/24 dev eth0
-n CLIENT link set eth0 up
-n SERVER link set eth0 up
-n CLIENT link set mon0 up
-n MONITOR link set eth0 up`)) {
		if strings.TrimSpace(line) != "" {
			testenv.IP(t, line)
		}
	}
	onOneProcessor(t)
	l.serve()
	return l
}

// onOneProcessor keeps all threads of this process, and what it starts, on one
// processor. Where two send packets of one flow at the same time there is no order
// that tcpdump and a mirror would have to agree on.
func onOneProcessor(t *testing.T) {
	t.Helper()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	pin := func(set *unix.CPUSet) {
		tasks, _ := os.ReadDir("/proc/self/task")
		for _, task := range tasks {
			if id, err := strconv.Atoi(task.Name()); err == nil {
				_ = unix.SchedSetaffinity(id, set) // it may have ended
			}
		}
	}
	pin(&one)
	t.Cleanup(func() { pin(&all) })
}

// run runs a program in a namespace.
func (l lab) command(ctx context.Context, namespace string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", namespace}, args...)...)
}

func (l lab) must(namespace string, args ...string) string {
	l.t.Helper()
	out, err := l.command(l.t.Context(), namespace, args...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%v: %v: %s", args, err, out)
	}
	return string(out)
}

// plain switches everything off that makes a capture differ from the wire.
func (l lab) plain() {
	for _, ns := range []string{l.client, l.server} {
		l.must(ns, "ethtool", "-K", "eth0", "tx", "off", "rx", "off", "tso", "off", "gso", "off", "gro", "off")
	}
}

// serve starts HTTP, HTTPS, an echo over TCP and DNS in the server.
func (l lab) serve() {
	body := bytes.Repeat([]byte("a page of text. "), 4096)
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
	testenv.Inside(l.t, l.server, func() error {
		plain, err := net.Listen("tcp", ":80")
		if err != nil {
			return err
		}
		secure, err := tls.Listen("tcp", ":443", &tls.Config{Certificates: []tls.Certificate{certificate(l.t)}})
		if err != nil {
			return err
		}
		names, err := net.ListenPacket("udp", ":53")
		if err != nil {
			return err
		}
		l.t.Cleanup(func() { plain.Close(); secure.Close(); names.Close() })
		for _, listener := range []net.Listener{plain, secure} {
			go func() { _ = http.Serve(listener, page) }() //nolint:gosec // a test's
		}
		go answer(names)
		return nil
	})
}

// answer answers every question with one address.
func answer(c net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) == 0 {
			continue
		}
		m.Response = true
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 80}}}}
		if reply, err := m.Pack(); err == nil {
			_, _ = c.WriteTo(reply, from)
		}
	}
}

func certificate(t *testing.T) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"server"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tagged puts datagrams with VLAN tags on the wire, one and two of them, in both
// directions. Not every kernel has VLAN devices.
func (l lab) tagged() {
	for i, ns := range []string{l.client, l.server} {
		testenv.Inside(l.t, ns, func() error {
			device, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			to := &unix.SockaddrLinklayer{Ifindex: device.Index}
			for n, tags := range []string{"\x81\x00\x00\x64", "\x88\xa8\x00\xc8\x81\x00\x20\x64", "\x81\x00\xef\xff"} {
				frame := "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01" + tags + "\x08\x00" +
					"\x45\x00\x00\x40\x00\x01\x00\x00\x40\x11\x00\x00\x0a\x4e\x00" + string(rune(i+1)) + "\x0a\x4e\x00" + string(rune(2-i)) +
					"\x30\x39\x00\x35\x00\x2c\x00\x00" + fmt.Sprintf("%-36d", n)
				if err := unix.Sendto(fd, []byte(frame), 0, to); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// traffic is what people do: pages by HTTP and TLS over IPv4 and IPv6, names,
// pings, VLANs, jumbo frames, fragments.
func (l lab) traffic() {
	l.t.Helper()
	for range 3 {
		l.tagged()
		for _, host := range []string{labServer4, "[" + labServer6 + "]"} {
			testenv.Inside(l.t, l.client, func() error { return errors.Join(get("http://"+host), get("https://"+host)) })
		}
		for _, host := range []string{labServer4, labServer6} {
			testenv.Inside(l.t, l.client, func() error { return ask(net.JoinHostPort(host, "53")) })
			l.must(l.client, "ping", "-c", "2", "-i", "0.01", "-W", "2", host)
		}
		l.must(l.client, "ping", "-c", "2", "-i", "0.01", "-W", "2", "-s", "8900", "-M", "do", labServer4)
		l.must(l.client, "ping", "-c", "3", "-i", "0.01", "-W", "2", "-s", "20000", labServer4) // in fragments
	}
}

// get fetches a page. Everything happens on this thread's namespace: the
// connection is dialled here.
func get(url string) error {
	secure := strings.HasPrefix(url, "https")
	address := strings.TrimPrefix(strings.TrimPrefix(url, "https://"), "http://") + map[bool]string{false: ":80", true: ":443"}[secure]
	raw, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return err
	}
	defer raw.Close()
	c := raw
	if secure {
		c = tls.Client(raw, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test's own server
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c)
	return err
}

// ask asks for a name.
func ask(server string) error {
	c, err := net.DialTimeout("udp", server, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName("www.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	query, err := m.Pack()
	if err != nil {
		return err
	}
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(query); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1500))
	return err
}

// marker sends a datagram by which the traffic's begin and end are found in
// captures. Nobody listens; whether there is an answer does not matter.
func (l lab) marker(text string) {
	testenv.Inside(l.t, l.client, func() error {
		c, err := net.Dial("udp", net.JoinHostPort(labServer4, "9"))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = io.WriteString(c, text)
		return err
	})
}

// tunnelled are the frames that have come to the monitor.
type tunnelled struct {
	mu     sync.Mutex
	frames []string
	vnis   map[uint32]int
}

// listen takes what comes to the monitor on a port: a header of 8 bytes, whether
// VXLAN's or GENEVE's without options, and a frame.
func (l lab) listen(port int) *tunnelled {
	got := &tunnelled{vnis: map[uint32]int{}}
	var c *net.UDPConn
	testenv.Inside(l.t, l.monitor, func() error {
		c = testenv.ListenUDP(l.t, ":"+strconv.Itoa(port), 32<<20)
		return nil
	})
	go func() {
		for buf := make([]byte, 1<<16); ; {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			if n < 8 {
				continue
			}
			got.mu.Lock()
			got.frames = append(got.frames, string(buf[8:n]))
			got.vnis[binary.BigEndian.Uint32(buf[4:])>>8]++
			got.mu.Unlock()
		}
	}()
	return got
}

func (g *tunnelled) all() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.frames)
}

// background is a program that runs until it is interrupted.
type background struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout bytes.Buffer
	mu     sync.Mutex
	stderr strings.Builder
	ready  chan struct{}
	done   chan error
}

// start starts a program in a namespace and waits until it says that it is ready.
func (l lab) start(namespace, ready string, args ...string) *background {
	l.t.Helper()
	b := &background{t: l.t, cmd: l.command(context.Background(), namespace, args...), ready: make(chan struct{}), done: make(chan error, 1)}
	b.cmd.Stdout = &b.stdout
	stderr, err := b.cmd.StderrPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = b.cmd.Process.Kill() })
	go func() {
		said := false
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			b.mu.Lock()
			b.stderr.WriteString(lines.Text() + "\n")
			b.mu.Unlock()
			if !said && strings.Contains(lines.Text(), ready) {
				said = true
				close(b.ready)
			}
		}
		b.done <- b.cmd.Wait()
	}()
	select {
	case <-b.ready:
	case err := <-b.done:
		l.t.Fatalf("%v: %v: %s", args, err, b.said())
	case <-time.After(20 * time.Second):
		l.t.Fatalf("%v: not ready: %s", args, b.said())
	}
	return b
}

func (b *background) said() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stderr.String()
}

// end interrupts it and returns its exit code.
func (b *background) end() int {
	b.t.Helper()
	_ = b.cmd.Process.Signal(os.Interrupt)
	select {
	case <-b.done:
	case <-time.After(30 * time.Second):
		_ = b.cmd.Process.Kill()
		b.t.Fatalf("%v: does not end: %s", b.cmd.Args, b.said())
	}
	return b.cmd.ProcessState.ExitCode()
}

// needDevice skips the test where the kernel has no such tunnel devices, which is
// not for us to change.
func (l lab) needDevice(kind string) {
	l.t.Helper()
	ns := testenv.Namespace(l.t)
	out, err := l.command(l.t.Context(), ns, "ip", "link", "add", "probe0", "type", kind, "id", "1", "remote", "10.0.0.1").CombinedOutput()
	if err != nil && strings.Contains(string(out), "Unknown device type") {
		l.t.Skipf("SKIPPED: this kernel has no %s devices", kind)
	}
}

// tcpdump captures on the client's eth0 until the function it returns is called,
// which returns the frames.
func (l lab) tcpdump() func() []string {
	file := filepath.Join(l.t.TempDir(), "seen.pcap")
	b := l.start(l.client, "listening on", "tcpdump", "-i", "eth0", "-Z", "root", "-s", "0", "-B", "65536", "-U", "--immediate-mode", "-w", file)
	return func() (frames []string) {
		l.t.Helper()
		eventually(l.t, 10*time.Second, "tcpdump has written everything", func() error { // on an interrupt it does not
			data, err := os.ReadFile(file)
			if err == nil && !bytes.Contains(data, []byte(lastMarker)) {
				err = errors.New("the last marker is missing")
			}
			return err
		})
		b.end()
		r, err := pcapfile.OpenAll([]string{file}, pcapfile.Options{})
		if err != nil {
			l.t.Fatal(err)
		}
		defer r.Close()
		var f forward.Frame
		for r.Next(&f) == nil {
			frames = append(frames, string(f.Data))
		}
		return frames
	}
}

// The markers that enclose the traffic.
const firstMarker, lastMarker = "the first marker", "the last marker"

// between cuts a list of frames at the markers.
func between(t *testing.T, frames []string) []string {
	t.Helper()
	first := slices.IndexFunc(frames, func(f string) bool { return strings.HasSuffix(f, firstMarker) })
	last := slices.IndexFunc(frames, func(f string) bool { return strings.HasSuffix(f, lastMarker) })
	if first < 0 || last < first {
		t.Fatalf("no markers in %d frames", len(frames))
	}
	return frames[first : last+1]
}

// contains reports whether part is a piece of whole.
func contains(whole, part []string) bool {
	for i := range len(whole) - len(part) + 1 {
		if slices.Equal(whole[i:i+len(part)], part) {
			return true
		}
	}
	return false
}

// byFlow sorts frames by flow and direction, in order. Frames that are no IP
// packets are a flow for each type.
func byFlow(frames []string) map[string][]string {
	flows := map[string][]string{}
	for _, f := range frames {
		flows[flowOf(f)] = append(flows[flowOf(f)], f)
	}
	return flows
}

func flowOf(f string) string {
	at := 14
	for at+2 < len(f) && (f[at-2:at] == "\x81\x00" || f[at-2:at] == "\x88\xa8") {
		at += 4
	}
	p := f[at:]
	switch {
	case f[at-2:at] == "\x08\x00" && (p[9] == 6 || p[9] == 17) && p[6]&0x3f == 0 && p[7] == 0:
		return f[12:at] + p[9:10] + p[12:24]
	case f[at-2:at] == "\x08\x00":
		return f[12:at] + p[9:10] + p[12:20]
	case f[at-2:at] == "\x86\xdd" && (p[6] == 6 || p[6] == 17):
		return f[12:at] + p[6:7] + p[8:44]
	case f[at-2:at] == "\x86\xdd":
		return f[12:at] + p[6:7] + p[8:40]
	}
	return f[12:at]
}

// mirrorResult is what these tests read of `mirror --json`.
type mirrorResult struct {
	Run     uint32
	How     string
	Verdict string
	Report  struct {
		Sent uint64 `json:"datagrams_sent"`
	}
	Interfaces []struct{ Packets, Dropped, Merged uint64 }
}

// mirrored runs a mirror while traffic flows, and returns what tcpdump saw in all,
// what came to the monitor, and the mirror's report.
func (l lab) mirrored(p program, port int, args ...string) (seen, came []string, doc mirrorResult) {
	l.t.Helper()
	got := l.listen(port)
	dumped := l.tcpdump()
	m := l.start(l.client, "Run ", append([]string{p.path, "mirror", "--json", "--to", labMonitor}, args...)...)
	l.marker(firstMarker)
	l.traffic()
	l.marker(lastMarker)
	seen = dumped()
	if code := m.end(); code != 0 {
		l.t.Errorf("mirror ended with %d: %s", code, m.said())
	}
	if err := json.Unmarshal(m.stdout.Bytes(), &doc); err != nil {
		l.t.Fatalf("%v: %s", err, m.stdout.String())
	}
	eventually(l.t, 10*time.Second, "everything has come", func() error {
		if n := len(got.all()); n < int(doc.Report.Sent) {
			return fmt.Errorf("%d frames of %d", n, doc.Report.Sent)
		}
		return nil
	})
	if came = got.all(); got.vnis[doc.Run] != len(came) || doc.Verdict != "complete" {
		l.t.Errorf("%d frames, VNIs %v: %s", len(came), got.vnis, m.stdout.String())
	}
	return seen, came, doc
}

// What reaches the monitor is what tcpdump saw on the interface: frame for frame,
// in order within each flow, none doubled.
func TestAMirrorIsFaithful(t *testing.T) {
	l, p := newLab(t), build(t)
	l.plain()
	for _, encapsulation := range []struct {
		name string
		port int
	}{{"vxlan", 4789}, {"geneve", 6081}} {
		for _, how := range []string{"forwarder", "forwarder --workers 3", "forwarder --tx udp", "kernel"} {
			t.Run(encapsulation.name+" "+how, func(t *testing.T) {
				l := l
				l.t = t
				if how == "kernel" {
					l.needDevice(encapsulation.name)
				}
				seen, came, doc := l.mirrored(p, encapsulation.port, append([]string{"eth0", "--encap", encapsulation.name, "--how"}, strings.Fields(how)...)...)
				if doc.How != strings.Fields(how)[0] {
					t.Errorf("mirrored by the %s", doc.How)
				}
				all, want, have := byFlow(seen), byFlow(between(t, seen)), byFlow(came)
				for flow, frames := range want {
					if !contains(have[flow], frames) {
						t.Errorf("flow %x: %d frames came of %d, or others, or in another order", flow, len(have[flow]), len(frames))
					}
				}
				for flow, frames := range have {
					if len(want[flow]) > 0 && !contains(all[flow], frames) {
						t.Errorf("flow %x: %d frames came, tcpdump saw %d", flow, len(frames), len(all[flow]))
					}
				}
				if len(want) < 30 || len(came) < 300 {
					t.Errorf("%d frames of %d flows", len(came), len(want))
				}
			})
		}
	}
}

// state is everything of an interface that a mirror may change.
func (l lab) state() string {
	var all strings.Builder
	for _, line := range []string{"ethtool -k eth0", "tc qdisc show dev eth0", "tc filter show dev eth0 ingress", "tc filter show dev eth0 egress",
		"ip -d link show dev eth0", "ip -br link"} {
		// A filter may not be there; and what ip says on stderr is of other tests' namespaces, which go meanwhile.
		out, _ := l.command(l.t.Context(), l.client, strings.Fields(line)...).Output()
		all.WriteString("$ " + line + "\n" + string(out))
	}
	return all.String()
}

// unchanged fails for each line of the interface's state that is not as it was.
func (l lab) unchanged(before string) {
	l.t.Helper()
	was, is := strings.Split(before, "\n"), strings.Split(l.state(), "\n")
	for _, line := range was {
		if !slices.Contains(is, line) {
			l.t.Errorf("gone: %s", line)
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			l.t.Errorf("new: %s", line)
		}
	}
}

// Killed at any moment, a mirror leaves what the next one, or --stop, takes back
// completely; what was there before stays.
func TestAKilledMirrorIsTakenBack(t *testing.T) {
	l, p := newLab(t), build(t)
	l.listen(4789) // else a dead port is heard, and is exit 3
	l.must(l.client, "tc", "qdisc", "add", "dev", "eth0", "root", "pfifo", "limit", "77")
	l.must(l.client, "ethtool", "-K", "eth0", "gso", "off") // a setting of the user's own
	before := l.state()
	run := func(args string) string {
		return l.must(l.client, append([]string{p.path}, strings.Fields(args)...)...)
	}
	for _, how := range []string{"forwarder", "kernel"} {
		for i := range 8 {
			t.Run(fmt.Sprintf("%s, %d", how, i), func(t *testing.T) {
				l := l
				l.t = t
				cmd := l.command(t.Context(), l.client, p.path, "mirror", "eth0", "--how", how, "--offloads", "off", "--to", labMonitor)
				stderr, err := cmd.StderrPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				if i > 0 { // else when it runs; else soon after its start, later each time
					time.AfterFunc(time.Duration(i)*4*time.Millisecond, func() { _ = cmd.Process.Kill() })
				}
				for lines := bufio.NewScanner(stderr); lines.Scan(); {
					if i == 0 && strings.HasPrefix(lines.Text(), "Run ") {
						if during := l.state(); during == before {
							t.Error("nothing was changed")
						}
						_ = cmd.Process.Kill()
					}
				}
				_ = cmd.Wait()
				if i%2 == 0 {
					run("mirror --stop")
				} else { // the next one
					run("mirror eth0 --how " + how + " --duration 50ms --to " + labMonitor)
				}
				l.unchanged(before)
			})
		}
	}
	t.Run("ended properly", func(t *testing.T) {
		l := l
		l.t = t
		run("mirror eth0 --how forwarder --offloads off --duration 50ms --to " + labMonitor)
		run("mirror eth0 --how kernel --offloads off --duration 50ms --to " + labMonitor)
		l.unchanged(before)
		run("mirror eth0 --offloads off --detach --to " + labMonitor)
		run("mirror eth0 --how forwarder --duration 50ms --to " + labMonitor) // others go on
		if during := l.state(); during == before {
			t.Error("a detached mirror has gone")
		}
		run("mirror --stop")
		l.unchanged(before)
	})
}

// layers are where an IP packet and its transport lie in a frame; ok only for TCP
// and UDP that is no fragment.
func layers(f string) (ip, transport int, proto byte, ok bool) {
	ip = 14
	for ip+2 < len(f) && (f[ip-2:ip] == "\x81\x00" || f[ip-2:ip] == "\x88\xa8") {
		ip += 4
	}
	switch f[ip-2 : ip] {
	case "\x08\x00":
		proto, transport = f[ip+9], ip+int(f[ip]&15)*4
		ok = f[ip+6]&0x3f == 0 && f[ip+7] == 0
	case "\x86\xdd":
		proto, transport = f[ip+6], ip+40
		ok = true
	}
	return ip, transport, proto, ok && (proto == 6 || proto == 17)
}

// content is what a flow's frames carry: the bytes of a TCP stream, or datagrams
// without their checksums.
func content(frames []string) string {
	var all strings.Builder
	for _, f := range frames {
		ip, transport, proto, ok := layers(f)
		switch end := len(f); {
		case ok && proto == 6:
			if f[ip]>>4 == 4 { // not Ethernet's padding
				end = ip + int(binary.BigEndian.Uint16([]byte(f[ip+2:])))
			}
			at := transport + int(f[transport+12]>>4)*4
			all.WriteString(f[at:max(end, at)])
		case ok:
			all.WriteString(f[:transport+6] + f[transport+8:])
		default:
			all.WriteString(f)
		}
	}
	return all.String()
}

// checksumHolds verifies the checksum of TCP and UDP.
func checksumHolds(f string) bool {
	ip, transport, proto, ok := layers(f)
	if !ok || ip > 14 { // those with tags are made up
		return true
	}
	addresses, end := f[ip+8:ip+40], ip+40+int(binary.BigEndian.Uint16([]byte(f[ip+4:])))
	if f[ip]>>4 == 4 {
		addresses, end = f[ip+12:ip+20], ip+int(binary.BigEndian.Uint16([]byte(f[ip+2:])))
	}
	if end > len(f) {
		return false
	}
	body := f[transport:end]
	sum := uint32(proto) + uint32(len(body))
	for i, b := range []byte(addresses + body) {
		sum += uint32(b) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum == 0xffff
}

// With offloads on, a capture shows merged packets with open checksums. What comes
// to the monitor is what was on the wire.
func TestAMirrorUndoesOffloads(t *testing.T) {
	l, p := newLab(t), build(t)
	for _, how := range []string{"forwarder", "kernel"} {
		t.Run(how, func(t *testing.T) {
			l := l
			l.t = t
			seen, came, doc := l.mirrored(p, 4789, "eth0", "--how", how)
			if how == "forwarder" && (len(doc.Interfaces) != 1 || doc.Interfaces[0].Merged == 0) {
				t.Errorf("nothing was merged: %+v", doc)
			}
			want, have := byFlow(between(t, seen)), byFlow(came)
			for flow, frames := range want {
				if !strings.Contains(content(have[flow]), content(frames)) {
					t.Errorf("flow %x: %d bytes came, or others than the %d", flow, len(content(have[flow])), len(content(frames)))
				}
			}
			longest, broken := 0, 0
			for _, f := range came {
				longest = max(longest, len(f))
				if !checksumHolds(f) {
					broken++
				}
			}
			if longest > 9000+14+8 || broken > 0 {
				t.Errorf("frames of up to %d bytes, %d of %d with wrong checksums", longest, broken, len(came))
			}
		})
	}
}

// No mirror takes its own tunnel's packets, whichever interface they pass.
func TestAMirrorDoesNotFeedItself(t *testing.T) {
	l, p := newLab(t), build(t)
	for _, how := range []string{"forwarder", "kernel"} {
		for _, c := range []struct{ name, interfaces, to string }{
			{"on the way to the monitor", "mon0", labMonitor},
			{"on both interfaces", "eth0 mon0", labMonitor},
			{"to a port where nobody listens", "mon0", labMonitor + ":4790"},
			{"on lo, to this machine", "lo", "127.0.0.1"},
		} {
			if how == "kernel" && c.interfaces == "lo" {
				continue // its frames are too long for a tunnel device
			}
			t.Run(how+" "+c.name, func(t *testing.T) {
				l := l
				l.t = t
				m := l.start(l.client, "Run ", append(strings.Fields(p.path+" mirror --json --how "+how+" --to "+c.to), strings.Fields(c.interfaces)...)...)
				l.must(l.client, "ping", "-c", "3", "-i", "0.01", "-W", "2", labMonitor)
				testenv.Inside(t, l.client, func() error {
					c, err := net.Dial("udp", "127.0.0.1:4000")
					if err == nil {
						_, err = c.Write([]byte("once"))
						c.Close()
					}
					return err
				})
				m.end()
				var doc mirrorResult
				if err := json.Unmarshal(m.stdout.Bytes(), &doc); err != nil {
					t.Fatalf("%v: %s", err, m.said())
				}
				if n := doc.Report.Sent; n == 0 || n > 40 {
					t.Errorf("%d packets were sent: %s", n, m.stdout.String())
				}
			})
		}
	}
}
