package watch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// governed forwards n synthetic frames to a receiver; prepare is given the watch
// before anything is sent.
func governed(ctx context.Context, t *testing.T, to netip.AddrPort, mode transmit.Mode, rt Route, n uint64, prepare func(*Watch)) (Account, error) {
	t.Helper()
	_, doc, err := forwardInto(ctx, t, to, mode, rt, Auto, n, prepare)
	return doc, err
}

// limitedMemory calls open on a thread whose sockets may hold so many bytes
// together, whatever their buffers say.
func limitedMemory(t *testing.T, limit int, open func()) {
	t.Helper()
	const root = "/sys/fs/cgroup/memory"
	group := filepath.Join(root, fmt.Sprintf("zt%d", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		testenv.Missing(t, "a memory controller of cgroup v1, whose limit of sockets' memory is its own: "+err.Error())
	}
	t.Cleanup(func() { _ = os.Remove(group) })
	if err := os.WriteFile(filepath.Join(group, "memory.kmem.tcp.limit_in_bytes"), []byte(strconv.Itoa(limit)), 0); err != nil {
		testenv.Missing(t, "a limit of sockets' memory: "+err.Error())
	}
	own, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/cgroup", unix.Gettid()))
	if err != nil {
		t.Fatal(err)
	}
	_, home, _ := strings.Cut(string(own), ":memory:")
	home, _, _ = strings.Cut(home, "\n")
	enter := func(group string) {
		if err := os.WriteFile(filepath.Join(group, "tasks"), []byte(strconv.Itoa(unix.Gettid())), 0); err != nil {
			t.Fatal(err)
		}
	}
	enter(group)
	defer enter(filepath.Join(root, home))
	open()
}

// A sensor whose cgroup may hold less than its buffer says loses a little at first
// and nothing afterwards, and the account says why.
func TestMemoryLimitOfACgroup(t *testing.T) {
	b := testenv.NewContainer(t, 9000)
	r := &reader{}
	b.Inside(t, func() error {
		limitedMemory(t, 400<<10, func() { r.conn = testenv.ListenUDP(t, "0.0.0.0:4789", buffer16MiB) })
		return nil
	})
	go r.read(func(uint64) { spend(10 * time.Microsecond) })
	const n = 60_000
	doc, err := governed(t.Context(), t, netip.AddrPortFrom(b.Addr, 4789), transmit.Packet, routeInto(b), n, func(*Watch) {})
	l := doc.Ledger
	if err != nil || l.Lost == 0 || l.Lost > 2000 || l.Taken+l.Lost != n || r.count.Load() != l.Taken {
		t.Fatalf("%+v, %v", l, err)
	}
	s := doc.Sockets[0]
	if s.BufferBytes < buffer16MiB || s.BelievedBytes == 0 || s.BelievedBytes > 400<<10 || s.HeldBytes > 400<<10 || !strings.Contains(s.Limited(), "a memory limit below the buffer") {
		t.Errorf("%+v: %s", s, s.Limited())
	}
	t.Logf("%s; %s", l.Verdict, s.Limited())
}

// stopping is a receiver that stops to read after some datagrams, until it is let
// go on.
func stopping(t *testing.T, b testenv.Container, after uint64) (r *reader, goOn func()) {
	t.Helper()
	r = &reader{}
	b.Inside(t, func() error { r.conn = testenv.ListenUDP(t, "0.0.0.0:4789", 0); return nil })
	on, over := context.WithCancel(t.Context())
	go r.read(func(n uint64) {
		if n == after {
			<-on.Done()
		}
	})
	return r, over
}

// A sensor that stops is announced, waited for as long as was asked, and then it is
// a loss, with what had been taken.
func TestSensorThatStops(t *testing.T) {
	b := testenv.NewContainer(t, 9000)
	r, _ := stopping(t, b, 1000)
	var said []string
	doc, err := governed(t.Context(), t, netip.AddrPortFrom(b.Addr, 4789), transmit.Packet, routeInto(b), 50_000, func(w *Watch) {
		w.Wait(Waiting{Run: 4 * time.Second, End: time.Hour}, func(line string) { said = append(said, line) })
	})
	var loss *LossError
	var stuck *pace.StuckError
	if !errors.As(err, &loss) || !errors.As(err, &stuck) || stuck.Taken != 1000 || doc.Ledger.Taken != 1000 || doc.Ledger.QueuedBytes == 0 || r.count.Load() != 1000 {
		t.Errorf("%v; %+v", err, doc.Ledger)
	}
	if len(said) == 0 || !strings.Contains(said[0], "0.0.0.0:4789 of the sensor has taken nothing for 3") || !strings.Contains(said[0], "waiting up to 4s") {
		t.Errorf("said %q", said)
	}
	if doc.Delivery() != OnlySent {
		t.Errorf("delivery %s", doc.Delivery())
	}
}

// One that goes on after a while has lost nothing, and an interrupt is answered
// while it does not.
func TestSensorThatPauses(t *testing.T) {
	for _, interrupted := range []bool{false, true} {
		b := testenv.NewContainer(t, 9000)
		_, goOn := stopping(t, b, 1000)
		ctx, interrupt := context.WithCancel(t.Context())
		var said []string
		var at time.Time
		doc, err := governed(ctx, t, netip.AddrPortFrom(b.Addr, 4789), transmit.Packet, routeInto(b), 20_000, func(w *Watch) {
			w.Wait(Waiting{End: time.Hour}, func(line string) {
				at = time.Now()
				if said = append(said, line); interrupted {
					interrupt()
				} else {
					goOn()
				}
			})
		})
		interrupt()
		t.Logf("interrupted %t: over %s after it was said", interrupted, time.Since(at))
		switch {
		case interrupted && (!errors.Is(err, context.Canceled) || doc.Ledger.Taken != 1000 || time.Since(at) > Patience):
			t.Errorf("%v after %s; %+v", err, time.Since(at), doc.Ledger)
		case !interrupted && (err != nil || doc.Ledger.Taken != 20_000 || len(said) != 2 || !strings.Contains(said[0], "waiting until it does") || !strings.Contains(said[1], "takes packets again")):
			t.Errorf("%v; %+v; said %q", err, doc.Ledger, said)
		}
	}
}

// Of two sockets behind one port one goes, with what waits in its queue; the run
// goes on with the other, and the ledger says so.
func TestOneOfTwoSocketsGoes(t *testing.T) {
	b := testenv.NewContainer(t, 9000)
	lives := readers(t, b, 1, 0, func(uint64) {})[0]
	dies, _ := stopping(t, b, 300)
	const n = 30_000
	doc, err := governed(t.Context(), t, netip.AddrPortFrom(b.Addr, 4789), transmit.Packet, routeInto(b), n, func(w *Watch) {
		w.Wait(Waits(), func(string) { dies.conn.Close() }) // it is said that it has stopped
	})
	l := doc.Ledger
	if err != nil || l.Taken != lives.count.Load()+300 || l.Lost == 0 || l.Lost != l.InGone || l.Taken+l.Lost != n || len(l.Gone) != 1 {
		t.Fatalf("%v; %d and 300 taken; %+v", err, lives.count.Load(), l)
	}
	if want := fmt.Sprintf("%d may have been in the queue of 0.0.0.0:4789 #", l.Lost); !strings.Contains(l.Verdict, want) {
		t.Errorf("%s, want %s", l.Verdict, want)
	}
	var gone int
	for _, s := range doc.Sockets {
		if s.Gone {
			gone++
		}
	}
	if gone != 1 || len(doc.Sockets) != 2 || doc.Delivery() != SomeLost {
		t.Errorf("%+v", doc.Sockets)
	}
}

// ask exchanges questions and answers from within a sensor's namespace, as
// Zeek's does.
func ask(t *testing.T, b testenv.Container, questions, answers int) {
	t.Helper()
	gateway := b.Addr.Prev().String()
	server, err := net.ListenPacket("udp4", gateway+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var client net.Conn
	b.Inside(t, func() (err error) { client, err = net.Dial("udp4", server.LocalAddr().String()); return err })
	defer client.Close()
	buf := make([]byte, 100)
	for i := range questions {
		if _, err := client.Write([]byte("who?")); err != nil {
			t.Fatal(err)
		}
		_, from, err := server.ReadFrom(buf)
		if err == nil && i < answers {
			if _, err = server.WriteTo([]byte("you"), from); err == nil {
				_, err = client.Read(buf)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// says is a witness that has received so many more since it was asked last.
type says struct{ now, more uint64 }

func (s *says) Received(context.Context) (uint64, error) {
	s.now, s.more = s.now+s.more, 0
	return s.now, nil
}

// Answers to the sensor's own questions are not the run's packets. Where a question
// had none, only the sensor can tell whether a packet was lost.
func TestAnswersToTheSensor(t *testing.T) {
	const n = 5000
	for _, tt := range []struct {
		name      string
		questions int
		answers   int
		witness   Witness
		others    uint64
		delivery  Delivered
		verdict   string
	}{
		{"no questions", 0, 0, nil, 0, AllTaken, "all 5000 packets were taken by the sensor"},
		{"all answered", 6, 6, nil, 6, AllTaken, "all 5000 packets were taken by the sensor; its system took 6 more"},
		{"one not answered", 6, 5, nil, 5, OnlySent, "at least 4999 of 5000 packets were taken"},
		{"one not answered, and the sensor knows", 6, 5, &says{}, 5, AllTaken, "all 5000 packets were taken by the sensor; its system took 5 more"},
		{"the sensor knows of a loss", 6, 0, &says{}, 6, SomeLost, "6 of 5000 packets lost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := testenv.NewContainer(t, 9000)
			readers(t, b, 1, 0, func(uint64) {})
			rt := routeInto(b)
			rt.witness = tt.witness
			doc, err := governed(t.Context(), t, netip.AddrPortFrom(b.Addr, 4789), transmit.Packet, rt, n, func(*Watch) {
				ask(t, b, tt.questions, tt.answers)
				if s, ok := tt.witness.(*says); ok {
					if s.more = n; tt.delivery == SomeLost {
						s.more = n - tt.others
					}
				}
			})
			if l := doc.Ledger; err != nil || l.Others != tt.others || doc.Delivery() != tt.delivery || !strings.Contains(l.Verdict, tt.verdict) {
				t.Errorf("%+v is %s, %v", l, doc.Delivery(), err)
			}
		})
	}
}

// From within the sensor's namespace its own datagrams are told from others'
// questions, however many go in one message.
func TestSenderBesideTheSensor(t *testing.T) {
	b := testenv.NewContainer(t, 9000)
	readers(t, b, 1, buffer16MiB, func(uint64) {})
	outside, err := net.ListenPacket("udp4", b.Addr.Prev().String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	for _, questions := range []int{0, 3} {
		b.Inside(t, func() error {
			rt := Own(4789, orchestrate.Nodes{})
			rt.Sensor.Path = b.Path()
			doc, err := governed(t.Context(), t, netip.MustParseAddrPort("127.0.0.1:4789"), transmit.UDP, rt, 20_000, func(*Watch) {
				client, err := net.Dial("udp4", outside.LocalAddr().String())
				if err != nil {
					t.Error(err)
					return
				}
				defer client.Close()
				for range questions {
					_, _ = client.Write([]byte("who?"))
				}
			})
			if l := doc.Ledger; err != nil || l.Lost != 0 || l.Doubt != uint64(questions) {
				t.Errorf("%d questions without answers: %+v, %v", questions, l, err)
			}
			return nil
		})
	}
}
