//go:build !linux

package selftest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
)

type otherSocket struct {
	conn *net.UDPConn
	size int
	buf  []byte
	n    int
	from netip.AddrPort
}

func openSocket() (socket, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("open udp socket: %w", err)
	}
	// Systems refuse what is above their limit, and how much that is differs.
	for size := receiveBuffer; size >= 64<<10; size /= 2 {
		if conn.SetReadBuffer(size) == nil {
			return &otherSocket{conn: conn, size: size, buf: make([]byte, receiveSize)}, nil
		}
	}
	return nil, errors.Join(errors.New("set the udp socket's receive buffer: no size is accepted"), conn.Close())
}

func (s *otherSocket) address() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }
func (s *otherSocket) buffer() int             { return s.size }
func (s *otherSocket) close() error            { return s.conn.Close() }
func (s *otherSocket) drops() (uint64, bool)   { return 0, false }

func (s *otherSocket) receive() (int, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		return 0, err
	}
	var err error
	s.n, s.from, err = s.conn.ReadFromUDPAddrPort(s.buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return 1, nil
}

func (s *otherSocket) datagram(int) (payload []byte, from netip.AddrPort) {
	return s.buf[:s.n], s.from
}
