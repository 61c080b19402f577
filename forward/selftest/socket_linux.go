package selftest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

// udpTable lists the UDP sockets of the calling process's network namespace
// (net/ipv4/udp.c, udp4_format_sock).
const udpTable = "/proc/self/net/udp"

type linuxSocket struct {
	fd       int
	addr     netip.AddrPort
	size     int
	receiver *sys.Receiver
}

func openSocket() (socket, error) {
	fd, err := sys.OpenUDP(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0))
	if err != nil {
		return nil, err
	}
	s := &linuxSocket{fd: fd, receiver: sys.NewReceiver(receiverBatch, receiveSize)}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *linuxSocket) prepare() (err error) {
	if s.size, err = sys.SetReceiveBuffer(s.fd, receiveBuffer); err != nil {
		return err
	}
	if err := sys.SetReceiveTimeout(s.fd, 100*time.Millisecond); err != nil {
		return err
	}
	s.addr, err = sys.LocalAddr(s.fd)
	return err
}

func (s *linuxSocket) address() netip.AddrPort { return s.addr }
func (s *linuxSocket) buffer() int             { return s.size }
func (s *linuxSocket) close() error            { return sys.Close(s.fd) }

func (s *linuxSocket) receive() (int, error) {
	n, err := s.receiver.Receive(s.fd)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
		return 0, nil
	}
	return n, err
}

func (s *linuxSocket) datagram(i int) (payload []byte, from netip.AddrPort) {
	payload, from, _ = s.receiver.Datagram(i) // as long as UDP allows: never cut
	return payload, from
}

func (s *linuxSocket) drops() (uint64, bool) {
	f, err := os.Open(udpTable)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	return dropsOf(f, s.addr)
}

// dropsOf finds the last column of the line of the socket bound to addr.
func dropsOf(table io.Reader, addr netip.AddrPort) (uint64, bool) {
	a := addr.Addr().As4() // the table prints it as a number of the host's byte order
	local := fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(a[:]), addr.Port())
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 13 || fields[1] != local {
			continue
		}
		drops, err := strconv.ParseUint(fields[len(fields)-1], 10, 64)
		return drops, err == nil
	}
	return 0, false
}
