package testenv

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// Receiver is a UDP socket on loopback whose datagrams are counted.
type Receiver struct {
	At       netip.AddrPort
	received atomic.Int64
}

// NewReceiver opens one for the test.
func NewReceiver(tb testing.TB) *Receiver {
	tb.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	SetReadBuffer(tb, c, 8<<20)
	r := &Receiver{At: netip.MustParseAddrPort(c.LocalAddr().String())}
	go func() {
		for buf := make([]byte, 1<<16); ; r.received.Add(1) {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	}()
	return r
}

// Received is how many datagrams have arrived so far.
func (r *Receiver) Received() int64 { return r.received.Load() }

// Awaits waits until n datagrams have arrived, and ends the test if they do not.
func (r *Receiver) Awaits(tb testing.TB, n int64) {
	tb.Helper()
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for r.Received() < n {
		select {
		case <-limit:
			tb.Errorf("%d datagrams arrived, want %d", r.Received(), n)
			return
		case <-tick.C:
		}
	}
}

// ForeignProgram writes what looks like a static program for a machine that is
// certainly not this one: linux/sparcv9.
func ForeignProgram(tb testing.TB) string {
	tb.Helper()
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	b[16], b[18], b[20] = 2, 43, 1 // ET_EXEC, EM_SPARCV9, EV_CURRENT
	b[52], b[54], b[58] = 64, 56, 64
	name := filepath.Join(tb.TempDir(), "zeekdemo")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		tb.Fatal(err)
	}
	return name
}
