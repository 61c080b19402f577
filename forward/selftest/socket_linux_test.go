package selftest

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

const table = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             
  257: 0100007F:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 48225 2 00000000a6d05f4e 77              
  303: 00000000:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 48226 2 00000000a6d05f4f 5               
`

func TestDropsOf(t *testing.T) {
	for addr, want := range map[string]uint64{"127.0.0.1:4789": 77, "0.0.0.0:4789": 5} {
		if got, ok := dropsOf(strings.NewReader(table), netip.MustParseAddrPort(addr)); got != want || !ok {
			t.Errorf("%s: %d, %v, want %d", addr, got, ok, want)
		}
	}
	if _, ok := dropsOf(strings.NewReader(table), netip.MustParseAddrPort("127.0.0.1:4790")); ok {
		t.Error("found a socket that is not there")
	}
}

// A socket that nobody reads from drops, and says so.
func TestSocketDrops(t *testing.T) {
	s, err := openSocket()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if n, ok := s.drops(); n != 0 || !ok {
		t.Fatalf("a new socket has %d drops, %v", n, ok)
	}
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(s.address()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	long := make([]byte, 60000)
	for range s.buffer()/len(long) + 100 {
		if _, err := conn.Write(long); err != nil {
			t.Fatal(err)
		}
	}
	if n, ok := s.drops(); n == 0 || !ok {
		t.Errorf("%d drops, %v", n, ok)
	}
}
