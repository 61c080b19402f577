package pcapfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

// bound is how long anything may take in these tests.
const bound = 30 * time.Second

// said collects what is told of connections.
type said struct {
	mu    sync.Mutex
	lines []string
}

func (s *said) say(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
}

func (s *said) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.lines, func(line string) bool { return strings.Contains(line, text) })
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for limit := time.After(bound); !holds(); {
		select {
		case <-limit:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// streams opens streams that are closed, and soon try again.
func streams(t *testing.T, o StreamOptions, delay time.Duration) *Streams {
	t.Helper()
	s, err := OpenStreams(o)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.delay = delay
	s.mu.Unlock()
	t.Cleanup(func() { s.Close() })
	return s
}

// connect is a connection to streams.
func connect(t *testing.T, s *Streams) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Address().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func send(t *testing.T, to io.Writer, content []byte) {
	t.Helper()
	if _, err := to.Write(content); err != nil {
		t.Fatal(err)
	}
}

// opened is how many connections are open.
func opened(s *Streams) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.feeds {
		if f.open {
			n++
		}
	}
	return n
}

// next is the next frame, copied.
func next(t *testing.T, s *Streams) forward.Frame {
	t.Helper()
	var f forward.Frame
	if err := s.Next(&f); err != nil {
		t.Fatal(err)
	}
	f.Data = bytes.Clone(f.Data)
	return f
}

// TestConnectionsAreMergedByTime, of pcap and pcapng.
func TestConnectionsAreMergedByTime(t *testing.T) {
	s := streams(t, StreamOptions{Listen: "0"}, bound)
	a, b := connect(t, s), connect(t, s)
	spec, n := newPcapSpec(), ng{newPcapSpec().order}
	send(t, a, spec.header())
	send(t, b, bytes.Join([][]byte{n.section(), n.iface(101, 0)}, nil))
	send(t, b, n.enhanced(0, uint64(start/1000)+2, packet(60, 2), 60)) // its reader waits for the first packet
	eventually(t, "both are open", func() bool { return opened(s) == 2 })
	for i := range 50 {
		send(t, a, spec.record(start/1000*1000+int64(1+4*i)*1000, packet(60, 1)))
		if i > 0 {
			send(t, b, n.enhanced(0, uint64(start/1000)+uint64(2+4*i), packet(60, 2), 60))
		}
	}
	a.Close()
	b.Close()
	last := int64(0)
	for i := range 100 {
		f := next(t, s)
		if f.Time <= last || f.Data[0] != byte(1+i%2) || f.Segment != 0 {
			t.Fatalf("frame %d: %+v after %d", i, f, last)
		}
		last = f.Time
	}
	if links := s.LinkTypes(); len(links) != 2 || !slices.Contains(links, 101) {
		t.Errorf("link types %v", links)
	}
	if done, total := s.Progress(); done == 0 || total != 0 {
		t.Errorf("progress %d of %d", done, total)
	}
}

// TestASilentConnectionHoldsNothingUp for long.
func TestASilentConnectionHoldsNothingUp(t *testing.T) {
	s := streams(t, StreamOptions{Listen: "127.0.0.1:0"}, time.Millisecond)
	silent, loud := connect(t, s), connect(t, s)
	spec := newPcapSpec()
	send(t, silent, spec.header())
	send(t, loud, spec.file(packet(60, 1), packet(60, 2)))
	eventually(t, "both are open", func() bool { return opened(s) == 2 })
	for i := range 2 {
		if f := next(t, s); f.Data[0] != byte(i+1) {
			t.Errorf("frame %d: %x", i, f.Data[:2])
		}
	}
}

// TestAServerIsConnectedAgain when it ends, as often as it does, whatever it sends then.
func TestAServerIsConnectedAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := ng{newPcapSpec().order}
	blocks := bytes.Join([][]byte{n.section(), n.iface(1, 0), n.enhanced(0, 7, packet(60, 2), 60)}, nil)
	whole := newPcapSpec().file(packet(60, 3))
	go func() {
		for _, content := range [][]byte{newPcapSpec().file(packet(60, 1)), blocks, []byte("no capture at all"), whole[:len(whole)-3], whole} {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write(content) // what is missing then is seen
			c.Close()
		}
	}()
	var told said
	s := streams(t, StreamOptions{Connect: []string{"tcp://" + l.Addr().String()}, Say: told.say}, mergeDelay)
	for i := range 3 {
		if f := next(t, s); f.Data[0] != byte(i+1) || i > 0 && f.Segment == 0 {
			t.Errorf("frame %d: %+v", i, f)
		}
	}
	if list := s.Damages(); len(list) != 1 || list[0].Packet != 1 || !strings.HasPrefix(list[0].Name, "tcp://127") {
		t.Errorf("damages %v", list)
	}
	if !told.has("ended the connection; trying again") || !told.has("not a pcap or pcapng capture; it looks like text") {
		t.Errorf("told %q", told.lines)
	}
}

// TestAServerThatIsNotThereIsSaidSo, and waited for until the stop.
func TestAServerThatIsNotThereIsSaidSo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	name := "tcp://" + l.Addr().String()
	l.Close()
	var told said
	stop := make(chan struct{})
	s := streams(t, StreamOptions{Connect: []string{name}, Say: told.say, Stop: stop}, mergeDelay)
	eventually(t, "it is said", func() bool { return told.has(name + ": connect: ") })
	if s.Ready() {
		t.Error("it is ready")
	}
	close(stop)
	var f forward.Frame
	if err := s.Next(&f); !errors.Is(err, context.Canceled) || !s.Ready() {
		t.Errorf("after the stop: %v", err)
	}
}

// TestAConnectionIsNotReadAheadWithoutEnd: the sender waits.
func TestAConnectionIsNotReadAheadWithoutEnd(t *testing.T) {
	s := streams(t, StreamOptions{Listen: "0"}, mergeDelay)
	c := connect(t, s)
	spec := newPcapSpec()
	go func() {
		_, err := c.Write(spec.header())
		for record := spec.record(start, packet(1400, 1)); err == nil; {
			_, err = c.Write(record)
		}
	}()
	queue := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.feeds) == 0 {
			return 0
		}
		return s.feeds[0].bytes
	}
	eventually(t, "the queue is full", func() bool { return queue() >= feedBytes })
	for range 2000 {
		next(t, s)
		if n := queue(); n > feedBytes+1400+frameCost {
			t.Fatalf("%d bytes are queued", n)
		}
	}
}

// TestTooManyConnections are refused, and said so.
func TestTooManyConnections(t *testing.T) {
	var told said
	s := streams(t, StreamOptions{Listen: "0", Say: told.say}, mergeDelay)
	for range maxConnections + 1 {
		connect(t, s)
	}
	eventually(t, "it is said", func() bool { return told.has(fmt.Sprintf("there are %d connections already", maxConnections)) })
}

// TestAddressesOfStreams: nothing listens beyond this machine unless an address is given.
func TestAddressesOfStreams(t *testing.T) {
	for text, want := range map[string]string{"57012": "127.0.0.1:57012", ":57012": "127.0.0.1:57012", "0.0.0.0:1": "0.0.0.0:1", "[::1]:2": "[::1]:2", "a:": "", "1:2:3": ""} {
		if got, err := listenAddress(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for name, want := range map[string]string{"tcp://h:1": "h:1", "tcp://[::1]:2/": "[::1]:2", "tcp://h": "", "tcp://:1": "", "h:1": "", "tcp://h:": ""} {
		if got, err := serverOf(name); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := OpenStreams(StreamOptions{Connect: []string{"tcp://nothing"}}); err == nil {
		t.Error("an address without a port was taken")
	}
	if _, err := OpenStreams(StreamOptions{Listen: "203.0.113.1:1"}); err == nil || !strings.Contains(err.Error(), "listen for captures") {
		t.Errorf("got %v", err)
	}
	if !IsStream("tcp://h:1") || IsStream("file.pcap") {
		t.Error("names are mistaken")
	}
}
