package procfs

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// What the readers make of this very kernel's files is compared with what it
// says in other ways.

// text is also called on threads of other namespaces, which may not end the test.
func text(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

func TestThisProcess(t *testing.T) {
	pid := os.Getpid()
	name := filepath.Base(os.Args[0])
	name = name[:min(len(name), 15)]
	p, err := Stat(text(t, "/proc/self/stat"))
	if err != nil || p.PID != pid || p.Name != name || p.Ended() || p.Stopped() {
		t.Errorf("stat: %+v, %v", p, err)
	}
	now, err := Uptime(text(t, "/proc/uptime"))
	if begun := float64(p.Started) / TicksPerSecond; err != nil || begun <= 0 || begun > now+1 {
		t.Errorf("it began after %v s of %v, %v", begun, now, err)
	}
	if got := Comm(text(t, "/proc/self/comm")); got != name {
		t.Errorf("comm: %q, want %q", got, name)
	}
	if got := CommandLine(text(t, "/proc/self/cmdline")); !slices.Equal(got, os.Args) {
		t.Errorf("cmdline: %q, want %q", got, os.Args)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		t.Fatal(err)
	}
	want := uint64(caps[1].Effective)<<32 | uint64(caps[0].Effective)
	if got, err := Status(text(t, "/proc/thread-self/status")); err != nil || got.Effective != want {
		t.Errorf("status: %+v, %v, want %x", got, err, want)
	}
	if groups := Cgroups(text(t, "/proc/self/cgroup")); len(groups) == 0 || !strings.HasPrefix(groups[0].Path, "/") {
		t.Errorf("cgroup: %+v", groups)
	}
	isProc := func(m Mount) bool { return m.Point == "/proc" && m.Type == "proc" && !m.SuperblockReadOnly }
	if mounts := Mounts(text(t, "/proc/self/mountinfo")); !slices.ContainsFunc(mounts, isProc) {
		t.Errorf("mountinfo: %+v", mounts)
	}
}

func TestThisMachine(t *testing.T) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	total := int64(info.Totalram) * int64(info.Unit)
	if m, err := MemInfo(text(t, "/proc/meminfo")); err != nil || m.Total != total || m.Available <= 0 || m.Available > m.Total {
		t.Errorf("%+v, %v, want %d bytes", m, err, total)
	}
	cpus, err := Softnet(text(t, "/proc/thread-self/net/softnet_stat"))
	var processed uint64
	for _, c := range cpus {
		processed += c.Processed
	}
	if err != nil || processed == 0 || !cpus[0].HasRPS {
		t.Errorf("softnet: %+v, %v", cpus, err)
	}
	arp, err := PerCPU(text(t, "/proc/thread-self/net/stat/arp_cache"))
	if _, known := arp["unresolved_discards"]; err != nil || !known {
		t.Errorf("arp_cache: %v, %v", arp, err)
	}
}

func port(a net.Addr) uint16 { return netip.MustParseAddrPort(a.String()).Port() }

// The sockets of this process, their queues and what they count.
func TestThisProcessesSockets(t *testing.T) {
	testenv.Inside(t, testenv.Namespace(t), func() error {
		const folder = "/proc/thread-self/net/"
		for file, at := range map[string]string{"udp": "127.0.0.1:0", "udp6": "[::1]:0"} {
			c, err := net.ListenPacket("udp", at)
			if err != nil {
				return err
			}
			defer c.Close()
			peer, err := net.Dial("udp", c.LocalAddr().String())
			if err != nil {
				return err
			}
			defer peer.Close()
			if _, err := peer.Write(make([]byte, 500)); err != nil {
				return err
			}
			here, there := netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(peer.LocalAddr().String())
			table := text(t, folder+file)
			if got := UDP(table, here.Port()); len(got) != 1 || got[0].Local != here || !got[0].Listens() || got[0].Queued < 500 || got[0].Inode == 0 || got[0].Drops != 0 {
				t.Errorf("%s: the listener %s: %+v", file, here, got)
			}
			if got := UDP(table, there.Port()); len(got) != 1 || got[0].Local != there || got[0].Remote != here || got[0].Listens() || got[0].Queued != 0 {
				t.Errorf("%s: its peer %s: %+v", file, there, got)
			}
			if all := UDP(table); len(all) != 2 {
				t.Errorf("%s: all: %+v", file, all)
			}
			if _, _, err := c.ReadFrom(make([]byte, 1000)); err != nil {
				return err
			}
		}
		four, err := SNMP(text(t, folder+"snmp"), "Udp")
		if err != nil || four["UdpInDatagrams"] != 1 || four["UdpOutDatagrams"] != 1 || len(four) < 7 {
			t.Errorf("snmp: %v, %v", four, err)
		}
		if six := SNMP6(text(t, folder+"snmp6"), "Udp6"); six["Udp6InDatagrams"] != 1 || six["Udp6OutDatagrams"] != 1 {
			t.Errorf("snmp6: %v", six)
		}
		if ext, err := SNMP(text(t, folder+"netstat"), "IpExt"); err != nil || ext["IpExtInOctets"] < 500 {
			t.Errorf("netstat: %v, %v", ext, err)
		}
		if lo := Devices(text(t, folder+"dev"))["lo"]; lo.RxPackets < 2 || lo.RxPackets != lo.TxPackets {
			t.Errorf("dev: %+v", lo)
		}
		return nil
	})
}

// A connection over IPv4 to a listener on [::] is in the second table.
func TestThisProcessesConnections(t *testing.T) {
	testenv.Inside(t, testenv.Namespace(t), func() error {
		l, err := net.Listen("tcp", "[::]:0")
		if err != nil {
			return err
		}
		defer l.Close()
		c, err := net.Dial("tcp4", "127.0.0.1:"+strconv.Itoa(int(port(l.Addr()))))
		if err != nil {
			return err
		}
		defer c.Close()
		here, there := netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(c.RemoteAddr().String())
		if got := TCP(text(t, "/proc/thread-self/net/tcp"), here.Port()); len(got) != 1 || got[0] != (TCPSocket{here, there, Established}) {
			t.Errorf("this end of %s to %s: %+v", here, there, got)
		}
		mapped := func(a netip.AddrPort) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
		}
		got := TCP(text(t, "/proc/thread-self/net/tcp6"), there.Port())
		if !slices.Contains(got, TCPSocket{mapped(there), mapped(here), Established}) {
			t.Errorf("the other end: %+v", got)
		}
		return nil
	})
}

// Routes that the kernel has, of every kind that its table shows.
func TestThisKernelsRoutes(t *testing.T) {
	name := testenv.Namespace(t)
	for _, line := range []string{
		"link add wide type veth peer name eth0", "link set wide up", "link set eth0 up",
		"addr add 172.16.0.1/12 dev wide", "addr add 172.18.0.2/16 dev eth0", "addr add fd00::2/64 dev eth0 nodad",
		"route add default via 172.18.0.1", "route add unreachable 172.18.7.0/24", "route add blackhole 172.18.8.0/24",
		"route add 10.1.0.0/16 via inet6 fd00::1 dev eth0", "route add 10.2.3.4 dev eth0",
	} {
		testenv.IP(t, "-n "+name+" "+line)
	}
	testenv.Inside(t, name, func() error {
		const folder = "/proc/thread-self/net/"
		list := Routes(text(t, folder+"route"))
		if len(list) != 7 {
			t.Errorf("%d routes: %+v", len(list), list)
		}
		if !slices.Contains(list, Route{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("172.18.0.1"), "eth0", 3}) {
			t.Errorf("no default route: %+v", list)
		}
		for address, want := range map[string]string{"172.18.0.2": "eth0", "172.16.0.1": "wide", "172.18.7.1": "eth0", "172.18.8.1": "eth0", "10.1.2.3": "", "10.2.3.4": "eth0", "192.0.2.1": ""} {
			if got := OnLink(list, netip.MustParseAddr(address)); got != want {
				t.Errorf("%s is on %q, want %q: %+v", address, got, want, list)
			}
		}
		own := LocalAddresses(text(t, folder+"fib_trie"))
		slices.SortFunc(own, netip.Addr.Compare)
		if want := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("172.18.0.2")}; !slices.Equal(own, want) {
			t.Errorf("own addresses %v, want %v", own, want)
		}
		if six := Addresses6(text(t, folder+"if_inet6")); !slices.Contains(six, Address6{netip.MustParsePrefix("fd00::2/64"), "eth0"}) {
			t.Errorf("own addresses %v", six)
		}
		return nil
	})
}
