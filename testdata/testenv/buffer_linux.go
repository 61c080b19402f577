package testenv

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// SetReadBuffer asks for a receive buffer of n bytes (the kernel doubles it): as
// root also beyond net.core.rmem_max, which another test may have lowered.
func SetReadBuffer(tb testing.TB, conn *net.UDPConn, n int) {
	tb.Helper()
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { setReadBuffer(int(fd), n) })
	}
	if err != nil {
		tb.Fatal(err)
	}
}

func setReadBuffer(fd, n int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, n) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, n)
	}
}
