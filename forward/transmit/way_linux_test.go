package transmit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// The tests of this file make trouble on the way from one network namespace to
// another, while something is sent:
//
//	"tx": eth0 (10.9.1.1/24, fd09:1::1/64) to
//	"way": in0 (10.9.1.2, fd09:1::2) and out0 (10.9.2.2, fd09:2::2), a router, to
//	"rx": eth0 (10.9.2.1/24, fd09:2::1/64), where a receiver listens.
//
// What is told of a neighbour is tried on the router's own addresses.

// routed is such a set of namespaces.
type routed struct{ tx, way, rx string }

var (
	far4  = netip.MustParseAddrPort("10.9.2.1:4789")
	far6  = netip.MustParseAddrPort("[fd09:2::1]:4789")
	near4 = netip.MustParseAddrPort("10.9.1.2:4789")
	near6 = netip.MustParseAddrPort("[fd09:1::2]:4789")
)

// newRouted makes the namespaces.
func newRouted(t *testing.T) routed {
	t.Helper()
	n := routed{tx: testenv.Namespace(t), way: testenv.Namespace(t), rx: testenv.Namespace(t)}
	validAtOnce(t, n.tx, n.way, n.rx)
	for _, line := range []string{
		"-n TX link add eth0 type veth peer name in0 netns WAY", "-n RX link add eth0 type veth peer name out0 netns WAY",
		"-n TX addr add 10.9.1.1/24 dev eth0", "-n TX addr add fd09:1::1/64 dev eth0 nodad",
		"-n WAY addr add 10.9.1.2/24 dev in0", "-n WAY addr add fd09:1::2/64 dev in0 nodad",
		"-n WAY addr add 10.9.2.2/24 dev out0", "-n WAY addr add fd09:2::2/64 dev out0 nodad",
		"-n RX addr add 10.9.2.1/24 dev eth0", "-n RX addr add fd09:2::1/64 dev eth0 nodad",
		"-n TX link set eth0 up", "-n WAY link set in0 up", "-n WAY link set out0 up", "-n RX link set eth0 up",
	} {
		n.ip(t, line)
	}
	for ns, files := range map[string][]string{
		n.way: append([]string{"ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1"}, talkative...),
		n.tx:  {"ipv6/conf/eth0/keep_addr_on_down=1"},
		n.rx:  talkative,
	} {
		for _, f := range files {
			sysctl(t, ns, f)
		}
	}
	n.ip(t, "-n TX route add default via 10.9.1.2")
	n.ip(t, "-n TX route add default via fd09:1::2")
	n.ip(t, "-n RX route add default via 10.9.2.2")
	n.ip(t, "-n RX route add default via fd09:2::2")
	return n
}

// validAtOnce lets IPv6 addresses of devices to come be valid at once.
func validAtOnce(t *testing.T, namespaces ...string) {
	t.Helper()
	for _, ns := range namespaces {
		sysctl(t, ns, "ipv6/conf/default/accept_dad=0")
		sysctl(t, ns, "ipv6/conf/default/dad_transmits=0")
	}
}

// talkative lets a namespace send as many ICMP errors as it likes. The last two
// are of newer kernels.
var talkative = []string{"ipv4/icmp_ratelimit=0", "ipv6/icmp/ratelimit=0", "ipv4/icmp_msgs_per_sec=1000000", "ipv4/icmp_msgs_burst=1000000"}

// ip runs ip with the namespaces' names filled in.
func (n routed) ip(t *testing.T, line string) {
	t.Helper()
	testenv.IP(t, strings.NewReplacer("TX", n.tx, "WAY", n.way, "RX", n.rx).Replace(line))
}

// sysctl sets a value below /proc/sys/net in a namespace.
func sysctl(t *testing.T, namespace, setting string) {
	t.Helper()
	file, value, _ := strings.Cut(setting, "=")
	testenv.Inside(t, namespace, func() error {
		err := os.WriteFile("/proc/sys/net/"+file, []byte(value), 0)
		if errors.Is(err, os.ErrNotExist) || strings.Contains(file, "icmp_msgs") {
			return nil
		}
		return err
	})
}

// everyWay calls try for both transmissions and both of the addresses.
func everyWay(t *testing.T, to4, to6 netip.AddrPort, try func(t *testing.T, o Options)) {
	for _, mode := range []Mode{Packet, UDP} {
		for _, to := range []netip.AddrPort{to4, to6} {
			t.Run(fmt.Sprintf("%s,%v", mode, to.Addr()), func(t *testing.T) {
				try(t, Options{Destination: to, Mode: mode})
			})
		}
	}
}

// with opens a transmission in a namespace and calls fn on its thread.
func with(t *testing.T, namespace string, o Options, fn func(tr Transmitter) error) {
	t.Helper()
	testenv.Inside(t, namespace, func() error {
		tr, err := Open(context.Background(), o)
		if err != nil {
			return err
		}
		defer tr.Close()
		return fn(tr)
	})
}

// sendBatch sends all of a batch.
func sendBatch(tr Transmitter, b *forward.Batch) error {
	if n, err := tr.Send(b); n != len(b.Datagrams) || err != nil {
		return fmt.Errorf("sent %d of %d: %w", n, len(b.Datagrams), err)
	}
	return nil
}

// spreadBatch is a batch of n datagrams from as many source ports.
func spreadBatch(n int) *forward.Batch {
	b := makeBatch(uint64(n), slices.Repeat([]int{100}, n)...)
	for i := range b.Datagrams {
		b.Datagrams[i].Port = DefaultPortMin + uint16(i)
	}
	return b
}

// lostKinds lists the kinds of trouble that say that something was lost.
func lostKinds(s Stats) (kinds []TroubleKind) {
	for _, t := range s.Lost() {
		kinds = append(kinds, t.Kind)
	}
	return kinds
}

// TestNobodyListens sends where no socket is: to a neighbour, to a host behind a
// router, and to this machine. One datagram is enough to be told, and so are many
// flows.
func TestNobodyListens(t *testing.T) {
	net := newRouted(t)
	check := func(t *testing.T, o Options) {
		for _, flows := range []int{1, 10, 300} {
			with(t, net.tx, o, func(tr Transmitter) error {
				if err := sendBatch(tr, spreadBatch(flows)); err != nil {
					return err
				}
				s := tr.Settle(context.Background())
				if kinds := lostKinds(s); !slices.Equal(kinds, []TroubleKind{PortUnreachable}) || s.Refused == 0 {
					t.Errorf("%d flows: %+v", flows, s)
				} else if from := s.Troubles[0].From; from != o.Destination.Addr() {
					t.Errorf("%d flows: said by %v", flows, from)
				}
				return nil
			})
		}
	}
	t.Run("neighbour", func(t *testing.T) { everyWay(t, near4, near6, check) })
	t.Run("behind a router", func(t *testing.T) { everyWay(t, far4, far6, check) })
	for _, to := range []string{"127.0.0.1:45099", "[::1]:45099", "10.9.1.1:45099"} {
		t.Run(to, func(t *testing.T) { check(t, Options{Destination: netip.MustParseAddrPort(to)}) })
	}
}

// TestSomebodyListens is the control: nothing is said to be lost.
func TestSomebodyListens(t *testing.T) {
	net := newRouted(t)
	everyWay(t, far4, far6, func(t *testing.T, o Options) {
		fd := listen(t, net.rx, o.Destination)
		with(t, net.tx, o, func(tr Transmitter) error {
			if err := sendBatch(tr, spreadBatch(300)); err != nil {
				return err
			}
			if s := tr.Settle(context.Background()); len(s.Troubles) > 0 {
				t.Errorf("%+v", s.Troubles)
			}
			return nil
		})
		if n := len(receive(t, fd)); n != 300 {
			t.Errorf("received %d", n)
		}
	})
}

// TestRouterRefuses lets a router on the way say why it drops.
func TestRouterRefuses(t *testing.T) {
	// Linux says of an unreachable route over IPv6 that there is none.
	for route, wants := range map[string][2]TroubleKind{"unreachable": {HostUnreachable, NetworkUnreachable}, "prohibit": {Prohibited, Prohibited}} {
		t.Run(route, func(t *testing.T) {
			to4, to6 := netip.MustParseAddrPort("10.9.7.1:4789"), netip.MustParseAddrPort("[fd09:7::1]:4789")
			everyWay(t, to4, to6, func(t *testing.T, o Options) {
				want := wants[0]
				if o.Destination.Addr().Is6() {
					want = wants[1]
				}
				net := newRouted(t) // a router's patience is used up soon: five such answers, then one a second
				net.ip(t, "-n WAY route add "+route+" 10.9.7.0/24")
				net.ip(t, "-n WAY route add "+route+" fd09:7::/64")
				with(t, net.tx, o, func(tr Transmitter) error {
					for range 3 { // the run goes on
						if err := sendBatch(tr, spreadBatch(20)); err != nil {
							return err
						}
					}
					s := tr.Settle(context.Background())
					if kinds := lostKinds(s); !slices.Equal(kinds, []TroubleKind{want}) {
						t.Errorf("%+v", s.Troubles)
					}
					return nil
				})
			})
		})
	}
}

// TestSilentHostBehindARouter sends to an address that nobody has: the last router
// says so when it has asked three times, and a short run is over long before.
func TestSilentHostBehindARouter(t *testing.T) {
	net := newRouted(t)
	everyWay(t, netip.MustParseAddrPort("10.9.2.77:4789"), netip.MustParseAddrPort("[fd09:2::77]:4789"), func(t *testing.T, o Options) {
		with(t, net.tx, o, func(tr Transmitter) error {
			if err := sendBatch(tr, spreadBatch(20)); err != nil {
				return err
			}
			s := tr.Settle(context.Background())
			if kinds := lostKinds(s); !slices.Equal(kinds, []TroubleKind{HostUnreachable}) {
				t.Errorf("%+v", s.Troubles)
			}
			return nil
		})
	})
}

// TestHowLongAnAnswerMayTake: only a host that has not been heard of is waited for
// as long as a router may take to find out that it is not there.
func TestHowLongAnAnswerMayTake(t *testing.T) {
	gateway := exit{route: netlink.Route{Gw: []byte{10, 9, 1, 2}}}
	const first, last = int64(10 * time.Second), int64(11 * time.Second)
	for name, tt := range map[string]struct {
		follower *follower
		last     int64
		want     time.Duration // after the first datagram
	}{
		"of which nothing is known": {nil, last, time.Second + settleFar},
		"it has not answered":       {&follower{exit: gateway}, last, settleSilent},
		"nor in all of a long run":  {&follower{exit: gateway}, first + int64(time.Minute), time.Minute + settleFar},
		"it has answered":           {&follower{exit: gateway, there: true}, last, time.Second + settleFar},
		"it is a neighbour of ours": {&follower{}, last, time.Second + settleNear},
	} {
		if got := time.Duration(settleUntil(tt.follower, first, tt.last) - first); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// TestNeighbourFallsSilent takes the neighbour away behind a device that does not
// notice, as a switch.
func TestNeighbourFallsSilent(t *testing.T) {
	net := newNetwork(t, 1500)
	everyWay(t, dst4, dst6, func(t *testing.T, o Options) {
		testenv.IP(t, "-n "+net.rx+" link set eth0 up")
		testenv.IP(t, "-n "+net.rx+" addr replace fd09::2/64 dev eth0 nodad")
		listen(t, net.rx, o.Destination)
		with(t, net.tx, o, func(tr Transmitter) error {
			testenv.IP(t, "-n "+net.rx+" link set eth0 down")
			if err := sendBatch(tr, spreadBatch(20)); err != nil {
				return err
			}
			s := tr.Settle(context.Background())
			if kinds := lostKinds(s); !slices.Contains(kinds, NeighbourSilent) {
				t.Errorf("%+v", s)
			}
			return nil
		})
	})
}

// TestNarrowLinkBeyond sends over a path whose second link is narrower than the
// first, and gets narrower still. Nothing is lost over IPv4; over IPv6, where a
// router cannot help, what is lost is said to be.
func TestNarrowLinkBeyond(t *testing.T) {
	everyWay(t, far4, far6, func(t *testing.T, o Options) {
		net := newRouted(t)
		six := o.Destination.Addr().Is6()
		fd := listen(t, net.rx, o.Destination)
		b := traffic(11)
		setMTU := func(mtu int) {
			net.ip(t, fmt.Sprintf("-n WAY link set out0 mtu %d", mtu))
			net.ip(t, fmt.Sprintf("-n RX link set eth0 mtu %d", mtu))
		}
		setMTU(1400)
		with(t, net.tx, o, func(tr Transmitter) error {
			if mtu := tr.Describe().MTU; mtu != 1400 {
				t.Errorf("the path's MTU is said to be %d", mtu)
			}
			if err := sendBatch(tr, b); err != nil {
				return err
			}
			if s := tr.Stats(); s.Fragmented != longer(b, o.Destination, 1400) || len(s.Troubles) > 0 {
				t.Errorf("%+v", s)
			}
			checkArrived(t, fd, b, len(b.Datagrams))
			setMTU(1300)
			return narrower(t, tr, fd, b, six)
		})
	})
}

// narrower goes on over a link that has become narrower without a notice.
func narrower(t *testing.T, tr Transmitter, fd int, b *forward.Batch, six bool) error {
	if err := sendBatch(tr, b); err != nil {
		return err
	}
	s := tr.Settle(context.Background())
	if !six {
		checkArrived(t, fd, b, len(b.Datagrams))
		if len(s.Lost()) > 0 {
			t.Errorf("%+v", s)
		}
		return nil
	}
	if kinds := lostKinds(s); !slices.Equal(kinds, []TroubleKind{TooBig}) {
		t.Errorf("%+v", s)
	}
	receive(t, fd)
	if err := sendBatch(tr, b); err != nil { // it is known now
		return err
	}
	checkArrived(t, fd, b, len(b.Datagrams))
	if mtu := tr.Describe().MTU; mtu != 1300 {
		t.Errorf("the path's MTU is said to be %d", mtu)
	}
	return nil
}

// checkArrived compares payloads with the first n of what was sent.
func checkArrived(t *testing.T, fd int, b *forward.Batch, n int) {
	t.Helper()
	got := receive(t, fd)
	if len(got) != n {
		t.Errorf("received %d of %d", len(got), n)
		return
	}
	for i := range got {
		if string(got[i].payload) != string(b.Payload(i)) {
			t.Errorf("datagram %d is another one", i)
			return
		}
	}
}

// TestTinyMTU has routes that are too narrow for the packet transmission. By udp
// the kernel cuts all the same.
func TestTinyMTU(t *testing.T) {
	net := newRouted(t)
	net.ip(t, "-n TX route add 10.9.2.0/24 via 10.9.1.2 mtu 200")
	b := makeBatch(1, 60000, 100, 60000)
	fd := listen(t, net.rx, far4)
	testenv.Inside(t, net.tx, func() error {
		_, err := Open(context.Background(), Options{Destination: far4, Mode: Packet})
		if err == nil || !strings.Contains(err.Error(), "the path to 10.9.2.1 has an MTU of 200 bytes, at least 280 are needed") {
			t.Errorf("by packet: %v", err)
		}
		return nil
	})
	with(t, net.tx, Options{Destination: far4}, func(tr Transmitter) error {
		if d := tr.Describe(); d.Mode != UDP || !strings.Contains(d.String(), "MTU of 200") {
			t.Errorf("auto: %v", d)
		}
		err := sendBatch(tr, b)
		if s := tr.Stats(); s.Fragmented != 2 {
			t.Errorf("%+v", s)
		}
		return err
	})
	checkArrived(t, fd, b, len(b.Datagrams))
	net.ip(t, "-n TX route del 10.9.2.0/24 via 10.9.1.2")
	with(t, net.tx, Options{Destination: far4, Mode: Packet}, func(tr Transmitter) error {
		if err := sendBatch(tr, b); err != nil {
			return err
		}
		net.ip(t, "-n TX route add 10.9.2.0/24 via 10.9.1.2 mtu 200")
		for sent := sendBatch(tr, b); ; sent = sendBatch(tr, b) { // until the notice has come
			if narrow := (*narrowError)(nil); errors.As(sent, &narrow) {
				return nil
			}
			if sent != nil {
				return sent
			}
		}
	})
}

// TestWayChanges changes the neighbour, the own device and the path between two
// batches, for good or for a moment. Nothing is lost.
func TestWayChanges(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  []string // for ip
		restore []string // while the second batch waits; none: it does not have to
	}{
		{"neighbour's address", []string{"-n WAY link set in0 down", "-n WAY link set in0 address 02:00:00:00:0b:02", "-n WAY link set in0 up",
			"-n WAY addr replace fd09:1::2/64 dev in0 nodad"}, nil},
		{"own address", []string{"-n TX link set eth0 address 02:00:00:00:0b:03"}, nil},
		{"MTU", []string{"-n TX link set eth0 mtu 1300", "-n WAY link set in0 mtu 1300"}, nil},
		{"own link down", []string{"-n TX link set eth0 down"}, []string{"-n TX link set eth0 up"}},
		{"neighbour's link down", []string{"-n WAY link set in0 down"}, []string{"-n WAY link set in0 up", "-n WAY addr replace fd09:1::2/64 dev in0 nodad"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			everyWay(t, near4, near6, func(t *testing.T, o Options) {
				net := newRouted(t)
				for _, setting := range []string{"ipv6/conf/in0/keep_addr_on_down=1", "ipv4/conf/in0/arp_notify=1", "ipv6/conf/in0/ndisc_notify=1"} {
					sysctl(t, net.way, setting)
				}
				fd := listen(t, net.way, o.Destination)
				b := traffic(13)
				with(t, net.tx, o, func(tr Transmitter) error {
					if err := sendBatch(tr, b); err != nil {
						return err
					}
					checkArrived(t, fd, b, len(b.Datagrams))
					before := macOf(o)
					for _, line := range test.change {
						net.ip(t, line)
					}
					if test.name == "neighbour's address" {
						awaitOther(t, o, before)
						net.awaitLocal(t, o)
					}
					over := restoreOnce(t, net, tr, test.restore)
					err := sendBatch(tr, b)
					<-over
					if s := tr.Stats(); len(s.Lost()) > 0 {
						t.Errorf("%+v", s)
					}
					return err
				})
				checkArrived(t, fd, b, len(b.Datagrams))
			})
		})
	}
}

// macOf is the address that this namespace's kernel knows of a neighbour.
func macOf(o Options) string {
	e, err := findExit(o.question())
	if err != nil {
		return ""
	}
	return e.neighbour().lookup().HardwareAddr.String()
}

// awaitOther waits until the kernel does not know the neighbour by an address any
// more: that is when it can be followed.
func awaitOther(t *testing.T, o Options, before string) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); macOf(o) == before; <-tick.C {
		if time.Now().After(end) {
			t.Fatal("the kernel was not told")
		}
	}
}

// awaitLocal waits until the neighbour takes packets again: the kernel makes its
// IPv6 address valid a while after the link has come up.
func (n routed) awaitLocal(t *testing.T, o Options) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); ; <-tick.C {
		out, _ := exec.Command("ip", "-n", n.way, "route", "get", o.Destination.Addr().String()).Output()
		if strings.HasPrefix(string(out), "local") {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the neighbour's address did not come back")
		}
	}
}

// restoreOnce takes a change back once a transmission waits because of it. What
// it returns is closed then.
func restoreOnce(t *testing.T, net routed, tr Transmitter, lines []string) <-chan struct{} {
	over := make(chan struct{})
	go func() {
		defer close(over)
		if len(lines) == 0 {
			return
		}
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(5 * time.Second); tr.Stats().Waits < 20 && time.Now().Before(end); {
			<-tick.C
		}
		for _, line := range lines {
			net.ip(t, line)
		}
	}()
	return over
}

// TestFirewallIsReloaded has this machine refuse what is sent for a moment.
func TestFirewallIsReloaded(t *testing.T) {
	nft := testenv.NeedTool(t, "nft")
	for _, to := range []netip.AddrPort{near4, near6} {
		t.Run(to.Addr().String(), func(t *testing.T) {
			net := newRouted(t)
			fd := listen(t, net.way, to)
			b := spreadBatch(100)
			rules := func(line string) {
				if out, err := exec.Command("ip", append([]string{"netns", "exec", net.tx, nft}, line)...).CombinedOutput(); err != nil {
					t.Errorf("nft %s: %v: %s", line, err, out)
				}
			}
			with(t, net.tx, Options{Destination: to, Mode: UDP}, func(tr Transmitter) error {
				rules("add table inet t; add chain inet t o { type filter hook output priority 0; policy drop; }")
				over := make(chan struct{})
				go func() {
					defer close(over)
					tick := time.NewTicker(10 * time.Millisecond)
					defer tick.Stop()
					for tr.Stats().Waits < 10 {
						<-tick.C
					}
					rules("delete table inet t")
				}()
				err := sendBatch(tr, b)
				if err != nil {
					rules("delete table inet t")
					return err
				}
				<-over
				s := tr.Settle(context.Background())
				if len(s.Troubles) != 1 || s.Troubles[0].Kind != Filtered || len(s.Lost()) > 0 {
					t.Errorf("%+v", s)
				}
				return nil
			})
			checkArrived(t, fd, b, len(b.Datagrams))
		})
	}
}

// TestSendersDoNotShareIdentifications opens more packet transmissions to one
// destination at once than there are slots.
func TestSendersDoNotShareIdentifications(t *testing.T) {
	net := newRouted(t)
	testenv.Inside(t, net.tx, func() error {
		seen := make(map[uint32]bool)
		for i := range slots + 1 {
			tr, err := Open(context.Background(), Options{Destination: near4, Mode: Packet})
			if err != nil {
				return err
			}
			defer tr.Close()
			p := tr.(*packetSocket)
			if slot := p.identities.first / p.identities.size; i < slots && (seen[slot] || p.identities.size != 1<<16/slots) {
				t.Errorf("transmission %d uses %+v", i, p.identities)
			} else {
				seen[slot] = true
			}
		}
		return nil
	})
}

// TestAutoIsCautious puts rules into a namespace that act on packets, or seem to,
// and looks which transmission is taken.
func TestAutoIsCautious(t *testing.T) {
	testenv.NeedTool(t, "nft")
	net := newRouted(t)
	for _, test := range []struct {
		name   string
		rules  []string // commands in the sender's namespace
		undo   []string
		reason string // "": packet is taken
	}{
		{"nothing", nil, nil, ""},
		{"Docker's rules", []string{"nft add table ip nat", "nft add chain ip nat DOCKER", "nft add chain ip nat OUTPUT { type nat hook output priority -100; }",
			"nft add chain ip nat POSTROUTING { type nat hook postrouting priority 100; }",
			"nft add rule ip nat OUTPUT ip daddr != 127.0.0.0/8 fib daddr type local jump DOCKER",
			"nft add rule ip nat POSTROUTING oifname != docker0 ip saddr 172.17.0.0/16 masquerade",
			"nft add rule ip nat DOCKER udp dport 4789 dnat to 172.17.0.2:4789"}, []string{"nft delete table ip nat"}, ""},
		{"an address that is translated", []string{"nft add table ip nat", "nft add chain ip nat o { type nat hook output priority -100; }",
			"nft add rule ip nat o ip daddr 10.9.1.0/24 udp dport 4000-5000 dnat to 10.9.2.1"}, []string{"nft delete table ip nat"}, "nftables, table nat"},
		{"another port is translated", []string{"nft add table ip nat", "nft add chain ip nat o { type nat hook output priority -100; }",
			"nft add rule ip nat o ip daddr 10.9.1.0/24 udp dport 53 dnat to 10.9.2.1"}, []string{"nft delete table ip nat"}, ""},
		{"a map of services", []string{"nft add table inet t", "nft add chain inet t o { type nat hook output priority -100; }",
			"nft add rule inet t o ip daddr . udp dport vmap { 10.9.9.9 . 4789 : accept }"}, []string{"nft delete table inet t"}, "nftables, table t"},
		{"a service of kube-proxy's", []string{"iptables-legacy -t nat -N S", "iptables-legacy -t nat -A OUTPUT -m comment --comment x -j S",
			"iptables-legacy -t nat -A S -d 10.9.1.2/32 -p udp -m udp --dport 4789 -j DNAT --to-destination 10.9.2.1"},
			[]string{"iptables-legacy -t nat -F", "iptables-legacy -t nat -X S"}, "iptables, table nat"},
		{"Docker's rules of old", []string{"iptables-legacy -t nat -N DOCKER", "iptables-legacy -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER",
			"iptables-legacy -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
			"iptables-legacy -t nat -A DOCKER -p udp -m udp --dport 4789 -j DNAT --to-destination 172.17.0.2:4789"},
			[]string{"iptables-legacy -t nat -F", "iptables-legacy -t nat -X DOCKER"}, ""},
		{"all that leaves is translated", []string{"iptables-legacy -t nat -A POSTROUTING -o eth0 -j MASQUERADE"}, []string{"iptables-legacy -t nat -F"}, "iptables, table nat"},
		{"a routing rule for UDP", []string{"ip rule add ipproto udp lookup 100"}, []string{"ip rule del ipproto udp lookup 100"}, "chooses by protocol"},
		{"a routing rule for TCP", []string{"ip rule add ipproto tcp lookup 100"}, []string{"ip rule del ipproto tcp lookup 100"}, ""},
		{"an IPsec policy", []string{"ip xfrm policy add src 10.9.1.0/24 dst 10.9.1.2/32 dir out tmpl src 10.9.1.1 dst 10.9.1.2 proto esp mode transport"},
			[]string{"ip xfrm policy flush"}, "IPsec policy"},
		{"an IPsec policy for others", []string{"ip xfrm policy add src 10.9.1.0/24 dst 10.9.1.9/32 dir out tmpl src 10.9.1.1 dst 10.9.1.9 proto esp mode transport"},
			[]string{"ip xfrm policy flush"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			run := func(lines []string) {
				for _, line := range lines {
					words := strings.Fields(line)
					testenv.NeedTool(t, words[0])
					if out, err := exec.Command("ip", append([]string{"netns", "exec", net.tx}, words...)...).CombinedOutput(); err != nil {
						t.Fatalf("%s: %v: %s", line, err, out)
					}
				}
			}
			defer run(test.undo)
			run(test.rules)
			want := UDP
			if test.reason == "" {
				want = Packet
			}
			with(t, net.tx, Options{Destination: near4}, func(tr Transmitter) error {
				if d := tr.Describe(); d.Mode != want || !strings.Contains(d.String(), test.reason) {
					t.Errorf("auto: %v, want %s because of %q", d, want, test.reason)
				}
				return nil
			})
			with(t, net.tx, Options{Destination: near4, Mode: Packet}, func(tr Transmitter) error {
				if d := tr.Describe(); (len(d.Warnings) > 0) != (test.reason != "") || !strings.Contains(d.String(), test.reason) {
					t.Errorf("packet: %v, want a warning of %q", d, test.reason)
				}
				return nil
			})
		})
	}
}

// TestAutoAvoidsRoutesThatWrap needs IPv6's segment routing in the kernel.
func TestAutoAvoidsRoutesThatWrap(t *testing.T) {
	net := newRouted(t)
	net.ip(t, "-n TX -6 route add fd09:7::/64 encap seg6 mode encap segs fd09:2::1 via fd09:1::2 dev eth0")
	with(t, net.tx, Options{Destination: netip.MustParseAddrPort("[fd09:7::1]:4789")}, func(tr Transmitter) error {
		if d := tr.Describe(); d.Mode != UDP || !strings.Contains(d.String(), "wraps packets") {
			t.Errorf("auto: %v", d)
		}
		return nil
	})
}

// TestBridgePortChanges moves the neighbour behind another port of the bridge.
func TestBridgePortChanges(t *testing.T) {
	ping := testenv.NeedTool(t, "ping")
	for _, to := range []netip.AddrPort{dst4, dst6} {
		t.Run(to.Addr().String(), func(t *testing.T) {
			net := newNetwork(t, 1500)
			testenv.IP(t, "-n "+net.tx+" link set br0 address 02:00:00:00:0b:04") // else it is a port's
			fd := listen(t, net.rx, to)
			b := traffic(17)
			with(t, net.tx, Options{Destination: to, Mode: Packet}, func(tr Transmitter) error {
				if err := sendBatch(tr, b); err != nil {
					return err
				}
				if d := tr.Describe(); d.Device != "port0" {
					t.Errorf("%v", d)
				}
				checkArrived(t, fd, b, len(b.Datagrams))
				for _, line := range []string{
					"-n TX link set port0 nomaster", "-n TX link add port1 type veth peer name in1 netns MID",
					"-n TX link set port1 master br0 up", "-n MID link set in0 nomaster", "-n MID link set in1 master br1 up",
				} {
					testenv.IP(t, strings.NewReplacer("TX", net.tx, "MID", net.mid).Replace(line))
				}
				me := "10.9.0.1"
				if to.Addr().Is6() {
					me = "fd09::1"
				}
				if out, err := exec.Command("ip", "netns", "exec", net.rx, ping, "-c", "1", "-w", "5", me).CombinedOutput(); err != nil {
					return fmt.Errorf("ping: %w: %s", err, out) // with it the bridge learns
				}
				if err := sendBatch(tr, b); err != nil {
					return err
				}
				checkArrived(t, fd, b, len(b.Datagrams))
				if d := tr.Describe(); d.Device != "port1" || d.Bridge != "br0" {
					t.Errorf("%v", d)
				}
				if s := tr.Settle(context.Background()); len(s.Lost()) > 0 {
					t.Errorf("%+v", s)
				}
				return nil
			})
		})
	}
}

// TestOnlyRawSockets opens transmissions with CAP_NET_RAW alone, which is not
// enough to see what acts on packets. This test's other half runs so.
func TestOnlyRawSockets(t *testing.T) {
	if os.Getenv("ZEEKDEMO_TEST_RAW") != "" {
		for _, mode := range []Mode{Auto, Packet} {
			tr, err := Open(context.Background(), Options{Destination: near4, Mode: mode})
			if err != nil {
				t.Fatal(err)
			}
			defer tr.Close()
			if d := tr.Describe(); (d.Mode == UDP) != (mode == Auto) || !strings.Contains(d.String(), "IPsec policies, nftables, iptables need CAP_NET_ADMIN") {
				t.Errorf("%s: %v", mode, d)
			}
			if err := sendBatch(tr, spreadBatch(10)); err != nil {
				t.Error(err)
			}
			if s := tr.Settle(context.Background()); len(s.Troubles) > 0 {
				t.Errorf("%+v", s)
			}
		}
		return
	}
	setpriv := testenv.NeedTool(t, "setpriv")
	net := newRouted(t)
	fd := listen(t, net.way, near4)
	program := copySelf(t)
	cmd := exec.Command("ip", "netns", "exec", net.tx, setpriv, "--reuid", "65534", "--regid", "65534", "--clear-groups",
		"--inh-caps=-all,+net_raw", "--ambient-caps=-all,+net_raw", program, "-test.run=^TestOnlyRawSockets$", "-test.v")
	cmd.Env, cmd.Dir = append(os.Environ(), "ZEEKDEMO_TEST_RAW=1"), "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("with CAP_NET_RAW alone: %v: %s", err, out)
	}
	if n := len(receive(t, fd)); n != 20 {
		t.Errorf("received %d", n)
	}
}
