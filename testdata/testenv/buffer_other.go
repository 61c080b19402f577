//go:build !linux

package testenv

import (
	"net"
	"testing"
)

// SetReadBuffer asks for a receive buffer of n bytes.
func SetReadBuffer(_ testing.TB, conn *net.UDPConn, n int) { _ = conn.SetReadBuffer(n) }
