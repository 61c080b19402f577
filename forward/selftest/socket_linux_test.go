package selftest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
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

// queued returns the bytes that the kernel accounts to a socket's receive
// queue.
func queued(t *testing.T, port uint16) int {
	t.Helper()
	text, err := os.ReadFile(udpTable)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 13 || !strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
			continue
		}
		_, rx, _ := strings.Cut(fields[4], ":")
		n, err := strconv.ParseInt(rx, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		return int(n)
	}
	t.Fatalf("no socket with port %d", port)
	return 0
}

// The window relies on it: the estimate is never below what the kernel
// accounts, whichever way datagrams were handed over.
func TestKernelMemoryIsAnUpperBound(t *testing.T) {
	for _, alone := range []bool{false, true} {
		for _, size := range []int{1, 60, 300, 700, 1000, 1500, 2000, 4000, 8000, 9000, 16000, 17000, 33000, 65000} {
			s, err := openSocket()
			if err != nil {
				t.Fatal(err)
			}
			tx, err := transmit.Open(t.Context(), transmit.Options{Destination: s.address(), Mode: transmit.UDP, NoGSO: alone})
			if err != nil {
				t.Fatal(err)
			}
			const n = 5 // stays below every buffer
			b := forward.Batch{Buf: make([]byte, n*size)}
			for i := range n {
				b.Datagrams = append(b.Datagrams, forward.Datagram{Off: i * size, Len: size, Port: 50000})
			}
			if _, err := tx.Send(&b); err != nil {
				t.Fatal(err)
			}
			got := queued(t, s.address().Port())
			if got == 0 || got > n*kernelMemory(size) {
				t.Errorf("%d datagrams of %d bytes (alone: %v) take %d bytes, estimated %d", n, size, alone, got, n*kernelMemory(size))
			}
			tx.Close()
			s.close()
		}
	}
}
