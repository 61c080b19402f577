// Package sidecar is both ends of a run that a sidecar sends: a container that has
// joined the sensor's network namespace.
//
// The client ([Client]) reads, filters and loops the captures and hands the frames
// over by the container's standard input (package relay); the server ([Server])
// encapsulates, paces, sends and watches the sensor's sockets, which are in its own
// namespace, and tells by standard output how it goes: one JSON document a line, a
// [Message].
//
// The ends look after each other. A client that is silent is gone, and so is a
// container whose streams end; both are noticed within seconds, and nothing of a
// sidecar stays.
package sidecar

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

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/relay"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// How the two ends look after each other.
const (
	heartbeat = 2 * time.Second  // between two signs of life of the client
	silence   = 20 * time.Second // after which the sidecar counts the client as gone
	grace     = 15 * time.Second // for the sidecar to report once it was told to stop
)

// Client is this process's end. It serves one run.
type Client struct {
	// Journal gets what the sidecar tells of what it sent when, if the job asks
	// for that.
	Journal io.Writer
	// Started is called when the transmission is open over there, and what it
	// returns when the run is over. Nil for nothing.
	Started func() (over func())
	// Say is told the sidecar's news, line by line; nil for nobody.
	Say func(line string)
	// StopSource ends a wait of the source; nil if it never waits.
	StopSource func()

	grace      time.Duration // as [grace]
	heartbeat  time.Duration // as [heartbeat]
	streams    orchestrate.SidecarStreams
	remove     func(ctx context.Context) error // of the container, should it stay
	stderr     tail
	journalErr error // valid once final is closed

	mu      sync.Mutex
	last    Message       // the newest of each of its parts
	hello   chan struct{} // closed when the transmission is open over there
	final   chan struct{} // closed when nothing more comes
	finalOK bool          // the final message came
}

// NewClient attaches to a sidecar that was started and that sends to an address of
// its namespace. Close must be called.
func NewClient(e orchestrate.Engine, to netip.AddrPort, streams orchestrate.SidecarStreams) *Client {
	c := &Client{grace: grace, heartbeat: heartbeat, streams: streams, hello: make(chan struct{}), final: make(chan struct{}),
		remove: func(context.Context) error { return nil }}
	if engine, ok := e.(orchestrate.CompanionEngine); ok {
		c.remove = func(ctx context.Context) error { return engine.RemoveCompanion(ctx, streams.ID) }
	}
	c.last.Transmission = transmit.Description{Mode: transmit.UDP, Destination: to}
	go c.stderr.readFrom(streams.Stderr)
	return c
}

// Close makes sure that nothing of the sidecar stays: without its standard input
// it ends, and the engine removes it.
func (c *Client) Close() {
	_ = c.streams.Close() // it may be closed already
	ctx, cancel := context.WithTimeout(context.Background(), c.grace)
	defer cancel()
	if _, err := c.streams.Wait(ctx); err != nil {
		clean, cancel := context.WithTimeout(context.Background(), c.grace)
		defer cancel()
		_ = c.remove(clean) // `down` and the next sidecar remove what is left
	}
}

// Newest returns what the sidecar has told last, and whether that is its result.
// It may be called from any goroutine.
func (c *Client) Newest() (m Message, final bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, c.finalOK
}

// Run hands the frames of source over and waits for the sidecar's end, which an
// interruption brings about. It returns what the sidecar told last, which is right
// whatever the error.
func (c *Client) Run(ctx context.Context, job Job, source forward.Source) (Message, error) {
	job.Protocol = protocol
	sender, err := relay.NewSender(c.streams.Stdin, job)
	if err != nil {
		return c.last, fmt.Errorf("start the sidecar: %w%s", err, c.stderr.text())
	}
	feeding, stopFeeding := context.WithCancel(ctx)
	defer stopFeeding()
	fed := make(chan error, 1)
	go c.listen(sender)
	go c.beat(feeding, sender)
	go func() { fed <- sender.Feed(feeding, source) }()
	runErr := c.follow(ctx, sender)
	stopFeeding()
	if c.StopSource != nil {
		c.StopSource()
	}
	_ = c.streams.Close() // it may be closed already
	feedErr := <-fed
	last, final := c.Newest()
	if feedErr != nil && final && last.Error == "" && !wantedNoMore(feedErr) {
		runErr = errors.Join(runErr, feedErr) // the capture's
	}
	select {
	case <-c.final:
		runErr = errors.Join(runErr, c.journalErr)
	default: // it does not answer
	}
	return last, runErr
}

// wantedNoMore reports whether feeding failed only because the sidecar wanted no
// more, as at a limit.
func wantedNoMore(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, relay.ErrStopped) || errors.Is(err, relay.ErrLost)
}

// follow waits for the sidecar's end, which an interruption brings about, and
// returns why the run failed, if it did.
func (c *Client) follow(ctx context.Context, sender *relay.Sender) error {
	select {
	case <-c.hello:
	case <-c.final: // a short run is over already, or never began
	case <-ctx.Done():
	}
	select {
	case <-c.hello:
		if c.Started != nil {
			defer c.Started()()
		}
	default:
	}
	select {
	case <-c.final:
	case <-ctx.Done():
		if err := c.stop(sender); err != nil {
			return err
		}
	}
	return c.failure()
}

// stop tells the sidecar to end, and waits until it has.
func (c *Client) stop(sender *relay.Sender) error {
	if err := sender.Stop(); err != nil {
		return fmt.Errorf("stop the sidecar: %w", err)
	}
	select {
	case <-c.final:
		return nil
	case <-time.After(c.grace):
		return fmt.Errorf("stop the sidecar: it does not answer within %s", c.grace)
	}
}

// failure says why the run failed, once nothing more comes.
func (c *Client) failure() error {
	last, ok := c.Newest()
	switch {
	case ok && last.Error == "":
		return nil
	case ok && last.Loss:
		return &watch.LossError{Err: errors.New(last.Error)}
	case ok:
		return errors.New(last.Error)
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.grace)
	defer cancel()
	code, err := c.streams.Wait(ctx)
	if err != nil {
		return fmt.Errorf("the sidecar is lost: %w%s", err, c.stderr.text())
	}
	return orchestrate.WithHint(fmt.Errorf("the sidecar ended without a report, exit code %d%s", code, c.stderr.text()),
		"`zeekdemo status` shows whether its sensor still runs; 137 is a kill, for instance for lack of memory")
}

// listen takes the sidecar's messages until its standard output ends.
func (c *Client) listen(sender *relay.Sender) {
	defer close(c.final)
	lines := json.NewDecoder(bufio.NewReader(c.streams.Stdout))
	greeted := false
	for {
		last, _ := c.Newest()
		m := last.begin()
		if err := lines.Decode(&m); err != nil {
			return
		}
		c.note(m)
		sender.Credit(m.Taken)
		if !greeted && !m.Final {
			greeted = true
			close(c.hello)
		}
	}
}

// note keeps a message, and passes its journal on.
func (c *Client) note(m Message) {
	if c.Journal != nil && c.journalErr == nil {
		_, c.journalErr = c.Journal.Write(m.Journal)
	}
	for _, line := range m.News {
		if c.Say != nil {
			c.Say(line)
		}
	}
	m.Journal, m.News = nil, nil
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = m
	c.finalOK = c.finalOK || m.Final
}

// beat gives signs of life.
func (c *Client) beat(ctx context.Context, sender *relay.Sender) {
	tick := time.NewTicker(c.heartbeat)
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
