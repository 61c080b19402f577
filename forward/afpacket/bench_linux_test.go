package afpacket

import (
	"testing"
	"time"

	peer "github.com/gopacket/gopacket/afpacket"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// BenchmarkRead compares what it costs to take a frame out of a full ring, here
// and with the same system's peer: blocks of the same size, frames of 60 to 1460
// bytes, three quarters of them with VLAN tags.
func BenchmarkRead(b *testing.B) {
	testenv.NeedRoot(b)
	b.Run("afpacket", func(b *testing.B) {
		fill := newFilled(b)
		var c *Capture
		testenv.Inside(b, fill.east, func() error {
			i, err := Find("eth0")
			if err != nil {
				return err
			}
			c, err = Open(Options{Interfaces: []Interface{i}})
			return err
		})
		defer c.Close()
		var f forward.Frame
		fill.drain(b, func() error { return c.Workers()[0].Next(&f) })
	})
	b.Run("gopacket", func(b *testing.B) {
		fill := newFilled(b)
		var tp *peer.TPacket
		testenv.Inside(b, fill.east, func() (err error) {
			tp, err = peer.NewTPacket(peer.OptInterface("eth0"), peer.TPacketVersion3,
				peer.OptFrameSize(2048), peer.OptBlockSize(blockSize), peer.OptNumBlocks(DefaultBuffer/blockSize),
				peer.OptBlockTimeout(retire))
			return err
		})
		defer tp.Close()
		fill.drain(b, func() error { _, _, err := tp.ZeroCopyReadPacketData(); return err })
	})
}

// filled is a link and frames for it, as many as a ring takes.
type filled struct {
	link
	send   func(frames ...[]byte)
	frames [][]byte
}

func newFilled(b *testing.B) filled {
	l := newLink(b)
	return filled{link: l, send: sender(b, l.west, "eth0"), frames: many(20_000)}
}

// drain reports the time that next takes for a frame that is there already.
func (f filled) drain(b *testing.B, next func() error) {
	b.Helper()
	var spent time.Duration
	for b.Loop() {
		f.send(f.frames...)
		start := time.Now()
		for range f.frames {
			if err := next(); err != nil {
				b.Fatal(err)
			}
		}
		spent += time.Since(start)
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*len(f.frames)), "ns/frame")
}
