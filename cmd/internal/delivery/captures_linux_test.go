package delivery

import (
	"bytes"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// receiver is a UDP socket in a network namespace behind a bridge, as a
// container's is.
type receiver struct {
	host way.Host
	conn *net.UDPConn
	out  net.Conn // to it
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	c := testenv.NewContainer(t, 65535)
	host, err := way.ParseTo(c.Addr.String(), 4789)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{host: host}
	c.Inside(t, func() error { r.conn = testenv.ListenUDP(t, ":4789", holdsAll); return nil })
	out, err := net.Dial("udp4", netip.AddrPortFrom(c.Addr, 4789).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	r.out = out
	return r
}

// drain drops what a test that failed left in the socket.
func (r *receiver) drain(t *testing.T) {
	t.Helper()
	_ = r.conn.SetReadDeadline(time.Time{})
	raw, err := r.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Read(func(fd uintptr) bool {
		for err == nil {
			_, _, err = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_DONTWAIT)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
}

// holdsAll is a buffer, in bytes, for all datagrams of the largest capture, so
// that it does not matter how late they are read.
const holdsAll = 256 << 20

// marker is the datagram after the last.
var marker = []byte("that was all")

// collect reads everything up to the marker. That may overtake what another CPU
// has in work, so n datagrams are waited for, as long as some come.
func (r *receiver) collect(n int, list chan<- [][]byte) {
	var got [][]byte
	buf := make([]byte, 1<<16)
	for marked := false; len(got) < n || !marked; {
		_ = r.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		size, err := r.conn.Read(buf)
		switch {
		case err != nil:
			list <- got
			return
		case bytes.Equal(buf[:size], marker):
			marked = true
		default:
			got = append(got, bytes.Clone(buf[:size]))
		}
	}
	list <- got
}

// Every capture arrives in a namespace by both transmissions exactly as -w
// wrote it: every datagram, byte for byte, in order.
func TestEveryCaptureThroughANamespace(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: every capture, twice; runs without -short")
	}
	r := newReceiver(t)
	for _, name := range captures(t) {
		if refused(t, name) {
			continue
		}
		file := filepath.Join(t.TempDir(), "out.pcap")
		played(t, name, nil, File{Path: file})
		want := readCapture(t, file)
		for _, tx := range []transmit.Mode{transmit.Packet, transmit.UDP} {
			t.Run(filepath.Base(name)+"/"+string(tx), func(t *testing.T) {
				r.drain(t)
				list := make(chan [][]byte, 1)
				go r.collect(len(want), list)
				// At a rate that a loaded machine takes: this is about order and bytes.
				played(t, name, func(p *Replay) {
					p.Tx, p.Pace = tx, pace.Spec{Pace: pace.AsRecorded, Speed: "1x", PPS: 60_000, Given: map[string]bool{"pps": true}}
				}, Monitor{Host: r.host})
				if _, err := r.out.Write(marker); err != nil {
					t.Error(err)
				}
				comparePayloads(t, <-list, want)
			})
		}
	}
}

func comparePayloads(t *testing.T, got [][]byte, want []captured) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if !bytes.Equal(got[i], want[i].data[outerLen:]) {
			t.Fatalf("datagram %d of %d differs, %d arrived:\ngot  % .60x\nwant % .60x", i+1, len(want), len(got), got[i], want[i].data[outerLen:])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d datagrams arrived, want %d", len(got), len(want))
	}
}
