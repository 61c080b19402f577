package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// How lines get from a node to the loggers, in the words of ZeroMQ's pipeline
// pattern (PUSH, PULL), with the numbers that Zeek sets:
//
//	lines are collected by log, up to batchLines of them or for batchTime
//	a batch is one message; loggers take turns
//	each logger has a queue of queueLength messages, there or not
//	what no queue takes is lost: an error on stderr says so, and no metric
//	what was written to a logger that ends is lost, and nothing says so
//	a node that ends waits linger for the queues, and what is in them then is lost
const (
	batchLines  = 1000 // Log::write_buffer_size
	batchTime   = time.Second
	queueLength = 1000 // Cluster::Backend::ZeroMQ::log_sndhwm
	linger      = 500 * time.Millisecond
	redial      = 100 * time.Millisecond
)

// push sends log lines. Its methods are called from one goroutine at a time.
type push struct {
	queues  []chan []byte
	turn    int
	batches map[string]*logBatch
	flushed time.Time
	stderr  io.Writer

	couriers sync.WaitGroup
	giveUp   context.CancelFunc
}

// logBatch is the lines of one log that go in one message.
type logBatch struct {
	lines int
	text  []byte
}

func newPush(loggers []string, stderr io.Writer) *push {
	ctx, cancel := context.WithCancel(context.Background())
	p := &push{batches: make(map[string]*logBatch), flushed: time.Now(), stderr: stderr, giveUp: cancel}
	for _, address := range loggers {
		queue := make(chan []byte, queueLength)
		p.queues = append(p.queues, queue)
		p.couriers.Add(1)
		go func() {
			defer p.couriers.Done()
			carry(ctx, address, queue)
		}()
	}
	return p
}

// add takes a line of a log.
func (p *push) add(name string, line []byte) {
	b := p.batches[name]
	if b == nil {
		b = &logBatch{}
		p.batches[name] = b
	}
	b.lines, b.text = b.lines+1, append(b.text, line...)
	if b.lines == batchLines {
		p.ship(name, b)
	}
}

// flush sends what has waited long enough.
func (p *push) flush() {
	if now := time.Now(); now.Sub(p.flushed) >= batchTime {
		p.flushed = now
		p.shipAll()
	}
}

func (p *push) shipAll() {
	for name, b := range p.batches {
		if b.lines > 0 {
			p.ship(name, b)
		}
	}
}

// ship hands a batch to the next queue that takes it.
func (p *push) ship(name string, b *logBatch) {
	message := encodeLines(name, b.text)
	b.lines, b.text = 0, b.text[:0]
	for range p.queues {
		p.turn = (p.turn + 1) % len(p.queues)
		select {
		case p.queues[p.turn] <- message:
			return
		default:
		}
	}
	fmt.Fprintln(p.stderr, "error: Failed to send log write. HWM reached?")
}

// close sends what is left, as far as it can be sent in time.
func (p *push) close() {
	p.shipAll()
	for _, queue := range p.queues {
		close(queue)
	}
	timer := time.AfterFunc(linger, p.giveUp)
	p.couriers.Wait()
	timer.Stop()
	p.giveUp()
}

// carry writes the messages of a queue to the logger at an address, whenever there
// is one, until the queue is closed and empty or ctx ends.
func carry(ctx context.Context, address string, queue <-chan []byte) {
	for ctx.Err() == nil {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			sleep(ctx, redial)
			continue
		}
		stop := context.AfterFunc(ctx, func() { c.Close() })
		done := carryTo(c, queue)
		stop()
		c.Close()
		if done {
			return
		}
	}
}

// carryTo writes messages to one connection until the queue ends, which it reports,
// or the connection does.
func carryTo(c net.Conn, queue <-chan []byte) (done bool) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		io.Copy(io.Discard, c) // a logger says nothing: it ends when the logger does
	}()
	for {
		select {
		case <-gone:
			return false
		case message, more := <-queue:
			if !more {
				return true
			}
			if _, err := c.Write(message); err != nil {
				return false
			}
		}
	}
}

// encodeLines is a message: the length of the rest (32 bits, big endian), that of
// the log's name (8 bits), the name, the lines.
func encodeLines(name string, text []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(name)+len(text)))
	b = append(b, byte(len(name)))
	b = append(b, name...)
	return append(b, text...)
}

// decodeLines reads such a message.
func decodeLines(r io.Reader) (name string, text []byte, err error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return "", nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(r, body); err != nil {
		return "", nil, err
	}
	if len(body) < 1 || len(body) < 1+int(body[0]) {
		return "", nil, errors.New("a log message is too short")
	}
	return string(body[1 : 1+body[0]]), body[1+body[0]:], nil
}

// pull is a logger's end: it writes what arrives.
type pull struct {
	listener net.Listener
	sensor   *sensor
	readers  sync.WaitGroup
	mu       sync.Mutex
	open     []net.Conn
	closed   bool
}

func listenLogs(address string, s *sensor) (*pull, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("ZeroMQ: Failed to bind pull socket tcp://%s: %w", address, err)
	}
	p := &pull{listener: l, sensor: s}
	p.readers.Add(1)
	go func() {
		defer p.readers.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if p.accept(c) {
				p.readers.Add(1)
				go p.read(c)
			}
		}
	}()
	return p, nil
}

// accept keeps a connection for closing, unless it is too late for it.
func (p *pull) accept(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.Close()
		return false
	}
	p.open = append(p.open, c)
	return true
}

// read writes the messages of one connection until it ends.
func (p *pull) read(c net.Conn) {
	defer p.readers.Done()
	defer c.Close()
	for {
		name, text, err := decodeLines(c)
		if err != nil {
			return
		}
		p.sensor.mu.Lock()
		for line := range bytes.Lines(text) {
			p.sensor.logs.write(name, line)
		}
		p.sensor.mu.Unlock()
	}
}

// close ends all connections; what has arrived by then is written.
func (p *pull) close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for _, c := range p.open {
		c.Close()
	}
	p.mu.Unlock()
	p.readers.Wait()
}
