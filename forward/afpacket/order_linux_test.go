package afpacket

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// newLinks is a pair of namespaces with two links between them.
func newLinks(t testing.TB) link {
	t.Helper()
	l := newLink(t)
	testenv.IP(t, "-n "+l.east+" link add eth1 type veth peer name eth1 netns "+l.west)
	for _, ns := range []string{l.east, l.west} {
		testenv.Inside(t, ns, quiet)
		testenv.IP(t, "-n "+ns+" link set eth1 up")
	}
	return l
}

// numberedFrame is an Ethernet frame that holds a number and nothing else.
func numberedFrame(n int) []byte {
	b := []byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5")
	return append(binary.BigEndian.AppendUint32(b, uint32(n)), make([]byte, 50)...)
}

func numberOf(frame string) int { return int(binary.BigEndian.Uint32([]byte(frame[14:]))) }

// behind counts the frames that came after one with a higher number.
func behind(frames []string) (n int) {
	highest := -1
	for _, f := range frames {
		if numberOf(f) < highest {
			n++
		}
		highest = max(highest, numberOf(f))
	}
	return n
}

// lateIn counts the frames that came after one with a later time stamp on the other of
// two interfaces, which have the odd and the even numbers.
func lateIn(got *taken) (n uint64) {
	var latest [2]int64
	for i, f := range got.all() {
		if ring := numberOf(f) % 2; got.times[i] < latest[1-ring] {
			n++
		}
		latest[numberOf(f)%2] = max(latest[numberOf(f)%2], got.times[i])
	}
	return n
}

// Frames that alternate between two interfaces come out in the order in which they
// were sent, in bursts and one by one. Where this machine is too busy to hand them over
// in time, those that are not in order are counted.
func TestInterfacesAreMerged(t *testing.T) {
	l := newLinks(t)
	sends := []func(...[]byte){sender(t, l.west, "eth0"), sender(t, l.west, "eth1")}
	for name, pause := range map[string]func(i int, got *taken){
		"a burst":    func(int, *taken) {},
		"one by one": func(i int, got *taken) { wait(t, func() bool { return i < 20 || len(got.all()) > i-20 }) },
	} {
		t.Run(name, func(t *testing.T) {
			n := map[string]int{"a burst": 4000, "one by one": 400}[name]
			got, counts := capture(t, l.east, Options{}, "eth0 eth1", func(_ *Capture, got *taken) {
				for i := range n {
					sends[i%2](numberedFrame(i))
					pause(i, got)
				}
			})
			late := counts[0].Late + counts[1].Late
			if b := behind(got.all()); len(got.all()) != n || lateIn(got) != late || b > n/20 {
				t.Errorf("%d frames of %d, %d behind a later one, %d late, %d counted", len(got.all()), n, b, lateIn(got), late)
			}
			for _, c := range counts {
				if c.Packets != uint64(n/2) || c.Lost() != 0 {
					t.Errorf("%+v", c)
				}
			}
		})
	}
}

// An interface on which nothing happens, or that is down or goes away, stops none of
// the others' frames.
func TestAnIdleInterfaceStopsNothing(t *testing.T) {
	l := newLinks(t)
	send := sender(t, l.west, "eth0")
	next := 0
	come := func(got *taken) {
		for range 200 {
			send(numberedFrame(next))
			next++
		}
		wait(t, func() bool { return len(got.all()) == next })
	}
	got, _ := capture(t, l.east, Options{}, "eth0 eth1", func(_ *Capture, got *taken) {
		come(got)
		testenv.IP(t, "-n "+l.east+" link set eth1 down")
		come(got)
		testenv.IP(t, "-n "+l.east+" link del eth1")
		come(got)
	})
	if b := behind(got.all()); b != 0 {
		t.Errorf("%d frames of one interface are not in their order", b)
	}
}

// Merged packets are cut where several interfaces are read as well.
func TestInterfacesAreMergedAndPacketsCut(t *testing.T) {
	l := newLinks(t)
	other := sender(t, l.west, "eth1")
	testenv.IP(t, "-n "+l.west+" addr add 10.1.0.1/24 dev eth0")
	testenv.IP(t, "-n "+l.east+" addr add 10.1.0.2/24 dev eth0")
	stream := []byte(strings.Repeat("0123456789abcdef", 1<<14))
	got, counts := capture(t, l.east, Options{}, "eth0 eth1", func(*Capture, *taken) {
		for i := range 100 {
			other(numberedFrame(i))
		}
		overTCP(t, l, "10.1.0.2:80", stream)
	})
	var r received
	for _, f := range got.all() {
		if f[12:14] == "\x08\x00" {
			if header, payload, ours := inside(t, []byte(f), false); ours {
				r.segment(t, header, payload)
			}
		}
	}
	if string(r.stream) != string(stream) || counts[0].Merged == 0 || counts[1].Packets != 100 {
		t.Errorf("the segments carry %d bytes of %d: %+v", len(r.stream), len(stream), counts)
	}
}

func TestReadingInterfacesDoesNotAllocate(t *testing.T) {
	l := newLinks(t)
	var c *Capture
	testenv.Inside(t, l.east, func() (err error) {
		var o Options
		for _, name := range []string{"eth0", "eth1"} {
			i, err := Find(name)
			if err != nil {
				return err
			}
			o.Interfaces = append(o.Interfaces, i)
		}
		c, err = Open(o)
		return err
	})
	defer c.Close()
	for i, send := range []func(...[]byte){sender(t, l.west, "eth0"), sender(t, l.west, "eth1")} {
		for n := range 1100 {
			send(numberedFrame(2*n + i))
		}
	}
	w := c.Workers()[0]
	var f forward.Frame
	if n := testing.AllocsPerRun(2000, func() {
		w.Ready()
		if err := w.Next(&f); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%.2f allocations a frame", n)
	}
}
