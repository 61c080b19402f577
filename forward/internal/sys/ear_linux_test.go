package sys

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// TestErrors sends to a port that was closed a moment ago.
func TestErrors(t *testing.T) {
	for _, test := range []struct {
		loopback string
		want     Complaint
	}{
		{"127.0.0.1", Complaint{Type: 3, Code: 3, From: netip.MustParseAddr("127.0.0.1")}},
		{"::1", Complaint{Six: true, Type: 1, Code: 4, From: netip.MustParseAddr("::1")}},
	} {
		t.Run(test.loopback, func(t *testing.T) {
			from, to, _ := pair(t, test.loopback)
			if err := errors.Join(KeepErrors(from), LetFragment(from)); err != nil {
				t.Fatal(err)
			}
			var p Poller
			p.Add(from)
			if p.Wait(0) {
				t.Error("there is something before anything was sent")
			}
			if err := Close(to); err != nil {
				t.Fatal(err)
			}
			if _, err := NewUDPSender(1).Send(from, []Message{{Payload: []byte("x")}}); err != nil {
				t.Fatal(err)
			}
			if !p.Wait(2*time.Second) || !p.Ready(0) {
				t.Fatal("nobody complains")
			}
			var e Errors
			if c, ok := e.Next(from); !ok || c != test.want {
				t.Errorf("%+v, %v; want %+v", c, ok, test.want)
			}
			if c, ok := e.Next(from); ok {
				t.Errorf("and %+v", c)
			}
			if n, err := NewUDPSender(1).Send(from, []Message{{Payload: []byte("x")}}); n != 1 || err != nil {
				t.Errorf("what was read is said again: %d, %v", n, err)
			}
		})
	}
}

// TestEar hears what is said to another socket on the same device, and nothing
// else.
func TestEar(t *testing.T) {
	for _, loopback := range []string{"127.0.0.1", "::1"} {
		t.Run(loopback, func(t *testing.T) {
			testenv.Inside(t, testenv.Namespace(t), func() error {
				to := netip.AddrPortFrom(netip.MustParseAddr(loopback), 4789)
				ear, err := OpenEar(to.Addr().Is6(), 1)
				if err != nil {
					return err
				}
				defer Close(ear)
				fd, err := OpenUDP(netip.AddrPortFrom(to.Addr(), 0))
				if err != nil {
					return err
				}
				defer Close(fd)
				if err := Connect(fd, to); err != nil {
					return err
				}
				if _, err := NewUDPSender(1).Send(fd, []Message{{Payload: []byte("x")}}); err != nil {
					return err
				}
				var p Poller
				p.AddData(ear)
				if !p.Wait(2 * time.Second) {
					t.Fatal("nothing heard")
				}
				buf := make([]byte, 2048)
				n, ok := Hear(ear, buf)
				c, q, complaint := ParseComplaint(buf[:n])
				if !ok || !complaint || c.From != to.Addr() || q.DstPort != 4789 || q.Dst != to.Addr() {
					t.Errorf("heard %+v about %+v: % x", c, q, buf[:n])
				}
				if n, ok := Hear(ear, buf); ok {
					t.Errorf("and % x", buf[:n])
				}
				return nil
			})
		})
	}
}

// TestProber measures what is too long even for lo, and is answered for what is
// not.
func TestProber(t *testing.T) {
	for _, loopback := range []string{"127.0.0.1", "::1"} {
		t.Run(loopback, func(t *testing.T) {
			name := testenv.Namespace(t)
			testenv.IP(t, "-n "+name+" link set lo mtu 1500")
			testenv.Inside(t, name, func() error {
				p, err := OpenProber(netip.MustParseAddr(loopback))
				if err != nil {
					return err
				}
				defer p.Close()
				if a := p.Answer(); a != AnsweredNot {
					t.Errorf("answered %v before it asked", a)
				}
				if err := p.Probe(1501); !errors.Is(err, unix.EMSGSIZE) {
					t.Errorf("a request that is too long: %v", err)
				}
				for p.Answer() != AnsweredNot { // the kernel's own complaint
				}
				if err := p.Probe(1500); err != nil {
					return err
				}
				var answers Poller
				answers.AddData(p.FD())
				answer := AnsweredNot
				for end := time.Now().Add(2 * time.Second); answer == AnsweredNot && time.Now().Before(end); {
					answers.Wait(50 * time.Millisecond)
					answer = p.Answer()
				}
				if answer != AnsweredEcho {
					t.Errorf("answered %v", answer)
				}
				return nil
			})
		})
	}
}

func TestRouteEvents(t *testing.T) {
	name := testenv.Namespace(t)
	testenv.IP(t, "-n "+name+" link add d0 type veth peer name d1")
	var e *RouteEvents
	testenv.Inside(t, name, func() (err error) { e, err = OpenRouteEvents(); return err })
	t.Cleanup(func() { e.Close() })
	anyDevice, noDevice := func(int) bool { return true }, func(int) bool { return false }
	var p Poller
	p.AddData(e.FD())
	for _, test := range []struct {
		line     string // for ip
		concerns func(int) bool
		want     bool
	}{
		{"link set d0 mtu 1400", noDevice, false},
		{"link set d0 mtu 1401", anyDevice, true},
		{"addr add 10.9.0.1/24 dev lo", noDevice, true}, // a route comes with it
	} {
		t.Run(test.line, func(t *testing.T) {
			e.Read(noDevice)
			if out, err := exec.Command("ip", append([]string{"-n", name}, strings.Fields(test.line)...)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if !p.Wait(2 * time.Second) {
				t.Fatal("no notice")
			}
			if got := e.Read(test.concerns); got != test.want {
				t.Errorf("concerns: %v", got)
			}
			if e.Read(anyDevice) {
				t.Error("the same notice twice")
			}
		})
	}
}
