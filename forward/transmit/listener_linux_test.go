package transmit

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// overheard sends datagrams by a socket that is not the transmission's, as a tunnel
// device does, and returns what a listener in that namespace hears of them.
func overheard(t *testing.T, namespace string, to netip.AddrPort, meanwhile func()) (said []Trouble) {
	t.Helper()
	testenv.Inside(t, namespace, func() error {
		l, err := Listen(to)
		if err != nil {
			return err
		}
		defer l.Close()
		c, err := net.ListenUDP("udp", nil) // not connected: it is told of no error
		if err != nil {
			return err
		}
		defer c.Close()
		meanwhile()
		for range 3 {
			if _, err := c.WriteToUDPAddrPort([]byte("mirrored"), to); err != nil {
				return err
			}
		}
		l.Hear(3)
		said = l.Settle(context.Background(), 3)
		return l.Deaf()
	})
	return said
}

// What hosts, near and far, and this machine say about others' datagrams is heard;
// where somebody listens nothing is said.
func TestAListenerHearsThatNobodyListens(t *testing.T) {
	net := newRouted(t)
	for _, to := range []netip.AddrPort{near4, near6, far4, far6, netip.MustParseAddrPort("127.0.0.1:45099"), netip.MustParseAddrPort("[::1]:45099"),
		netip.MustParseAddrPort("10.9.1.1:45099"), netip.MustParseAddrPort("[fd09:1::1]:45099")} {
		t.Run(to.String(), func(t *testing.T) {
			said := overheard(t, net.tx, to, func() {})
			if len(said) != 1 || said[0].Kind != PortUnreachable || said[0].From != to.Addr() || said[0].Count != 3 {
				t.Errorf("%+v", said)
			}
		})
	}
	for _, to := range []netip.AddrPort{far4, far6} {
		listen(t, net.rx, to)
		if said := overheard(t, net.tx, to, func() {}); len(said) > 0 {
			t.Errorf("%v: %+v", to, said)
		}
	}
}

// A neighbour that has gone does not answer when it is asked at the end; one that
// nothing was sent to is not asked.
func TestAListenerSeesThatTheNeighbourIsSilent(t *testing.T) {
	net := newNetwork(t, 1500)
	for _, to := range []netip.AddrPort{dst4, dst6} {
		listen(t, net.rx, to)
		said := overheard(t, net.tx, to, func() { testenv.IP(t, "-n "+net.rx+" link set eth0 down") })
		if !slices.ContainsFunc(said, func(s Trouble) bool { return s.Kind == NeighbourSilent }) {
			t.Errorf("%v: %+v", to, said)
		}
		testenv.Inside(t, net.tx, func() error {
			l, err := Listen(to)
			if err != nil {
				return err
			}
			defer l.Close()
			if said := l.Settle(context.Background(), 0); len(said) > 0 {
				t.Errorf("%v: nothing was sent, and %+v", to, said)
			}
			return nil
		})
		testenv.IP(t, "-n "+net.rx+" link set eth0 up")
		testenv.IP(t, "-n "+net.rx+" addr replace fd09::2/64 dev eth0 nodad")
	}
}

// Without the privilege nothing is heard, and the listener says so.
func TestAListenerWithoutThePrivilegeIsDeaf(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.Inside(t, testenv.Namespace(t), func() error { // its thread dies, and takes what it lacks with it
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var have [2]unix.CapUserData
		if err := unix.Capget(&hdr, &have[0]); err != nil {
			return err
		}
		have[0].Effective &^= 1 << unix.CAP_NET_RAW
		if err := unix.Capset(&hdr, &have[0]); err != nil {
			return err
		}
		l, err := Listen(netip.MustParseAddrPort("127.0.0.1:45099"))
		if err != nil {
			return err
		}
		defer l.Close()
		l.Hear(1)
		if !errors.Is(l.Deaf(), os.ErrPermission) {
			t.Errorf("deaf: %v", l.Deaf())
		}
		return nil
	})
}
