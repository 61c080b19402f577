package tcmirror

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink/nl"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// objects are the kernel's objects of the host, as tc and ip tell them, without
// counters.
func (l *lab) objects() string {
	l.Helper()
	text := ""
	for _, line := range []string{"tc qdisc show", "tc filter show dev c0 ingress", "tc filter show dev c0 egress", "tc chain show dev c0 ingress", "ip -d link show"} {
		text += l.run(l.host, strings.Fields(line)...)
	}
	// How long an action has been there, and other tests' namespaces.
	peer := regexp.MustCompile(`link-net\S+ \S+`)
	var kept []string
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "installed") {
			kept = append(kept, peer.ReplaceAllString(line, ""))
		}
	}
	return strings.Join(kept, "")
}

// befores are what may be on an interface before.
func befores() map[string]func(*lab) {
	return map[string]func(*lab){
		"nothing":                func(*lab) {},
		"clsact without filters": func(l *lab) { l.run(l.host, "tc", "qdisc", "add", "dev", "c0", "clsact") },
		"filters of others":      (*lab).others,
		"shaping": func(l *lab) {
			l.run(l.host, "tc", "qdisc", "add", "dev", "c0", "root", "handle", "1:", "tbf", "rate", "1gbit", "burst", "1mb", "latency", "50ms")
			l.run(l.host, "tc", "qdisc", "add", "dev", "c0", "clsact")
			l.run(l.host, "tc", "filter", "add", "dev", "c0", "egress", "pref", "1", "protocol", "ip", "u32", "match", "ip", "dport", "9", "0xffff", "action", "mirred", "egress", "mirror", "dev", "lo")
		},
	}
}

// stopAll is what `mirror --stop` does.
func stopAll() error {
	all, err := List()
	for _, m := range all {
		err = errors.Join(err, m.Stop())
	}
	return err
}

// A process that is killed after any of its steps leaves something that a later
// one recognises, and takes back so that all is as before.
func TestKilledAtAnyStep(t *testing.T) {
	for name, before := range befores() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, 1500, false)
			before(l)
			want := l.objects()
			steps := -1
			for k := 0; k != steps; k++ {
				steps = l.killedAfter(k)
				l.Inside(l.host, func() error {
					left, err := List()
					if err != nil || len(left) != min(k, 1) || len(left) > 0 && (left[0].Alive || left[0].Complete != (k == steps)) {
						return fmt.Errorf("after step %d of %d: %+v, %v", k, steps, left, err)
					}
					if k%2 == 0 {
						return stopAll()
					}
					// The next one cleans up as well.
					m, err := Start(context.Background(), l.spec())
					return errors.Join(err, m.Stop())
				})
				if got := l.objects(); got != want {
					t.Fatalf("killed after step %d of %d, then stopped:\n%s\nbefore:\n%s", k, steps, got, want)
				}
			}
		})
	}
}

// killedAfter runs this test program on the host until it has done k steps and
// kills itself. It returns the number of steps that there are.
func (l *lab) killedAfter(k int) (steps int) {
	l.Helper()
	cmd := exec.Command("ip", "netns", "exec", l.host, os.Args[0], "-test.run=^TestKillsItself$", "-test.v")
	cmd.Env = append(os.Environ(), "ZEEKDEMO_TEST_STEPS="+strconv.Itoa(k))
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		l.Fatalf("after step %d: %v: %s", k, err, out)
	}
	_, text, _ := strings.Cut(string(out), "steps ")
	if _, err := fmt.Sscan(text, &steps); err != nil {
		l.Fatalf("after step %d: %s", k, out)
	}
	return steps
}

// TestKillsItself is the process that [lab.killedAfter] runs.
func TestKillsItself(t *testing.T) {
	k, err := strconv.Atoi(os.Getenv("ZEEKDEMO_TEST_STEPS"))
	if err != nil {
		t.Skip("a part of TestKilledAtAnyStep")
	}
	j, err := prepare((&lab{}).spec())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("steps", len(j.steps()))
	for _, s := range j.steps()[:k] {
		if err := s.do(); err != nil {
			t.Fatal(s.name, err)
		}
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// clsact stays while a second mirror needs it, and goes with the last, in
// whatever order they stop; a filter that somebody else added meanwhile keeps
// it.
func TestClsactOfSeveral(t *testing.T) {
	l := newLab(t, 1500, false)
	want := l.objects()
	second := l.spec()
	second.Sensor = netip.MustParseAddrPort("10.2.0.3:4789")
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		m := []Mirror{l.mirror(l.spec()), l.mirror(second)}
		l.stop(m[order[0]])
		l.marks(1) // the other one still works
		l.stop(m[order[1]])
		if got := l.objects(); got != want {
			t.Fatalf("stopped in the order %v:\n%s\nbefore:\n%s", order, got, want)
		}
	}
	m := l.mirror(l.spec())
	l.run(l.host, "tc", "filter", "add", "dev", "c0", "ingress", "pref", "9", "protocol", "ip", "u32", "match", "u32", "0", "0", "action", "mirred", "egress", "mirror", "dev", "lo")
	l.stop(m)
	if !strings.Contains(l.run(l.host, "tc", "filter", "show", "dev", "c0", "ingress"), "pref 9") {
		t.Error("a filter of somebody else is gone")
	}
}

// A second start finds the first, and leaves it alone.
func TestStartTwice(t *testing.T) {
	l := newLab(t, 1500, false)
	m := l.mirror(l.spec())
	l.Inside(l.host, func() error {
		again, err := Start(context.Background(), l.spec())
		if !errors.Is(err, ErrRunning) || again.Device != m.Device {
			return fmt.Errorf("%+v, %w", again, err)
		}
		return nil
	})
	l.marks(1)
}

// Whatever somebody else removes, the rest is recognised and removed.
func TestPartsGone(t *testing.T) {
	for name, remove := range map[string]func(*lab, Mirror){
		"tunnel":    func(l *lab, m Mirror) { l.run(l.host, "ip", "link", "del", m.Device) },
		"clsact":    func(l *lab, _ Mirror) { l.run(l.host, "tc", "qdisc", "del", "dev", "c0", "clsact") },
		"alias":     func(l *lab, m Mirror) { l.run(l.host, "ip", "link", "set", m.Device, "alias", "mine") },
		"filter":    func(l *lab, _ Mirror) { l.run(l.host, "tc", "filter", "del", "dev", "c0", "ingress") },
		"interface": func(l *lab, _ Mirror) { l.run(l.host, "ip", "link", "del", "c0") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, 1500, false)
			want := l.objects()
			m := l.mirror(l.spec())
			remove(l, m)
			l.Inside(l.host, func() error {
				left, err := List()
				if err != nil || len(left) != 1 || left[0].Complete {
					return fmt.Errorf("%+v, %v", left, err)
				}
				return stopAll()
			})
			if name == "interface" {
				want, got := "", l.run(l.host, "ip", "link", "show")
				if strings.Contains(got, DevicePrefix) {
					t.Errorf("want %s%s", want, got)
				}
				return
			}
			if got := l.objects(); got != want {
				t.Errorf("got:\n%s\nbefore:\n%s", got, want)
			}
		})
	}
}

// Without CAP_NET_ADMIN the error names it, and what runs can still be listed.
func TestUnprivileged(t *testing.T) {
	testenv.NeedTool(t, "setpriv")
	l := newLab(t, 1500, false)
	m := l.mirror(l.spec())
	out, _ := exec.Command("ip", "netns", "exec", l.host, "setpriv", "--bounding-set", "-net_admin",
		"env", "ZEEKDEMO_TEST_UNPRIVILEGED=1", os.Args[0], "-test.run=^TestWithoutPrivilege$", "-test.v").CombinedOutput()
	if !strings.Contains(string(out), "lists "+m.Device) || strings.Count(string(out), "CAP_NET_ADMIN") != 3 {
		t.Errorf("%s", out)
	}
}

// TestWithoutPrivilege is the process that TestUnprivileged runs.
func TestWithoutPrivilege(t *testing.T) {
	if os.Getenv("ZEEKDEMO_TEST_UNPRIVILEGED") == "" {
		t.Skip("a part of TestUnprivileged")
	}
	all, err := List()
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	other := (&lab{}).spec()
	other.VNI++
	other.Sensor = netip.MustParseAddrPort("10.2.0.3:4789")
	_, err = Start(context.Background(), other)
	fmt.Println("lists", all[0].Device, "\n", err, "\n", Supports(other), "\n", all[0].Stop())
	if !errors.Is(err, os.ErrPermission) {
		t.Error(err)
	}
}

// This machine's kernel may have no geneve devices; what one is asked for is
// checked all the same.
func TestGeneveAttributes(t *testing.T) {
	for _, test := range []struct {
		sensor   string
		remote   uint16
		checksum byte
	}{{"10.2.0.2:6081", nl.IFLA_GENEVE_REMOTE, 0}, {"[fd02::2]:6082", nl.IFLA_GENEVE_REMOTE6, 1}} {
		tun := tunnel{encap: GENEVE, vni: labVNI, sensor: netip.MustParseAddrPort(test.sensor)}
		data := nl.NewRtAttr(nl.IFLA_INFO_DATA, nil)
		tun.geneve(data)
		got, err := attributes(data.Serialize()[4:])
		if err != nil {
			t.Fatal(err)
		}
		addr, _ := netip.AddrFromSlice(got[test.remote])
		port := binary.BigEndian.Uint16(got[nl.IFLA_GENEVE_PORT])
		if netip.AddrPortFrom(addr, port) != tun.sensor || binary.NativeEndian.Uint32(got[nl.IFLA_GENEVE_ID]) != labVNI || got[nl.IFLA_GENEVE_UDP_CSUM][0] != test.checksum || len(got) != 4 {
			t.Errorf("%s: %v", test.sensor, got)
		}
	}
}
