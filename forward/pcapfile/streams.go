package pcapfile

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

var (
	_ forward.Source   = (*Streams)(nil)
	_ forward.Progress = (*Streams)(nil)
	_ forward.Readier  = (*Streams)(nil)
	_ forward.Stopper  = (*Streams)(nil)
)

// Bounds of what is kept and waited for.
const (
	maxConnections = 64                     // that are taken at a time
	feedBytes      = 256 << 10              // that a connection may be ahead
	frameCost      = 128                    // what a queued frame takes beside its data, in bytes
	mergeDelay     = 200 * time.Millisecond // how long a frame waits for earlier ones of other connections
	dialTimeout    = 10 * time.Second
	shortestRetry  = 250 * time.Millisecond
	longestRetry   = 10 * time.Second
)

// StreamOptions say where captures come from over TCP.
type StreamOptions struct {
	// Connect are the servers to read from, tcp://HOST:PORT. One that is not there, or
	// ends, is tried again, at longer and longer intervals.
	Connect []string
	// Listen is [HOST:]PORT to take connections at, 127.0.0.1 without a host; empty for
	// none.
	Listen string
	// Stop ends the waiting when it is closed: see [Options].
	Stop <-chan struct{}
	// Say is told what happens to connections, from several goroutines; nil for nobody.
	Say func(line string)
}

// Streams is PCAP-over-IP: captures that come over TCP connections, pcap or pcapng on
// each, as from netcat, PolarProxy, routers and sniffers in clusters. Frames of several
// connections are merged by their times: one is kept back for a fifth of a second where
// another connection may still have an earlier one, and for no longer. A connection
// is read ahead by a quarter of a mebibyte at most, beside the frame that exceeds it.
//
// It ends only when it is stopped. Only Progress and Stop may be called from another
// goroutine. Segment grows by one with every connection that begins while there is no
// other.
type Streams struct {
	ctx      context.Context
	halt     context.CancelFunc
	listener net.Listener // nil without one
	running  sync.WaitGroup
	say      func(string)
	delay    time.Duration // as mergeDelay
	retry    time.Duration // as shortestRetry
	done     atomic.Int64

	mu      sync.Mutex
	feeds   []*feed
	room    *sync.Cond    // for writers: a queue has become shorter
	news    chan struct{} // for the reader: a queue has changed
	segment int
	links   []forward.LinkType
	damages []*DamageError
	lent    []byte
	free    [][]byte
}

// feed is the queue of one server, or of one connection that was taken.
type feed struct {
	name  string
	open  bool
	queue []queued
	bytes int // in queue
}

// queued is a frame with data of its own.
type queued struct {
	frame forward.Frame
	came  time.Time
}

// IsStream reports whether a name is that of a server and not of a file.
func IsStream(name string) bool { return strings.HasPrefix(name, tcpScheme) }

// OpenStreams begins to connect and to listen. It fails where an address is none, or
// cannot be listened at.
func OpenStreams(o StreamOptions) (*Streams, error) {
	for _, name := range o.Connect {
		if _, err := serverOf(name); err != nil {
			return nil, err
		}
	}
	s := &Streams{say: o.Say, delay: mergeDelay, retry: shortestRetry, news: make(chan struct{}, 1), segment: -1}
	if s.say == nil {
		s.say = func(string) {}
	}
	if o.Listen != "" {
		if err := s.listen(o.Listen); err != nil {
			return nil, err
		}
	}
	s.room = sync.NewCond(&s.mu)
	s.ctx, s.halt = context.WithCancel(context.Background())
	s.start(o)
	return s, nil
}

// start starts all that waits.
func (s *Streams) start(o StreamOptions) {
	context.AfterFunc(s.ctx, s.wakeAll)
	if o.Stop != nil {
		go func() {
			select {
			case <-o.Stop:
				s.halt()
			case <-s.ctx.Done():
			}
		}()
	}
	for _, name := range o.Connect {
		address, _ := serverOf(name) // was looked at
		s.running.Go(func() { s.follow(name, address) })
	}
	if s.listener != nil {
		s.running.Go(s.accept)
	}
}

// serverOf is the HOST:PORT of tcp://HOST:PORT.
func serverOf(name string) (string, error) {
	address, ok := strings.CutPrefix(name, tcpScheme)
	host, port, err := net.SplitHostPort(strings.TrimSuffix(address, "/"))
	if !ok || err != nil || host == "" || port == "" {
		return "", fmt.Errorf("read from %s: want tcp://HOST:PORT", name)
	}
	return net.JoinHostPort(host, port), nil
}

// listenAddress is where [HOST:]PORT is listened at.
func listenAddress(text string) (string, error) {
	if !strings.Contains(text, ":") {
		text = ":" + text
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil || port == "" {
		return "", fmt.Errorf("listen at %q: want [ADDRESS:]PORT", text)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// listen opens the port.
func (s *Streams) listen(text string) error {
	address, err := listenAddress(text)
	if err != nil {
		return err
	}
	if s.listener, err = net.Listen("tcp", address); err != nil {
		return fmt.Errorf("listen for captures: %w", err)
	}
	s.say(fmt.Sprintf("Listening for pcap and pcapng at %s", s.listener.Addr()))
	return nil
}

// Address is where connections are taken, nil where none are.
func (s *Streams) Address() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Next waits for the next frame; see [forward.Source].
func (s *Streams) Next(f *forward.Frame) error {
	for {
		s.mu.Lock()
		from, wait := s.earliest(time.Now())
		if from != nil {
			s.take(from, f)
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		if err := s.await(wait); err != nil {
			return err
		}
	}
}

// await waits until something changes, for wait at most unless that is 0.
func (s *Streams) await(wait time.Duration) error {
	var over <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-s.ctx.Done():
		return fmt.Errorf("read captures: %w", context.Canceled)
	case <-s.news:
	case <-over:
	}
	return nil
}

// earliest is the feed whose first frame is next, nil where it is not known yet: then
// wait is after what time it will be, 0 if only news can tell.
func (s *Streams) earliest(now time.Time) (next *feed, wait time.Duration) {
	missing := false
	for _, f := range s.feeds {
		switch {
		case len(f.queue) == 0:
			missing = missing || f.open
		case next == nil || f.queue[0].frame.Time < next.queue[0].frame.Time:
			next = f
		}
	}
	if next == nil || !missing || next.bytes >= feedBytes {
		return next, 0
	}
	if wait = s.delay - now.Sub(next.queue[0].came); wait > 0 {
		return nil, wait
	}
	return next, 0
}

// take lends the first frame of a feed.
func (s *Streams) take(from *feed, f *forward.Frame) {
	if s.lent != nil {
		s.free = append(s.free, s.lent)
	}
	*f = from.queue[0].frame
	s.lent = f.Data
	from.bytes -= len(f.Data) + frameCost
	from.queue[0] = queued{}
	if from.queue = from.queue[1:]; len(from.queue) == 0 {
		from.queue = nil
		s.tidy()
	}
	s.room.Broadcast()
}

// tidy forgets feeds of connections that are over, and memory that is not needed.
func (s *Streams) tidy() {
	s.feeds = slices.DeleteFunc(s.feeds, func(f *feed) bool { return !f.open && len(f.queue) == 0 })
	if len(s.feeds) == 0 {
		s.free = nil
	}
}

// put queues a copy of a frame, once there is room. It reports whether the run goes on.
func (s *Streams) put(to *feed, f *forward.Frame, segment int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for to.bytes >= feedBytes && s.ctx.Err() == nil {
		s.room.Wait()
	}
	if s.ctx.Err() != nil {
		return false
	}
	var data []byte
	if n := len(s.free); n > 0 {
		data, s.free = s.free[n-1], s.free[:n-1]
	}
	own := *f
	own.Data, own.Segment = append(data[:0], f.Data...), segment
	s.segment = max(s.segment, segment)
	to.queue = append(to.queue, queued{own, time.Now()})
	to.bytes += len(own.Data) + frameCost
	s.tell()
	return true
}

// tell tells the reader that there is news.
func (s *Streams) tell() {
	select {
	case s.news <- struct{}{}:
	default: // it knows
	}
}

// wakeAll lets everybody see that the end has come.
func (s *Streams) wakeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room.Broadcast()
	if s.listener != nil {
		_ = s.listener.Close() // nothing was written
	}
}

// Ready reports whether Next would return at once: see [forward.Readier].
func (s *Streams) Ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, _ := s.earliest(time.Now())
	return next != nil || s.ctx.Err() != nil
}

// Stop ends the waiting: see [forward.Stopper].
func (s *Streams) Stop() { s.halt() }

// LinkTypes returns those that were met so far, each once.
func (s *Streams) LinkTypes() []forward.LinkType {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.links)
}

// Damages returns the connections whose captures were damaged or cut short, each server
// once.
func (s *Streams) Damages() []*DamageError {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.damages)
}

// Progress returns the bytes that have come; how many there will be is not known.
func (s *Streams) Progress() (done, total int64) { return s.done.Load(), 0 }

// Close ends all connections and waits for that. Data of frames is invalid afterwards.
func (s *Streams) Close() error {
	s.halt()
	s.running.Wait()
	return nil
}

// note keeps the damage that ended a connection, if it did, once for each name.
func (s *Streams) note(err error) {
	var damage *DamageError
	if !errors.As(err, &damage) || s.ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.ContainsFunc(s.damages, func(d *DamageError) bool { return d.Name == damage.Name }) {
		s.damages = append(s.damages, damage)
	}
}
