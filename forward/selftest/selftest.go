// Package selftest finds out whether this machine forwards faithfully, without
// a monitor, an engine or a privilege: it sends frames through the very
// pipeline, encapsulation and UDP transmission that a replay uses, over the
// loopback device to a receiver of its own, and compares.
//
// What is looked for:
//
//   - alteration: an inner frame that is not the captured one;
//   - loss: a datagram that did not arrive; if the kernel dropped it because the
//     receiver's own buffer was full, that is said apart;
//   - duplication: one that arrived more than once;
//   - reordering: one that arrived after a later one of its flow;
//   - corruption: one that arrived and was never sent;
//   - splitting: a flow whose datagrams came from different source ports, which
//     a monitor's workers would not see as one.
//
// A healthy machine passes at any pace: unless told otherwise, no more is sent
// than the receiver's buffer can hold.
package selftest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
)

// DefaultFrames is how many synthetic frames are sent where there is no Source
// and no Limit.
const DefaultFrames = 200_000

// Options say what is tested. The zero value, but for CPU, is a sensible test.
type Options struct {
	Source   forward.Source // nil: synthetic frames, see NewSynthetic
	Config   encap.Config   // the zero value is VXLAN
	Pacer    forward.Pacer  // nil: as fast as the receiver takes it
	Limit    uint64         // frames; 0: all, or DefaultFrames
	Duration time.Duration  // 0: no end
	CPU      transmit.CPU   // for the sending thread. Note that 0 is a CPU, not the default: that is transmit.CPUAuto
	OpenLoop bool           // do not wait for the receiver: see what an unregulated sender loses
	NoGSO    bool           // hand over every datagram alone
	Stats    *forward.Stats // for watching the run; nil: not wanted

	// via puts something between sender and receiver: it is given the
	// receiver's address and returns the one to send to.
	via func(netip.AddrPort) (netip.AddrPort, error)
	// onWay bounds what is on the way, in bytes of kernel memory, where what
	// stands between has a smaller buffer than the receiver.
	onWay int
	// silence is how long the end waits for what is missing; 0: defaultSilence.
	silence time.Duration
}

// Result is what a test found, as a document: the JSON names are stable.
type Result struct {
	Verdict  string    `json:"verdict"` // one line
	Passed   bool      `json:"passed"`
	Problems []Problem `json:"problems"`

	Sent               uint64  `json:"sent"`     // datagrams
	Received           uint64  `json:"received"` // datagrams, copies and unknown ones included
	ReceivedBytes      uint64  `json:"received_bytes"`
	Flows              int     `json:"flows"` // distinct source ports
	ReceivedPerSecond  float64 `json:"received_per_second"`
	ReceiveBufferBytes int     `json:"receive_buffer_bytes"` // as the kernel accounts it
	DropsKnown         bool    `json:"drops_known"`          // whether the socket's own drops can be read here
	SocketDrops        uint64  `json:"socket_drops"`

	Report       forward.Report       `json:"report"`
	Transmission transmit.Description `json:"transmission"`
	Kernel       transmit.Stats       `json:"kernel"`
}

// Kind is a kind of fault.
type Kind string

// The kinds of faults.
const (
	Altered    Kind = "altered"    // encapsulation changed the frame
	Lost       Kind = "lost"       // did not arrive
	Overrun    Kind = "overrun"    // dropped because the receiver's own buffer was full
	Duplicated Kind = "duplicated" // arrived more than once
	Reordered  Kind = "reordered"  // arrived after a later one of its flow
	Corrupted  Kind = "corrupted"  // arrived changed
	Split      Kind = "split"      // its flow came from another source port before
)

// Problem is one kind of fault that was found.
type Problem struct {
	Kind  Kind   `json:"kind"`
	Count uint64 `json:"count"` // frames or datagrams
	// First is where it was first seen, counted from 1: for altered the frame
	// read, for duplicated and corrupted the datagram received, for lost,
	// reordered and split the datagram sent; 0 where that is not known.
	First uint64 `json:"first"`
}

// String says it in words.
func (p Problem) String() string {
	what := map[Kind]string{
		Altered:    "%d frames changed by encapsulation, first frame %d",
		Lost:       "%d lost, first datagram %d",
		Overrun:    "%d dropped by the receiver's own socket, its buffer was full",
		Duplicated: "%d arrived twice, first as arrival %d",
		Reordered:  "%d out of order within their flow, first datagram %d",
		Corrupted:  "%d corrupted, first as arrival %d",
		Split:      "%d changes of a flow's source port, first at datagram %d",
	}[p.Kind]
	if p.Kind == Overrun {
		return fmt.Sprintf(what, p.Count)
	}
	return fmt.Sprintf(what, p.Count, p.First)
}

// Run tests. The Result counts as far as the test went; an error says why it
// could not go on (the Source is damaged, ctx ended, a socket could not be
// opened). Faults that were found are no error.
func Run(ctx context.Context, o Options) (Result, error) {
	if err := o.fill(); err != nil {
		return Result{}, err
	}
	sock, err := openSocket()
	if err != nil {
		return Result{}, fmt.Errorf("open receiver: %w", err)
	}
	defer sock.close()
	t := &test{Options: o, receiver: &receiver{socket: sock, ledger: newLedger(), seed: maphash.MakeSeed()}}
	if !o.OpenLoop {
		t.receiver.window = newWindow(sock.buffer())
		if o.onWay > 0 {
			t.receiver.window.limit = o.onWay
		}
	}
	if err := t.open(ctx); err != nil {
		return Result{}, err
	}
	start := time.Now()
	err = errors.Join(t.forward(ctx), t.tx.Close())
	return t.result(start), err
}

// fill puts defaults where nothing was asked for.
func (o *Options) fill() (err error) {
	if o.Stats == nil {
		o.Stats = new(forward.Stats)
	}
	if o.Source != nil {
		return nil
	}
	count := o.Limit
	if count == 0 {
		count = DefaultFrames
	}
	o.Source, err = NewSynthetic(count)
	return err
}

// test is one run.
type test struct {
	Options
	sender   *sender
	receiver *receiver
	tx       transmit.Transmitter
}

// open opens the transmission to the receiver.
func (t *test) open(ctx context.Context) error {
	to := t.receiver.socket.address()
	if t.via != nil {
		var err error
		if to, err = t.via(to); err != nil {
			return err
		}
	}
	most := transmit.MaxPayload(to.Addr())
	if t.Config.MaxDatagram == 0 || t.Config.MaxDatagram > most {
		t.Config.MaxDatagram = most
	}
	encapsulator, err := encap.New(t.Config)
	if err != nil {
		return err
	}
	t.tx, err = transmit.Open(ctx, transmit.Options{Destination: to, Mode: transmit.UDP, Kind: t.Config.Kind,
		NoGSO: t.NoGSO, PortMin: t.Config.PortMin, PortMax: t.Config.PortMax})
	if err != nil {
		return err
	}
	t.sender = &sender{Encapsulator: encapsulator, Sink: t.tx, config: encapsulator.Config(),
		ledger: t.receiver.ledger, seed: t.receiver.seed}
	return nil
}

// forward runs the pipeline and waits until everything has arrived.
func (t *test) forward(ctx context.Context) error {
	pipeline := forward.Pipeline{Source: t.Source, Encapsulator: t.sender, Sink: t.sender, Clock: pace.NewClock(),
		Pacer: t.Pacer, Limit: t.Limit, Duration: t.Duration, Stats: t.Stats}
	if t.receiver.window != nil {
		pipeline.Gate = t.receiver.window
	}
	var receiving sync.WaitGroup
	receiving.Go(t.receiver.run)
	err := transmit.Pinned(t.CPU, func() error { return pipeline.Run(ctx) })
	t.receiver.drain(cmp.Or(t.silence, defaultSilence))
	t.receiver.stop.Store(true)
	receiving.Wait()
	return errors.Join(err, t.receiver.err)
}

// result adds up what was found.
func (t *test) result(start time.Time) Result {
	l := t.receiver.ledger
	r := Result{
		Sent: l.sent, Received: l.received, ReceivedBytes: l.bytes, Flows: l.flows(),
		ReceiveBufferBytes: t.receiver.socket.buffer(),
		Report:             t.Stats.Snapshot(), Transmission: t.tx.Describe(), Kernel: t.tx.Stats(),
		Problems: []Problem{},
	}
	r.SocketDrops, r.DropsKnown = t.receiver.socket.drops()
	if took := time.Unix(0, t.receiver.last.Load()).Sub(start).Seconds(); took > 0 {
		r.ReceivedPerSecond = float64(r.Received) / took
	}
	r.add(Altered, t.sender.altered)
	r.lost(l)
	r.add(Duplicated, l.duplicated)
	r.add(Reordered, l.reordered)
	r.add(Corrupted, l.unknown)
	r.add(Split, l.split)
	r.judge()
	return r
}

func (r *Result) add(kind Kind, f finding) {
	if f.count > 0 {
		r.Problems = append(r.Problems, Problem{kind, f.count, f.first})
	}
}

// lost tells apart what is missing: a corrupted datagram is not lost as well,
// and what the receiver's own socket dropped is no fault of the way.
func (r *Result) lost(l *ledger) {
	missing := l.missing()
	missing.count -= min(missing.count, l.unknown.count)
	overrun := min(missing.count, r.SocketDrops)
	missing.count -= overrun
	r.add(Lost, missing)
	r.add(Overrun, finding{count: overrun})
}

// judge writes the verdict.
func (r *Result) judge() {
	r.Passed = len(r.Problems) == 0 && r.Sent > 0
	switch {
	case r.Sent == 0:
		r.Verdict = "FAIL: nothing was sent"
	case r.Passed:
		r.Verdict = fmt.Sprintf("PASS: %d of %d datagrams arrived once, in order, unchanged", r.Received, r.Sent)
	default:
		r.Verdict = fmt.Sprintf("FAIL: of %d datagrams", r.Sent)
		for i, p := range r.Problems {
			if i > 0 {
				r.Verdict += ";"
			}
			r.Verdict += " " + p.String()
		}
	}
}
