package sockets

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// inside is Container.Inside for a process whose first thread must stay where it
// is: other tests read its files.
func inside(t *testing.T, c testenv.Container, fn func() error) {
	t.Helper()
	if err := within(c.Path(), fn); err != nil {
		t.Fatal(err)
	}
}

// Of a namespace's other sockets those are told that may take what comes from
// outside, and those that may be answered; and how much all have sent.
func TestOthersInANamespace(t *testing.T) {
	b := testenv.NewContainer(t, 1500)
	var open, local *net.UDPConn
	inside(t, b, func() error {
		testenv.ListenUDP(t, "0.0.0.0:4789", 0)
		local = testenv.ListenUDP(t, "127.0.0.11:5353", 0)
		return nil
	})
	w, err := Open(Place{Path: b.Path()}, netip.MustParseAddrPort("0.0.0.0:4789"), AsksForMuch)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	look := func() Others {
		o, err := w.Others()
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	before := look()
	if len(before.Open) != 0 || before.Asking != 0 {
		t.Errorf("alone: %+v", before)
	}
	var asking net.Conn
	inside(t, b, func() (err error) {
		open = testenv.ListenUDP(t, "0.0.0.0:6081", 0)
		asking, err = net.Dial("udp4", netip.AddrPortFrom(b.Addr, 9).String())
		return err
	})
	defer asking.Close()
	for range 3 {
		if _, err := local.WriteTo(make([]byte, 10), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4789}); err != nil {
			t.Fatal(err)
		}
	}
	after := look()
	if !slices.Equal(after.Open, []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:6081")}) || after.Asking != 1 || after.Sent-before.Sent != 3 {
		t.Errorf("%+v, before %+v", after, before)
	}
	open.Close()
	if o := look(); len(o.Open) != 0 {
		t.Errorf("closed: %+v", o)
	}
}
