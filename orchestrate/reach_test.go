package orchestrate

import (
	"net/netip"
	"os"
	"testing"
)

// A process is taken for the container's only if it has one of its addresses.
func TestContainerThatRunsHere(t *testing.T) {
	if _, err := os.Stat("/proc/self/net/fib_trie"); err != nil {
		t.Skipf("SKIPPED: not Linux: %v", err)
	}
	own, other := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1")
	for name, tt := range map[string]struct {
		pid  int
		addr netip.Addr
		want bool
	}{
		"here": {os.Getpid(), own, true}, "another's number": {os.Getpid(), other, false}, "a network's": {os.Getpid(), netip.MustParseAddr("127.255.255.255"), false}, "no process": {0, own, false}, "none yet": {os.Getpid(), netip.Addr{}, false},
	} {
		c := Container{PID: tt.pid, Addresses: map[string]netip.Addr{"monitoring": tt.addr}}
		if got := c.RunsHere(); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
