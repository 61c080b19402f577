package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/relay"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// How the two ends look after each other.
const (
	heartbeat    = 2 * time.Second  // between two signs of life of the client
	silence      = 20 * time.Second // after which the sidecar counts the client as gone
	sidecarGrace = 15 * time.Second // for the sidecar to report once it was told to stop
)

// sidecar is the client's end of a run that is sent by a sidecar: this process
// reads, filters and loops the captures, the sidecar encapsulates, paces and
// sends. Towards the rest of the run it stands for the transmission that is open
// over there.
type sidecar struct {
	streams orchestrate.SidecarStreams
	remove  func(ctx context.Context) error // of the container, should it stay
	stderr  tail
	// journal gets what the sidecar tells of what was sent when, if the job
	// asks for that.
	journal    io.Writer
	journalErr error // valid once final is closed

	mu      sync.Mutex
	last    sidecarMessage // the newest of each of its parts
	hello   chan struct{}  // closed when the transmission is open over there
	final   chan struct{}  // closed when nothing more comes
	finalOK bool           // the final message came
}

var _ transmit.Transmitter = (*sidecar)(nil)

// newSidecarClient attaches to a sidecar that was started. End must be called.
func newSidecarClient(e orchestrate.Engine, to netip.AddrPort, streams orchestrate.SidecarStreams) *sidecar {
	s := &sidecar{streams: streams, hello: make(chan struct{}), final: make(chan struct{}), remove: func(context.Context) error { return nil }}
	if engine, ok := e.(orchestrate.SidecarEngine); ok {
		s.remove = func(ctx context.Context) error { return engine.RemoveSidecar(ctx, streams.ID) }
	}
	s.last.Transmission = transmit.Description{Mode: transmit.UDP, Destination: to}
	go s.stderr.readFrom(streams.Stderr)
	return s
}

// end makes sure that nothing of the sidecar stays: without its standard input
// it ends, and the engine removes it.
func (s *sidecar) end() {
	_ = s.streams.Close() // it may be closed already
	ctx, cancel := context.WithTimeout(context.Background(), sidecarGrace)
	defer cancel()
	if _, err := s.streams.Wait(ctx); err != nil {
		clean, cancel := context.WithTimeout(context.Background(), sidecarGrace)
		defer cancel()
		_ = s.remove(clean) // `down` and the next sidecar remove what is left
	}
}

// Describe describes the transmission inside the sidecar.
func (s *sidecar) Describe() transmit.Description {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.Transmission
}

// Stats are those of the transmission inside the sidecar, as last told.
func (s *sidecar) Stats() transmit.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.Kernel
}

func (s *sidecar) snapshot() forward.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.Report
}

// newest returns what the sidecar has told, and whether that is its result.
func (s *sidecar) newest() (sidecarMessage, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.finalOK
}

// Send is not how a sidecar gets its frames.
func (s *sidecar) Send(*forward.Batch) (int, error) {
	return 0, errors.New("send by sidecar: it takes frames, not datagrams")
}

// Close does nothing: the run ends the sidecar.
func (s *sidecar) Close() error { return nil }

// send hands the frames of source over and waits for the sidecar's end, which an
// interruption brings about. Started is called when the transmission is open
// over there, what it returns when the run is over; stopSource ends a wait of
// the source. It returns what the sidecar told last, which is right whatever the
// error.
func (s *sidecar) send(ctx context.Context, job sidecarJob, source forward.Source, stopSource func(), started func() (over func())) (sidecarMessage, error) {
	sender, err := relay.NewSender(s.streams.Stdin, job)
	if err != nil {
		return s.last, fmt.Errorf("start the sidecar: %w%s", err, s.stderr.text())
	}
	feeding, stopFeeding := context.WithCancel(ctx)
	defer stopFeeding()
	fed := make(chan error, 1)
	go s.listen(sender)
	go beat(feeding, sender)
	go func() { fed <- sender.Feed(feeding, source) }()
	runErr := s.follow(ctx, sender, started)
	stopFeeding()
	stopSource()
	_ = s.streams.Close() // it may be closed already
	feedErr := <-fed
	last, final := s.newest()
	if feedErr != nil && final && last.Error == "" && !sidecarEnded(feedErr) {
		runErr = errors.Join(runErr, feedErr) // the capture's
	}
	select {
	case <-s.final:
		runErr = errors.Join(runErr, s.journalErr)
	default: // it does not answer
	}
	return last, runErr
}

// sidecarEnded reports whether feeding failed only because the sidecar wanted no
// more, as at a limit.
func sidecarEnded(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, relay.ErrStopped) || errors.Is(err, relay.ErrLost)
}

// follow waits for the sidecar's end, which an interruption brings about, and
// returns why the run failed, if it did.
func (s *sidecar) follow(ctx context.Context, sender *relay.Sender, started func() (over func())) error {
	select {
	case <-s.hello:
	case <-s.final: // a short run is over already, or never began
	case <-ctx.Done():
	}
	select {
	case <-s.hello:
		defer started()()
	default:
	}
	select {
	case <-s.final:
	case <-ctx.Done():
		if err := sender.Stop(); err != nil {
			return fmt.Errorf("stop the sidecar: %w", err)
		}
		select {
		case <-s.final:
		case <-time.After(sidecarGrace):
			return fmt.Errorf("stop the sidecar: it does not answer within %s", sidecarGrace)
		}
	}
	return s.failure()
}

// failure says why the run failed, once nothing more comes.
func (s *sidecar) failure() error {
	last, ok := s.newest()
	switch {
	case ok && last.Error == "":
		return nil
	case ok:
		return errors.New(last.Error)
	}
	ctx, cancel := context.WithTimeout(context.Background(), sidecarGrace)
	defer cancel()
	code, err := s.streams.Wait(ctx)
	if err != nil {
		return fmt.Errorf("the sidecar is lost: %w%s", err, s.stderr.text())
	}
	return orchestrate.WithHint(fmt.Errorf("the sidecar ended without a report, exit code %d%s", code, s.stderr.text()),
		"`zeekdemo status` shows whether its sensor still runs; 137 is a kill, for instance for lack of memory")
}

// listen takes the sidecar's messages, one JSON document a line, until its
// standard output ends.
func (s *sidecar) listen(sender *relay.Sender) {
	defer close(s.final)
	lines := json.NewDecoder(bufio.NewReader(s.streams.Stdout))
	greeted := false
	for {
		var m sidecarMessage
		s.mu.Lock()
		m.Transmission, m.Kernel, m.Report = s.last.Transmission, s.last.Kernel, s.last.Report
		s.mu.Unlock()
		if err := lines.Decode(&m); err != nil {
			return
		}
		if s.journal != nil && s.journalErr == nil {
			_, s.journalErr = s.journal.Write(m.Journal)
		}
		m.Journal = nil
		s.mu.Lock()
		s.last = m
		s.finalOK = s.finalOK || m.Final
		s.mu.Unlock()
		sender.Credit(m.Taken)
		if !greeted && !m.Final {
			greeted = true
			close(s.hello)
		}
	}
}

// beat gives signs of life.
func beat(ctx context.Context, sender *relay.Sender) {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if sender.Ping() != nil {
				return
			}
		}
	}
}

// tail keeps the end of what a program wrote to standard error.
type tail struct {
	mu  sync.Mutex
	end []byte
}

const tailBytes = 2000

func (t *tail) readFrom(r io.Reader) {
	buf := make([]byte, tailBytes)
	for {
		n, err := r.Read(buf)
		t.mu.Lock()
		t.end = append(t.end, buf[:n]...)
		t.end = t.end[max(0, len(t.end)-tailBytes):]
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// text is what to append to an error.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if said := strings.TrimSpace(string(t.end)); said != "" {
		return "; it said: " + strings.TrimPrefix(said, "zeekdemo: ")
	}
	return ""
}

// writeMessage writes one message of the sidecar.
func writeMessage(w io.Writer, m sidecarMessage) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}
