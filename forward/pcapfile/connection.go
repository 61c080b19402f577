package pcapfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

// follow reads from a server for as long as the run lasts.
func (s *Streams) follow(name, address string) {
	f := &feed{name: name}
	pause, said := s.retry, ""
	for s.ctx.Err() == nil {
		frames, err := s.dial(f, address)
		if frames > 0 {
			pause = s.retry
		}
		if s.ctx.Err() != nil {
			return
		}
		if line := retryLine(name, err); line != said {
			s.say(line)
			said = line
		}
		if s.pause(pause) != nil {
			return
		}
		pause = min(2*pause, longestRetry)
	}
}

// retryLine says why a server is tried again.
func retryLine(name string, err error) string {
	if err == nil {
		return fmt.Sprintf("%s ended the connection; trying again until it answers", name)
	}
	return fmt.Sprintf("%s: %v; trying again until it answers", name, err)
}

// pause waits, unless the run ends.
func (s *Streams) pause(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.ctx.Done():
		return s.ctx.Err()
	case <-timer.C:
		return nil
	}
}

// dial connects to a server and reads until one end closes the connection.
func (s *Streams) dial(f *feed, address string) (frames int, err error) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(s.ctx, "tcp", address)
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err // it is said already with whom
	}
	if err != nil {
		return 0, err
	}
	return s.read(f, c)
}

// accept takes connections until the run ends.
func (s *Streams) accept() {
	var open atomic.Int64
	for {
		c, err := s.listener.Accept()
		switch {
		case s.ctx.Err() != nil:
			return
		case err != nil: // too many files are open, for instance
			s.say(fmt.Sprintf("Accept a connection: %v", err))
			if s.pause(s.retry) != nil {
				return
			}
		case open.Load() >= maxConnections:
			s.say(fmt.Sprintf("%s is refused: there are %d connections already", c.RemoteAddr(), maxConnections))
			_ = c.Close() // nothing was written
		default:
			open.Add(1)
			s.running.Go(func() {
				defer open.Add(-1)
				s.serve(c)
			})
		}
	}
}

// serve reads one connection that was taken.
func (s *Streams) serve(c net.Conn) {
	name := tcpScheme + c.RemoteAddr().String()
	s.say(name + " is connected")
	frames, err := s.read(&feed{name: name}, c)
	switch {
	case s.ctx.Err() != nil:
	case err != nil:
		s.say(fmt.Sprintf("%s is closed after %d frames: %v", name, frames, err))
	default:
		s.say(fmt.Sprintf("%s has ended after %d frames", name, frames))
	}
}

// read queues what comes by a connection, and closes it.
func (s *Streams) read(f *feed, c net.Conn) (frames int, err error) {
	stop := context.AfterFunc(s.ctx, func() { _ = c.Close() }) // ends a wait in Read
	defer stop()
	defer c.Close()
	r, err := NewReader(counting{c, &s.done}, f.name)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	segment := s.begin(f)
	defer s.end(f)
	for {
		var frame forward.Frame
		if err := r.Next(&frame); err != nil {
			if isEOF(err) {
				return frames, nil
			}
			s.note(err)
			return frames, err
		}
		s.meet(frame.LinkType)
		if !s.put(f, &frame, segment+frame.Segment) {
			return frames, nil
		}
		frames++
	}
}

// begin opens a feed, and returns the segment of its frames.
func (s *Streams) begin(f *feed) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	alone := !slices.ContainsFunc(s.feeds, func(other *feed) bool { return other != f })
	if alone {
		s.segment++
	}
	f.open = true
	if !slices.Contains(s.feeds, f) {
		s.feeds = append(s.feeds, f)
	}
	return s.segment
}

// end closes a feed. What is queued is still read.
func (s *Streams) end(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.open = false
	s.tidy()
	s.tell()
}

// meet notes a link type.
func (s *Streams) meet(lt forward.LinkType) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.links, lt) {
		s.links = append(s.links, lt)
	}
}

// counting counts what is read.
type counting struct {
	io.Reader
	n *atomic.Int64
}

func (c counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}
