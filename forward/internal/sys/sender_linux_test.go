package sys

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// pair returns a UDP socket connected to another one, both on loopback.
func pair(t *testing.T, loopback string) (from, to int, fromAddr netip.AddrPort) {
	t.Helper()
	open := func() (int, netip.AddrPort) {
		fd, err := OpenUDP(netip.AddrPortFrom(netip.MustParseAddr(loopback), 0))
		if err != nil {
			t.Skipf("SKIPPED: %v", err) // a machine without IPv6
		}
		t.Cleanup(func() { Close(fd) })
		addr, err := LocalAddr(fd)
		if err != nil {
			t.Fatal(err)
		}
		return fd, addr
	}
	from, fromAddr = open()
	to, toAddr := open()
	if err := errors.Join(Connect(from, toAddr), SetReceiveTimeout(to, 2*time.Second)); err != nil {
		t.Fatal(err)
	}
	return from, to, fromAddr
}

func TestSendAndReceive(t *testing.T) {
	for _, loopback := range []string{"127.0.0.1", "::1"} {
		t.Run(loopback, func(t *testing.T) {
			from, to, addr := pair(t, loopback)
			long := bytes.Repeat([]byte("0123456789"), 25)
			msgs := []Message{
				{Header: []byte("head"), Payload: []byte("body")},
				{Payload: []byte("only payload")},
				{Header: []byte("only header")},
				{},
				{Payload: long, Segment: 100},
				{Payload: []byte("after the super-packet")},
			}
			want := []string{"headbody", "only payload", "only header", "", string(long[:100]), string(long[100:200]), string(long[200:]), "after the super-packet"}
			n, err := NewUDPSender(8).Send(from, msgs)
			if n != len(msgs) || err != nil {
				t.Fatalf("sent %d: %v", n, err)
			}
			r := NewReceiver(4, 200)
			for i := 0; i < len(want); {
				n, err := r.Receive(to)
				if err != nil {
					t.Fatalf("receive datagram %d: %v", i, err)
				}
				for j := range n {
					data, src, cut := r.Datagram(j)
					if string(data) != want[i] || src != addr || cut {
						t.Errorf("datagram %d: %q from %v (cut: %v), want %q from %v", i, data, src, cut, want[i], addr)
					}
					i++
				}
			}
		})
	}
}

func TestReceiveReportsCutDatagrams(t *testing.T) {
	from, to, _ := pair(t, "127.0.0.1")
	if _, err := NewUDPSender(1).Send(from, []Message{{Payload: make([]byte, 11)}}); err != nil {
		t.Fatal(err)
	}
	r := NewReceiver(1, 10)
	if n, err := r.Receive(to); n != 1 || err != nil {
		t.Fatalf("received %d: %v", n, err)
	}
	if data, _, cut := r.Datagram(0); len(data) != 10 || !cut {
		t.Errorf("%d bytes, cut: %v", len(data), cut)
	}
}

func TestReceiveTimesOut(t *testing.T) {
	_, to, _ := pair(t, "127.0.0.1")
	if err := SetReceiveTimeout(to, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if n, err := NewReceiver(1, 10).Receive(to); n != 0 || !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("received %d: %v", n, err)
	}
}

func TestSendTakesAsManyAsItHasRoomFor(t *testing.T) {
	from, _, _ := pair(t, "127.0.0.1")
	if n, err := NewUDPSender(2).Send(from, make([]Message, 5)); n != 2 || err != nil {
		t.Errorf("sent %d: %v", n, err)
	}
}

func TestSendReportsErrno(t *testing.T) {
	from, _, _ := pair(t, "127.0.0.1")
	s := NewUDPSender(2)
	tooLong := Message{Payload: make([]byte, 1<<16)}
	if n, err := s.Send(from, []Message{{}, tooLong}); n != 1 || err != nil {
		t.Errorf("a refused second message: sent %d: %v", n, err)
	}
	if n, err := s.Send(from, []Message{tooLong}); n != 0 || !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("a refused first message: sent %d: %v", n, err)
	}
	if err := SetNoChecksum(from); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Send(from, []Message{{Payload: make([]byte, 20), Segment: 10}}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("segmentation without checksum: %v", err)
	}
}

func TestSocketOptions(t *testing.T) {
	from, to, _ := pair(t, "127.0.0.1")
	if err := CanSegment(from); err != nil {
		t.Error(err)
	}
	if mtu, err := PathMTU(from); mtu < 1500 || err != nil {
		t.Errorf("path MTU of loopback is %d: %v", mtu, err)
	}
	if n, err := SetSendBuffer(from, 4096); n < 4096 || err != nil {
		t.Errorf("send buffer of %d: %v", n, err)
	}
	if n, err := SetReceiveBuffer(to, 4096); n < 4096 || err != nil {
		t.Errorf("receive buffer of %d: %v", n, err)
	}
}

// TestSendAndReceiveDoNotAllocate includes the errors of the hot path.
func TestSendAndReceiveDoNotAllocate(t *testing.T) {
	from, to, _ := pair(t, "127.0.0.1")
	s, r := NewUDPSender(8), NewReceiver(8, 100)
	msgs := []Message{{Payload: make([]byte, 50)}, {Payload: make([]byte, 50), Segment: 20}}
	if err := SetReceiveTimeout(to, time.Microsecond); err != nil {
		t.Fatal(err)
	}
	allocs := testing.AllocsPerRun(100, func() {
		s.Send(from, msgs)
		for range 2 { // until it is empty
			n, _ := r.Receive(to)
			for i := range n {
				r.Datagram(i)
			}
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations per call", allocs)
	}
}

func TestPutVirtioChecksum(t *testing.T) {
	b := bytes.Repeat([]byte{0xff}, VirtioLen)
	PutVirtioPlain(b)
	if !bytes.Equal(b, make([]byte, VirtioLen)) {
		t.Errorf("plain header is % x", b)
	}
	PutVirtioChecksum(b, 34, 0x0102)
	want := []byte{1, 5}
	for _, v := range []uint16{34 + 8, 0x0102, 34, 6} { // hdr_len, gso_size, csum_start, csum_offset
		want = binary.NativeEndian.AppendUint16(want, v)
	}
	if !bytes.Equal(b, want) {
		t.Errorf("super-packet's header is % x, want % x", b, want)
	}
}
